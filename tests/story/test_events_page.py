"""docs/events.md against the code, and against the events of a fleet in which everything happens."""

import asyncio
import dataclasses
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis

from async_tracker import ConfigError, Event, Tracker
from async_tracker.control.control import Control
from async_tracker.events.encoding import EVENT_TYPES, tries_count_event
from async_tracker.namespace import Namespace
from async_tracker.store.commands import Store
from async_tracker.store.run_record import RunRecord
from async_tracker.store.writes import Judged
from async_tracker.web.past import note_action
from tests.harness.forking import ROOT
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until
from tests.harness.workers import WorkerProcess, Workers
from tests.story.snippets import table

PAGE = "docs/events.md"

WORKER = """
import asyncio, os
from arq.connections import RedisSettings
from async_tracker import Tracker

tracker = Tracker(namespace="my_app", heartbeat_interval=0.3, heartbeat_ttl=0.9, disconnect_grace=0.3, max_recoveries=1, version="1.0")

async def pill(ctx):
    await asyncio.sleep(60)

@tracker.install
class WorkerSettings:
    functions = [pill]
    redis_settings = RedisSettings.from_dsn(os.environ["REDIS_URL"])
    poll_delay = 0.05
"""

INSTANCE = """
import asyncio
from async_tracker import Tracker

async def main():
    async with Tracker(namespace="my_app") as tracker, tracker.register():
        print("busy")
        await asyncio.Event().wait()

asyncio.run(main())
"""


def types_of_the_page() -> dict[str, dict[str, str]]:
    lines = (ROOT / PAGE).read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| type | when"))
    rows = [line.strip("|").split("|") for line in lines[start + 2 :] if line.startswith("| `")]
    return {row[0].strip(" `"): {"details": row[2], "in the stream": row[3].strip()} for row in rows}


def test_every_event_is_on_the_page():
    assert set(types_of_the_page()) == set(EVENT_TYPES)


def test_every_field_of_an_event_is_on_the_page():
    shown = [row["field"] for row in table(PAGE, under="What an event is")]
    assert shown == [field.name for field in dataclasses.fields(Event)]


def test_an_event_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'recovered'"):
        Tracker().on("recoverd")(print)


async def test_the_stream_tells_what_the_page_says(as_a_user: str, pool: ArqRedis, workers: Workers, tmp_path: Path):
    (tmp_path / "pills.py").write_text(WORKER)
    command, env = [sys.executable, "-m", "arq", "pills.WorkerSettings"], {"REDIS_URL": as_a_user, "PYTHONPATH": str(tmp_path)}
    heard: dict[str, list[Event]] = {}
    async with Tracker(namespace="my_app") as tracker:
        listening = asyncio.ensure_future(_listen(tracker, heard))
        fleet = {worker.pid: worker for worker in (workers.start_program(command, env=env), workers.start_program(command, env=env))}
        await pool.enqueue_job("pill", _job_id="pill")
        (await _holder(tracker, fleet, job_try=1)).kill()
        second = await _holder(tracker, fleet, job_try=2)
        last = workers.start_program(command, env=env)
        await wait_until(lambda: _is_there(tracker, last.pid), timeout=30, description="a third worker is there")
        second.kill()
        await wait_until(lambda: heard.get("quarantined"), timeout=30, description="the pill is in quarantine")
        await tracker.drop_quarantined("pill")
        await note_action(tracker, "drop", by="anna", peer="10.0.0.1", outcome="done", job_id="pill")
        await note_action(tracker, "recover", by="anna", peer="10.0.0.1", outcome="done", jobs=0)
        async with tracker.redis() as proxy:
            await Control(Store(proxy), by="anna@web-1", on_event=lambda event: None).ask(["nobody"], "quiet")
            kept = RunRecord(job_id="kept", instance_id="w:1:ab", token="r", started_at_ms=1, max_tries=5, keep_tries=20)
            await Store(proxy).publish(tries_count_event(kept))
        watching = workers.start_program(command, env=env)
        await wait_until(lambda: _is_there(tracker, watching.pid), timeout=30, description="a fourth worker is there")
        last.suspend()
        await wait_until(lambda: heard.get("stalled"), timeout=30, description="the suspended worker is seen to be stalled")
        await _lose_ownership(tracker)
        await wait_until(lambda: heard.get("ownership_lost"), timeout=30, description="a worker that was declared dead says so")
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await _replay(tracker, heard)
    for kind, row in types_of_the_page().items():
        names = set(re.findall(r"`(\w+)`", row["details"])) - {
            "retried",
            "dropped",
            "InstanceState",
            "OrderOutcome",
            "retry",
            "drop",
            "recover",
            "done",
            "refused",
        }
        for event in heard[kind] if row["in the stream"] == "yes" else ():
            assert set(event.details) | ({"jobs"} if kind == "action" else set()) == names, kind


