"""One real dramatiq worker process under measurement: ``python -m benchmarks.dramatiq_worker '{...}'`` prints what it measured as JSON.

It works off a queue that was filled before it started, as `benchmarks.worker` does for arq; what that measures, this does.
"""

import json
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import dramatiq
import redis
import redis.asyncio
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import Worker

from async_tracker import Tracker
from async_tracker.integrations.dramatiq import TrackerMiddleware
from benchmarks.far import far_pool, far_thread_pool
from benchmarks.meter import Meter

ACTOR, QUEUE = "noop", "benchmark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a worker is to do. ``way``: untracked, control or tracked."""

    way: str
    url: str
    counters_url: str
    namespace: str
    threads: int
    warmup: int
    jobs: int
    job_seconds: float
    far_seconds: float


def measured(load: Load) -> dict[str, Any]:
    """Work the queue off and return what was measured."""
    with redis.Redis.from_url(load.counters_url) as client:
        client.ping()
        meter, lock, over = Meter(load, client), threading.Lock(), threading.Event()
        broker: Any = RedisBroker(client=redis.Redis(connection_pool=far_thread_pool(load.url, load.far_seconds)))  # type: ignore[no-untyped-call]
        if load.way == "tracked":
            broker.add_middleware(TrackerMiddleware(_tracker(load)))
        dramatiq.set_broker(broker)

        @dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE)
        def noop() -> None:
            if load.job_seconds:
                time.sleep(load.job_seconds)
            with lock:
                meter.note()
            if meter.found:
                over.set()

        worker = Worker(broker, worker_threads=load.threads)
        worker.start()
        over.wait()
        worker.stop()
        return meter.found


def _tracker(load: Load) -> Tracker:
    if not load.far_seconds:
        return Tracker(namespace=load.namespace)
    return Tracker(namespace=load.namespace, redis=redis.asyncio.Redis(connection_pool=far_pool(load.url, load.far_seconds)))


if __name__ == "__main__":
    print(json.dumps(measured(Load(**json.loads(sys.argv[1])))))
