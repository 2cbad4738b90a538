"""Two tracked arq workers in one process and one event loop, of one tracker: ``python -m tests.integrations.arq.two_workers``."""

import asyncio
import logging
import os
import sys
from typing import Any

from arq.connections import RedisSettings
from arq.worker import Worker

from async_tracker import Tracker

namespace = os.environ.get("TEST_NAMESPACE", "test_app")
tracker = Tracker(namespace=namespace, heartbeat_interval=0.5, hook_timeout=5.0)


async def hold(ctx: dict[Any, Any]) -> None:
    await asyncio.sleep(60)


async def main() -> None:
    redis_settings = RedisSettings.from_dsn(os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:1/0"))
    settings: dict[str, Any] = tracker.install({"functions": [hold], "poll_delay": 0.05, "handle_signals": False})
    workers = [Worker(**settings, queue_name=f"{name}:{namespace}", redis_settings=redis_settings) for name in ("one", "two")]
    await asyncio.gather(*[worker.async_run() for worker in workers])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    asyncio.run(main())
