"""A worker of nobody's library, which is given the conformance jobs through a list in Redis."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Awaitable, Callable

import redis.asyncio

from tests.integrations.conformance import jobs

QUEUE = "plain:jobs"
FUNCTIONS: dict[str, Callable[..., Awaitable[None]]] = {"hold": jobs.hold, "fail": jobs.fail, "die": jobs.die}


async def work() -> None:
    client = redis.asyncio.Redis.from_url(jobs.URL)
    async with jobs.make_tracker(redis=client) as tracker, tracker.register(queue=QUEUE, concurrency=1, functions=FUNCTIONS):
        while True:
            taken = await client.blpop([QUEUE], timeout=1)
            if taken is not None:
                job_id, function, args = json.loads(taken[1])
                with contextlib.suppress(ValueError):
                    async with tracker.track(job_id, function=function, queue=QUEUE):
                        await FUNCTIONS[function](*args)


async def main() -> None:
    task = asyncio.create_task(work())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    asyncio.run(main())
