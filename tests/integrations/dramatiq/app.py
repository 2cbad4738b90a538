"""What the dramatiq processes of the tests run: ``dramatiq tests.integrations.dramatiq.app``, told by TEST_… variables."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO, CurrentMessage

from async_tracker import Tracker, current_job
from async_tracker.integrations.dramatiq import TrackerMiddleware
from tests.harness.ledger import Ledger
from tests.harness.wait import wait_until, wait_until_sync

# ``dramatiq`` imports this module in every worker; pytest does when it looks for doctests.
URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:1/0")
ledger = Ledger(os.environ.get("TEST_LEDGER", os.devnull))

broker = RedisBroker(url=URL)  # the default middlewares are on: AgeLimit, TimeLimit, ShutdownNotifications, Callbacks, Pipelines, Retries
broker.broker_id = os.environ.get("TEST_BROKER_ID") or broker.broker_id
broker.add_middleware(AsyncIO())
broker.add_middleware(CurrentMessage())
tracker = Tracker(namespace=os.environ.get("TEST_NAMESPACE", "test"), **json.loads(os.environ.get("TEST_SETTINGS", "{}")))
broker.add_middleware(TrackerMiddleware(tracker, abort="TEST_ABORT" in os.environ))
dramatiq.set_broker(broker)


def message_id() -> str:
    message = CurrentMessage.get_current_message()
    assert message is not None
    return message.message_id


@dramatiq.actor
def hold(seconds: float) -> None:
    """Block this thread."""
    with ledger.run(message_id()):
        time.sleep(seconds)


@dramatiq.actor
def until_told(path: str) -> None:
    """Block this thread until the file exists: for as long as the test needs, however long the machine takes for it."""
    with ledger.run(message_id()):
        wait_until_sync(Path(path).exists, timeout=600.0, poll_interval=0.02, description="the test has told it to end")


@dramatiq.actor
def interrupted(again: float = 0.05) -> None:
    """Block this thread until its process ends, however long the test takes to see to it; the next time for ``again`` seconds."""
    is_first = not ledger.read().runs_of(message_id())
    with ledger.run(message_id()):
        time.sleep(60.0 if is_first else again)


@dramatiq.actor(queue_name="slow")
async def hold_async(seconds: float) -> None:
    with ledger.run(message_id()):
        await asyncio.sleep(seconds)


@dramatiq.actor
def report(fraction: float, path: str) -> None:
    """Say how far it is, from a plain function."""
    job = current_job()
    assert job is not None
    job.progress(fraction, f"{job.function} {job.job_try} {job.queue}")
    with ledger.run(job.job_id):
        wait_until_sync(Path(path).exists, timeout=600.0, poll_interval=0.02, description="the test has told it to end")


@dramatiq.actor
async def report_async(fraction: float, path: str) -> None:
    job = current_job()
    assert job is not None
    await job.progress(fraction, "from a coroutine")
    await job.ensure_owned()
    with ledger.run(job.job_id):
        await wait_until(Path(path).exists, timeout=600.0, poll_interval=0.02, description="the test has told it to end")


@dramatiq.actor(max_retries=0)
def fail() -> None:
    with ledger.run(message_id()):
        raise ValueError("told to")


@dramatiq.actor(max_retries=3, min_backoff=10, max_backoff=20)
def fail_once() -> None:
    job = current_job()
    assert job is not None
    with ledger.run(job.job_id, attempt=job.job_try):
        if job.job_try == 1:
            raise ValueError("told to")


@dramatiq.actor(max_retries=0, time_limit=200)
def exceed() -> None:
    with ledger.run(message_id()):
        for _ in range(3_000):
            time.sleep(0.01)


@dramatiq.actor(max_retries=0, notify_shutdown=True)
def until_shutdown() -> None:
    with ledger.run(message_id()):
        for _ in range(3_000):
            time.sleep(0.01)


@dramatiq.actor(max_age=1)
def too_old() -> None:
    with ledger.run(message_id()):
        pass


@dramatiq.actor
def die_at_once() -> None:
    """Kill its worker in the first statement."""
    os.kill(os.getpid(), signal.SIGKILL)


@dramatiq.actor
def die_after(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)
