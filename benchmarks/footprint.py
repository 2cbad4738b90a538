"""What tracking leaves behind: memory of the process over many runs, of Redis per job in flight, and time at start-up."""

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arq.connections import RedisSettings, create_pool
from arq.worker import Worker, func

from async_tracker import Tracker
from benchmarks.ground import ROOT, Ground
from benchmarks.processes import NAMESPACE, QUEUE
from benchmarks.report import Report, Table
from benchmarks.size import Size

MEMORY_GOAL_BYTES = 512

_PARTS = 10
_IMPORT = """
import os, sys, time
import arq.worker, arq.connections
def rss_bytes():
    with open("/proc/self/statm") as file:  # not ru_maxrss: that begins with what the parent had
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
rss, modules, began = rss_bytes(), len(sys.modules), time.perf_counter()
from async_tracker import Tracker
print(time.perf_counter() - began, rss_bytes() - rss, len(sys.modules) - modules)
"""

Ctx = dict[Any, Any]
Hook = Callable[[Ctx], Awaitable[None]]


def run(ground: Ground, size: Size) -> Report:
    """Measure all three."""
    ground.empty()
    rss_mb = asyncio.run(_process_memory(ground, size.runs_in_one_process))
    per_job = {way: asyncio.run(memory_per_job(ground, way, size.runs_in_flight)) for way in ("tracked", "gem")}
    seconds, rss, modules = _import_cost(size.imports)
    growth_mb = rss_mb[-1] - rss_mb[1]
    rows = [
        [f"Redis memory per job in flight, ids of 32 characters ({size.runs_in_flight:,} jobs)", f"{per_job['tracked']:.0f} bytes"],
        ["the same the gem's way (a small payload)", f"{per_job['gem']:.0f} bytes"],
        [
            f"memory of the process after {size.runs_in_one_process:,} runs, against a tenth of them",
            f"{growth_mb:+.1f} MB of {rss_mb[-1]:.0f}",
        ],
        ["importing async_tracker where arq is imported", f"{seconds * 1000:.0f} ms, {modules:.0f} modules, {rss / 2**20:.1f} MB"],
    ]
    return Report(
        name="footprint",
        title="what tracking leaves behind",
        meaning=[
            f"A job in flight takes {per_job['tracked']:.0f} bytes of Redis (goal {MEMORY_GOAL_BYTES}); over "
            f"{size.runs_in_one_process:,} runs the process grows by {growth_mb:.1f} MB; importing the library adds "
            f"{seconds * 1000:.0f} ms to the start of a worker."
        ],
        tables=[Table(title="Footprint", columns=["what", "measured"], rows=rows)],
        data={"rss_mb": rss_mb, "bytes_per_job_in_flight": per_job, "import_ms": seconds * 1000, "import_rss_bytes": rss},
    )


class Hooked:
    """The hooks of a tracked worker, called as arq calls them, without arq in between."""

    def __init__(self, tracker: Tracker, pool: Any) -> None:
        async def noop(ctx: Ctx) -> None:
            return None

        arguments: dict[str, Any] = tracker.install({"functions": [func(noop, name="send_email")], "queue_name": QUEUE})
        self._worker = Worker(**arguments, redis_pool=pool, ctx={"redis": pool}, handle_signals=False)
        self._enqueued = datetime.now(UTC)

    @property
    def function(self) -> Callable[[Ctx], Awaitable[Any]]:
        """What arq calls for a job, once the worker has started."""
        found: Callable[[Ctx], Awaitable[Any]] = self._worker.functions["send_email"].coroutine
        return found

    async def startup(self) -> None:
        """Call the hook that registers."""
        worker = self._worker  # a variable of this frame, as `self` is one of arq's: there the hook looks for its worker
        assert worker.on_startup is not None
        await worker.on_startup(worker.ctx)

    async def shutdown(self) -> None:
        """Call the hook that deregisters."""
        worker = self._worker
        assert worker.on_shutdown is not None
        await worker.on_shutdown(worker.ctx)

    def ctx(self, job_id: str) -> Ctx:
        """Make what arq hands to the hooks of one job."""
        job = {"job_id": job_id, "job_try": 1, "enqueue_time": self._enqueued, "score": int(time.time() * 1000)}
        return {**self._worker.ctx, **job}

    async def call(self, name: str, ctx: Ctx) -> None:
        """Call one hook, if it is there."""
        hook: Hook | None = getattr(self._worker, name)
        if hook is not None:
            await hook(ctx)

    async def job(self, job_id: str) -> None:
        """Run one job through all its hooks; to be run as a task, as arq does."""
        ctx = self.ctx(job_id)
        await self.call("on_job_start", ctx)
        await asyncio.wait_for(asyncio.ensure_future(self.function(ctx)), 300.0)
        await self.call("on_job_end", ctx)
        await self.call("after_job_end", ctx)


