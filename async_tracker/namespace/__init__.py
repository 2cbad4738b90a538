"""A prefix for every key that a client of redis-py writes or reads: what cannot be confined to it is refused.

    ns = Namespace(redis.asyncio.Redis(), "my_app")
    await ns.set("greeting", "hello")       # the key is my_app:greeting
    ns.redis                                # the client underneath

``Namespace`` is for redis.asyncio, ``SyncNamespace`` for synchronous clients; they share every rule.
"""

from async_tracker.namespace.aio import ClusterNamespace, Namespace
from async_tracker.namespace.blocking import SyncClusterNamespace, SyncNamespace
from async_tracker.namespace.pipelines import NamespacePipeline, SyncNamespacePipeline

__all__ = ["ClusterNamespace", "Namespace", "NamespacePipeline", "SyncClusterNamespace", "SyncNamespace", "SyncNamespacePipeline"]
