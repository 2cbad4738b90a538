"""What a tracked dramatiq worker may cost, as budgets that are counted on the server: commands per message."""

import time
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import Worker

from async_tracker import Tracker
from async_tracker.embedded import EmbeddedServer
from async_tracker.integrations.dramatiq import TrackerMiddleware
from tests.harness.settings import QUIET
from tests.harness.wait import wait_until_sync

MESSAGES = 300
WRITES_A_SECOND = 25
ONCE = 30


def test_a_message_costs_one_command(make_server: Callable[..., EmbeddedServer], namespace: str):
    done: list[int] = []
    broker = RedisBroker(url=make_server().url)
    broker.add_middleware(TrackerMiddleware(Tracker(namespace=namespace, **QUIET)))
    actor = dramatiq.actor(actor_name="append", broker=broker)(done.append)
    for number in range(MESSAGES):
        actor.send(number)
    broker.client.config_resetstat()
    began = time.monotonic()
    worker = Worker(broker, worker_threads=2, worker_timeout=50)
    worker.start()
    wait_until_sync(lambda: len(done) == MESSAGES, timeout=60, description="all messages have run")
    writes = (time.monotonic() - began) * WRITES_A_SECOND + ONCE
    found: Any = broker.client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(stats["calls"]) for name, stats in found.items()}
    registered: Any = broker.client.zrange(f"{namespace}:instances", 0, 0)
    marked: Any = broker.client.hlen(f"{namespace}:marks:{registered[0].decode()}")
    assert 1 < marked <= worker.worker_threads + 1  # one field for each thread that has had a message, and the sign
    assert calls.get("hset", 0) + calls.get("hmset", 0) <= MESSAGES + 3 * writes  # dramatiq sends its messages before we count
    assert calls.get("hset", 0) >= MESSAGES
    assert calls.get("expire", 0) <= writes
    assert calls.get("sadd", 0) <= MESSAGES + writes  # dramatiq's own: what it has fetched
    worker.stop()
    broker.client.close()
