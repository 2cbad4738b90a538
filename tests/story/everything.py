"""A fleet in which everything happens that the tracker knows of, for the pages that say what is kept and what must be allowed."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from arq.connections import ArqRedis

from async_tracker import Tracker
from tests.harness.wait import wait_until
from tests.harness.workers import WorkerProcess, Workers

WORKER = """
import asyncio, os, time
from arq.connections import RedisSettings
from arq.worker import func
from async_tracker import Tracker, current_job

tracker = Tracker.from_env(namespace="my_app", heartbeat_interval=0.3, heartbeat_ttl=60, disconnect_grace=0.3, instance_id="pod")

async def quick(ctx):
    return "done"

async def long(ctx):
    await current_job().progress(0.5, "half way")
    await asyncio.sleep(60)

async def block(ctx):
    await asyncio.sleep(0.1)
    while not os.path.exists(os.environ["TEST_SEEN"]):
        time.sleep(0.05)

@tracker.install
class WorkerSettings:
    functions = [quick, long, block, *(func(quick, name=f"one of very many functions, number {n}") for n in range(30))]
    redis_settings = RedisSettings.from_dsn(os.environ["REDIS_URL"])
    poll_delay = 0.05
"""


SEEN = "seen"


def starter(workers: Workers, folder: Path, env: Mapping[str, str]) -> Callable[..., WorkerProcess]:
    """Return what starts one worker of the fleet; keywords are further variables of it."""
    (folder / "everything.py").write_text(WORKER)
    own = {"PYTHONPATH": str(folder), "TEST_SEEN": str(folder / SEEN)}
    common = {**own, "TRACKER_MAX_RECOVERIES": "2", "TRACKER_VERSION": "2026-07-29.1", **env}

    def start(**more: str) -> WorkerProcess:
        return workers.start_program([sys.executable, "-m", "arq", "everything.WorkerSettings"], env={**common, **more})

    return start


async def live_through_everything(
    tracker: Tracker, pool: ArqRedis, start: Callable[..., WorkerProcess], seen: Path, *, is_noted: Callable[[], bool] = lambda: True
) -> None:
    """Jobs that end, a loop that blocks, a job that dies with its worker three times, orphans that nobody may recover, orderly ends.

    ``pool`` may do anything; ``tracker`` asks; ``seen`` is the file that ends the block, `SEEN` in the folder of the workers,
    and the block goes on until ``is_noted``.
    """
    worker = start()
    await pool.enqueue_job("quick", _job_id="quick")
    await pool.enqueue_job("block", _job_id="block")
    await wait_until(lambda: _any_blocked(tracker), timeout=30, description="the watchdog tells of the loop that is blocked")
    await wait_until(is_noted, timeout=30, description="what stands in Redis of a block is noted")
    seen.touch()
    await pool.enqueue_job("long", _job_id="pill")
    await wait_until(lambda: _runs(tracker, 1), timeout=30, description="the first try is in flight")
    worker.kill()
    worker = start()
    await wait_until(lambda: _runs(tracker, 2), timeout=30, description="the second try is in flight, at once")
    worker.kill()
    worker = start()
    await wait_until(lambda: _is_put_off(pool), timeout=30, description="the third try is put off")
    await pool.zadd("arq:queue", {"pill": 1})
    await wait_until(lambda: _runs(tracker, 3), timeout=30, description="the third try is in flight")
    watching = start(TRACKER_RECOVER="no")
    await wait_until(lambda: _count(tracker, 2), timeout=30, description="an instance that only watches is there")
    worker.kill()
    await wait_until(tracker.orphans, timeout=30, description="the job is an orphan that nobody recovers")
    last = start()
    await wait_until(tracker.quarantined, timeout=30, description="the job is in quarantine")
    for worker in (watching, last):
        worker.ask_to_leave()
        worker.wait()


async def _runs(tracker: Tracker, job_try: int) -> bool:
    job = await tracker.job("pill")
    return job is not None and job.job_try == job_try


async def _is_put_off(pool: ArqRedis) -> bool:
    score = await pool.zscore("arq:queue", "pill")
    seconds, _ = await pool.time()
    return score is not None and score > seconds * 1000 + 1000


async def _any_blocked(tracker: Tracker) -> bool:
    return any(instance.blocked_at for instance in await tracker.instances())


async def _count(tracker: Tracker, wanted: int) -> bool:
    return len(await tracker.instances()) == wanted
