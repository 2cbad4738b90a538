"""What a dramatiq worker says of itself, read off its broker."""

import math
from typing import Any

from dramatiq.broker import Broker as DramatiqBroker
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import TimeLimit
from dramatiq.worker import Worker

from async_tracker.connections.access import describe
from async_tracker.connections.counterparts import async_counterpart
from async_tracker.integrations.dramatiq.holds import Broker, other_broker
from async_tracker.integrations.dramatiq.names import LIBRARY
from async_tracker.integrations.footing import Footing
from async_tracker.store.instance_record import Description


def broker_of(broker: DramatiqBroker) -> Broker | None:
    """Describe the broker of this process; None when it is not Redis."""
    if not isinstance(broker, RedisBroker):
        return None
    return Broker(broker_id=broker.broker_id, namespace=broker.namespace, at=describe(async_counterpart(broker.client)))


def describe_worker(footing: Footing, worker: Worker, *, broker: Broker | None, claims_server: str | None) -> Description:
    """Describe the instance that this worker is, in its event loop."""
    queues = worked_queues(worker)
    actors = [actor.actor_name for actor in worker.broker.actors.values() if actor.queue_name in queues]
    return footing.describe(
        LIBRARY,
        queue=footing.settings.queue or ", ".join(queues) or None,
        queues=queues,
        functions=sorted(actors),
        concurrency=worker.worker_threads,
        claims_server=claims_server,
        broker=broker.encode() if broker is not None else other_broker(type(worker.broker).__name__),
    )


def worked_queues(worker: Worker) -> tuple[str, ...]:
    """Give the queues that a worker consumes, without their delay queues."""
    declared = worker.broker.get_declared_queues()
    return tuple(sorted(name for name in declared if not worker.consumer_whitelist or name in worker.consumer_whitelist))


def time_limit(broker: DramatiqBroker, message: MessageProxy) -> float | None:
    """Give the time limit of a message in seconds; None when it has none, or one that is no number."""
    for middleware in broker.middleware:
        if isinstance(middleware, TimeLimit):
            actor: Any = broker.actors.get(message.actor_name)
            options = actor.options if actor is not None else {}
            limit_ms = message.options.get("time_limit") or options.get("time_limit", middleware.time_limit)
            try:
                return float(limit_ms) / 1000.0 if math.isfinite(limit_ms) else None
            except (TypeError, ValueError, OverflowError):
                return None
    return None
