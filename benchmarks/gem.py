"""The baseline: tracking as the Ruby gem sidekiq-processing-tracker does it, carried over to arq as it is.

Its middleware awaits one transaction before the job (the id into a set, the whole payload into a key) and one after it. Its
queries ask for ``KEYS`` and then for every job by itself.
"""

import asyncio
import functools
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

HEARTBEAT_INTERVAL = 15.0
HEARTBEAT_TTL_SECONDS = 45

Job = Callable[..., Awaitable[Any]]


class GemTracker:
    """One worker process, tracked the gem's way on the pool of its own worker."""

    def __init__(self, namespace: str, *, queue: str) -> None:
        self._namespace = namespace
        self._queue = queue
        self._instance_id = secrets.token_hex(8)
        self._beats: asyncio.Task[None] | None = None

    def _key(self, name: str) -> str:
        return f"{self._namespace}:{name}"

    async def on_startup(self, ctx: dict[str, Any]) -> None:
        """Send the first heartbeat, and one every 15 seconds."""
        await self._beat(ctx["redis"])
        self._beats = asyncio.create_task(self._keep_beating(ctx["redis"]))

    async def on_shutdown(self, ctx: dict[str, Any]) -> None:
        """Delete the heartbeat; jobs in flight are left to the next instance that starts."""
        if self._beats is not None:
            self._beats.cancel()
        await ctx["redis"].delete(self._key(f"instance:{self._instance_id}"))

    async def _keep_beating(self, redis: Any) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_INTERVAL)
            await self._beat(redis)

    async def _beat(self, redis: Any) -> None:
        await redis.setex(self._key(f"instance:{self._instance_id}"), HEARTBEAT_TTL_SECONDS, time.time())

    def tracked(self, job: Job, *, name: str) -> Job:
        """Wrap a job in the gem's middleware."""

        @functools.wraps(job)
        async def middleware(ctx: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            redis, job_id = ctx["redis"], ctx["job_id"]
            jobs, record = self._key(f"jobs:{self._instance_id}"), self._key(f"job:{job_id}")
            async with redis.pipeline(transaction=True) as pipe:
                pipe.sadd(jobs, job_id)
                pipe.set(record, self._payload(ctx, name, args))
                await pipe.execute()
            try:
                return await job(ctx, *args, **kwargs)
            finally:
                async with redis.pipeline(transaction=True) as pipe:
                    pipe.srem(jobs, job_id)
                    pipe.delete(record)
                    await pipe.execute()

        return middleware

    def _payload(self, ctx: dict[str, Any], name: str, args: tuple[Any, ...]) -> str:
        payload = {
            "retry": True,
            "queue": self._queue,
            "processing": True,
            "class": name,
            "args": args,
            "jid": ctx["job_id"],
            "created_at": ctx["enqueue_time"].timestamp(),
            "enqueued_at": ctx["enqueue_time"].timestamp(),
        }
        return json.dumps(payload, default=str)


async def write_instances(redis: Any, namespace: str, *, instances: int, jobs_each: int) -> None:
    """Write what this many workers with this many jobs each would have in Redis."""
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(instances):
            instance_id = f"{number:016x}"
            pipe.setex(f"{namespace}:instance:{instance_id}", HEARTBEAT_TTL_SECONDS * 100, time.time())
            for _ in range(jobs_each):
                job_id = secrets.token_hex(16)
                payload = {"class": "send_email", "queue": "mail", "args": [number], "jid": job_id, "created_at": time.time()}
                pipe.sadd(f"{namespace}:jobs:{instance_id}", job_id)
                pipe.set(f"{namespace}:job:{job_id}", json.dumps(payload))
        await pipe.execute()


async def read_jobs(redis: Any, namespace: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Read instances and jobs as its dashboard does: KEYS twice, then set by set and job by job."""
    instances = [key.decode().split(":")[-1] for key in await redis.keys(f"{namespace}:instance:*")]
    jobs: list[dict[str, Any]] = []
    for key in await redis.keys(f"{namespace}:jobs:*"):
        for job_id in await redis.smembers(key):
            payload = await redis.get(f"{namespace}:job:{job_id.decode()}")
            if payload is not None:
                jobs.append(json.loads(payload))
    return instances, jobs
