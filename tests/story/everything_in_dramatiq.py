"""A fleet of dramatiq in which everything happens that the tracker knows of, for the page that says what must be allowed."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import redis.asyncio
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from async_tracker import InstanceState, Tracker
from tests.harness.wait import wait_until
from tests.harness.workers import WorkerProcess, Workers

WORKER = """
import asyncio, os, time
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from async_tracker import Tracker, current_job
from async_tracker.integrations.dramatiq import TrackerMiddleware

broker = RedisBroker(url=os.environ["REDIS_URL"], maintenance_chance=1_000_000)
settings = dict(heartbeat_interval=0.3, heartbeat_ttl=60, disconnect_grace=0.3, instance_id="pod")
broker.add_middleware(TrackerMiddleware(Tracker.from_env(namespace="my_app", **settings)))
dramatiq.set_broker(broker)

@dramatiq.actor(max_retries=1, min_backoff=10, max_backoff=20)
def quick(fails):
    asyncio.run(current_job().ensure_owned())
    if fails:
        raise ValueError("told to")

@dramatiq.actor
def long():
    current_job().progress(0.5, "half way")
    time.sleep(300)
"""

SECONDS = 60.0


def starter(workers: Workers, folder: Path, env: Mapping[str, str]) -> Callable[[], WorkerProcess]:
    """Return what starts one master of the fleet, with one process of one thread."""
    (folder / "everything_in_dramatiq.py").write_text(WORKER)
    common = {"PYTHONPATH": str(folder), "TRACKER_MAX_RECOVERIES": "2", "dramatiq_worker_timeout": "100", **env}
    command = [sys.executable, "-m", "dramatiq", "everything_in_dramatiq", "-p", "1", "-t", "1"]
    return lambda: workers.start_program(command, env=common)


async def live_through_everything(
    tracker: Tracker, admin: redis.asyncio.Redis, broker: RedisBroker, start: Callable[[], WorkerProcess]
) -> None:
    """Messages that end, fail and are retried, one that dies with its process three times, dramatiq's own maintenance, an orderly end.

    ``broker`` and ``admin``, on the same Redis, may do anything; ``tracker`` asks.
    """
    start()
    start()
    await wait_until(lambda: _alive(tracker, 2), timeout=SECONDS, description="two processes are there", poll_interval=0.1)
    send(broker, "quick", False, message_id="good")
    send(broker, "quick", True, message_id="bad")
    await wait_until(lambda: admin.exists("dramatiq:default.XQ"), timeout=SECONDS, description="the failed one is a dead letter")
    send(broker, "long", message_id="pill")
    dead = ""
    for death in range(3):
        pid, dead = await _holder(tracker, other_than=dead)
        os.kill(pid, signal.SIGKILL)
        await wait_until(
            lambda died=death + 1: _deaths(tracker, died), timeout=SECONDS, description="its death is noticed", poll_interval=0.1
        )
        last = start()
    await wait_until(tracker.quarantined, timeout=SECONDS, description="the message is in quarantine", poll_interval=0.1)
    await wait_until(lambda: _alive(tracker, 2), timeout=SECONDS, description="two processes are there again", poll_interval=0.1)
    await admin.zadd("dramatiq:__heartbeats__", {"long-dead": 1})
    await wait_until(lambda: _is_forgotten(admin), timeout=SECONDS, description="dramatiq looks after its dead", poll_interval=0.1)
    last.ask_to_leave()
    last.wait()


def send(broker: RedisBroker, actor: str, *args: Any, message_id: str) -> None:
    """Enqueue a message."""
    message: Message[Any] = Message(queue_name="default", actor_name=actor, args=args, kwargs={}, options={}, message_id=message_id)
    broker.enqueue(message)


async def _alive(tracker: Tracker, wanted: int) -> bool:
    return sum(instance.state is InstanceState.ALIVE for instance in await tracker.instances()) == wanted


async def _holder(tracker: Tracker, *, other_than: str) -> tuple[int, str]:
    async def find() -> tuple[int, str] | None:
        job = await tracker.job("pill")
        instance = await tracker.instance(job.instance_id) if job is not None and job.instance_id != other_than else None
        return (instance.pid, instance.instance_id) if instance is not None else None

    found = await wait_until(find, timeout=SECONDS, description="the message is in flight, on another instance", poll_interval=0.1)
    assert found is not None
    return found


async def _deaths(tracker: Tracker, wanted: int) -> bool:
    return (await tracker.stats()).orphaned == wanted


async def _is_forgotten(admin: redis.asyncio.Redis) -> bool:
    return await admin.zscore("dramatiq:__heartbeats__", "long-dead") is None
