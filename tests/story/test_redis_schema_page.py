"""docs/redis-schema.md against the code, and against what a namespace really holds while everything happens in it."""

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from arq.connections import ArqRedis

from async_tracker import Tracker
from async_tracker.policy import Limits
from async_tracker.store import keys
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.run_record import RunRecord, encode_run
from tests.harness.workers import Workers
from tests.story.everything import SEEN, live_through_everything, starter
from tests.story.snippets import ROOT, table

PAGE = "docs/redis-schema.md"
ROWS = {row["key"]: row for row in table(PAGE, under="Every key")}
SCRIPTS = ROOT / "async_tracker" / "store" / "lua"
WRITING = {"SET", "HSET", "HSETNX", "HINCRBY", "SADD", "ZADD", "XADD"}
DELETING = {"DEL", "UNLINK", "HDEL", "SREM", "ZREM"}
PASSING = {"orphans:{id}", "settled:{id}", "told:{id}", "marks:{id}", "packed:{span}", "answer:{order}", "standing"}
PASSING |= {"receipt:kept:{job}", "receipt:abort:{claim}", "counters:{id}"}
"""Written and deleted by the same sweep, unless it dies half-way; what is announced; what only dramatiq has; what is written
when a minute has been over for another; what people order; what `keep_tries` and aborts note; and what an older version
has written."""


def row_of(key: str) -> str:
    """Return the pattern of the page that a key has; the most special one, where several fit."""
    fitting = [name for name in ROWS if re.fullmatch(re.sub(r"\\{\w+\\}", "(?s:.+)", re.escape(name)), key)]
    return max(fitting, key=len) if fitting else ""


def documented(column: str) -> dict[str, set[str]]:
    """Return which scripts a column of the page names for each key."""
    names = {path.stem for path in SCRIPTS.glob("*.lua")}
    return {key: set(re.findall(r"\w+", row[column])) & names for key, row in ROWS.items()}


def locals_of(script: str) -> list[str]:
    """Return what a script calls its KEYS, in their order."""
    lines = re.findall(r"^local ([\w, ]+) = (KEYS\[.*)$", script, re.MULTILINE)
    return [name for names, _ in lines for name in names.split(", ")]


def performed(commands: set[str]) -> dict[str, set[str]]:
    """Return which scripts run one of these commands on each key, by the names that the script gives its KEYS."""
    found: dict[str, set[str]] = {key: set() for key in ROWS}
    for path in SCRIPTS.glob("*.lua"):
        text = path.read_text()
        head = re.search(r"^-- KEYS: (.*?)(?=^-- [A-Z]\w+:)", text, re.MULTILINE | re.DOTALL)
        assert head is not None
        named = re.findall(r"[a-z]+(?::[a-z]+)*(?::\{\w+\})?", re.sub(r"\n--|\bthen\b| of each [\w ]+", " ", head[1]))
        for command, arguments in re.findall(r"redis\.p?call\('(\w+)', ([^()]*)", text):
            if command in commands:
                for local in re.findall(r"\w+", arguments) if command == "DEL" else [arguments.split(",")[0]]:
                    of_loops = [name for name in named if name.startswith(f"{local}:")] or named[-1:]  # called so, or the last
                    found[named[locals_of(text).index(local)] if local in locals_of(text) else of_loops[0]].add(path.stem)
    return found


def test_every_name_that_is_made_is_on_the_page_and_no_other():
    made = {value for name, value in vars(keys).items() if name.isupper()}
    functions = [function for name, function in vars(keys).items() if inspect.isfunction(function)]
    made |= {function("{}") for function in functions}
    assert made == {re.sub(r"\{\w+\}", "{}", key) for key in ROWS}


def test_the_page_names_the_scripts_that_write_each_key():
    assert documented("written by") == performed(WRITING)


def test_the_page_names_the_scripts_that_delete_from_each_key():
    assert documented("deleted by") == performed(DELETING)


def test_the_fields_of_a_record_are_those_of_the_page():
    texts: dict[str, Any] = dict.fromkeys(("function", "queue", "progress_message", "args", "scope", "hold", "traceparent"), "x")
    numbers: dict[str, Any] = {"enqueued_at_ms": 1, "timeout": 1.0, "progress": 0.0, "superseded": 1, "max_tries": 5, "keep_tries": 20}
    full = RunRecord(job_id="42", instance_id="web:1:ab", token="f00d", started_at_ms=1, **texts, **numbers)
    fields = [row["field"] for row in table(PAGE, under="The record of a run, `job:{job}`")]
    assert set(fields) == set(json.loads(encode_run(full)))


def test_the_fields_of_an_instance_are_those_of_the_page():
    texts: dict[str, Any] = dict.fromkeys(("label", "queue", "redis", "claims_server", "broker", "version"), "x")
    many: dict[str, Any] = {"queues": ("a", "b"), "functions": tuple(f"function {number}" for number in range(100))}
    full = Description(library="arq", host="web", host_id="ab", pid=1, concurrency=1, claim_seconds=1.0, **texts, **many)
    fields = table(PAGE, under="What an instance says, `instance:{id}`")
    said = set(encode_description(full, Limits()))
    assert {row["field"] for row in fields if row["written"] == "once"} == said | {"started_at_ms"}


@asynccontextmanager
async def sampled(client: redis.asyncio.Redis) -> AsyncIterator[dict[str, tuple[str, bool]]]:
    """Look at all keys of the namespace again and again; yields what was ever seen: name -> type, and whether it has a lifetime."""
    seen: dict[str, tuple[str, bool]] = {}

    async def look() -> None:
        for key in [key async for key in client.scan_iter("my_app:*", count=1000)]:
            pipe = client.pipeline()
            pipe.type(key)
            pipe.pttl(key)
            kind, ttl = await pipe.execute()
            if ttl != -2:  # it went between the two looks
                seen[key.decode().removeprefix("my_app:")] = (kind.decode(), ttl >= 0)

    async def keep_looking() -> None:
        while True:
            await look()
            await asyncio.sleep(0.01)

    task = asyncio.ensure_future(keep_looking())
    try:
        yield seen
        await look()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_whatever_happens_the_namespace_holds_what_the_page_says(
    as_a_user: str, redis_client: redis.asyncio.Redis, pool: ArqRedis, workers: Workers, tmp_path: Path
):
    start = starter(workers, tmp_path, {"REDIS_URL": as_a_user})
    async with Tracker(namespace="my_app") as tracker, sampled(redis_client) as seen:
        await live_through_everything(tracker, pool, start, tmp_path / SEEN, is_noted=lambda: "watchdogs" in seen)
    by_row: dict[str, set[tuple[str, bool]]] = {}
    for key, found in seen.items():
        by_row.setdefault(row_of(key), set()).add(found)
    assert {*by_row} | PASSING == {*ROWS}, "a key that the page does not know, or a row that nothing is ever written under"
    for name, kinds in by_row.items():
        for kind, has_lifetime in kinds:
            assert kind in ROWS[name]["type"].split(" or "), name
            assert has_lifetime == bool(re.search(r"\d|recovery_window", ROWS[name]["lifetime"])), name


@pytest.mark.parametrize(("key", "row"), [("job:a:b", "job:{job}"), ("jobs:h:1:ab", "jobs:{id}"), ("jobz", "")])
def test_a_key_is_found_on_the_page(key: str, row: str):
    assert row_of(key) == row
