"""An arq worker that is told to trace its runs, as a process of its own, to be killed."""

import asyncio
import os
from typing import Any

from arq.connections import RedisSettings
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from async_tracker import Tracker
from tests.crash.fleet import SWIFT

if "TEST_NAMESPACE" in os.environ:  # else it is only looked at, in a process that has a provider of its own
    trace.set_tracer_provider(TracerProvider())
URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:1/0")
tracker = Tracker(namespace=os.environ.get("TEST_NAMESPACE", "test"), redis_options={"url": URL}, telemetry=True, **SWIFT)


async def hold(ctx: dict[str, Any]) -> None:
    await asyncio.sleep(600)


@tracker.install
class WorkerSettings:
    functions = (hold,)
    redis_settings = RedisSettings.from_dsn(URL)
    queue_name = "traced"
    poll_delay = 0.1
