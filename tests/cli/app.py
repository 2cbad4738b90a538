"""A tracked arq worker that holds its jobs until it is killed."""

import asyncio
import os
from typing import Any, ClassVar

from arq.connections import RedisSettings

from async_tracker import Tracker

tracker = Tracker.from_env()


async def hold(ctx: dict[str, Any], seconds: float) -> None:
    print(f"holding {ctx['job_id']}", flush=True)
    await asyncio.sleep(seconds)


@tracker.install
class WorkerSettings:
    functions: ClassVar = [hold]
    redis_settings = RedisSettings.from_dsn(os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:1/0"))
    queue_name = os.environ.get("TEST_QUEUE", "arq:queue")
    poll_delay = 0.05
