"""A tracked arq worker, as its command starts it."""

import asyncio
import os
import sys

from arq.connections import RedisSettings

from async_tracker import Tracker

namespace = os.environ.get("TEST_NAMESPACE", "test_app")
tracker = Tracker(namespace=namespace, heartbeat_interval=0.5, hook_timeout=5.0)  # its end is waited for on a busy machine too


async def hold(ctx):
    await asyncio.sleep(60)


async def leave(ctx):
    sys.exit(3)


async def leave_at_once(ctx):
    os._exit(4)


@tracker.install
class WorkerSettings:
    functions = [hold, leave, leave_at_once]  # noqa: RUF012 - as anybody writes it
    queue_name = f"queue:{namespace}"
    redis_settings = RedisSettings.from_dsn(os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:1/0"))
    poll_delay = 0.05
