"""One instance of every kind that a verdict knows, written into Redis as an instance writes itself, without a worker behind it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import redis.asyncio

from async_tracker.policy import Connection, InstanceState, Limits
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections
from async_tracker.store.run_record import RunRecord, encode_run

_NO_CLIENT = 10**9
"""An id that no connection of a test's server comes to have."""

LIMITS = Limits(heartbeat_ttl=15.0, disconnect_grace=1.0, silence_limit=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """An instance whose last beat was ``age`` seconds ago; ``state`` is the verdict on it where no sweep has marked anything."""

    state: InstanceState
    age: float
    connection: Connection = Connection.OPEN
    host: str = ""
    says: str = "alive"
    speaks: bool = False
    is_declared_dead: bool = False


KINDS = {
    "fresh": Kind(state=InstanceState.ALIVE, age=1.0),
    "draining": Kind(state=InstanceState.DRAINING, age=1.0, says="draining"),
    "quiet": Kind(state=InstanceState.QUIET, age=1.0, says="quiet"),
    "blocked": Kind(state=InstanceState.STALLED_BLOCKED, age=30.0, speaks=True),
    "silent": Kind(state=InstanceState.STALLED_SILENT, age=30.0),
    "silent for long": Kind(state=InstanceState.DEAD, age=100.0),
    "silent beside another": Kind(state=InstanceState.STALLED_SILENT, age=100.0, host="shared"),
    "the other": Kind(state=InstanceState.ALIVE, age=1.0, host="shared"),
    "gone just now": Kind(state=InstanceState.ALIVE, age=1.0, connection=Connection.GONE),
    "gone": Kind(state=InstanceState.DEAD, age=10.0, connection=Connection.GONE),
    "gone while draining": Kind(state=InstanceState.DEAD, age=10.0, connection=Connection.GONE, says="draining"),
    "unknown": Kind(state=InstanceState.ALIVE, age=1.0, connection=Connection.UNKNOWN),
    "unknown and late": Kind(state=InstanceState.DEAD, age=16.0, connection=Connection.UNKNOWN),
    "declared dead": Kind(state=InstanceState.DEAD, age=1.0, is_declared_dead=True),
}


@asynccontextmanager
async def one_of_each_kind(redis_url: str, namespace: str) -> AsyncIterator[None]:
    """Write an instance of each kind, with one job that is called as it is; connections that are open stay so while the block runs."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(redis.asyncio.Redis.from_url(redis_url))
        run_id = (await client.info("server"))["run_id"]
        seconds, micros = await client.time()
        now_ms = seconds * 1000 + micros // 1000
        for number, (name, kind) in enumerate(KINDS.items()):
            connections = Connections()
            if kind.connection is Connection.OPEN:
                mark = f"async-tracker:{number}"
                speaks = redis.asyncio.Redis.from_url(redis_url, single_connection_client=True, client_name=mark)
                opened = await stack.enter_async_context(speaks)
                connections = Connections(server=run_id, ids={await opened.client_id(): mark})
            elif kind.connection is Connection.GONE:
                connections = Connections(server=run_id, ids={_NO_CLIENT + number: "async-tracker:gone"})
            await _write(client, namespace, name, kind, connections, now_ms=now_ms)
        yield


async def _write(client: redis.asyncio.Redis, namespace: str, name: str, kind: Kind, connections: Connections, *, now_ms: int) -> None:
    beat_ms = now_ms - int(1000 * kind.age)
    description = Description(library="asyncio", host="h", host_id=kind.host or f"host of {name}", pid=7)
    fields = {**encode_description(description, LIMITS), "started_at_ms": now_ms - 1_000_000, "state": kind.says}
    await client.hset(f"{namespace}:instance:{name}", mapping=fields)
    if kind.is_declared_dead:
        await client.zadd(f"{namespace}:dead", {name: beat_ms})
    else:
        await client.zadd(f"{namespace}:instances", {name: beat_ms})
        await client.hset(f"{namespace}:connections", name, connections.encode())
    if kind.speaks:
        await client.zadd(f"{namespace}:watchdogs", {name: now_ms - 1_000})
    await client.sadd(f"{namespace}:jobs:{name}", name)
    await client.set(f"{namespace}:job:{name}", encode_run(RunRecord(job_id=name, instance_id=name, token="r", started_at_ms=beat_ms)))
