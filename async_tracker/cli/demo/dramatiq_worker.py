"""The dramatiq worker of the demo, as a user would write one: ``dramatiq async_tracker.cli.demo.dramatiq_worker:set_up``."""

import json
import os
import time
from contextlib import AbstractContextManager
from pathlib import Path

import dramatiq

from async_tracker.cli.demo.dramatiq_crew import make_broker
from async_tracker.cli.demo.ledger import Ledger
from async_tracker.cli.demo.worker import CONFIGURATION, HEARTBEAT_INTERVAL, HEARTBEAT_TTL
from async_tracker.embedded import end_with_own_parent
from async_tracker.instance.runs import CurrentJob, current_job
from async_tracker.integrations.dramatiq.middleware import TrackerMiddleware
from async_tracker.tracker import Tracker

_PROGRESS_STEPS = 10


def quick() -> None:
    """Most jobs are like this one."""
    with _noted(_job()):
        time.sleep(0.02)


def slow(seconds: float) -> None:
    """Take a while, and say how far it is."""
    job = _job()
    with _noted(job):
        for step in range(_PROGRESS_STEPS):
            job.progress(step / _PROGRESS_STEPS, f"step {step + 1} of {_PROGRESS_STEPS}")
            time.sleep(seconds / _PROGRESS_STEPS)


def failing() -> None:
    """Fail, as some jobs do."""
    with _noted(_job()):
        time.sleep(0.02)
        raise ValueError("this job always fails")


def flaky() -> None:
    """Ask to be tried again the first time."""
    job = _job()
    with _noted(job):
        time.sleep(0.02)
        if job.job_try == 1:
            raise dramatiq.Retry(delay=300)


def blocking(seconds: float) -> None:
    """Hold one thread; the others go on."""
    with _noted(_job()):
        time.sleep(seconds)


def _job() -> CurrentJob:
    job = current_job()
    if job is None:
        raise RuntimeError("the demo's worker is not tracked: its log says why")
    return job


def _noted(job: CurrentJob) -> AbstractContextManager[None]:
    configuration = json.loads(os.environ[CONFIGURATION])
    return Ledger(Path(configuration["ledger"])).run(job.job_id, job.job_try, retry=dramatiq.Retry)


def set_up() -> None:
    """Make the broker of one process and declare its actors."""
    configuration = json.loads(os.environ[CONFIGURATION])
    end_with_own_parent()  # the master ends with the demo, and this process with its master
    broker = make_broker(configuration["url"], configuration["namespace"])
    tracker = Tracker(
        namespace=configuration["namespace"],
        instance_id=configuration["name"],
        heartbeat_interval=HEARTBEAT_INTERVAL,
        heartbeat_ttl=HEARTBEAT_TTL,
    )
    broker.add_middleware(TrackerMiddleware(tracker))
    dramatiq.set_broker(broker)
    for function in (quick, slow, flaky, blocking):
        dramatiq.actor(broker=broker)(function)
    dramatiq.actor(broker=broker, max_retries=0)(failing)
