"""What the jobs of every library do, whichever runs them: they tell the ledger, and find their job by ``current_job()``."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from async_tracker import CurrentJob, Tracker, current_job
from tests.harness.ledger import Ledger
from tests.harness.wait import wait_until

URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:1/0")
ledger = Ledger(os.environ.get("TEST_LEDGER", os.devnull))


def make_tracker(**arguments: Any) -> Tracker:
    """Make the tracker of a worker, as the test wants it."""
    settings = json.loads(os.environ.get("TEST_SETTINGS", "{}"))
    return Tracker(namespace=os.environ.get("TEST_NAMESPACE", "test"), **settings, **arguments)


def _job() -> CurrentJob:
    job = current_job()
    assert job is not None, "a tracked job finds itself"
    return job


async def hold(seconds: float, until: str = "") -> None:
    """Run for so long, or until the file exists: for as long as the test needs, however long the machine takes for it."""
    job = _job()
    await job.progress(0.5, "half way")
    with ledger.run(job.job_id, attempt=job.job_try):
        if until:
            await wait_until(Path(until).exists, timeout=seconds, poll_interval=0.02, description="the test has told it to end")
        else:
            await asyncio.sleep(seconds)


async def fail() -> None:
    job = _job()
    with ledger.run(job.job_id, attempt=job.job_try):
        raise ValueError("told to")


async def die(after: float = 0.0) -> None:
    time.sleep(after)  # the loop has no turn in which it could tell of the job
    os.kill(os.getpid(), signal.SIGKILL)
