"""What a fleet costs as it grows: the server, the worker that sweeps, questions about few things, and a mass death."""

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis.asyncio

from async_tracker import Tracker
from async_tracker.config import Settings
from async_tracker.connections.replies import Argument
from async_tracker.instance.host import host_id
from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.integrations.arq.names import IN_PROGRESS, JOB
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits, standby_interval
from async_tracker.recovery.lease import lease_holder, make_lease
from async_tracker.recovery.sweeper import Sweeper, make_sweeper
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections
from async_tracker.store.run_record import RunRecord, encode_run
from async_tracker.store.writes import Beat
from benchmarks.ground import Ground
from benchmarks.processes import NAMESPACE, QUEUE
from benchmarks.queries import count_round_trips, longest_held, named_connections
from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.size import Size

JOBS_EACH = 10
SWEEP_SECONDS = 0.5
GOAL_SHARE = 4.0
"""Percent of one core of the server, at a thousand instances."""
_SWEEPS_AT_REST = 10
_FIELDS: dict[str, Argument] = {
    "state": "alive",
    "busy": 1,
    "unlisted": 0,
    "rss_bytes": 50_000_000,
    "loop_lag_ms": 1,
    "jobs_started": 5,
    "jobs_ended": 4,
    "dropped": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a fleet of one size costs. ``share`` is in percent of one core of the server, per instance is per second."""

    instances: int
    share: float
    commands: float
    micros: float
    bytes_in: float
    bytes_out: float
    sweep_ms: float
    """Processor time of the worker that sweeps, for one sweep at rest."""
    held_ms: float
    """The longest that its event loop was held at a stretch in one of these."""
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
    fleet = _Fleet(client, names)
    await fleet.register()
    sweeper = fleet.sweeper()
    sweep_ms, held_ms = await _sweeps(fleet, sweeper)
    share, per_instance = await _load(ground, fleet, sweeper, seconds=size.scale_seconds)
    await fleet.beat(fleet.ids[0])
    questions = await _questions(ground, client)
    released = await _deaths(fleet, sweeper, dead=max(1, len(names) // 10), orphans_each=JOBS_EACH)
    await fill_queue(client, size.queue_ids)
    behind = await _deaths(fleet, sweeper, dead=1, orphans_each=10, until="released")
    await client.aclose()
    return Cost(
        instances=len(names),
        share=share,
        **per_instance,
        sweep_ms=sweep_ms,
        held_ms=held_ms,
        questions=questions,
        released_seconds=released,
        long_queue_seconds=behind,
    )


class _Fleet:
    """Instances as they stand in Redis, each with a connection of its own; one program beats for all of them."""

    def __init__(self, client: Any, names: dict[int, str]) -> None:
        self.client = client
        self.store = Store(Namespace(client, NAMESPACE))
        self.run_id = ""
        self.connections = {f"host:{number}:{name[-12:]}": Connections(ids={number: name}) for number, name in names.items()}
        self.recovered_at: list[float] = []
        self._sequence = 10

    @property
    def ids(self) -> list[str]:
        """The instances that live."""
        return list(self.connections)

    async def register(self) -> None:
        """Register all, with jobs in flight."""
        self.run_id = (await self.client.info("server"))["run_id"]
        description = Description(library="arq", host="h", host_id="0f", pid=7, queue=QUEUE, concurrency=JOBS_EACH)
        fields = {**encode_description(description, Limits()), "state": "alive"}
        for number, (name, own) in enumerate(self.connections.items()):
            fields["host_id"] = host_id() if number == 0 else "0f"  # the first one is on this host
            self.connections[name] = Connections(server=self.run_id, ids=own.ids)
            await self.store.register(name, 1, self.connections[name].encode(), fields)
            await self.store.write(name, 2, started=self.runs(name, JOBS_EACH), ended=[])

    def runs(self, name: str, count: int) -> list[RunRecord]:
        """Give the runs that an instance has in flight."""
        return [
            RunRecord(job_id=f"{name}-{job}", instance_id=name, token=f"{job:016x}", queue=QUEUE, library="arq", started_at_ms=job + 1)
            for job in range(count)
        ]

    def sweeper(self) -> Sweeper:
        """Make the sweeper of one of them."""
        adapter = ArqAdapter(self.client, receipt_key=self.store.redis.full_key)
        return make_sweeper(Settings(namespace=NAMESPACE), self.store, adapter, library="arq", on_event=self._hear)

    def _hear(self, event: str) -> None:
        if '"type":"recovered"' in event:
            self.recovered_at.append(time.monotonic())

    async def beat(self, name: str) -> None:
        """Send the heartbeat of one instance."""
        self._sequence += 1
        await self.store.beat(name, Beat(sequence=self._sequence, connections="", fields=_FIELDS))


async def _sweeps(fleet: _Fleet, sweeper: Sweeper) -> tuple[float, float]:
    """Sweep at rest: the first sweep, which reads everything, is not counted."""
    await sweeper.sweep(fleet.run_id)
    spent, held = [], []
    for _ in range(_SWEEPS_AT_REST):
        await asyncio.sleep(0.05)
        began = time.process_time()
        await sweeper.sweep(fleet.run_id)
        spent.append((time.process_time() - began) * 1000.0)
        held.append(await longest_held(lambda: sweeper.sweep(fleet.run_id)))
    return sorted(spent)[len(spent) // 2], sorted(held)[len(held) // 2]


async def _load(ground: Ground, fleet: _Fleet, sweeper: Sweeper, *, seconds: float) -> tuple[float, dict[str, float]]:
    """Beat, look and sweep at the rates of a fleet for some seconds, and read what the server has spent on it."""
    lease = make_lease(fleet.store, library="arq", recovers=True, sweep_interval=SWEEP_SECONDS)
    first, *others = fleet.ids
    standby = make_lease(fleet.store, library="arq", recovers=True, sweep_interval=SWEEP_SECONDS)
    holder = lease_holder(first, fleet.connections[first])
    other = lease_holder("another", Connections(server=fleet.run_id, ids={}))
    names = iter(fleet.ids * 10_000)

    async def sweep() -> None:
        await lease.elect(holder)
        await sweeper.sweep(fleet.run_id)

    jobs: list[tuple[Callable[[], Awaitable[Any]], float]] = [
        (lambda: fleet.beat(next(names)), 4.75 / len(fleet.ids)),
        (sweep, SWEEP_SECONDS),
    ]
    if others:
        jobs.append((lambda: standby.elect(other), 0.75 * standby_interval(SWEEP_SECONDS, len(fleet.ids)) / len(others)))
    await sweep()
    ground.sync.config_resetstat()
    before, began = _spent(ground), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for work, every in jobs:
            group.create_task(_regularly(work, every, until=began + seconds))
    lasted = time.monotonic() - began
    after, stats = _spent(ground), ground.sync.info("stats")
    per = lasted * len(fleet.ids)
    micros = (after - before) * 1e6
    per_instance = {
        "commands": stats["total_commands_processed"] / per,
        "micros": micros / per,
        "bytes_in": stats["total_net_input_bytes"] / per,
        "bytes_out": stats["total_net_output_bytes"] / per,
    }
    return micros / lasted / 1e4, per_instance


def _spent(ground: Ground) -> float:
    cpu = ground.sync.info("cpu")
    names = ("used_cpu_user_main_thread", "used_cpu_sys_main_thread")
    return float(sum(cpu.get(name, cpu[name.removesuffix("_main_thread")]) for name in names))


async def _regularly(work: Callable[[], Awaitable[Any]], every: float, *, until: float) -> None:
    """Do it that often in the mean, at moments that are not those of anything else."""
    due = time.monotonic() + random.random() * every
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await work()
        due += every


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


async def _deaths(fleet: _Fleet, sweeper: Sweeper, *, dead: int, orphans_each: int, until: str = "buried") -> float:
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
        ("share of one core of the server, %", lambda cost: f"{cost.share:.1f}"),
        ("commands per instance and s", lambda cost: f"{cost.commands:.2f}"),
        ("µs of the server per instance and s", lambda cost: f"{cost.micros:.0f}"),
        ("bytes in, out per instance and s", lambda cost: f"{cost.bytes_in:.0f}, {cost.bytes_out:.0f}"),
        ("a sweep at rest: processor time of its worker, ms", lambda cost: f"{cost.sweep_ms:.1f}"),
        ("its event loop held at a stretch, ms", lambda cost: f"{cost.held_ms:.1f}"),
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


def _asked(name: str, cost: Cost) -> str:
    trips, kilobytes, ms = cost.questions[name]
    return f"{trips}, {kilobytes:,.1f}, {ms:.1f}"


def _chart(found: list[Cost]) -> Chart:
    bars = [Bar(label=f"{cost.instances:,} instances", value=cost.share, low=cost.share, high=cost.share) for cost in found]
    return Chart(title="Share of one core of the server", axis="%", bars=bars, goal=GOAL_SHARE)


def _meaning(found: list[Cost], size: Size) -> list[str]:
    largest = found[-1]
    return [
        f"Beats, looks of stand-bys and sweeps at their default rates, sent by one program over {size.scale_seconds:g} s, while no job "
        f"starts or ends; {JOBS_EACH} jobs are in flight on each instance. {largest.instances:,} instances take {largest.share:.1f} % of "
        f"one core of the server; the line is the goal for a thousand, {GOAL_SHARE:g} %.",
        f"Deaths are timed from the moment at which they are declared; the long queue has {size.queue_ids:,} ids, and the ten orphans "
        "before it are recorded.",
    ]
