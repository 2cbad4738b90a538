"""A worker that has nothing to do, and others beside it: ``python -m benchmarks.idle worker URL WAY SECONDS`` or ``others URL COUNT``."""

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

from arq.connections import RedisSettings
from arq.worker import Worker, func

from async_tracker import Tracker
from benchmarks.processes import NAMESPACE, QUEUE

_SETTLING_SECONDS = 3.0
"""Until a worker has registered, has tried to become the sweeper, and has nothing more to begin; a shorter round is a trial."""


async def noop(ctx: object) -> None:
    """The function that is never called."""


async def idle(url: str, way: str, seconds: float) -> float:
    """Run a worker without a job, and give the share of a core that it takes."""
    arguments: dict[str, Any] = {"functions": [func(noop, name="noop")], "queue_name": QUEUE, "redis_settings": RedisSettings.from_dsn(url)}
    if way == "tracked":
        arguments = Tracker(namespace=NAMESPACE).install(arguments)
    worker = Worker(**arguments, handle_signals=False)
    running = asyncio.create_task(worker.main())
    await asyncio.sleep(min(_SETTLING_SECONDS, seconds))
    began, began_cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    share = (time.process_time() - began_cpu) / (time.perf_counter() - began)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await worker.close()
    return share


async def others(url: str, count: int) -> None:
    """Have so many instances registered until the standard input ends."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            tracker = await stack.enter_async_context(Tracker(namespace=NAMESPACE, redis_options={"url": url}))
            await stack.enter_async_context(tracker.register(queue=QUEUE, concurrency=10))
        print("registered", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    what, url, *rest = sys.argv[1:]
    if what == "worker":
        print(json.dumps(asyncio.run(idle(url, rest[0], float(rest[1])))))
    else:
        asyncio.run(others(url, int(rest[0])))
