"""What tracking may cost, as budgets that are counted: round trips, commands, connections, bytes. How fast it is, the benchmarks tell."""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
import redis
import redis.asyncio
from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.asyncio.connection import AbstractConnection

from async_tracker import Tracker
from async_tracker.embedded import EmbeddedServer
from async_tracker.instance.pulse import TICK_SECONDS
from async_tracker.instance.watchdog import Watchdog
from async_tracker.instance.writer import Writer
from async_tracker.store.scripts import SCRIPTS
from benchmarks.footprint import Hooked
from benchmarks.queries import count_round_trips, named_connections, write_namespace
from tests.harness.wait import wait_until
from tests.harness.wire import WireProxy
from tests.tracker.quiet import QUIET

MEMORY_PER_JOB_BYTES = 512
QUERY_ROUND_TRIPS = 4


def waits(hook: Coroutine[Any, Any, None]) -> bool:
    """Tell whether a coroutine suspends even once on its way to its end."""
    try:
        hook.send(None)
    except StopIteration:
        return False
    hook.close()
    return True


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


async def test_by_default_no_hook_waits_for_anything(redis_url: str, namespace: str):
    pool = ArqRedis.from_url(redis_url)
    hooked = Hooked(Tracker(namespace=namespace, **QUIET), pool)
    await hooked.startup()

    async def job() -> list[str]:
        ctx = hooked.ctx(uuid.uuid4().hex)
        waited = [name for name in ("on_job_start",) if waits(hooked.call(name, ctx))]
        await hooked.function(ctx)
        return waited + [name for name in ("on_job_end", "after_job_end") if waits(hooked.call(name, ctx))]

    assert await asyncio.create_task(job()) == []
    await hooked.shutdown()
    await pool.aclose()


async def test_however_many_jobs_there_are_a_linger_costs_one_round_trip(wire: WireProxy, namespace: str):
    linger = 0.05
    over = asyncio.Event()
    async with Tracker(namespace=namespace, redis_options={"url": wire.url}, linger=linger, **QUIET) as tracker, tracker.register():
        began = time.monotonic()
        tasks = [asyncio.create_task(hold(tracker, f"{number}", over)) for number in range(300)]
        await wait_until(lambda: sent(wire, "write"), description="the starts are written")
        over.set()
        await asyncio.gather(*tasks)
        await wait_until(lambda: len(sent(wire, "write")) >= 2, description="the ends are written")
        lingers = (time.monotonic() - began) / linger
        assert len(sent(wire, "write")) <= lingers + 1


async def test_jobs_shorter_than_a_linger_are_never_written_and_counted_with_the_beat(wire: WireProxy, namespace: str):
    async with Tracker(namespace=namespace, redis_options={"url": wire.url}, linger=5.0, **QUIET) as tracker:
        async with tracker.register():
            for number in range(500):
                async with tracker.track(f"{number}", function="noop"):
                    pass
            assert sent(wire, "write") == []
        assert sent(wire, "write") == []
        assert (await tracker.stats(function="noop")).succeeded == 500
    assert len(sent(wire, "beat")) <= 2


