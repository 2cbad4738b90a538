"""One real arq worker process under measurement: ``python -m benchmarks.worker '{...}'`` prints what it measured as JSON.

It works off a queue that was filled before it started. From the end of the warm-up to the last job it takes the time, the
processor time and the server's counters; nothing before and nothing after counts.
"""

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker, func
from redis.asyncio.connection import AbstractConnection

from async_tracker import Tracker
from benchmarks.far import far_pool
from benchmarks.gem import GemTracker
from benchmarks.meter import Meter
from benchmarks.parts import time_parts

POLL_SECONDS = 0.005
"""arq's default of half a second would hide every cost behind waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a worker is to do. ``way``: untracked, tracked, durable, dedicated or gem."""

    way: str
    url: str
    counters_url: str
    queue: str
    namespace: str
    max_jobs: int
    warmup: int
    jobs: int
    pool_limit: int | None = None
    counts_round_trips: bool = False
    job_seconds: float = 0.0
    per_second: float = 0.0
    """How many jobs a second become due; with 0 all are due from the beginning."""
    far_seconds: float = 0.0
    times_parts: bool = False


def measured(load: Load) -> dict[str, Any]:
    """Work the queue off and return what was measured."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    with redis.Redis.from_url(load.counters_url) as client:
        client.ping()
        meter = Meter(load, client)
        if load.counts_round_trips:
            count_round_trips(meter)
        arguments = worker_arguments(load, meter)
        seconds: dict[str, float] = {}
        if load.times_parts:
            arguments, seconds = time_parts(arguments)
        worker = Worker(**arguments)
        time_jobs(worker, meter)
        worker.run()
        parts_us = {label: taken / meter.done * 1e6 for label, taken in seconds.items()}
        return {**meter.found, "service_ms": meter.service_ms, "parts_us_per_job": parts_us}


def worker_arguments(load: Load, meter: Meter) -> dict[str, Any]:
    """Give the keyword arguments of an arq worker, tracked in the way that is asked for."""

    async def noop(ctx: dict[str, Any]) -> None:
        if load.job_seconds:
            await asyncio.sleep(load.job_seconds)
        meter.note()

    arguments: dict[str, Any] = {
        "functions": [func(noop, name="noop")],
        "queue_name": load.queue,
        "burst": True,
        "max_jobs": load.max_jobs,
        "poll_delay": POLL_SECONDS,
        "queue_read_limit": load.warmup + load.jobs,
        **_connection(load),
    }
    return _ways()[load.way](arguments, load)


def _connection(load: Load) -> dict[str, Any]:
    if load.far_seconds:
        return {"redis_pool": ArqRedis(far_pool(load.url, load.far_seconds))}
    if load.pool_limit is None:
        return {"redis_settings": RedisSettings.from_dsn(load.url)}
    pool = redis.asyncio.BlockingConnectionPool.from_url(load.url, max_connections=load.pool_limit, timeout=None)
    return {"redis_pool": ArqRedis(pool)}


def _ways() -> dict[str, Callable[[dict[str, Any], Load], dict[str, Any]]]:
    return {"untracked": _untracked, "control": _untracked, "tracked": _tracked, "durable": _durable, "dedicated": _dedicated, "gem": _gem}


def _untracked(arguments: dict[str, Any], load: Load) -> dict[str, Any]:
    return arguments


def _tracked(arguments: dict[str, Any], load: Load) -> dict[str, Any]:
    return Tracker(namespace=load.namespace).install(arguments)


def _durable(arguments: dict[str, Any], load: Load) -> dict[str, Any]:
    return Tracker(namespace=load.namespace, durable=True).install(arguments)


def _dedicated(arguments: dict[str, Any], load: Load) -> dict[str, Any]:
    if load.far_seconds:  # a client of its own, as the tracker would make it, except that its replies are held back
        client = redis.asyncio.Redis(connection_pool=far_pool(load.url, load.far_seconds))
        return Tracker(namespace=load.namespace, redis=client).install(arguments)
    return Tracker(namespace=load.namespace, redis_options={"url": load.url}).install(arguments)


def _gem(arguments: dict[str, Any], load: Load) -> dict[str, Any]:
    gem = GemTracker(load.namespace, queue=load.queue)
    functions = [dataclasses.replace(item, coroutine=gem.tracked(item.coroutine, name=item.name)) for item in arguments["functions"]]
    return {**arguments, "functions": functions, "on_startup": gem.on_startup, "on_shutdown": gem.on_shutdown}


def time_jobs(worker: Any, meter: Meter) -> None:
    """Take how long each job occupies the worker, from its claim to its acknowledgement."""
    run_job = worker.run_job

    async def timed(job_id: str, score: int) -> None:
        began = time.perf_counter()
        try:
            await run_job(job_id, score)
        finally:
            meter.service_ms.append((time.perf_counter() - began) * 1000.0)

    worker.run_job = timed


def count_round_trips(meter: Meter) -> None:
    """Count what this process sends: each packet of commands is answered before the next one goes out on its connection."""
    send = AbstractConnection.send_packed_command

    async def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        meter.round_trips += 1
        await send(self, *args, **kwargs)

    setattr(AbstractConnection, "send_packed_command", counted)  # noqa: B010 - a method is not assigned where types are checked


if __name__ == "__main__":
    print(json.dumps(measured(Load(**json.loads(sys.argv[1])))))
