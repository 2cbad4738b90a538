"""A worker of the library that the page on integrations adds, running that page's code."""

import asyncio
import contextlib
import importlib
import signal

import redis.asyncio

from tests.integrations.conformance import jobs


async def work() -> None:
    listq, tracked_listq = importlib.import_module("listq"), importlib.import_module("tracked_listq")
    client = redis.asyncio.Redis.from_url(jobs.URL)
    functions = {"hold": jobs.hold, "fail": jobs.fail, "die": jobs.die}
    worker = listq.Worker(client, functions, contextlib.nullcontext)
    async with jobs.make_tracker(redis=client) as tracker, tracked_listq.tracked(worker, tracker):
        await worker.run()


async def main() -> None:
    task = asyncio.create_task(work())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    asyncio.run(main())
