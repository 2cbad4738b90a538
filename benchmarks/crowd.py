"""Instances that are there beside real workers: they beat, look and sweep as workers do. ``python -m benchmarks.crowd '{...}'``.

One process sends what all of them would. Told by a signal it leaves the sweeps to the real workers, of which one is to be killed.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from async_tracker.config import Settings
from async_tracker.connections.replies import Argument
from async_tracker.embedded import end_with_parent
from async_tracker.instance.host import host_id
from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits, standby_interval
from async_tracker.recovery.lease import Lease, LeaseHolder, lease_holder, make_lease
from async_tracker.recovery.sweeper import Sweeper, make_sweeper
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections
from async_tracker.store.run_record import RunRecord
from async_tracker.store.writes import Beat
from benchmarks.ground import ROOT
from benchmarks.processes import NAMESPACE, QUEUE
from benchmarks.queries import named_connections

SWEEP_SECONDS = 0.5
BEAT_SECONDS = 4.75
"""In the mean, at the default ``heartbeat_interval``."""
CROWD_PID = 7
"""What each of them gives as its process."""
IS_READY = "ready"
_LEAVE, _TAKE_PART = signal.SIGUSR1, signal.SIGUSR2
_NEW_SECONDS = 0.02
"""Between two sweeps while there is a backlog."""

_STEADY: dict[str, Argument] = {
    "state": "alive",
    "busy": 1,
    "unlisted": 0,
    "jobs_started": 5,
    "jobs_ended": 4,
    "jobs_failed": 0,
    "dropped": 0,
}


class Crowd:
    """Instances as they stand in Redis, each with a connection of its own; one program beats for all of them."""

    def __init__(self, client: Any, names: dict[int, str]) -> None:
        self.client = client
        self.store = Store(Namespace(client, NAMESPACE))
        self.run_id = ""
        self.connections = {f"host:{number}:{name[-12:]}": Connections(ids={number: name}) for number, name in names.items()}
        self.recovered_at: list[float] = []
        self._sequence = 10

    @property
    def ids(self) -> list[str]:
        """The instances that live."""
        return list(self.connections)

    async def register(self, *, jobs_each: int) -> None:
        """Register all, with jobs in flight. The first one is of this host."""
        self.run_id = (await self.client.info("server"))["run_id"]
        description = Description(library="arq", host="h", host_id="0f", pid=CROWD_PID, queue=QUEUE, concurrency=max(1, jobs_each))
        fields = {**encode_description(description, Limits()), **_STEADY}
        for number, (name, own) in enumerate(self.connections.items()):
            fields["host_id"] = host_id() if number == 0 else "0f"
            self.connections[name] = Connections(server=self.run_id, ids=own.ids)
            await self.store.register(name, 1, self.connections[name].encode(), fields)
            if jobs_each:
                await self.store.write(name, 2, started=self.runs(name, jobs_each), ended=[])

    def runs(self, name: str, count: int) -> list[RunRecord]:
        """Give the runs that an instance has in flight."""
        return [
            RunRecord(job_id=f"{name}-{job}", instance_id=name, token=f"{job:016x}", queue=QUEUE, library="arq", started_at_ms=job + 1)
            for job in range(count)
        ]

    def sweeper(self) -> Sweeper:
        """Make the sweeper of one of them."""
        adapter = ArqAdapter(self.client, receipt_key=self.store.redis.full_key)
        return make_sweeper(Settings(namespace=NAMESPACE), self.store, adapter, library="arq", on_event=self._hear)

    def _hear(self, event: str) -> None:
        if '"type":"recovered"' in event:
            self.recovered_at.append(time.monotonic())

    def lease(self) -> Lease:
        """Make the lease as one of them sees it."""
        return make_lease(self.store, library="arq", recovers=True, sweep_interval=SWEEP_SECONDS)

    def holder(self, name: str) -> LeaseHolder:
        """Name one of them as a holder of the lease."""
        return lease_holder(name, self.connections[name])

    async def beat(self, name: str) -> None:
        """Send the heartbeat of one instance, with what changes in a worker that is idle."""
        self._sequence += 1
        fields: dict[str, Argument] = {"rss_bytes": 50_000_000 + self._sequence, "loop_lag_ms": self._sequence % 3}
        await self.store.beat(name, Beat(sequence=self._sequence, connections="", fields=fields))


async def regularly(work: Callable[[], Awaitable[Any]], every: float, *, until: float) -> None:
    """Do it that often in the mean, at moments that are not those of anything else; ``until`` a moment of the monotonic clock."""
    due = time.monotonic() + random.random() * every
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await work()
        due += every


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """How many instances there are, beside how many real ones."""

    url: str
    instances: int
    beside: int


class Play:
    """A crowd that takes part in everything until its process ends."""

    def __init__(self, crowd: Crowd, *, beside: int) -> None:
        self._crowd = crowd
        self._beside = beside
        self._lease = crowd.lease()
        self._sweeper = crowd.sweeper()
        self._takes_part = asyncio.Event()
        self._takes_part.set()

    async def run(self) -> None:
        """Beat, look and sweep."""
        loop, names = asyncio.get_running_loop(), iter(self._crowd.ids * 100_000)
        loop.add_signal_handler(_LEAVE, self._takes_part.clear)
        loop.add_signal_handler(_TAKE_PART, self._takes_part.set)
        count = len(self._crowd.ids)
        look_every = 0.75 * standby_interval(SWEEP_SECONDS, count + self._beside) / count
        print(IS_READY, flush=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(regularly(lambda: self._crowd.beat(next(names)), BEAT_SECONDS / count, until=float("inf")))
            group.create_task(regularly(self._look, look_every, until=float("inf")))

    async def _look(self) -> None:
        """One of them looks whether the sweeper is there, and sweeps if there is none."""
        if not self._takes_part.is_set():
            return
        holder = self._crowd.holder(random.choice(self._crowd.ids))
        while self._takes_part.is_set() and (await self._lease.elect(holder)).is_ours:
            swept = await self._sweeper.sweep(self._crowd.run_id, itself=holder.instance_id, within=1.0)
            await asyncio.sleep(_NEW_SECONDS if swept.ran_out else SWEEP_SECONDS)
        await self._lease.give_way()


@dataclass(frozen=True, slots=True)
class Process:
    """The process of a crowd."""

    process: "subprocess.Popen[str]"

    def leave_the_sweeps(self) -> None:
        """Have a real worker sweep, if one is there."""
        self.process.send_signal(_LEAVE)

    def take_part(self) -> None:
        """Have any instance look, and sweep where none does."""
        self.process.send_signal(_TAKE_PART)


@contextlib.contextmanager
def crowd_beside(url: str, *, instances: int, beside: int) -> Iterator[Process]:
    """Start a crowd, and wait until all are registered; it ends with the block."""
    orders = Orders(url=url, instances=instances, beside=beside)
    command = [sys.executable, "-m", "benchmarks.crowd", json.dumps(dataclasses.asdict(orders))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent()) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != IS_READY:
                raise RuntimeError(f"the crowd of {instances} instances ended before it was registered")
            yield Process(process)
        finally:
            process.kill()


async def _play(orders: Orders, names: dict[int, str]) -> None:
    client = redis.asyncio.Redis.from_url(orders.url)
    crowd = Crowd(client, names)
    await crowd.register(jobs_each=0)
    await Play(crowd, beside=orders.beside).run()


if __name__ == "__main__":
    told = Orders(**json.loads(sys.argv[1]))
    logging.getLogger("async_tracker").setLevel(logging.ERROR)  # deaths and recoveries are what it is there for
    with named_connections(told.url, told.instances) as opened:
        asyncio.run(_play(told, opened))
