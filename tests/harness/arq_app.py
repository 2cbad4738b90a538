"""A plain arq worker, untracked, for the tests of the harness itself."""

import asyncio
import os
from typing import Any, ClassVar

from arq.connections import RedisSettings

from tests.harness.ledger import Ledger


async def hold(ctx: dict[str, Any], seconds: float) -> None:
    with Ledger(os.environ["TEST_LEDGER"]).run(ctx["job_id"], attempt=ctx["job_try"]):
        await asyncio.sleep(seconds)


class WorkerSettings:
    functions: ClassVar = [hold]
    redis_settings = RedisSettings.from_dsn(os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:1/0"))
    poll_delay = 0.05
