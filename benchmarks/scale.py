"""What a fleet costs as it grows: the server, the worker that sweeps, questions about few things, and a mass death."""

import asyncio
import dataclasses
import logging
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import redis.asyncio

from async_tracker import Tracker
from async_tracker.integrations.arq.names import IN_PROGRESS, JOB
from async_tracker.policy import standby_interval
from async_tracker.recovery.lease import lease_holder
from async_tracker.recovery.sweeper import Sweeper
from async_tracker.store import keys
from async_tracker.store.observation import Connections
from async_tracker.store.run_record import encode_run
from benchmarks.crowd import BEAT_SECONDS, SWEEP_SECONDS, Crowd, regularly
from benchmarks.ground import Ground
from benchmarks.probes import EVERY_SECONDS, probes
from benchmarks.processes import NAMESPACE, QUEUE
from benchmarks.queries import count_round_trips, longest_held, named_connections
from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.size import Size

JOBS_EACH = 10
GOAL_SHARE = 4.0
"""Percent of one core of the server, at a thousand instances."""
_SWEEPS = 10
_PROBED = f"with a probe for each every {EVERY_SECONDS:g} s: share of one core of the server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the server has spent on a fleet at its usual rates. ``share`` is in percent of one of its cores, the rest per second."""

    share: float
    commands: float
    micros: float
    bytes_in: float
    bytes_out: float
    connections: float
    """How many were made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeps:
    """What a sweep costs the worker that sweeps, in ms: processor time, and the longest that its event loop was held at a stretch."""

    spent_ms: float
    held_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a fleet of one size costs."""

    instances: int
    load: Load
    probed: Load
    """The same with the documented probe running on each: connections come and go, so the server's counters never stand still."""
    sweeps: Sweeps
    """At rest."""
    sweeps_probed: Sweeps
    """While a connection comes and goes between two of them."""
    questions: dict[str, tuple[int, float, float]]
    """Round trips, kilobytes and ms of each."""
    released_seconds: float
    """From the declared death of a tenth of the fleet until its last orphan is released."""
    long_queue_seconds: float
    """The same for ten recorded orphans behind a long queue."""


def run(ground: Ground, size: Size) -> Report:
    """Measure each size on a database of its own."""
    logger = logging.getLogger("async_tracker")
    level, found = logger.level, []
    logger.setLevel(logging.ERROR)  # there are thousands of lines about jobs that were left
    try:
        for instances in size.fleet:
            ground.empty()
            with named_connections(ground.url, instances) as names:
                found.append(asyncio.run(_measure(ground, names, size)))
    finally:
        logger.setLevel(level)
    ground.empty()
    return Report(
        name="scale",
        title="what a fleet costs as it grows",
        meaning=_meaning(found, size),
        tables=[_table(found)],
        charts=[_chart(found)],
        data={"sizes": [dataclasses.asdict(cost) for cost in found], "queue_ids": size.queue_ids},
    )


