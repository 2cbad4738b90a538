"""The documented probe of each instance, every ten seconds: what ``async-tracker check`` asks. ``python -m benchmarks.probes '{...}'``.

One process asks for all of them, since a thousand processes a second would be a measurement of process starts.
"""

import asyncio
import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from async_tracker.cli.probe import meant_instances
from async_tracker.cli.reach import make_tracker
from async_tracker.cli.target import Target
from async_tracker.embedded import end_with_parent
from benchmarks.crowd import regularly
from benchmarks.ground import ROOT
from benchmarks.processes import NAMESPACE

EVERY_SECONDS = 10.0
"""How often a container asks, by the documentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """How many instances are probed."""

    url: str
    instances: int


@contextlib.contextmanager
def probes(url: str, *, instances: int) -> Iterator[None]:
    """Have so many instances probed while the block lasts."""
    command = [sys.executable, "-m", "benchmarks.probes", json.dumps(dataclasses.asdict(Orders(url=url, instances=instances)))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, preexec_fn=end_with_parent()) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # the first probe was answered
            yield
        finally:
            process.kill()


async def probe(url: str) -> None:
    """Ask once, over a connection of its own, as each process of ``check`` does."""
    tracker = make_tracker(Target(redis_url=url, namespace=NAMESPACE), timeout=10.0, is_brief=True)
    try:
        await meant_instances(tracker, None)
    finally:
        await tracker.aclose()


async def _ask(orders: Orders) -> None:
    await probe(orders.url)
    print("ready", flush=True)
    at_once = min(8, orders.instances)
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            every = EVERY_SECONDS * at_once / orders.instances
            group.create_task(regularly(lambda: probe(orders.url), every, until=float("inf")))


if __name__ == "__main__":
    asyncio.run(_ask(Orders(**json.loads(sys.argv[1]))))
