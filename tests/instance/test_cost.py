"""What tracking may cost, as budgets that are counted: round trips, commands, connections, bytes. How fast it is, the benchmarks tell."""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from async_tracker import Tracker
from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.config import Settings
from async_tracker.instance.alarms import Alarm, Alarms
from async_tracker.instance.pen import Pen
from async_tracker.instance.pulse import TICK_SECONDS
from async_tracker.instance.runs import Run
from async_tracker.instance.watchdog import Watchdog
from async_tracker.instance.writer import Writer
from async_tracker.namespace import Namespace
from async_tracker.policy import HASTY_A_SECOND, QUIET_SECONDS
from async_tracker.store.commands import Store
from async_tracker.store.scripts import SCRIPTS
from tests.harness.inside import runtime_of
from tests.harness.settings import KNOWN, QUIET
from tests.harness.wait import wait_until
from tests.harness.wire import WireProxy
from tests.instance.unkept import UNKEPT


@pytest.fixture(autouse=True)
async def scripts_are_known(redis_client: redis.asyncio.Redis) -> None:
    """The first to send a script to a server sends it twice, by its digest and then in full: no part of what is counted here."""
    for script in SCRIPTS.values():
        await redis_client.script_load(script.text)


def sent(wire: WireProxy, *scripts: str) -> list[tuple[bytes, ...]]:
    shas = {SCRIPTS[name].sha.encode() for name in scripts}
    texts = {SCRIPTS[name].text.encode() for name in scripts}
    return [tuple(command) for command in wire.commands if len(command) > 1 and command[1] in shas | texts]


async def hold(tracker: Tracker, job_id: str, over: asyncio.Event) -> None:
    async with tracker.track(job_id, function="send_email", queue="mail"):
        await over.wait()


async def test_however_many_jobs_there_are_a_gathering_costs_one_round_trip(wire: WireProxy, namespace: str):
    gather = 0.05
    over = asyncio.Event()
    async with Tracker(namespace=namespace, redis_options={"url": wire.url}, gather=gather, **QUIET) as tracker, tracker.register():
        began = time.monotonic()
        tasks = [asyncio.create_task(hold(tracker, f"{number}", over)) for number in range(300)]
        await wait_until(lambda: sent(wire, "write"), description="the starts are written")
        over.set()
        await asyncio.gather(*tasks)
        await wait_until(lambda: len(sent(wire, "write")) >= 2, description="the ends are written")
        writes = len(sent(wire, "write"))
        assert writes <= (time.monotonic() - began) / gather + 1


async def test_jobs_that_end_while_they_are_young_are_never_written_and_counted_with_the_beat(wire: WireProxy, namespace: str):
    async with Tracker(namespace=namespace, redis_options={"url": wire.url}, linger=5.0, gather=5.0, **QUIET) as tracker:
        async with tracker.register():
            for number in range(500):
                async with tracker.track(f"{number}", function="noop"):
                    pass
            assert sent(wire, "write") == []
        assert sent(wire, "write") == []
        assert (await tracker.stats(function="noop")).succeeded == 500
    assert len(sent(wire, "beat")) <= 2


class CountedAlarms(Alarms):
    """Counts how often an alarm is set: for a writer, once for each check of its journal."""

    def __init__(self) -> None:
        super().__init__()
        self.times_set = 0

    def set(self, seconds: float, ring: Callable[[], object]) -> Alarm:
        self.times_set += 1
        return super().set(seconds, ring)


async def test_the_writer_checks_the_journal_of_short_runs_once_in_a_gathering(redis_client: redis.asyncio.Redis, namespace: str):
    def unexpected(*said: object) -> None:
        raise AssertionError("Redis was asked")

    alarms = CountedAlarms()
    settings = Settings(namespace=namespace)
    writer = Writer(
        store=Store(Namespace(redis_client, namespace)),
        pen=Pen("w"),
        clock=ServerClock(),
        alarms=alarms,
        ration=settings.ration(),
        on_unknown=unexpected,
        on_orders=unexpected,
    )
    began = time.monotonic()
    number = 0
    while time.monotonic() - began < 0.5 or alarms.times_set < 3:
        number += 1
        short = Run("short", f"{number}", "w", started_at_ms=number, started_mono_ms=monotonic_ms(), keeper=UNKEPT)
        writer.journal.start(short)
        writer.journal.end(short)
        await asyncio.sleep(0)
    assert alarms.times_set <= (time.monotonic() - began) / settings.gather + 2
    alarms.close()


async def test_runs_that_end_at_once_are_not_written_and_one_that_lasts_soon_is(wire: WireProxy, namespace: str):
    async with Tracker(namespace=namespace, redis_options={"url": wire.url}, **QUIET) as tracker, tracker.register():
        began = time.monotonic()
        while time.monotonic() - began < 0.2:
            async with tracker.track("short"):
                pass
            await asyncio.sleep(0)
        assert sent(wire, "write") == []
        over = asyncio.Event()
        long = asyncio.create_task(hold(tracker, "long", over))
        await wait_until(lambda: sent(wire, "write"), description="the long one is written")
        over.set()
        await long