async def _listen(tracker: Tracker, heard: dict[str, list[Event]]) -> None:
    async for event in tracker.events(since="0-0"):
        heard.setdefault(event.type, []).append(event)


async def _holder(tracker: Tracker, fleet: dict[int, WorkerProcess], *, job_try: int) -> WorkerProcess:
    """Wait for a try of the pill, and return the worker that runs it."""

    async def pid() -> int | None:
        job = await tracker.job("pill")
        instance = await tracker.instance(job.instance_id) if job is not None and job.job_try == job_try else None
        return instance.pid if instance is not None else None

    found: Any = await wait_until(pid, timeout=30, description=f"try {job_try} of the pill is in flight")
    return fleet[found]


async def _is_there(tracker: Tracker, pid: int) -> bool:
    return any(instance.pid == pid for instance in await tracker.instances())


async def _lose_ownership(tracker: Tracker) -> None:
    """Be an instance that is declared dead under its job, as a sweep does it that saw it silent for too long."""
    async with Tracker(namespace="my_app", **KNOWN) as victim, victim.register() as instance_id, victim.track("42"):
        async with tracker.redis() as r:
            await wait_until(lambda: _declared_dead(r, instance_id), description="the instance is declared dead")
        async with victim.track("43"):
            await wait_until(lambda: victim.instance_id != instance_id, timeout=30, description="it goes on under a new id")


async def _declared_dead(r: Namespace, instance_id: str) -> bool:
    heartbeat, connections = await r.zscore("instances", instance_id), await r.hget("connections", instance_id)
    judged = Judged(
        instance_id=instance_id, heartbeat=f"{heartbeat:.0f}", connections=(connections or b"").decode(), watchdog="", reason="said so"
    )
    return await Store(r).declare_dead(judged, '{"schema":1,"type":"instance_dead","reason":"said so"}')


async def _replay(tracker: Tracker, heard: dict[str, list[Event]]) -> None:
    """What was heard is told again from any of its ids on, and from a moment on; what happens meanwhile is told as well."""
    everything = sorted((event for events in heard.values() for event in events), key=lambda event: place_of(event.event_id))
    last = place_of(everything[-1].event_id)
    for since, expected in ((everything[0].event_id, everything[1:]), (everything[0].at, everything)):
        again: dict[str, list[Event]] = {}
        listening = asyncio.ensure_future(_listen_from(tracker, since, again))
        wanted = {event.event_id for event in expected}
        await wait_until(lambda: wanted <= _ids(again), description="the events are told again")  # noqa: B023
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        assert {event_id for event_id in _ids(again) if place_of(event_id) <= last} == wanted


def place_of(event_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in event_id.split("-"))


def _ids(heard: dict[str, list[Event]]) -> set[str]:
    return {event.event_id for events in heard.values() for event in events}


async def _listen_from(tracker: Tracker, since: Any, heard: dict[str, list[Event]]) -> None:
    async for event in tracker.events(since=since):
        heard.setdefault(event.type, []).append(event)


async def test_the_page_s_follower_prints_what_it_hears(as_a_user: str, load: Callable[..., Any], capsys: pytest.CaptureFixture[str]):
    follow = load(PAGE, "follow.py").follow
    printed = ""

    def has_come_to_the_last() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return "44" in printed

    async with Tracker(namespace="my_app") as tracker:
        async with tracker.redis() as r:
            await r.xadd("events", {"event": '{"schema":1,"type":"instance_dead","instance_id":"web:1:ab"}'}, id="7-0")
            await r.xadd("events", {"event": '{"schema":1,"type":"recovered","job_id":"42"}'}, id="8-0")
            await r.xadd("events", {"event": '{"schema":2,"type":"recovered","job_id":"43"}'}, id="9-0")
            await r.xadd("events", {"event": '{"schema":1,"type":"recovered","job_id":"44"}'}, id="10-0")
        following = asyncio.ensure_future(follow(tracker, since="7-0"))
        await wait_until(has_come_to_the_last, description="the last event is printed")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert printed == "8-0 recovered 42\n10-0 recovered 44\n"


async def test_the_page_s_callbacks_hear_what_their_own_process_finds(
    as_a_user: str, load: Callable[..., Any], workers: Workers, caplog: pytest.LogCaptureFixture
):
    tracker: Tracker = load(PAGE, "on.py").tracker
    async with tracker, tracker.register():
        victim = workers.start_program([sys.executable, "-c", INSTANCE], env={"REDIS_URL": as_a_user, "PYTHONPATH": str(ROOT)})
        victim.wait_for_output("busy")
        with caplog.at_level(logging.ERROR):
            victim.kill()
            await wait_until(lambda: "instance_dead: " in caplog.text, timeout=30, description="the callback has logged the death")
