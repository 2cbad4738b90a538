"""The worker of the demo, as a user would write one: ``arq async_tracker.cli.demo.worker.WorkerSettings``."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from arq import Retry
from arq.connections import RedisSettings

from async_tracker.cli.demo.ledger import Ledger
from async_tracker.instance.runs import current_job
from async_tracker.tracker import Tracker

CONFIGURATION = "ASYNC_TRACKER_DEMO"
"""The variable that holds what a worker must know, as JSON; nothing else of the environment is read."""

HEARTBEAT_INTERVAL, HEARTBEAT_TTL = 1.0, 3.0
"""Seconds; a fifth of the defaults, so that a blocked loop shows sooner. A kill is noticed by other evidence."""

_PROGRESS_STEPS = 10

Ctx = dict[str, Any]


async def quick(ctx: Ctx) -> None:
    """Most jobs are like this one."""
    with _noted(ctx):
        await asyncio.sleep(0.02)


async def slow(ctx: Ctx, seconds: float) -> None:
    """Take a while, and say how far it is."""
    job = current_job()
    with _noted(ctx):
        for step in range(_PROGRESS_STEPS):
            if job is not None:
                await job.progress(step / _PROGRESS_STEPS, f"step {step + 1} of {_PROGRESS_STEPS}")
            await asyncio.sleep(seconds / _PROGRESS_STEPS)


async def failing(ctx: Ctx) -> None:
    """Fail, as some jobs do."""
    with _noted(ctx):
        await asyncio.sleep(0.02)
        raise ValueError("this job always fails")


async def flaky(ctx: Ctx) -> None:
    """Ask to be tried again the first time."""
    with _noted(ctx):
        await asyncio.sleep(0.02)
        if ctx["job_try"] == 1:
            raise Retry(defer=0.3)


async def blocking(ctx: Ctx, seconds: float) -> None:
    """Do what no coroutine should: hold the whole event loop, and with it every other job of the worker."""
    with _noted(ctx):
        time.sleep(seconds)  # noqa: ASYNC251 - that is the point


def _noted(ctx: Ctx) -> AbstractContextManager[None]:
    ledger: Ledger = ctx["ledger"]
    return ledger.run(ctx["job_id"], ctx["job_try"], retry=Retry)


def worker_settings(configuration: Mapping[str, str]) -> type:
    """Make the WorkerSettings of one worker."""
    tracker = Tracker(
        namespace=configuration["namespace"],
        instance_id=configuration["name"],
        heartbeat_interval=HEARTBEAT_INTERVAL,
        heartbeat_ttl=HEARTBEAT_TTL,
    )

    @tracker.install
    class WorkerSettings:
        functions: ClassVar = [quick, slow, failing, flaky, blocking]
        redis_settings = RedisSettings.from_dsn(configuration["url"])
        queue_name = configuration["queue"]
        keep_result = 60
        ctx: ClassVar = {"ledger": Ledger(Path(configuration["ledger"]))}

    return WorkerSettings


def __getattr__(name: str) -> Any:
    # arq asks a module for its settings; importing a module must not read the environment.
    if name == "WorkerSettings":
        return worker_settings(json.loads(os.environ[CONFIGURATION]))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
