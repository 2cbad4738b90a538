"""A tracked arq worker to be killed: ``python -m benchmarks.victim '{...}'``. Its jobs write their starts and ends to a file."""

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from arq.connections import RedisSettings
from arq.worker import Worker, func

from async_tracker import Tracker

TIMES = 1_000
"""How often a job may be tried, and may die with its worker: here healthy jobs are killed again and again, and none of them is a pill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a victim works on; but for `TIMES`, all settings that are not named here are the defaults."""

    url: str
    queue: str
    namespace: str
    log_path: str
    elsewhere: bool = False
    """Pass for a worker on another host, as the kernel would show it there."""


def write_line(log_path: str, *words: object) -> None:
    """Write one line in one go: processes do not mix theirs, and a SIGKILL takes none back."""
    handle = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(handle)


def work(orders: Orders) -> None:
    """Run the worker until it is killed."""
    asyncio.set_event_loop(asyncio.new_event_loop())

    async def take(ctx: dict[str, Any], seconds: float) -> None:
        write_line(orders.log_path, "start", ctx["job_id"], os.getpid(), time.monotonic_ns())
        await asyncio.sleep(seconds)
        write_line(orders.log_path, "end", ctx["job_id"], os.getpid(), time.monotonic_ns())

    async def block(ctx: dict[str, Any], seconds: float) -> None:
        write_line(orders.log_path, "start", ctx["job_id"], os.getpid(), time.monotonic_ns())
        time.sleep(seconds if ctx["job_try"] == 1 else 0.0)  # noqa: ASYNC251 - that is what it is for
        write_line(orders.log_path, "end", ctx["job_id"], os.getpid(), time.monotonic_ns())

    if orders.elsewhere:
        readlink = os.readlink
        os.readlink = lambda path, **options: "pid:[1]" if path == "/proc/self/ns/pid" else readlink(path, **options)  # type: ignore[assignment]
    settings: dict[str, Any] = {
        "functions": [func(take, name="take"), func(block, name="block")],
        "queue_name": orders.queue,
        "redis_settings": RedisSettings.from_dsn(orders.url),
        "max_tries": TIMES,
    }
    Worker(**Tracker(namespace=orders.namespace, max_recoveries=TIMES).install(settings)).run()


if __name__ == "__main__":
    work(Orders(**json.loads(sys.argv[1])))