async def _measure(ground: Ground, names: dict[int, str], size: Size) -> Cost:
    client = redis.asyncio.Redis.from_url(ground.url)
    fleet = Crowd(client, names)
    await fleet.register(jobs_each=JOBS_EACH)
    sweeper = fleet.sweeper()
    sweeps, sweeps_probed = await _sweeps(fleet, sweeper), await _sweeps(fleet, sweeper, between=partial(_come_and_go, ground.url))
    load = await _load(ground, fleet, sweeper, seconds=size.scale_seconds)
    with probes(ground.url, instances=len(names)):
        probed = await _load(ground, fleet, sweeper, seconds=size.scale_seconds)
    await fleet.beat(fleet.ids[0])
    questions = await _questions(ground, client)
    released = await _deaths(fleet, sweeper, dead=max(1, len(names) // 10), orphans_each=JOBS_EACH)
    await fill_queue(client, size.queue_ids)
    behind = await _deaths(fleet, sweeper, dead=1, orphans_each=10, until="released")
    await client.aclose()
    return Cost(
        instances=len(names),
        load=load,
        probed=probed,
        sweeps=sweeps,
        sweeps_probed=sweeps_probed,
        questions=questions,
        released_seconds=released,
        long_queue_seconds=behind,
    )


async def _sweeps(fleet: Crowd, sweeper: Sweeper, *, between: Callable[[], Awaitable[Any]] | None = None) -> Sweeps:
    """Sweep while nothing happens, except what is done ``between`` two sweeps. The first one, which reads everything, is not counted."""
    await sweeper.sweep(fleet.run_id)
    spent, held = [], []
    for number in range(2 * _SWEEPS):
        await asyncio.sleep(0.05)
        if between is not None:
            await between()
        began = time.process_time()
        if number % 2:
            held.append(await longest_held(lambda: sweeper.sweep(fleet.run_id)))
        else:
            await sweeper.sweep(fleet.run_id)
            spent.append((time.process_time() - began) * 1000.0)
    return Sweeps(spent_ms=statistics.median(spent), held_ms=statistics.median(held))


async def _come_and_go(url: str) -> None:
    """Make a connection, and close it, as each probe does."""
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.ping()


async def _load(ground: Ground, fleet: Crowd, sweeper: Sweeper, *, seconds: float) -> Load:
    """Beat, look and sweep at the rates of a fleet for some seconds, and read what the server has spent on it."""
    lease, standby = fleet.lease(), fleet.lease()
    first, *others = fleet.ids
    holder = fleet.holder(first)
    other = lease_holder("another", Connections(server=fleet.run_id, ids={}))
    names = iter(fleet.ids * 10_000)

    async def sweep() -> None:
        await lease.elect(holder)
        await sweeper.sweep(fleet.run_id, itself=first)

    jobs: list[tuple[Callable[[], Awaitable[Any]], float]] = [
        (lambda: fleet.beat(next(names)), BEAT_SECONDS / len(fleet.ids)),
        (sweep, SWEEP_SECONDS),
    ]
    if others:
        jobs.append((lambda: standby.elect(other), 0.75 * standby_interval(SWEEP_SECONDS, len(fleet.ids)) / len(others)))
    await sweep()
    ground.sync.config_resetstat()
    before, began = _spent(ground), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for work, every in jobs:
            group.create_task(regularly(work, every, until=began + seconds))
    lasted = time.monotonic() - began
    after, stats = _spent(ground), ground.sync.info("stats")
    micros = (after - before) * 1e6
    return Load(
        share=micros / lasted / 1e4,
        commands=stats["total_commands_processed"] / lasted,
        micros=micros / lasted,
        bytes_in=stats["total_net_input_bytes"] / lasted,
        bytes_out=stats["total_net_output_bytes"] / lasted,
        connections=stats["total_connections_received"] / lasted,
    )


def _spent(ground: Ground) -> float:
    cpu = ground.sync.info("cpu")
    names = ("used_cpu_user_main_thread", "used_cpu_sys_main_thread")
    return float(sum(cpu.get(name, cpu[name.removesuffix("_main_thread")]) for name in names))


async def _questions(ground: Ground, client: Any) -> dict[str, tuple[int, float, float]]:
    tracker = Tracker(namespace=NAMESPACE, redis=client, arq_redis=client)
    one = (await tracker.instances())[0].instance_id
    asked: dict[str, Callable[[], Awaitable[Any]]] = {
        "job": lambda: tracker.job(f"{one}-3"),
        "instance": lambda: tracker.instance(one),
        "jobs of one": lambda: tracker.jobs(one),
        "queues": tracker.queues,
        "those of this host, as check asks": tracker.instances_here,
        "snapshot": tracker.snapshot,
    }
    found = {}
    for name, question in asked.items():
        trips = await count_round_trips(client, question)
        ground.sync.config_resetstat()
        began = time.perf_counter()
        await question()
        took = (time.perf_counter() - began) * 1000.0
        found[name] = (trips, ground.sync.info("stats")["total_net_output_bytes"] / 1000.0, took)
    return found


async def fill_queue(client: Any, count: int) -> None:
    """Queue that many jobs that are due later than all others."""
    for start in range(0, count, 10_000):
        await client.zadd(QUEUE, {f"waiting-{number}": 10**14 + number for number in range(start, min(start + 10_000, count))})


async def _deaths(fleet: Crowd, sweeper: Sweeper, *, dead: int, orphans_each: int, until: str = "buried") -> float:
    """Have some instances declared dead with jobs in flight, and sweep until all of these are released."""
    names = fleet.ids[-dead:]
    runs = [run for name in names for run in fleet.runs(name, orphans_each)]
    async with fleet.client.pipeline(transaction=False) as pipe:
        for run in runs:
            pipe.zadd(QUEUE, {run.job_id: 1})
            pipe.set(IN_PROGRESS + run.job_id, run.claim)
            pipe.set(JOB + run.job_id, b"payload")
            pipe.sadd(f"{NAMESPACE}:{keys.jobs(run.instance_id)}", run.job_id)
            pipe.set(f"{NAMESPACE}:{keys.job(run.job_id)}", encode_run(run))
        seconds, _ = await fleet.client.time()
        for name in names:
            pipe.zrem(f"{NAMESPACE}:{keys.INSTANCES}", name)
            pipe.hdel(f"{NAMESPACE}:{keys.CONNECTIONS}", name)
            pipe.zadd(f"{NAMESPACE}:{keys.DEAD}", {name: seconds * 1000})
            del fleet.connections[name]
        await pipe.execute()
    fleet.recovered_at.clear()
    began = time.monotonic()
    while True:
        swept = await sweeper.sweep(fleet.run_id, within=1.0)
        if not swept.ran_out or (until == "released" and len(fleet.recovered_at) >= len(runs)):
            break
        await asyncio.sleep(0.02)
    if len(fleet.recovered_at) < len(runs):
        raise RuntimeError(f"{len(fleet.recovered_at)} of {len(runs)} orphans were recovered")
    return fleet.recovered_at[-1] - began


def _table(found: list[Cost]) -> Table:
    rows: list[tuple[str, Callable[[Cost], str]]] = [
        ("share of one core of the server, %", lambda cost: f"{cost.load.share:.1f}"),
        ("commands per instance and s", lambda cost: f"{cost.load.commands / cost.instances:.2f}"),
        ("µs of the server per instance and s", lambda cost: f"{cost.load.micros / cost.instances:.0f}"),
        ("bytes in, out per instance and s", partial(_bytes, "load")),
        (f"{_PROBED}, %", lambda cost: f"{cost.probed.share:.1f}"),
        ("probes a second, of how many", lambda cost: f"{cost.probed.connections:.1f} of {cost.instances / EVERY_SECONDS:.1f}"),
        ("µs of the server per instance and s", lambda cost: f"{cost.probed.micros / cost.instances:.0f}"),
        ("bytes in, out per instance and s", partial(_bytes, "probed")),
        ("a sweep at rest: processor time of its worker, ms", lambda cost: f"{cost.sweeps.spent_ms:.1f}"),
        ("its event loop held at a stretch, ms", lambda cost: f"{cost.sweeps.held_ms:.1f}"),
        ("a sweep after a connection came and went: processor time, ms", lambda cost: f"{cost.sweeps_probed.spent_ms:.1f}"),
        ("its event loop held at a stretch, ms", lambda cost: f"{cost.sweeps_probed.held_ms:.1f}"),
    ]
    for name in found[0].questions:
        rows.append((f"{name}: round trips, kB, ms", partial(_asked, name)))
    rows.append(("a tenth of the fleet dead, until all is released, s", lambda cost: f"{cost.released_seconds:.2f}"))
    rows.append(("ten orphans behind a long queue, s", lambda cost: f"{cost.long_queue_seconds:.2f}"))
    return Table(
        title="What a fleet costs",
        columns=["", *(f"{cost.instances:,} instances" for cost in found)],
        rows=[[label, *(write(cost) for cost in found)] for label, write in rows],
    )


def _bytes(which: Literal["load", "probed"], cost: Cost) -> str:
    load = cost.load if which == "load" else cost.probed
    return f"{load.bytes_in / cost.instances:.0f}, {load.bytes_out / cost.instances:.0f}"


def _asked(name: str, cost: Cost) -> str:
    trips, kilobytes, ms = cost.questions[name]
    return f"{trips}, {kilobytes:,.1f}, {ms:.1f}"


def _chart(found: list[Cost]) -> Chart:
    bars = []
    for cost in found:
        for what, load in (("", cost.load), (", probed", cost.probed)):
            bars.append(Bar(label=f"{cost.instances:,} instances{what}", value=load.share, low=load.share, high=load.share))
    return Chart(title="Share of one core of the server", axis="%", bars=bars, goal=GOAL_SHARE)


def _meaning(found: list[Cost], size: Size) -> list[str]:
    largest = found[-1]
    return [
        f"Beats, looks of stand-bys and sweeps at their default rates, sent by one program over {size.scale_seconds:g} s, while no job "
        f"starts or ends; {JOBS_EACH} jobs are in flight on each instance. {largest.instances:,} instances take "
        f"{largest.load.share:.1f} % of one core of the server; the line is the goal for a thousand, {GOAL_SHARE:g} %.",
        f"With what `async-tracker check` asks for each of them every {EVERY_SECONDS:g} s it takes {largest.probed.share:.1f} %; "
        "these probes are asked by one more program, which may not come to all of them in the largest fleets.",
        f"Deaths are timed from the moment at which they are declared; the long queue has {size.queue_ids:,} ids, and the ten orphans "
        "before it are recorded.",
    ]
