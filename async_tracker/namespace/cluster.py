"""What is different over a Redis Cluster: which slot a key is in follows from its full name.

redis-py's own methods that gather keys by slot, and its pub/sub of sharded channels, look at names as the user wrote them; here they are
written anew. Its other methods for clusters are borrowed: they only send commands, to the nodes that ``target_nodes`` says.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any, TypeVar

from redis.commands.cluster import (
    AsyncClusterDataAccessCommands,
    AsyncClusterManagementCommands,
    ClusterDataAccessCommands,
    ClusterManagementCommands,
)
from redis.crc import key_slot

from async_tracker.namespace.naming import Naming
from async_tracker.namespace.pipelines import NamespacePipeline, SyncNamespacePipeline

ANNOTATION = re.compile(r"Command # (\d+) \(.*?\) of pipeline", re.DOTALL)
T = TypeVar("T")

NEEDS_SUPER = frozenset(["stralgo"])


def borrowed(*classes: type) -> dict[str, Any]:
    """Return the public functions of these classes, to be used as methods of another."""
    return {
        name: function
        for cls in classes
        for name, function in vars(cls).items()
        if isinstance(function, FunctionType) and not name.startswith("_") and name not in NEEDS_SUPER
    }


SYNC_METHODS = borrowed(ClusterManagementCommands, ClusterDataAccessCommands)
ASYNC_METHODS = borrowed(ClusterManagementCommands, AsyncClusterManagementCommands, AsyncClusterDataAccessCommands)


def with_methods(methods: Mapping[str, Any]) -> Callable[[type[T]], type[T]]:
    """Give a class these methods, except those that it defines itself."""

    def give(cls: type[T]) -> type[T]:
        for name, function in methods.items():
            if name not in vars(cls):
                setattr(cls, name, function)
        return cls

    return give


def keys_by_slot(keys: Iterable[Any], names: Naming) -> list[list[Any]]:
    """Gather keys so that each list is of one slot; the order within a list is that of ``keys``."""
    slots: dict[int, list[Any]] = {}
    for key in keys:
        slots.setdefault(key_slot(names.full_key(key)), []).append(key)
    return list(slots.values())


def pairs_by_slot(mapping: Mapping[Any, Any], names: Naming) -> list[list[Any]]:
    """Gather keys and values, one after the other, so that each list is of one slot."""
    return [[part for key in keys for part in (key, mapping[key])] for keys in keys_by_slot(mapping, names)]


def in_order(keys: Sequence[Any], by_slot: list[list[Any]], replies: Iterable[Sequence[Any]]) -> list[Any]:
    """Bring the replies of one MGET per slot into the order of ``keys``."""
    values = {key: value for slot_keys, reply in zip(by_slot, replies, strict=True) for key, value in zip(slot_keys, reply, strict=True)}
    return [values[key] for key in keys]


def name_as_written(exception: Exception, written: Sequence[tuple[Any, ...]]) -> None:
    """Let an error of a cluster's pipeline name the command as the user wrote it."""
    found = ANNOTATION.match(str(exception.args[0])) if exception.args else None
    if found is None or not 0 < int(found[1]) <= len(written):
        return
    command = " ".join(part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in written[int(found[1]) - 1])
    text = str(exception.args[0])
    exception.args = (f"Command # {found[1]} ({command}) of pipeline" + text[found.end() :], *exception.args[1:])


def _queue_each_slot(pipeline: Any, command: str, keys: Iterable[Any]) -> Any:
    for slot_keys in keys_by_slot(keys, pipeline._rules.names):
        pipeline.execute_command(command, *slot_keys)
    return pipeline


class QueuedBySlot:
    """The commands of several keys that both pipelines of a cluster queue once for each slot. They only queue: none of them awaits."""

    def delete(self, *keys: Any) -> Any:
        """Queue DEL once for each slot."""
        return _queue_each_slot(self, "DEL", keys)

    def exists(self, *keys: Any) -> Any:
        """Queue EXISTS once for each slot."""
        return _queue_each_slot(self, "EXISTS", keys)

    def touch(self, *keys: Any) -> Any:
        """Queue TOUCH once for each slot."""
        return _queue_each_slot(self, "TOUCH", keys)

    def unlink(self, *keys: Any) -> Any:
        """Queue UNLINK once for each slot."""
        return _queue_each_slot(self, "UNLINK", keys)

    def mset_nonatomic(self, mapping: Mapping[Any, Any]) -> Any:
        """Queue MSET once for each slot."""
        pipeline: Any = self
        for pairs in pairs_by_slot(mapping, pipeline._rules.names):
            pipeline.execute_command("MSET", *pairs)
        return self


@with_methods(borrowed(QueuedBySlot))
class ClusterPipeline(NamespacePipeline):
    """A pipeline of a ``redis.asyncio.RedisCluster``. Commands of several keys are queued once for each slot, and give as many replies."""

    async def execute(self, raise_on_error: bool = True, **options: Any) -> list[Any]:
        """Send all that was queued; return the replies, in order."""
        try:
            return await super().execute(raise_on_error, **options)
        except Exception as exc:
            name_as_written(exc, self._executing)
            raise


@with_methods(borrowed(QueuedBySlot))
class SyncClusterPipeline(SyncNamespacePipeline):
    """A pipeline of a ``redis.RedisCluster``. Commands of several keys are queued once for each slot, and give as many replies."""

    def execute(self, raise_on_error: bool = True, **options: Any) -> list[Any]:
        """Send all that was queued; return the replies, in order."""
        try:
            return super().execute(raise_on_error, **options)
        except Exception as exc:
            name_as_written(exc, self._executing)
            raise


class ShardLookup:
    """A cluster client that finds the node of a channel by its full name; all else is the client's own."""

    def __init__(self, cluster: Any, names: Naming) -> None:
        self._cluster = cluster
        self._names = names

    def get_node_from_key(self, channel: Any, *args: Any, **options: Any) -> Any:
        """Find the node that a sharded channel belongs to."""
        return self._cluster.get_node_from_key(self._names.full_key(channel), *args, **options)

    def keyslot(self, channel: Any) -> Any:
        """Find the slot that a sharded channel belongs to."""
        return self._cluster.keyslot(self._names.full_key(channel))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)
