"""A library is added to the package by one row of a table: its argument, variable, option and the doctor's lines come from there."""

import ast
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis.asyncio

import async_tracker
from async_tracker import ConfigError, Tracker
from async_tracker.integrations.known import KNOWN
from tests.harness.copies import copy_package, edit
from tests.harness.inside import runtime_of
from tests.harness.wait import wait_until
from tests.story.snippets import snippets

PACKAGE = Path(async_tracker.__file__).parent
PAGE = "docs/integrations.md"
LAST_ROW = '    KnownLibrary(name="dramatiq", home="async_tracker.integrations.dramatiq.library:library"),\n'
ROW = '    KnownLibrary(name="listq", home="async_tracker.integrations.listq.library:library", is_presumed=True),\n'
LIBRARY = '''
"""listq, as the page on integrations has it, and what recovery needs in its Redis."""

from dataclasses import replace

import tracked_listq
from async_tracker.integrations import Rights

def library(tracker):
    rights = Rights(keys="listq:*", commands=(["LLEN", "listq:jobs"],))
    return replace(tracked_listq.library(tracker), rights=lambda described, *, queue, full_key: rights)
'''
RECOVERS = """
import asyncio, sys
from async_tracker import Tracker

async def main():
    async with Tracker(namespace=sys.argv[1], redis_options={"url": sys.argv[2]}, listq_redis=sys.argv[3]) as tracker:
        print([(queue.library, queue.depth) for queue in await tracker.queues()], await tracker.recover())

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A copy of the package that knows listq."""

    folder: Path

    async def run(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Run Python with this package: exit code, stdout, stderr."""
        env = {**os.environ, "PYTHONPATH": str(self.folder), "COLUMNS": "120", **variables}
        done = await anyio.run_process([sys.executable, *arguments], cwd=self.folder, env=env, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    async def doctor(self, *arguments: str, **variables: str) -> dict[str, Any]:
        """Give the doctor's findings by their subject."""
        _, out, err = await self.run("-m", "async_tracker.cli", "doctor", "--json", *arguments, **variables)
        assert out, err
        return {finding["subject"]: finding for finding in json.loads(out)["findings"]}


@pytest.fixture
def house(tmp_path: Path) -> House:
    """The package with listq's own folder and one row in the table, and nothing else that is changed."""
    package = copy_package(tmp_path)
    edit(package / "integrations" / "known.py", LAST_ROW, LAST_ROW + ROW)
    room = package / "integrations" / "listq"
    room.mkdir()
    (room / "__init__.py").write_text('"""listq workers."""\n')
    (room / "library.py").write_text(LIBRARY.lstrip())
    scripts = tmp_path / "listq_scripts"
    (scripts / "lua").mkdir(parents=True)
    (scripts / "__init__.py").touch()
    for snippet in snippets(PAGE):
        name = snippet.text.split("\n", 1)[0].lstrip("#- ")
        ((scripts / "lua" if name.endswith(".lua") else tmp_path) / name).write_text(snippet.text)
    return House(folder=tmp_path)


@asynccontextmanager
async def listq_worker(client: redis.asyncio.Redis, namespace: str, claims_server: str | None = None) -> AsyncIterator[None]:
    """An instance that says that it is one of listq's."""
    async with Tracker(namespace=namespace, redis=client) as tracker, tracker.register():
        runtime = runtime_of(tracker)
        runtime.describe_anew(tracker.footing.describe("listq", broker="redis://lists:6379/1", claims_server=claims_server))

        async def is_known() -> bool:
            return bool(await client.hget(f"{namespace}:instance:{runtime.instance_id}", "library") == b"listq")

        await wait_until(is_known, description="it is registered as one of listq's")
        yield


async def test_every_command_has_the_option_and_its_help_names_the_variable(house: House):
    for command in ((), ("ps",), ("quarantine", "list"), ("doctor",)):
        code, out, err = await house.run("-m", "async_tracker.cli", *command, "--help")
        assert code == 0, err
        assert "--listq-redis-url URL" in out
        assert "listq's Redis, if it is not the tracker's. [TRACKER_LISTQ_REDIS_URL]" in " ".join(out.split())


async def test_the_doctor_asks_for_its_redis_until_the_option_or_the_variable_names_it(
    house: House, make_server, redis_client, redis_url, namespace
):
    other = make_server(tcp=True)
    async with redis.asyncio.Redis.from_url(other.url) as client:
        run_id = (await client.info("server"))["run_id"]
    here = ("--redis-url", redis_url, "--namespace", namespace)
    async with listq_worker(redis_client, namespace, claims_server=run_id):
        unnamed = (await house.doctor(*here))["listq's Redis"]
        by_option = (await house.doctor(*here, "--listq-redis-url", other.url))["listq's Redis"]
        by_variable = (await house.doctor(*here, TRACKER_LISTQ_REDIS_URL=other.url))["listq's Redis"]
        _, _, err = await house.run("-m", "async_tracker.cli", *here, "ps")
    assert unnamed["status"] == "problem"
    assert [
        name for name in ("TRACKER_LISTQ_REDIS_URL", "--listq-redis-url", "Tracker(listq_redis=...)") if name not in unnamed["remedy"]
    ] == []
    assert by_option["status"] == by_variable["status"] == "ok"
    assert "listq keeps its jobs in another Redis, redis://lists:6379/1: give it as --listq-redis-url" in err


async def test_the_doctor_judges_the_rights_for_it_before_a_worker_is_there(house: House, make_server, namespace):
    server = make_server(tcp=True)
    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.execute_command("ACL", "SETUSER", "mute", "on", ">pw", "~*", "&*", "+@all", "-llen")
    url = f"redis://mute:pw@127.0.0.1:{server.port}/0"
    found = (await house.doctor("--redis-url", url, "--namespace", namespace))["user mute, listq"]
    assert (found["status"], found["remedy"].rsplit(" ", 1)[-1]) == ("problem", "+llen")


async def test_a_tracker_takes_its_redis_as_an_argument(house: House, make_server, redis_client, redis_url, namespace):
    other = make_server()
    async with redis.asyncio.Redis.from_url(other.url) as client:
        await client.hset("listq:payloads", "1", "[]")
        async with listq_worker(redis_client, namespace):
            code, out, err = await house.run("-c", RECOVERS, namespace, redis_url, other.url)
    assert code == 0, err
    assert out == "[('listq', 1)] []\n"


async def test_an_argument_of_no_known_library_is_refused_with_what_to_write():
    with pytest.raises(ConfigError, match="unknown setting 'arq_rediss': did you mean 'arq_redis'"):
        Tracker(arq_rediss="redis://x")
    with pytest.raises(ConfigError, match="unknown setting 'listq_redis'"):
        Tracker(listq_redis="redis://x")


# The demo shows workers of these libraries. And what clients of arq's own class may send holds where only the proxy is used.
MAY_NAME = {"namespace/proxy.py": {"ALLOWED_FOR"}, "cli/program.py": {"demo"}, "cli/running.py": {"_EXTRAS"}}


def names_of_libraries(path: Path) -> list[str]:
    """The names and texts of a module's code that name a known library; docstrings and comments are no code."""
    may = MAY_NAME.get(path.relative_to(PACKAGE).as_posix(), set())
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not names(node) & may]
    notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    said = [str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in notes]
    said += [name for node in ast.walk(tree) for name in names(node)]
    said += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return sorted({text for text in said for known in KNOWN if known.name in text.lower()})


def names(node: ast.AST) -> set[str]:
    """The names that a node gives or uses."""
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    found = (getattr(node, attribute, None) for attribute in ("id", "attr", "arg", "name", "asname"))
    return {name for name in found if isinstance(name, str)}


def test_no_code_outside_the_integrations_names_a_library():
    outside = [path for path in PACKAGE.rglob("*.py") if not {"integrations", "demo"} & set(path.relative_to(PACKAGE).parts)]
    assert PACKAGE / "tracker.py" in outside
    found = {path.relative_to(PACKAGE).as_posix(): names_of_libraries(path) for path in outside}
    assert {name: said for name, said in found.items() if said} == {}


def test_a_module_that_names_a_library_is_found():
    assert "dramatiq" in names_of_libraries(PACKAGE / "integrations" / "dramatiq" / "names.py")
    assert "ArqHooks" in names_of_libraries(PACKAGE / "integrations" / "arq" / "library.py")
