"""The namespace for synchronous code: ``SyncNamespace(client, "my_app")``."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

from redis.client import PubSub, Redis
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.lock import Lock

from async_tracker.errors import ConfigError
from async_tracker.namespace.cluster import SYNC_METHODS, SyncClusterPipeline, in_order, keys_by_slot, pairs_by_slot, with_methods
from async_tracker.namespace.commands import SyncCommands
from async_tracker.namespace.pipelines import SyncNamespacePipeline
from async_tracker.namespace.proxy import Proxy, knows, rules_for
from async_tracker.namespace.pubsub import confine_sync_pubsub

CLEAR_BATCH = 1_000
CLUSTER_KIND: dict[type, type] = {}


@knows(Redis)
class SyncNamespace(Proxy, SyncCommands):
    """What ``Namespace`` is, over a ``redis.Redis``: the same rules, the same names, without await.

    Safe to share between threads as far as the client is. With client-side caching, the cache knows keys by their full names.
    """

    def __new__(cls, client: Any, *args: Any, **options: Any) -> Self:
        return super().__new__(CLUSTER_KIND.get(cls, cls) if isinstance(client, RedisCluster) else cls, client)

    def __init__(self, client: Any, namespace: str, *, close_client: bool = False, allow: Collection[str] = ()) -> None:
        client, rules = rules_for(client, namespace, allow)
        if inspect.iscoroutinefunction(getattr(type(client), "aclose", None)):
            raise ConfigError(f"SyncNamespace is for clients of redis, and {type(client).__name__} is one for asyncio: use Namespace")
        super().__init__(client, rules)
        self._close_client = close_client
        cache = getattr(getattr(client, "connection_pool", None), "cache", None)
        self._may_cache = cache is not None or isinstance(client, RedisCluster)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, its keys in the namespace. Options are redis-py's. Raises UnsupportedCommand before anything is sent."""
        rewrite, strip = self._plans[args[0]]
        if rewrite is None:
            rewrite, strip = strip(args)
        if self._may_cache and options.get("keys") is not None:
            options["keys"] = self._rules.rewritten_keys(options["keys"])
        reply = self.redis.execute_command(*rewrite(args), **options)
        return reply if strip is None else strip(reply)

    def pipeline(self, transaction: bool = True, *args: Any, **options: Any) -> SyncNamespacePipeline:
        """Return a pipeline in the namespace; the arguments are those of the client's own ``pipeline``."""
        return SyncNamespacePipeline(self.redis.pipeline(transaction, *args, **options), self._rules)

    def transaction(self, func: Callable[[SyncNamespacePipeline], Any], *watches: Any, **options: Any) -> Any:
        """Call ``func`` with a pipeline that watches these keys, execute it, and begin anew as long as one of them changes meanwhile."""
        return type(self.redis).transaction(self, func, *watches, **options)

    def lock(self, name: Any, timeout: float | None = None, *, lock_class: type[Any] | None = None, **options: Any) -> Lock:
        """Return a lock of this name in the namespace; the arguments are those of the client's own ``lock``. Seconds."""
        made: Lock = (lock_class or Lock)(self, name, timeout=timeout, **options)
        return made

    def pubsub(self, **options: Any) -> PubSub:
        """Return a PubSub whose channels and patterns are in the namespace; messages come back without it."""
        made: PubSub = confine_sync_pubsub(self.redis.pubsub, self._rules.names, options)
        return made

    def client(self) -> "SyncNamespace":
        """Return the same namespace on one connection of its own, to be closed by the caller."""
        return SyncNamespace(self.redis.client(), self.namespace, close_client=True, allow=self._rules.allowed)

    def clear(self) -> int:
        """Delete every key of the namespace; return how many there were. It works in batches of SCAN and UNLINK: no long standstill."""
        deleted = 0
        batch: list[Any] = []
        for key in self.scan_iter(count=CLEAR_BATCH):
            batch.append(key)
            if len(batch) >= CLEAR_BATCH:
                deleted += self.unlink(*batch)
                batch = []
        return deleted + (self.unlink(*batch) if batch else 0)

    def count(self) -> int:
        """Count the keys of the namespace, by SCAN: as many round trips as the database is large."""
        return len(set(self.scan_iter(count=CLEAR_BATCH)))

    def close(self) -> None:
        """Let go. A shared client stays open; one given with ``close_client`` is closed."""
        if self._close_client:
            self.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@knows(RedisCluster)
@with_methods(SYNC_METHODS)
class SyncClusterNamespace(SyncNamespace):
    """What ``SyncNamespace`` makes of a RedisCluster: keys are gathered by the slots of their full names."""

    def pipeline(self, *args: Any, **options: Any) -> SyncClusterPipeline:
        """Return a pipeline in the namespace; the arguments are those of the cluster client's own ``pipeline``."""
        return SyncClusterPipeline(self.redis.pipeline(*args, **options), self._rules)

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

    def _each_slot(self, command: str, lists: list[list[Any]]) -> list[Any]:
        pipe = self.pipeline()
        for arguments in lists:
            pipe.execute_command(command, *arguments)
        return pipe.execute()

    def delete(self, *keys: Any) -> int:
        """Delete keys, with one command for each slot; return how many there were."""
        return sum(self._each_slot("DEL", keys_by_slot(keys, self._rules.names)))

    def exists(self, *keys: Any) -> int:
        """Count the keys that exist, with one command for each slot."""
        return sum(self._each_slot("EXISTS", keys_by_slot(keys, self._rules.names)))

    def touch(self, *keys: Any) -> int:
        """Touch keys, with one command for each slot; return how many there are."""
        return sum(self._each_slot("TOUCH", keys_by_slot(keys, self._rules.names)))

    def unlink(self, *keys: Any) -> int:
        """Unlink keys, with one command for each slot; return how many there were."""
        return sum(self._each_slot("UNLINK", keys_by_slot(keys, self._rules.names)))

    def mget_nonatomic(self, keys: Any, *args: Any) -> list[Any]:
        """Get the values of keys in any slots, in their order, with one MGET for each slot."""
        wanted = [*([keys] if isinstance(keys, (str, bytes)) else keys), *args]
        lists = keys_by_slot(wanted, self._rules.names)
        return in_order(wanted, lists, self._each_slot("MGET", lists))

    def mset_nonatomic(self, mapping: Mapping[Any, Any]) -> list[Any]:
        """Set keys in any slots, with one MSET for each slot."""
        return self._each_slot("MSET", pairs_by_slot(mapping, self._rules.names))


CLUSTER_KIND[SyncNamespace] = SyncClusterNamespace
