"""An idle worker, and others beside it: ``python -m benchmarks.idle worker URL WAY SECONDS``, ``others URL KIND COUNT``."""

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
_BETWEEN_SECONDS = 0.05
"""Between the beginnings of two workers of one process, so that they do not all turn at one moment."""


async def noop(ctx: object) -> None:
    """The function that is never called."""


async def idle(url: str, way: str, seconds: float) -> float:
    """Run a worker without a job, and give the share of a core that it takes."""
    worker = _worker(url, is_tracked=way == "tracked")
    running = asyncio.create_task(worker.main())
    await asyncio.sleep(min(_SETTLING_SECONDS, seconds))
    began, began_cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    share = (time.process_time() - began_cpu) / (time.perf_counter() - began)
    await _end(worker, running)
    return share


def _worker(url: str, *, is_tracked: bool) -> Worker:
    arguments: dict[str, Any] = {"functions": [func(noop, name="noop")], "queue_name": QUEUE, "redis_settings": RedisSettings.from_dsn(url)}
    return Worker(**(Tracker(namespace=NAMESPACE).install(arguments) if is_tracked else arguments), handle_signals=False)


async def others(url: str, kind: str, count: int) -> None:
    """Have so many instances registered until the standard input ends.

    Those of the kind ``asyncio`` leave the lease of arq's workers to the one that is measured, so that it is the sweeper; of those that
    are ``arq`` workers themselves one holds it, and the one that comes later is a stand-by.
    """
    begin = _register if kind == "asyncio" else _work
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await begin(stack, url)
        print("registered", flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def _register(stack: AsyncExitStack, url: str) -> None:
    tracker = await stack.enter_async_context(Tracker(namespace=NAMESPACE, redis_options={"url": url}))
    await stack.enter_async_context(tracker.register(queue=QUEUE, concurrency=10))


async def _work(stack: AsyncExitStack, url: str) -> None:
    worker = _worker(url, is_tracked=True)
    running = asyncio.create_task(worker.main())
    stack.push_async_callback(_end, worker, running)
    await asyncio.sleep(_BETWEEN_SECONDS)


async def _end(worker: Worker, running: "asyncio.Task[None]") -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await worker.close()


if __name__ == "__main__":
    what, url, *rest = sys.argv[1:]
    if what == "worker":
        print(json.dumps(asyncio.run(idle(url, rest[0], float(rest[1])))))
    else:
        asyncio.run(others(url, rest[0], int(rest[1])))
