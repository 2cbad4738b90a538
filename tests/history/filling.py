"""A history as a fleet would have left it, written at once."""

import math
import random

import redis.asyncio

from async_tracker.history.histogram import Histogram
from async_tracker.history.keeper import HistoryKeeper
from async_tracker.history.packing import Span
from async_tracker.store import keys
from async_tracker.store.commands import Store

RUNS_A_MINUTE = 200


async def keep(keeper: HistoryKeeper, now_ms: int) -> None:
    """Have all of it done that is to be done by now, in as many turns as that takes."""
    await keeper.keep(now_ms)
    while keeper.is_behind:
        await keeper.keep(now_ms)


async def count_in(store: Store, minute: int, fields: dict[str, int]) -> None:
    """Put counters into a minute as ``count.lua`` would have done then."""
    await store.redis.hset(keys.minute(minute), mapping=fields)
    await store.redis.expire(keys.minute(minute), 90_000)
    await store.redis.zadd(keys.MINUTES, {str(minute): minute})
    await store.redis.zadd(keys.SERIES, {"[" + name.partition("[")[2]: minute for name in fields})
    for key in (keys.MINUTES, keys.SERIES):
        await store.redis.expire(key, 90_000)


async def bytes_of_all_keys(client: redis.asyncio.Redis) -> int:
    """Add up what the server says that each key takes. Its memory as a whole is that and a share that is never twice the same."""
    names = [key async for key in client.scan_iter(count=1_000)]
    async with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.memory_usage(name, samples=0)
        return sum(await pipe.execute())


class BusyFunction:
    """A function that runs all the time, its run times and waits spread as widely as those of real ones."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._run = math.log(rng.choice([5, 30, 200, 3_000])), rng.choice([0.4, 0.8, 1.2])
        self._wait = math.log(rng.choice([2, 20, 500])), 1.5

    def span(self, *, runs: int = RUNS_A_MINUTE) -> Span:
        """Give the counters of a span of time with so many runs."""
        run, wait = Histogram(), Histogram()
        run.add(self._rng.lognormvariate(*self._run) for _ in range(runs))
        wait.add(self._rng.lognormvariate(*self._wait) for _ in range(runs))
        failed = runs // 40
        counters = {"started": runs, "succeeded": runs - failed, "failed": failed, "run_ms": runs * 150, "wait_ms": runs * 45}
        return Span(counters, run, wait)
