"""The namespace for asyncio: ``Namespace(client, "my_app")``."""

import inspect
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any, Self

from redis.asyncio.client import PubSub, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.lock import Lock
from redis.crc import key_slot

from async_tracker.errors import ConfigError
from async_tracker.namespace.cluster import ASYNC_METHODS, ClusterPipeline, in_order, keys_by_slot, pairs_by_slot, with_methods
from async_tracker.namespace.commands import AsyncCommands
from async_tracker.namespace.pipelines import NamespacePipeline, stripped
from async_tracker.namespace.proxy import Proxy, knows, rules_for
from async_tracker.namespace.pubsub import confine_async_pubsub

CLEAR_BATCH = 1_000
CLUSTER_KIND: dict[type, type] = {}


@knows(Redis)
class Namespace(Proxy, AsyncCommands):
    """A client whose every key begins with ``{namespace}:``, and that has no others.

    ``client`` is a ``redis.asyncio.Redis``, of any subclass, or another Namespace. It is shared: closing the namespace leaves it
    open unless ``close_client`` is set. ``allow`` names commands that pass though they are refused, as they are, on the caller's
    own account. Raises ConfigError for a namespace that is empty or holds control characters, and for a client of the other kind.
    """

    def __new__(cls, client: Any, *args: Any, **options: Any) -> Self:
        return super().__new__(CLUSTER_KIND.get(cls, cls) if isinstance(client, RedisCluster) else cls, client)

    def __init__(self, client: Any, namespace: str, *, close_client: bool = False, allow: Collection[str] = ()) -> None:
        client, rules = rules_for(client, namespace, allow)
        if not inspect.iscoroutinefunction(getattr(type(client), "aclose", None)):
            raise ConfigError(f"Namespace is for clients of redis.asyncio, and {type(client).__name__} is none: use SyncNamespace")
        super().__init__(client, rules)
        self._close_client = close_client

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, its keys in the namespace. Options are redis-py's. Raises UnsupportedCommand before anything is sent."""
        rewrite, strip = self._plans[args[0]]
        if rewrite is None:
            rewrite, strip = strip(args)
        if strip is None:
            return self.redis.execute_command(*rewrite(args), **options)
        return stripped(self.redis.execute_command(*rewrite(args), **options), strip)

    def pipeline(self, transaction: bool = True, *args: Any, **options: Any) -> NamespacePipeline:
        """Return a pipeline in the namespace; the arguments are those of the client's own ``pipeline``."""
        return NamespacePipeline(self.redis.pipeline(transaction, *args, **options), self._rules)

    async def transaction(
        self,
        func: Callable[[NamespacePipeline], Any],
        *watches: Any,
        shard_hint: str | None = None,
        value_from_callable: bool = False,
        watch_delay: float | None = None,
    ) -> Any:
        """Call ``func`` with a pipeline that watches these keys, execute it, and begin anew as long as one of them changes meanwhile.

        ``watch_delay`` is in seconds. Returns the replies, or what ``func`` returned if ``value_from_callable``.
        """
        return await type(self.redis).transaction(
            self, func, *watches, shard_hint=shard_hint, value_from_callable=value_from_callable, watch_delay=watch_delay
        )

    def lock(self, name: Any, timeout: float | None = None, *, lock_class: type[Any] | None = None, **options: Any) -> Lock:
        """Return a lock of this name in the namespace; the arguments are those of the client's own ``lock``. Seconds."""
        kind: Any = lock_class or Lock
        made: Lock = kind(self, name, timeout=timeout, **options)
        return made

    def pubsub(self, **options: Any) -> PubSub:
        """Return a PubSub whose channels and patterns are in the namespace; messages come back without it."""
        made: PubSub = confine_async_pubsub(self.redis.pubsub, self._rules.names, options)
        return made

    def client(self) -> "Namespace":
        """Return the same namespace on one connection of its own, to be closed by the caller."""
        return Namespace(self.redis.client(), self.namespace, close_client=True, allow=self._rules.allowed)

    async def clear(self) -> int:
        """Delete every key of the namespace; return how many there were. It works in batches of SCAN and UNLINK: no long standstill."""
        deleted = 0
        batch: list[Any] = []
        async for key in self.scan_iter(count=CLEAR_BATCH):
            batch.append(key)
            if len(batch) >= CLEAR_BATCH:
                deleted += await self.unlink(*batch)
                batch = []
        return deleted + (await self.unlink(*batch) if batch else 0)

    async def count(self) -> int:
        """Count the keys of the namespace, by SCAN: as many round trips as the database is large."""
        return len({key async for key in self.scan_iter(count=CLEAR_BATCH)})

    async def initialize(self) -> Self:
        """Connect the client if it is one that holds a connection."""
        await self.redis.initialize()
        return self

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Let go. A shared client stays open; one given with ``close_client`` is closed."""
        if self._close_client:
            await self.redis.aclose()

    async def close(self, close_connection_pool: bool | None = None) -> None:
        """The same as ``aclose``."""
        await self.aclose()

    async def __aenter__(self) -> Self:
        return await self.initialize()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __await__(self) -> Generator[Any, None, Self]:
        return self.initialize().__await__()


@knows(RedisCluster)
@with_methods(ASYNC_METHODS)
class ClusterNamespace(Namespace):
    """What ``Namespace`` makes of a RedisCluster: keys are gathered by the slots of their full names."""

    def pipeline(self, *args: Any, **options: Any) -> ClusterPipeline:
        """Return a pipeline in the namespace; the arguments are those of the cluster client's own ``pipeline``."""
        return ClusterPipeline(self.redis.pipeline(*args, **options), self._rules)

    def scan(self, *args: Any, **options: Any) -> Any:
        """Scan all primaries, unless ``target_nodes`` says otherwise."""
        options.setdefault("target_nodes", RedisCluster.PRIMARIES)
        return super().scan(*args, **options)

    def keys(self, *args: Any, **options: Any) -> Any:
        """List the keys on all primaries, unless ``target_nodes`` says otherwise."""
        options.setdefault("target_nodes", RedisCluster.PRIMARIES)
        return super().keys(*args, **options)

    def keyslot(self, key: Any) -> int:
        """Tell the slot of a key of the namespace."""
        return key_slot(self.full_key(key))

    async def _each_slot(self, command: str, lists: list[list[Any]]) -> list[Any]:
        pipe = self.pipeline()
        for arguments in lists:
            pipe.execute_command(command, *arguments)
        return await pipe.execute()

    async def delete(self, *keys: Any) -> int:
        """Delete keys, with one command for each slot; return how many there were."""
        return sum(await self._each_slot("DEL", keys_by_slot(keys, self._rules.names)))

    async def exists(self, *keys: Any) -> int:
        """Count the keys that exist, with one command for each slot."""
        return sum(await self._each_slot("EXISTS", keys_by_slot(keys, self._rules.names)))

    async def touch(self, *keys: Any) -> int:
        """Touch keys, with one command for each slot; return how many there are."""
        return sum(await self._each_slot("TOUCH", keys_by_slot(keys, self._rules.names)))

    async def unlink(self, *keys: Any) -> int:
        """Unlink keys, with one command for each slot; return how many there were."""
        return sum(await self._each_slot("UNLINK", keys_by_slot(keys, self._rules.names)))

    async def mget_nonatomic(self, keys: Any, *args: Any) -> list[Any]:
        """Get the values of keys in any slots, in their order, with one MGET for each slot."""
        wanted = [*([keys] if isinstance(keys, (str, bytes)) else keys), *args]
        lists = keys_by_slot(wanted, self._rules.names)
        return in_order(wanted, lists, await self._each_slot("MGET", lists))

    async def mset_nonatomic(self, mapping: Mapping[Any, Any]) -> list[Any]:
        """Set keys in any slots, with one MSET for each slot."""
        return await self._each_slot("MSET", pairs_by_slot(mapping, self._rules.names))


CLUSTER_KIND[Namespace] = ClusterNamespace
