"""What a tracked dramatiq worker may cost, as budgets that are counted: commands on the server, calls of our functions in the worker."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import Worker, WorkerThread

import async_tracker
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
    broker.client.connection_pool.disconnect()


PACKAGE = str(Path(async_tracker.__file__).parent)
THREADS = 2
CALLS = 16
"""Of our functions for one message, in the thread that runs it."""
CALLS_ONCE = 50
"""More, as each of the threads begins."""
CALLS_IF_READ = 40
"""More, where the run was read meanwhile: then the journal has it, and its end is for the journal too."""


@pytest.fixture
def calls() -> Iterator[Counter[tuple[bool, str]]]:
    """How often each of our functions is called in threads that begin from here on: whether in a thread of the worker, and which."""
    found: Counter[tuple[bool, str]] = Counter()

    def note(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            found[isinstance(threading.current_thread(), WorkerThread), frame.f_code.co_qualname] += 1

    threading.setprofile(note)
    yield found
    threading.setprofile(None)


def test_a_message_passes_few_functions_of_ours_and_is_read_only_by_a_look_that_finds_it_running(
    redis_url: str, namespace: str, calls: Counter[tuple[bool, str]]
):
    done: list[int] = []
    broker = RedisBroker(url=redis_url)
    broker.add_middleware(TrackerMiddleware(Tracker(namespace=namespace, **QUIET)))
    actor = dramatiq.actor(actor_name="append", broker=broker)(done.append)
    for number in range(MESSAGES):
        actor.send(number)
    worker = Worker(broker, worker_threads=THREADS, worker_timeout=50)
    worker.start()
    wait_until_sync(lambda: len(done) == MESSAGES, timeout=60, description="all messages have run")
    worker.stop()
    broker.client.connection_pool.disconnect()
    looks = calls[False, "Journal._take_in"] + calls[True, "Journal._take_in"]
    read = calls[False, "DramatiqRun.complete"] + calls[True, "DramatiqRun.complete"]
    assert read <= looks * THREADS
    in_threads = sum(count for (in_thread, _), count in calls.items() if in_thread)
    assert in_threads <= MESSAGES * CALLS + THREADS * CALLS_ONCE + read * CALLS_IF_READ
    assert in_threads >= MESSAGES  # else nothing was counted
