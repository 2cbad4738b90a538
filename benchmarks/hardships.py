"""What a live worker may suffer without being robbed, and how long a lost host's jobs wait: at default settings, side by side."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio
from arq.connections import ArqRedis

from async_tracker import InstanceState, Tracker
from async_tracker.policy import Limits
from benchmarks.ground import Ground
from benchmarks.processes import NAMESPACE, QUEUE
from benchmarks.report import Table
from benchmarks.victim import Orders
from benchmarks.victims import Log, wait, workers

STOPPED_SECONDS = 3 * Limits().heartbeat_ttl
BLOCKED_SECONDS = 120.0
PROMISED_SECONDS = Limits().silence_limit + 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardship:
    """What a worker suffered, how often its job was started, and when it ran again where it was to be given up."""

    what: str
    seconds: float
    starts: int
    reran_seconds: float | None = None


@dataclass(slots=True, kw_only=True)
class Scene:
    """One worker that has a job in hand, and another one that would take it."""

    log: Log
    job_id: str
    pid: int
    tracker: Tracker


async def suffer(ground: Ground, folder: Path, *, hosts: bool = True) -> list[Hardship]:
    """Play all scenes at the same time, each with a queue and a namespace of its own; without ``hosts``, none is lost."""
    scenes = [_stopped(ground, folder), _blocked(ground, folder), *([_lost(ground, folder)] if hosts else [])]
    return list(await asyncio.gather(*scenes))


@asynccontextmanager
async def _scene(ground: Ground, folder: Path, name: str, function: str, seconds: float) -> AsyncIterator[Scene]:
    log = Log(folder / name)
    log.path.touch()
    pool = ArqRedis(redis.asyncio.ConnectionPool.from_url(ground.url), default_queue_name=f"{QUEUE}:{name}")
    orders = Orders(url=ground.url, queue=pool.default_queue_name, namespace=f"{NAMESPACE}-{name}", log_path=str(log.path))
    async with Tracker(namespace=orders.namespace, redis=pool) as tracker:
        with workers(orders) as start:
            worker = start(elsewhere=True)
            job = await pool.enqueue_job(function, seconds)
            assert job is not None
            await wait(lambda: _begun(log, job.job_id, 1), f"the job of scene {name!r} runs")
            start()
            await wait(lambda: _alive(tracker, 2), f"both workers of scene {name!r} are alive")
            yield Scene(log=log, job_id=job.job_id, pid=worker.pid, tracker=tracker)
    await pool.aclose(close_connection_pool=True)


async def _begun(log: Log, job_id: str, times: int) -> bool:
    return log.begun(job_id) >= times


async def _alive(tracker: Tracker, count: int) -> bool:
    return sum(found.state in (InstanceState.ALIVE, InstanceState.STALLED_BLOCKED) for found in await tracker.instances()) == count


async def _ended(log: Log, job_id: str) -> bool:
    log.read()
    return job_id in log.ends


async def _stopped(ground: Ground, folder: Path) -> Hardship:
    async with _scene(ground, folder, "stopped", "take", 3.0) as scene:
        os.kill(scene.pid, signal.SIGSTOP)
        await asyncio.sleep(STOPPED_SECONDS)
        os.kill(scene.pid, signal.SIGCONT)
        await wait(lambda: _ended(scene.log, scene.job_id), "the job of the stopped worker has ended")
        return Hardship(what="stopped (SIGSTOP)", seconds=STOPPED_SECONDS, starts=scene.log.begun(scene.job_id))


async def _blocked(ground: Ground, folder: Path) -> Hardship:
    async with _scene(ground, folder, "blocked", "block", BLOCKED_SECONDS) as scene:
        await wait(lambda: _ended(scene.log, scene.job_id), "the job that blocks its loop has ended")
        return Hardship(what="event loop blocked", seconds=BLOCKED_SECONDS, starts=scene.log.begun(scene.job_id))


async def _lost(ground: Ground, folder: Path) -> Hardship:
    """A process that is stopped for good, and nobody else seen on its host: to the server that is what a lost host looks like."""
    async with _scene(ground, folder, "lost", "take", 5.0) as scene:
        os.kill(scene.pid, signal.SIGSTOP)
        since = time.monotonic()
        await wait(lambda: _begun(scene.log, scene.job_id, 2), "the job of the lost host runs again")
        seconds = time.monotonic() - since
        return Hardship(what="host lost", seconds=seconds, starts=scene.log.begun(scene.job_id), reran_seconds=seconds)


def table(hardships: list[Hardship]) -> Table:
    """Lay them out."""
    rows = []
    for found in hardships:
        again = f"{found.reran_seconds:.1f} (goal {PROMISED_SECONDS:.0f})" if found.reran_seconds is not None else "-"
        robbed = "-" if found.reran_seconds is not None else str(found.starts - 1)
        rows.append([found.what, f"{found.seconds:.0f}", str(found.starts), robbed, again])
    return Table(
        title="Live workers, and one that is lost with its host, default settings",
        columns=["what", "seconds", "starts", "robbed", "ran again after, s"],
        rows=rows,
    )
