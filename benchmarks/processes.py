"""Starting the workers that are measured, and giving them their work."""

import dataclasses
import json
import random
import sys
import uuid
from collections.abc import Sequence
from typing import Any

from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from arq.utils import timestamp_ms
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from benchmarks import dramatiq_worker
from benchmarks.ground import Ground
from benchmarks.worker import Load

QUEUE = "benchmark:queue"
NAMESPACE = "benchmark"

_JOB_MS = 86_400_000
_SETTLING_MS = 3_000
"""Until the first job of a rate is due: a worker has started by then, and has worked off its warm-up."""
_AT_ONCE = 1_000


class RoundFailed(Exception):
    """A worker under measurement did not do its work; the text says what it printed."""


def enqueue(ground: Ground, *, count: int, function: str = "noop", args: tuple[Any, ...] = ()) -> list[str]:
    """Fill the queue as arq's own client would, many at once. Returns the ids, of 32 characters as arq makes them."""
    now_ms = timestamp_ms()
    ids = [uuid.uuid4().hex for _ in range(count)]
    for start in range(0, count, _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        with ground.sync.pipeline(transaction=False) as pipe:
            for job_id in part:
                pipe.psetex(job_key_prefix + job_id, _JOB_MS, serialize_job(function, args, {}, None, now_ms))
            pipe.zadd(QUEUE, dict.fromkeys(part, now_ms))
            pipe.execute()
    return ids


def enqueue_messages(ground: Ground, *, count: int) -> None:
    """Fill the queue of dramatiq as its own client would."""
    broker = RedisBroker(client=ground.sync)  # type: ignore[no-untyped-call]
    broker.declare_queue(dramatiq_worker.QUEUE)
    for _ in range(count):
        broker.enqueue(Message(queue_name=dramatiq_worker.QUEUE, actor_name=dramatiq_worker.ACTOR, args=(), kwargs={}, options={}))


def measure(ground: Ground, load: Load | dramatiq_worker.Load) -> dict[str, Any]:
    """Have a worker process work off one queue of jobs, and return what it measured.

    With ``load.per_second`` that many jobs a second become due, after those of the warm-up.
    """
    ground.empty()
    if isinstance(load, Load):
        module, due_ms = "benchmarks.worker", timestamp_ms()
        ids = enqueue(ground, count=load.warmup + load.jobs)
        if load.per_second:
            first_ms = due_ms + _SETTLING_MS
            due = enumerate(ids[load.warmup - 1 :], start=-1)  # the last of the warm-up is one of them: time is taken from its end
            ground.sync.zadd(QUEUE, {name: first_ms + round(place * 1000 / load.per_second) for place, name in due})
    else:
        module = "benchmarks.dramatiq_worker"
        enqueue_messages(ground, count=load.warmup + load.jobs)
    command = [sys.executable, "-m", module, json.dumps(dataclasses.asdict(load))]
    done = ground.run(command)
    if done.returncode != 0 or not done.stdout.strip():
        raise RoundFailed(f"a worker ({load.way}) ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "jobs_per_second" not in found:
        raise RoundFailed(f"a worker ({load.way}) did not finish its {load.jobs} jobs:\n{done.stderr}")
    return found


def shuffled(ways: Sequence[str], round_number: int) -> list[str]:
    """Give the order of one round: any, but the same for the same round, so that neither a drift of the machine nor what ran just
    before falls to one way more than to another.

    >>> sorted(shuffled(["a", "b", "c"], 1)), shuffled(["a", "b", "c"], 7) == shuffled(["a", "b", "c"], 7)
    (['a', 'b', 'c'], True)
    """
    return random.Random(round_number).sample(ways, len(ways))