GATHER = 0.05
PATTERNS = [
    pytest.param(0.2, 0.0, 8, id="5 a second, of nothing"),
    pytest.param(0.2, 0.1, 8, id="5 a second, of 100 ms"),
    pytest.param(0.05, 0.06, 30, id="20 a second, of 60 ms"),
    pytest.param(0.049, 0.0, 30, id="one every 49 ms, of nothing"),
    pytest.param(0.049, 0.051, 30, id="one every 49 ms, of 51 ms"),
    pytest.param(0.01, 0.01, 150, id="100 a second, of 10 ms"),
    pytest.param(0.01, 0.055, 150, id="100 a second, of 55 ms"),
    pytest.param(0.01, 1.0, 150, id="100 a second, of 1 s"),
]


@pytest.mark.parametrize("job_try", [1, 2])
@pytest.mark.parametrize(("apart", "seconds", "jobs"), PATTERNS)
async def test_whatever_a_process_runs_its_writes_are_as_far_apart_as_gather(
    wire: WireProxy, namespace: str, apart: float, seconds: float, jobs: int, job_try: int
):
    """Beside them a hasty one in each second, and of runs that are tried again as many as there may be."""

    begun: list[float] = []
    grew_old: list[str] = []

    async def work(tracker: Tracker, job_id: str) -> None:
        began = time.monotonic()
        begun.append(began)
        async with tracker.track(job_id, function="send_email", job_try=job_try):
            await asyncio.sleep(seconds)
        if time.monotonic() - began >= GATHER:
            grew_old.append(job_id)

    async with Tracker(namespace=namespace, redis_options={"url": wire.url}, gather=GATHER, **QUIET) as tracker, tracker.register():
        began = time.monotonic()
        tasks = []
        for number in range(jobs):
            tasks.append(asyncio.create_task(work(tracker, f"{number}")))
            await asyncio.sleep(apart)
        await asyncio.gather(*tasks)
        writes = len(sent(wire, "write"))
        elapsed = time.monotonic() - began
        again = HASTY_A_SECOND * (elapsed + 1) if job_try > 1 else 0
        assert writes <= elapsed / GATHER + elapsed / QUIET_SECONDS + 1 + again
        if seconds < GATHER / 2 and job_try == 1:  # what comes first after a quiet time, and its end; on a busy machine some grow old
            quiet = 1 + sum(later - earlier >= QUIET_SECONDS / 2 for earlier, later in itertools.pairwise(begun))
            assert writes <= 2 * (quiet + len(grew_old))


async def test_in_a_quiet_process_a_run_is_written_after_its_linger_and_the_next_one_after_gather(wire: WireProxy, namespace: str):
    over = asyncio.Event()
    async with Tracker(namespace=namespace, redis_options={"url": wire.url}, gather=60.0, **QUIET) as tracker, tracker.register():
        tasks = [asyncio.create_task(hold(tracker, "first", over))]
        await wait_until(lambda: sent(wire, "write"), description="the first is written")
        tasks += [asyncio.create_task(hold(tracker, f"{number}", over)) for number in range(9)]
        await asyncio.sleep(0.1)
        assert len(sent(wire, "write")) == 1
        runtime_of(tracker).heartbeat.hurry()

        async def is_told() -> bool:
            snapshot = await tracker.snapshot()
            assert [job.job_id for job in snapshot.jobs] == ["first"]
            return (snapshot.unlisted, snapshot.instances[0].busy) == (9, 10)

        await wait_until(is_told, description="a beat says what is not listed")
        over.set()
        await asyncio.gather(*tasks)


async def test_progress_of_a_run_that_is_not_written_goes_with_its_start(wire: WireProxy, namespace: str):
    async with Tracker(namespace=namespace, redis_options={"url": wire.url}, gather=0.2, **QUIET) as tracker, tracker.register():
        async with tracker.track("the first, after which the process is not quiet"):
            await wait_until(lambda: sent(wire, "write"), description="it is written")
        wire.forget_commands()
        async with tracker.track("42") as job:
            for step in range(10):
                await job.progress(step / 10, f"step {step}")
            await wait_until(lambda: sent(wire, "write"), description="its start is written")
            assert len(sent(wire, "write")) == 1
            assert any(b"step 9" in word for word in sent(wire, "write")[0])


async def test_the_watchdog_does_not_speak_for_runs_that_are_merely_young(wire: WireProxy, namespace: str):
    settings = {**QUIET, "watchdog": True}
    async with Tracker(namespace=namespace, redis_options={"url": wire.url}, gather=60.0, linger=60.0, **settings) as tracker:
        async with tracker.register(), tracker.track("young"):
            time.sleep(1.6)  # longer than the watchdog would wait to write a start
        assert sent(wire, "speak") == []