async def test_the_writer_seldom_looks_while_all_jobs_are_shorter_than_a_linger_and_soon_writes_one_that_is_not(
    wire: WireProxy, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    looks: list[float] = []
    look = Writer._look

    def counted(self: Writer) -> None:
        looks.append(time.monotonic())
        look(self)

    monkeypatch.setattr(Writer, "_look", counted)
    async with Tracker(namespace=namespace, redis_options={"url": wire.url}, linger=0.004, **QUIET) as tracker, tracker.register():
        began = time.monotonic()
        while time.monotonic() - began < 0.5:
            async with tracker.track("short"):
                pass
            await asyncio.sleep(0)
        assert 2 <= len(looks) <= (time.monotonic() - began) / 0.03 + 2
        assert sent(wire, "write") == []
        over = asyncio.Event()
        long = asyncio.create_task(hold(tracker, "long", over))
        await wait_until(lambda: sent(wire, "write"), timeout=1.0, description="the long one is written")
        over.set()
        await long


async def test_between_two_beats_no_timer_of_ours_stands_in_the_loop_of_the_jobs(redis_url: str, namespace: str):
    """Each of them would be asked for at every turn in which a worker waits. Timers there are only where Redis is asked something."""
    tracker = Tracker(namespace=namespace, redis_options={"url": redis_url})  # at default settings
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
    async def connections() -> int:
        return int((await redis_client.info("clients"))["connected_clients"])

    before = await connections()
    tracker = Tracker(namespace=namespace, redis=redis_client, **{**QUIET, "watchdog": True})
    over = asyncio.Event()
    async with tracker, tracker.register():
        tasks = [asyncio.create_task(hold(tracker, f"{number}", over)) for number in range(20)]
        await wait_until(lambda: redis_client.exists(f"{namespace}:job:19"), description="the jobs are written")
        assert await connections() == before + 1
        over.set()
        await asyncio.gather(*tasks)


async def test_an_arq_worker_sends_for_each_job_what_it_sends_without_the_tracker(
    make_server: Callable[..., EmbeddedServer], namespace: str
):
    tracked = await commands_of_a_worker(make_server().url, Tracker(namespace=namespace, linger=5.0, **QUIET))
    untracked = await commands_of_a_worker(make_server().url, None)
    of_jobs = ("exec", "multi", "watch", "psetex", "incrby", "expire", "zrem", "del", "set", "zscore", "exists", "get")
    assert {name: tracked.get(name, 0) for name in of_jobs if tracked.get(name, 0) >= JOBS} == {
        name: pytest.approx(untracked[name], abs=JOBS // 10) for name in of_jobs if untracked.get(name, 0) >= JOBS
    }
    assert tracked.get("evalsha", 0) + tracked.get("eval", 0) < JOBS // 10


async def test_an_arq_worker_waits_for_redis_as_often_for_each_job_as_without_the_tracker(
    make_server: Callable[..., EmbeddedServer], namespace: str, monkeypatch: pytest.MonkeyPatch
):
    """Not less often either: a worker that claims faster holds ``max_jobs`` jobs sooner, and then arq stops reading until its next poll."""
    messages = 0
    send = AbstractConnection.send_packed_command

    async def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal messages
        messages += 1
        await send(self, *args, **kwargs)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
    await commands_of_a_worker(make_server().url, None)
    untracked, messages = messages, 0
    await commands_of_a_worker(make_server().url, Tracker(namespace=namespace, linger=5.0, **QUIET))
    assert messages == pytest.approx(untracked, abs=JOBS // 4)


@pytest.mark.parametrize("linger", [0.002, 0.0])
async def test_jobs_that_wait_for_their_starts_do_not_fill_an_arq_worker(redis_url: str, namespace: str, linger: float):
    """One that is full reads nothing for the rest of its ``poll_delay``, half a second as arq has it: ten jobs in each."""

    async def noop(ctx: dict[str, Any]) -> None:
        return None

    pool = ArqRedis.from_url(redis_url)
    await asyncio.gather(*[pool.enqueue_job("noop") for _ in range(MANY_JOBS)])
    tracker = Tracker(namespace=namespace, durable=True, linger=linger, **QUIET)
    worker = Worker(**tracker.install({"functions": [func(noop, name="noop")], "redis_pool": pool, "burst": True}), handle_signals=False)
    try:
        async with asyncio.timeout(MANY_JOBS / 10 * 0.5 / 3):
            await worker.async_run()
    finally:
        await worker.on_shutdown(worker.ctx)
        await pool.aclose()


MANY_JOBS = 400
JOBS = 200


async def commands_of_a_worker(url: str, tracker: Tracker | None) -> dict[str, int]:
    async def noop(ctx: dict[str, Any]) -> None:
        return None

    pool = ArqRedis.from_url(url)
    for _ in range(JOBS):
        await pool.enqueue_job("noop")
    await pool.config_resetstat()
    arguments: dict[str, Any] = {"functions": [func(noop, name="noop")], "redis_pool": pool, "burst": True, "poll_delay": 0.005}
    worker = Worker(**(tracker.install(arguments) if tracker is not None else arguments), handle_signals=False)
    await worker.async_run()
    stats = await pool.info("commandstats")
    if worker.on_shutdown is not None:
        await worker.on_shutdown(worker.ctx)
    await pool.aclose()
    return {name.removeprefix("cmdstat_"): int(found["calls"]) for name, found in stats.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one worker cost its server: commands, those within scripts too, and bytes per job, and the tracker's own connections."""

    commands: float
    scripts: float
    bytes: float
    connections: int


async def cost_of_a_worker(url: str, tracker: Tracker | None, *, job_seconds: float, jobs: int) -> Cost:
    async def work(ctx: dict[str, Any]) -> None:
        if job_seconds:
            await asyncio.sleep(job_seconds)

    pool, onlooker = ArqRedis.from_url(url), redis.asyncio.Redis.from_url(url)
    for _ in range(jobs):
        await pool.enqueue_job("work")
    await pool.config_resetstat()
    arguments: dict[str, Any] = {"functions": [func(work, name="work")], "redis_pool": pool, "burst": True, "poll_delay": 0.05}
    worker = Worker(**(tracker.install(arguments) if tracker is not None else arguments), handle_signals=False)
    task, ours = asyncio.create_task(worker.async_run()), set[str]()
    while not task.done():
        await asyncio.wait([task], timeout=0.05)
        ours |= {client["id"] for client in await onlooker.client_list() if client["name"].startswith("async-tracker")}
    await task
    traffic, called = await pool.info("stats"), await pool.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(found["calls"]) for name, found in called.items()}
    if worker.on_shutdown is not None:
        await worker.on_shutdown(worker.ctx)
    await pool.aclose()
    await onlooker.aclose()
    return Cost(
        commands=sum(count for name, count in calls.items() if not name.startswith("client|list")) / jobs,
        scripts=(calls.get("evalsha", 0) + calls.get("eval", 0)) / jobs,
        bytes=int(traffic["total_net_input_bytes"]) / jobs,
        connections=len(ours),
    )


@pytest.mark.parametrize(
    ("job_seconds", "jobs", "scripts", "commands", "size"),
    [(0.0, 300, 0.5, 2.0, 250.0), (0.05, 100, 2.2, 14.0, 1_500.0)],
    ids=["jobs shorter than a linger", "jobs of 50 ms"],
)
async def test_at_default_settings_an_arq_worker_costs_no_more_than_its_budget(
    make_server: Callable[..., EmbeddedServer], namespace: str, job_seconds: float, jobs: int, scripts: float, commands: float, size: float
):
    alone = await cost_of_a_worker(make_server().url, None, job_seconds=job_seconds, jobs=jobs)
    tracked = await cost_of_a_worker(make_server().url, Tracker(namespace=namespace), job_seconds=job_seconds, jobs=jobs)
    assert (alone.scripts, alone.connections, tracked.connections) == (0, 0, 1)
    assert tracked.scripts <= scripts
    assert tracked.commands - alone.commands <= commands
    assert tracked.bytes - alone.bytes <= size


async def test_a_job_in_flight_takes_no_more_memory_of_redis_than_its_budget(
    redis_client: redis.asyncio.Redis, redis_url: str, namespace: str
):
    jobs = 500
    pool = ArqRedis.from_url(redis_url)
    hooked = Hooked(Tracker(namespace=namespace, **QUIET), pool)
    await hooked.startup()
    over = asyncio.Event()
    ids = [uuid.uuid4().hex for _ in range(jobs)]

    async def job(job_id: str) -> None:
        ctx = hooked.ctx(job_id)
        await hooked.call("on_job_start", ctx)
        await hooked.function(ctx)
        await over.wait()
        await hooked.call("on_job_end", ctx)
        await hooked.call("after_job_end", ctx)

    tasks = [asyncio.create_task(job(job_id)) for job_id in ids]
    written = [f"{namespace}:job:{job_id}" for job_id in ids]
    await wait_until(lambda: has_all(redis_client, written), description="every job is written")
    lists = [key async for key in redis_client.scan_iter(match=f"{namespace}:jobs:*")]
    taken = sum([await redis_client.memory_usage(key, samples=0) for key in [*written, *lists]])
    assert taken / jobs <= MEMORY_PER_JOB_BYTES
    over.set()
    await asyncio.gather(*tasks)
    await hooked.shutdown()
    await pool.aclose()


async def has_all(client: redis.asyncio.Redis, keys: list[str]) -> bool:
    return int(await client.exists(*keys)) == len(keys)


DIGITS = 32
"""Bytes that the numbers in a heartbeat may grow by: 400 jobs take two digits more than none."""


def size_of(command: tuple[bytes, ...]) -> int:
    return sum(len(word) for word in command)


async def test_while_the_loop_runs_the_watchdog_wakes_no_more_often_than_every_second_pulse(
    redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    looks: list[float] = []
    look = Watchdog._look

    def noted(self: Watchdog) -> None:
        looks.append(time.monotonic())
        look(self)

    monkeypatch.setattr(Watchdog, "_look", noted)
    settings = {**QUIET, "watchdog": True}
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}, **settings) as tracker, tracker.register():
        await asyncio.sleep(12 * TICK_SECONDS)
    assert 3 <= len(looks) <= 8


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


async def test_a_question_costs_four_round_trips_whatever_there_is_to_tell_and_looks_at_nothing_else(
    make_server: Callable[..., EmbeddedServer], namespace: str
):
    url = make_server().url
    with named_connections(url, 120) as connections:  # so many that their jobs are read in two halves
        client = redis.asyncio.Redis.from_url(url)
        await write_namespace(client, namespace, connections=connections, jobs_each=5)
        await client.mset({f"foreign:{number}": "" for number in range(1_000)})
        tracker = Tracker(namespace=namespace, redis=client)
        assert len((await tracker.snapshot()).jobs) == 600
        await client.config_resetstat()
        questions = (tracker.snapshot, tracker.instances, tracker.jobs, tracker.orphans, tracker.stats, tracker.quarantined)
        trips = {question.__name__: await count_round_trips(client, question) for question in questions}
        assert {name: count for name, count in trips.items() if count > QUERY_ROUND_TRIPS} == {}
        called = {name.removeprefix("cmdstat_") for name in await client.info("commandstats")}
        assert not called & {"keys", "scan", "sscan", "hscan", "zscan"}
        await client.aclose()


async def test_a_sweeper_without_company_seldom_judges_anybody_and_judges_at_once_whoever_comes(wire: WireProxy, namespace: str):
    def turns() -> tuple[int, int]:
        return len(sent(wire, "lease")), len(sent(wire, "observe"))

    settings: dict[str, Any] = {**QUIET, "redis_options": {"url": wire.url}, "sweep_interval": 0.02}
    async with Tracker(namespace=namespace, **settings) as tracker, tracker.register():
        await wait_until(lambda: turns()[1] > 0, description="it sweeps")
        wire.forget_commands()
        await wait_until(lambda: turns()[0] >= 50, description="it has had fifty turns")
        taken, judged = turns()
        assert 1 <= judged <= taken // 10 + 1
        wire.forget_commands()
        async with Tracker(namespace=namespace, **{**settings, "sweep_interval": 60.0}) as other, other.register():
            await wait_until(lambda: turns()[1] > 20, description="it sweeps at every turn")
            taken, judged = turns()
            assert judged >= taken - 12
