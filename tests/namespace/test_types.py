"""A user's code passes mypy --strict, and what is wrong in it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

import async_tracker
from async_tracker.namespace import commands

RIGHT = """
import redis
import redis.asyncio
from async_tracker.namespace import Namespace, SyncNamespace


async def work() -> None:
    r = Namespace(redis.asyncio.Redis(), "app")
    await r.hset("h", "field", "value")
    await r.hset("h", mapping={"field": 1})
    count: int = await r.incr("n")
    await r.lpush("l", 1, "2", b"3")
    await r.set("k", "v", ex=5, nx=True)
    async for key in r.scan_iter("a*"):
        print(key, count)
    async with r.pipeline(transaction=True) as pipe:
        await pipe.watch("k")
        pipe.multi()
        pipe.zadd("z", {"member": 1.0}).incr("k").expire("k", 60)
        print(await pipe.execute())
    async with r.lock("l", timeout=3.0):
        print(await r.eval("return 1", 0), await r.count(), await r.clear(), r.namespace, r.full_key("k"))
    async with r.pubsub() as pubsub:
        await pubsub.subscribe("channel")
    script = r.register_script("return 1")
    print(await script(keys=["k"]), await r.xadd("s", {"a": 1}), await r.xread({"s": "0"}), await r.blpop(["l"], 1))


def work_synchronously() -> None:
    r = SyncNamespace(redis.Redis(), "app")
    count: int = r.incr("n")
    r.hset("h", mapping={"field": count})
    with r.pipeline() as pipe:
        pipe.set("k", 1).get("k").execute()
    print([key for key in r.scan_iter()], r.count())
"""

GONE = frozenset(["execute_command", "graph", "tfcall", "tfcall_async", "tfunction_delete", "tfunction_list", "tfunction_load"])
"""Of redis-py 5, no longer in redis-py 8; all of them are refused."""

WRONG = """
import redis.asyncio
from async_tracker.namespace import Namespace


async def work(r: Namespace) -> None:
    await r.hset()
    count: str = await r.incr("n")
    Namespace(redis.asyncio.Redis())
"""


def errors_in_both(folder: Path) -> list[str]:
    """Return what mypy says of the two programs: in one run, as it reads all of redis-py for it."""
    (folder / "right.py").write_text(RIGHT)
    (folder / "wrong.py").write_text(WRONG)
    root = Path(async_tracker.__file__).parents[1]
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        f"--cache-dir={folder / 'cache'}",
        "--no-error-summary",
        "right.py",
        "wrong.py",
    ]
    checked = subprocess.run(command, env={"MYPYPATH": str(root), "PATH": ""}, cwd=folder, capture_output=True, text=True, check=False)
    assert checked.returncode in (0, 1), checked.stderr
    return [line for line in checked.stdout.splitlines() if line.startswith(("right.py", "wrong.py")) and " error: " in line]


def test_a_users_code_passes_mypy_strict_and_mistakes_in_it_are_found(tmp_path: Path):
    assert [line.split(":")[:2] for line in errors_in_both(tmp_path)] == [["wrong.py", "7"], ["wrong.py", "8"], ["wrong.py", "9"]]


@pytest.mark.parametrize("name", ["AsyncCommands", "SyncCommands", "AsyncQueuedCommands", "SyncQueuedCommands"])
def test_the_stub_names_every_command_that_redis_py_has(name):
    stub = Path(commands.__file__).with_suffix(".pyi").read_text()
    body = stub.split(f"class {name}:")[1].split("\nclass ")[0]
    methods = [method for method in dir(getattr(commands, name)) if not method.startswith("_")]

    assert [method for method in methods if f" def {method}(" not in body and method not in GONE] == []