async def _process_memory(ground: Ground, runs: int) -> list[float]:
    """Give the memory of this process in MB, at the start and after each tenth of the runs."""
    pool = await create_pool(RedisSettings.from_dsn(ground.url))
    hooked = Hooked(Tracker(namespace=NAMESPACE), pool)
    await hooked.startup()
    measured = [_rss_mb()]
    for _ in range(_PARTS):
        for _ in range(runs // _PARTS):
            await asyncio.create_task(hooked.job(uuid.uuid4().hex))
        measured.append(_rss_mb())
    await hooked.shutdown()
    await pool.aclose()
    return measured


def _rss_mb() -> float:
    gc.collect()
    if not Path("/proc/self/statm").exists():
        raise NotImplementedError("the memory of a process at a moment is read from /proc, which only Linux has")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def memory_per_job(ground: Ground, way: str, jobs: int) -> float:
    """Give how much memory of Redis each of many jobs in flight takes: the growth of what the server uses, divided."""
    ground.empty()
    ids = [uuid.uuid4().hex for _ in range(jobs)]
    if way == "gem":
        before = ground.reading().memory
        with ground.sync.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.sadd(f"{NAMESPACE}:jobs:0123456789abcdef", job_id)
                pipe.set(f"{NAMESPACE}:job:{job_id}", _gem_payload(job_id))
            pipe.execute()
        return (ground.reading().memory - before) / jobs
    pool = await create_pool(RedisSettings.from_dsn(ground.url))
    hooked = Hooked(Tracker(namespace=NAMESPACE, watchdog=False), pool)
    await hooked.startup()
    before = ground.reading().memory
    over = asyncio.Event()
    tasks = [asyncio.create_task(_in_flight(hooked, job_id, over)) for job_id in ids]
    await _wait_stored(ground, jobs)
    taken = (ground.reading().memory - before) / jobs
    over.set()
    await asyncio.gather(*tasks)
    await hooked.shutdown()
    await pool.aclose()
    return taken


async def _in_flight(hooked: Hooked, job_id: str, over: asyncio.Event) -> None:
    ctx = hooked.ctx(job_id)
    await hooked.call("on_job_start", ctx)
    await over.wait()
    await hooked.function(ctx)
    await hooked.call("on_job_end", ctx)
    await hooked.call("after_job_end", ctx)


async def _wait_stored(ground: Ground, jobs: int, *, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while ground.sync.dbsize() < jobs:
        if time.monotonic() > deadline:
            raise TimeoutError(f"of {jobs} jobs in flight {ground.sync.dbsize()} keys were written within {timeout} s")
        await asyncio.sleep(0.01)


def _gem_payload(job_id: str) -> str:
    return (
        f'{{"retry":true,"queue":"{QUEUE}","processing":true,"class":"send_email","args":["somebody@example.com"],"jid":"{job_id}",'
        f'"created_at":{time.time()},"enqueued_at":{time.time()}}}'
    )


def _import_cost(times: int) -> tuple[float, float, float]:
    """Give seconds, bytes and modules that importing adds to a process that has arq; medians."""
    found: list[list[float]] = []
    for _ in range(times + 1):  # the first one may have to compile
        done = subprocess.run([sys.executable, "-c", _IMPORT], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        found.append([float(word) for word in done.stdout.split()])
    seconds, rss, modules = (statistics.median(column) for column in zip(*found[1:], strict=True))
    return seconds, rss, modules
