"""A verdict that a test passes on a live instance, as a sweeper would that is wrong."""

import redis.asyncio

from async_tracker.namespace import Namespace
from async_tracker.store.commands import Store
from async_tracker.store.writes import Judged


async def declare_dead(client: redis.asyncio.Redis, namespace: str, instance_id: str) -> bool:
    """Declare an instance dead by the evidence of this moment. Returns False where it has spoken since: then try again."""
    judged = Judged(
        instance_id=instance_id,
        heartbeat=str(int(await client.zscore(f"{namespace}:instances", instance_id))),
        connections=(await client.hget(f"{namespace}:connections", instance_id)).decode(),
        watchdog="",
        reason="for a test",
    )
    return await Store(Namespace(client, namespace)).declare_dead(judged, "{}")
