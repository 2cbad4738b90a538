"""kill -9 of a random worker, the sweeper among them, until another runs its jobs; beside what arq alone would have taken."""

import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from arq.connections import ArqRedis

from async_tracker import InstanceState, Tracker
from benchmarks import hardships
from benchmarks.ground import Ground
from benchmarks.medians import quantile
from benchmarks.processes import NAMESPACE, QUEUE
from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.size import Size
from benchmarks.victim import Orders
from benchmarks.victims import Log, wait, workers

WORKERS = 3
GOAL_SECONDS = 3.0

_LONG_SECONDS = (1.0, 10.0)
_SHORT_SECONDS = (0.001, 0.05)
_FEED_SECONDS = 0.25
_LONG_SHARE = 0.35  # about eight long jobs in flight: far below the thirty slots, so that one is always free
_SEED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill: for each job that the worker had in hand, when another ran it, and what arq alone would have waited for at least."""

    was_sweeper: bool
    seconds: tuple[float, ...]
    arq_alone_seconds: tuple[float, ...]
    set_aside: int
    """Jobs under which a worker had died before: those are delayed on purpose."""


def run(ground: Ground, size: Size) -> Report:
    """Kill as often as the size says."""
    ground.empty()
    with tempfile.TemporaryDirectory(prefix="async-tracker-bench-") as folder:
        path = Path(folder, "log")
        path.touch()
        log = Log(path)
        kills, lost, put_off = asyncio.run(_killing(ground, size, log))
        found = asyncio.run(hardships.suffer(ground, Path(folder))) if size.hardships else []
    seconds = [second for kill in kills for second in kill.seconds]
    alone = [second for kill in kills for second in kill.arq_alone_seconds]
    counts = {"lost": lost, "put_off": put_off, "robbed": len(log.robbed), "doubled": len(log.doubled)}
    return Report(
        name="recovery",
        title="kill -9 of a worker until another runs its jobs",
        meaning=_meaning(kills, seconds, alone, counts),
        tables=[_table(kills, alone), *([hardships.table(found)] if found else [])],
        charts=[_chart(seconds, alone)],
        data={
            "kills": [dataclasses.asdict(kill) for kill in kills],
            **counts,
            "hardships": [dataclasses.asdict(hardship) for hardship in found],
        },
    )


async def _killing(ground: Ground, size: Size, log: Log) -> tuple[list[Kill], int, int]:
    pool = ArqRedis(redis.asyncio.ConnectionPool.from_url(ground.url), default_queue_name=QUEUE)
    orders = Orders(url=ground.url, queue=QUEUE, namespace=NAMESPACE, log_path=str(log.path))
    choose = random.Random(_SEED)
    enqueued: list[str] = []
    kills = []
    with workers(orders) as start:
        for _ in range(WORKERS):
            start()
        feeding = asyncio.create_task(_feed(pool, choose, enqueued))
        async with Tracker(namespace=NAMESPACE, redis=pool) as tracker:
            for _ in range(size.kills):
                kills.append(await _kill_one(tracker, pool, log, choose))
                start()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        lost, put_off = await _count_lost(pool, log, enqueued)
    await pool.aclose(close_connection_pool=True)
    return kills, lost, put_off


async def _feed(pool: ArqRedis, choose: random.Random, enqueued: list[str]) -> None:
    """Keep the workers busy with short and long jobs, and a slot free."""
    while True:
        for _ in range(4):
            await _enqueue(pool, choose.uniform(*_SHORT_SECONDS), enqueued)
        if choose.random() < _LONG_SHARE:
            await _enqueue(pool, choose.uniform(*_LONG_SECONDS), enqueued)
        await asyncio.sleep(_FEED_SECONDS)


async def _enqueue(pool: ArqRedis, seconds: float, enqueued: list[str]) -> None:
    job = await pool.enqueue_job("take", seconds)
    if job is not None:
        enqueued.append(job.job_id)


async def _kill_one(tracker: Tracker, pool: ArqRedis, log: Log, choose: random.Random) -> Kill:
    await wait(lambda: _all_alive(tracker), f"{WORKERS} workers are alive")
    await asyncio.sleep(choose.uniform(0.0, 1.0))  # anywhere between two beats and two sweeps
    victim = await wait(lambda: _somebody_busy(tracker, log, choose), "some worker has a job in hand that was never killed")
    sweeper = (await pool.get(f"{NAMESPACE}:lease:sweep:arq") or b"").decode().split(" ")[0]
    killed_ns = time.monotonic_ns()
    os.kill(victim.pid, signal.SIGKILL)
    log.killed.add(victim.pid)
    log.read()
    in_hand = log.in_hand(victim.pid)
    fresh = [job_id for job_id in in_hand if len(log.starts[job_id]) == 1]
    left_ms = [await pool.pttl(f"arq:in-progress:{job_id}") for job_id in fresh]
    seconds = [await _rerun(log, job_id, victim.pid, killed_ns) for job_id in fresh]
    return Kill(
        was_sweeper=victim.instance_id == sweeper,
        seconds=tuple(seconds),
        arq_alone_seconds=tuple(max(left, 0) / 1000.0 for left in left_ms),
        set_aside=len(in_hand) - len(fresh),
    )


async def _all_alive(tracker: Tracker) -> bool:
    instances = await tracker.instances()
    return sum(instance.state is InstanceState.ALIVE for instance in instances) == WORKERS == len(instances)


async def _somebody_busy(tracker: Tracker, log: Log, choose: random.Random) -> Any:
    log.read()
    victim = choose.choice(await tracker.instances())
    return victim if any(len(log.starts[job_id]) == 1 for job_id in log.in_hand(victim.pid)) else None


async def _rerun(log: Log, job_id: str, pid: int, killed_ns: int) -> float:
    async def started() -> int | None:
        log.read()
        return log.started_elsewhere(job_id, pid, after_ns=killed_ns)

    at_ns: int = await wait(started, f"another worker runs job {job_id}")
    return (at_ns - killed_ns) / 1e9


async def _count_lost(pool: ArqRedis, log: Log, enqueued: list[str]) -> tuple[int, int]:
    """Give the jobs that nobody has run to its end and nobody ever will, and those that are put off until later."""

    async def left() -> dict[str, float | None]:
        log.read()
        return {job_id: await pool.zscore(QUEUE, job_id) for job_id in set(enqueued) - log.ends.keys()}

    async def all_is_told() -> bool:
        now_ms = time.time() * 1000.0
        return all(due_ms is not None and due_ms > now_ms for due_ms in (await left()).values())

    with contextlib.suppress(TimeoutError):
        await wait(all_is_told, "every job has ended, or is put off")
    waiting = await left()
    lost = sum(due_ms is None for due_ms in waiting.values())
    return lost, len(waiting) - lost


def _table(kills: list[Kill], alone: list[float]) -> Table:
    groups = {
        "any worker": kills,
        "the sweeper": [kill for kill in kills if kill.was_sweeper],
        "another": [kill for kill in kills if not kill.was_sweeper],
    }
    rows = [_row(f"killed: {name}", [s for kill in chosen for s in kill.seconds], len(chosen)) for name, chosen in groups.items() if chosen]
    rows.append(_row("arq alone, at least (what its claims had left)", alone, len(kills)))
    return Table(
        title="Seconds from SIGKILL until another worker runs the job, default settings",
        columns=["what", "kills", "jobs", "p50", "p99", "most"],
        rows=rows,
    )


def _row(name: str, seconds: list[float], kills: int) -> list[str]:
    return [
        name,
        str(kills),
        str(len(seconds)),
        f"{statistics.median(seconds):.2f}",
        f"{quantile(seconds, 0.99):.2f}",
        f"{max(seconds):.2f}",
    ]


def _meaning(kills: list[Kill], seconds: list[float], alone: list[float], counts: dict[str, int]) -> list[str]:
    p99 = quantile(seconds, 0.99)
    set_aside = sum(kill.set_aside for kill in kills)
    of_sweepers = sum(kill.was_sweeper for kill in kills)
    return [
        f"Of {len(kills)} killed workers, {of_sweepers or 'none'} of them the sweeper{'' if of_sweepers else ' (its death is not shown)'}, "
        f"the {len(seconds)} jobs in hand "
        f"ran again after {statistics.median(seconds):.1f} s in the median and {p99:.1f} s at p99 (goal {GOAL_SECONDS:.0f} s: "
        f"{'reached' if p99 <= GOAL_SECONDS else 'missed'}). {counts['lost']} jobs were lost, {counts['robbed']} robbed of a live worker, "
        f"{counts['doubled']} run twice to their end: killed before arq could write that down. arq alone would have waited for another "
        f"{statistics.median(alone):.0f} s, the rest of its claims' lifetime. "
        f"({set_aside} times a job was killed that had been killed before: such are delayed on purpose, and not counted here; "
        f"{counts['put_off']} of these jobs waited for their time at the end.)",
        "The gem looks for orphans five seconds after a process starts, while the dead one's heartbeat of 45 s still stands, and once more "
        "after 300 s: about 305 s after a start, else never.",
    ]


def _chart(seconds: list[float], alone: list[float]) -> Chart:
    bars = [
        Bar(label=label, value=statistics.median(found), low=min(found), high=quantile(found, 0.99))
        for label, found in (("tracked", seconds), ("arq alone", alone))
    ]
    return Chart(title="Until another worker runs the jobs: least, median, p99", axis="seconds", bars=bars, goal=GOAL_SECONDS, is_log=True)
