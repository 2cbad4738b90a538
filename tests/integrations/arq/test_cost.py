"""What a tracked arq worker may cost, as budgets that are counted: commands, messages, connections and bytes."""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
import redis.asyncio
from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.asyncio.connection import AbstractConnection

from async_tracker import Tracker
from async_tracker.config import Settings
from async_tracker.embedded import EmbeddedServer
from benchmarks.footprint import Hooked
from tests.harness.settings import QUIET
from tests.harness.wait import wait_until

MEMORY_PER_JOB_BYTES = 512


def waits(hook: Coroutine[Any, Any, None]) -> bool:
    """Tell whether a coroutine suspends even once on its way to its end."""
    try:
        hook.send(None)
    except StopIteration:
        return False
    hook.close()
    return True


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


async def test_an_arq_worker_sends_for_each_job_what_it_sends_without_the_tracker(
    make_server: Callable[..., EmbeddedServer], namespace: str
):
    """No job of this test grows old enough to be written, on any machine: what is sent beside arq's own is sent once, as it starts."""
    tracked = await commands_of_a_worker(make_server().url, Tracker(namespace=namespace, **NOTHING_IS_WRITTEN))
    untracked = await commands_of_a_worker(make_server().url, None)
    of_jobs = ("exec", "multi", "psetex", "incrby", "expire", "zrem", "del", "set", "get")
    assert {name: tracked.get(name, 0) for name in of_jobs if tracked.get(name, 0) >= JOBS} == {
        name: pytest.approx(untracked[name], abs=JOBS // 10) for name in of_jobs if untracked.get(name, 0) >= JOBS
    }
    of_looks = ("exists", "zscore")
    assert min(tracked["watch"], untracked["watch"]) >= JOBS
    assert {name: tracked[name] - tracked["watch"] for name in of_looks} == {
        name: pytest.approx(untracked[name] - untracked["watch"], abs=JOBS // 10) for name in of_looks
    }
    assert tracked.get("evalsha", 0) + tracked.get("eval", 0) < JOBS // 4, "some twenty, however many jobs there are"


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
    untracked = -of_further_looks(await commands_of_a_worker(make_server().url, None)) + messages
    messages = 0
    tracker = Tracker(namespace=namespace, **NOTHING_IS_WRITTEN)
    tracked = -of_further_looks(await commands_of_a_worker(make_server().url, tracker)) + messages
    assert tracked == pytest.approx(untracked, abs=JOBS // 4)


def of_further_looks(calls: dict[str, int]) -> int:
    """Count the messages of looks at jobs that run already.

    arq looks at whatever is queued with each poll, by WATCH, EXISTS and ZSCORE; how often it meets a job that runs depends on the machine.
    """
    return 3 * (calls["watch"] - JOBS) + calls.get("unwatch", 0)


class PollsCounted(ArqRedis):
    """A pool that knows how often its worker has polled: in a burst arq asks after each poll how much is left."""

    polls = 0

    async def zcard(self, name: Any) -> int:
        self.polls += 1
        return int(await super().zcard(name))


@pytest.mark.parametrize("linger", [0.002, 0.0])
async def test_jobs_that_wait_for_their_starts_do_not_fill_an_arq_worker(redis_url: str, namespace: str, linger: float):
    """One that is full reads nothing until its next poll: then there would be one for every ten jobs. arq reads a hundred in each."""

    async def noop(ctx: dict[str, Any]) -> None:
        return None

    pool = PollsCounted.from_url(redis_url)
    await asyncio.gather(*[pool.enqueue_job("noop") for _ in range(MANY_JOBS)])
    tracker = Tracker(namespace=namespace, durable=True, linger=linger, **QUIET)
    worker = Worker(**tracker.install({"functions": [func(noop, name="noop")], "redis_pool": pool, "burst": True}), handle_signals=False)
    await worker.async_run()
    await worker.on_shutdown(worker.ctx)
    await pool.aclose()
    assert worker.jobs_complete == MANY_JOBS
    assert pool.polls <= MANY_JOBS / 10 / 3


async def test_a_durable_start_takes_one_write_and_the_end_goes_with_that_of_another_job(
    make_server: Callable[..., EmbeddedServer], namespace: str
):
    """One write at most: jobs that start while a write is under way share the next one."""
    calls = await commands_of_a_worker(make_server().url, Tracker(namespace=namespace, durable=True, **NOTHING_ELSE_IS_WRITTEN))
    assert calls["evalsha"] + calls.get("eval", 0) <= JOBS + JOBS // 4, "some twenty are no writes of jobs"
    assert calls["sadd"] >= JOBS, "each start is written"
    assert calls["srem"] >= JOBS // 2, "and so are ends, before the worker leaves"


MANY_JOBS = 400
JOBS = 200
NOTHING_IS_WRITTEN = {**QUIET, "linger": 60.0, "gather": 60.0}
NOTHING_ELSE_IS_WRITTEN = {**NOTHING_IS_WRITTEN, "hook_timeout": 60.0}
"""Whatever is written, a job waits for it."""


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
    """What one worker cost its server: commands, those within scripts too, calls of scripts, bytes, and the tracker's own connections."""

    commands: int
    looks: int
    """How often arq looked at a job that was queued: oftener than there are jobs, as it may run already."""
    scripts: int
    bytes: int
    connections: int
    seconds: float
    took: tuple[float, ...]
    """How many seconds each job took: on a busy machine that is more than it was told."""


async def cost_of_a_worker(url: str, tracker: Tracker | None, *, job_seconds: float, jobs: int) -> Cost:
    took: list[float] = []

    async def work(ctx: dict[str, Any]) -> None:
        started = time.monotonic()
        if job_seconds:
            await asyncio.sleep(job_seconds)
        took.append(time.monotonic() - started)

    pool, onlooker = ArqRedis.from_url(url), redis.asyncio.Redis.from_url(url)
    for _ in range(jobs):
        await pool.enqueue_job("work")
    await pool.config_resetstat()
    began = time.monotonic()
    arguments: dict[str, Any] = {"functions": [func(work, name="work")], "redis_pool": pool, "burst": True, "poll_delay": POLL_DELAY}
    worker = Worker(**(tracker.install(arguments) if tracker is not None else arguments), handle_signals=False)
    task, ours = asyncio.create_task(worker.async_run()), set[str]()
    while not task.done():
        await asyncio.wait([task], timeout=0.05)
        ours |= {client["id"] for client in await onlooker.client_list() if client["name"].startswith("async-tracker")}
    await task
    traffic, called = await pool.info("stats"), await pool.info("commandstats")
    seconds = time.monotonic() - began
    calls = {name.removeprefix("cmdstat_"): int(found["calls"]) for name, found in called.items()}
    if worker.on_shutdown is not None:
        await worker.on_shutdown(worker.ctx)
    await pool.aclose()
    await onlooker.aclose()
    return Cost(
        commands=sum(count for name, count in calls.items() if not name.startswith("client|list")),
        looks=calls["watch"],
        scripts=calls.get("evalsha", 0) + calls.get("eval", 0),
        bytes=int(traffic["total_net_input_bytes"]),
        connections=len(ours),
        seconds=seconds,
        took=tuple(took),
    )


POLL_DELAY = 0.05
POLL_COMMANDS, POLL_BYTES = 3, 200
"""What arq sends with each of its polls: the tracked worker may have needed some more of them, or some fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What tracking may add. No term depends on how fast the machine is: what is sent by the clock is paid for by the second."""

    once: float
    """To become known, to sweep for the first time, which notes queues, the minute and versions, and to have each script loaded."""
    each_second: float
    each_old_job: float = 0.0
    each_look: float = 0.0

    def allows(self, seconds: float, old_jobs: int, more_looks: int) -> float:
        return self.once + seconds * self.each_second + old_jobs * self.each_old_job + more_looks * self.each_look


WRITES = 1 / Settings().gather
"""Writes that may leave a worker in a second, whatever it runs: a job by itself costs none."""
WRITE_COMMANDS, WRITE_BYTES = 8, 600
RECORD_COMMANDS, RECORD_BYTES = 6, 600
"""What a job that grows old adds to the writes that carry its start and its end: three commands within the script for each."""
CLAIM_BYTES = 100
LOOK_COMMANDS, LOOK_BYTES = 4, 300
"""What arq sends to see that a job runs already: how often it does depends on how long the worker takes, by itself and on that machine."""


@pytest.mark.parametrize(
    ("gather", "job_seconds", "jobs", "writes"),
    [
        pytest.param(5.0, 0.0, 300, 0, id="jobs that end while they are young"),
        pytest.param(0.05, 0.01, 300, WRITES, id="jobs of 10 ms"),
        pytest.param(0.05, 0.06, 100, WRITES, id="jobs of 60 ms"),
    ],
)
async def test_an_arq_worker_costs_no_more_than_its_budget(
    make_server: Callable[..., EmbeddedServer],
    namespace: str,
    gather: float,
    job_seconds: float,
    jobs: int,
    writes: float,
):
    alone = await cost_of_a_worker(make_server().url, None, job_seconds=job_seconds, jobs=jobs)
    tracked = await cost_of_a_worker(
        make_server().url, Tracker(namespace=namespace, linger=gather, gather=gather), job_seconds=job_seconds, jobs=jobs
    )
    assert (alone.scripts, alone.connections, tracked.connections) == (0, 0, 1)
    polls = 1 / POLL_DELAY
    old = sum(seconds > gather / 2 for seconds in tracked.took)
    more_looks = max(0, tracked.looks - alone.looks)
    for added, budget in (
        (tracked.scripts, Budget(once=20, each_second=4 + writes)),
        (
            tracked.commands - alone.commands,
            Budget(
                once=160,
                each_second=16 + polls * POLL_COMMANDS + writes * WRITE_COMMANDS,
                each_old_job=RECORD_COMMANDS,
                each_look=LOOK_COMMANDS,
            ),
        ),
        (
            tracked.bytes - alone.bytes - jobs * CLAIM_BYTES,
            Budget(
                once=12_000, each_second=2_000 + polls * POLL_BYTES + writes * WRITE_BYTES, each_old_job=RECORD_BYTES, each_look=LOOK_BYTES
            ),
        ),
    ):
        assert added <= budget.allows(tracked.seconds, old, more_looks), (budget, alone, tracked)


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