async def test_between_two_beats_no_timer_of_ours_stands_in_the_loop_of_the_jobs(redis_url: str, namespace: str):
    """Each of them would be asked for at every turn in which a worker waits. Timers there are only where Redis is asked something."""
    tracker = Tracker(namespace=namespace, redis_options={"url": redis_url}, **KNOWN)  # at default settings otherwise
    loop: Any = asyncio.get_running_loop()
    found = []
    async with tracker.register():
        for number in range(100):
            async with tracker.track(f"job-{number}"):
                await asyncio.sleep(0.01)
            found.append([timer for timer in loop._scheduled if not timer.cancelled()])
    await tracker.aclose()
    assert found.count([]) > len(found) / 2, found


async def test_a_worker_on_a_shared_pool_has_one_connection_more(redis_client: redis.asyncio.Redis, namespace: str):
    async def connections() -> set[str]:
        return {client["id"] for client in await redis_client.client_list()}

    before = await connections()  # those of other tests may go meanwhile
    tracker = Tracker(namespace=namespace, redis=redis_client, **{**QUIET, "watchdog": True})
    over = asyncio.Event()
    async with tracker, tracker.register():
        tasks = [asyncio.create_task(hold(tracker, f"{number}", over)) for number in range(20)]
        await wait_until(lambda: redis_client.exists(f"{namespace}:job:19"), description="the jobs are written")
        assert len(await connections() - before) == 1
        over.set()
        await asyncio.gather(*tasks)


DIGITS = 32
"""Bytes that the numbers in a heartbeat may grow by: 400 jobs take two digits more than none."""


def size_of(command: tuple[bytes, ...]) -> int:
    return sum(len(word) for word in command)


async def test_while_the_loop_runs_the_watchdog_wakes_no_more_often_than_every_second_pulse(redis_url: str, namespace: str):
    checks = 0

    def is_over() -> bool:
        nonlocal checks
        checks += 1
        return False

    async with Tracker(namespace=namespace, redis_options={"url": redis_url}, **QUIET) as tracker, tracker.register():
        runtime = runtime_of(tracker)
        watchdog = Watchdog(pulse=runtime.pulse, voice=runtime.voice, interval=QUIET["heartbeat_interval"], is_over=is_over)
        watchdog.start()

        async def wakes_seldom() -> bool:
            before = checks
            await asyncio.sleep(12 * TICK_SECONDS)
            return 3 <= checks - before <= 8

        # Where others keep the machine from this loop, its pulses are late, and the watchdog is right to look: then it is asked again.
        try:
            await wait_until(wakes_seldom, description="twelve pulses in which it wakes three to eight times")
        finally:
            watchdog.stop()


async def test_a_heartbeat_is_no_larger_with_many_jobs_in_flight(wire: WireProxy, namespace: str):
    over = asyncio.Event()
    settings: dict[str, Any] = {**QUIET, "heartbeat_interval": 0.1, "heartbeat_ttl": 60.0}
    async with Tracker(namespace=namespace, redis_options={"url": wire.url}, **settings) as tracker, tracker.register():
        await wait_until(lambda: len(sent(wire, "beat")) >= 2, description="beats without a job")
        idle = max(size_of(beat) for beat in sent(wire, "beat"))
        tasks = [asyncio.create_task(hold(tracker, f"{number:032}", over)) for number in range(400)]
        await wait_until(lambda: b"400" in sent(wire, "beat")[-1], description="a beat says how many jobs there are")
        wire.forget_commands()
        await wait_until(lambda: len(sent(wire, "beat")) >= 2, description="beats with many jobs")
        assert max(size_of(beat) for beat in sent(wire, "beat")) <= idle + DIGITS
        over.set()
        await asyncio.gather(*tasks)


async def test_a_sweeper_without_company_seldom_judges_anybody_and_judges_at_once_whoever_comes(wire: WireProxy, namespace: str):
    judging = {SCRIPTS["observe_changes"].sha.encode(), SCRIPTS["observe_changes"].text.encode()}

    def turns() -> tuple[int, int]:
        """How many turns it has had, and in how many of them it has judged: of one moment, as it goes on between two looks."""
        both = sent(wire, "lease", "observe_changes")
        judged = sum(command[1] in judging for command in both)
        return len(both) - judged, judged

    settings: dict[str, Any] = {**QUIET, "redis_options": {"url": wire.url}, "sweep_interval": 0.02}
    async with Tracker(namespace=namespace, **settings) as tracker, tracker.register():
        await wait_until(lambda: turns()[1] > 0, description="it sweeps")
        wire.forget_commands()
        await wait_until(lambda: turns()[0] >= 50, description="it has had fifty turns")
        taken, judged = turns()
        assert 1 <= judged <= taken // 10 + 1
        async with Tracker(namespace=namespace, **{**settings, "sweep_interval": 60.0}) as other, other.register():
            wire.forget_commands()
            await wait_until(lambda: turns()[1] > 20, description="it sweeps at every turn")
            taken, judged = turns()
            assert judged >= taken - 2
