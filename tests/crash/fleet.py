"""Workers on one queue, what they are given to do, and the account of it: the frame of every crash test."""

import asyncio
import json
import signal
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.constants import default_queue_name

from async_tracker import Instance, Tracker
from async_tracker.connections.calls import Script
from tests.harness.ledger import Account, Ledger
from tests.harness.resp import Command
from tests.harness.servers import assert_no_leaks, leaked_keys
from tests.harness.wait import wait_until
from tests.harness.wire import HoldRule, WireProxy
from tests.harness.workers import WorkerProcess, Workers

QUICK: dict[str, Any] = {"heartbeat_interval": 0.5, "heartbeat_ttl": 1.5, "silence_limit": 60.0, "sweep_interval": 0.2}
"""Limits for tests in which the default ones are not the point. A live worker on a loaded machine still keeps them."""

SWIFT: dict[str, Any] = {**QUICK, "disconnect_grace": 0.4}
"""The same for tests in which nobody is cut off who lives: then a killed worker need not be given the time to come back."""

START_SECONDS = 60.0
DONE_SECONDS = 60.0


class Fleet:
    """Worker processes that share one queue and one namespace. ``tracker`` and ``pool`` are the test's own."""

    def __init__(
        self, *, workers: Workers, ledger: Ledger, redis_url: str, tracker_url: str, namespace: str, tracker: Tracker, pool: ArqRedis
    ) -> None:
        self.workers = workers
        self.ledger = ledger
        self.redis_url = redis_url
        self.tracker_url = tracker_url
        self.namespace = namespace
        self.tracker = tracker
        self.pool = pool
        self.started: list[WorkerProcess] = []
        self.noted: set[int] = set()
        self.recovering: set[int] = set()

    def start(
        self,
        *,
        tracker: dict[str, Any] | None = SWIFT,
        worker: dict[str, Any] | None = None,
        redis_url: str | None = None,
        env: dict[str, str] | None = None,
        **more: Any,
    ) -> WorkerProcess:
        """Start a worker; ``tracker=None`` makes an untracked one. Does not wait."""
        config = {
            "redis_url": redis_url or self.redis_url,
            "ledger": str(self.ledger.path),
            "namespace": self.namespace,
            "tracker": tracker,
            "worker": worker or {},
            **more,
        }
        started = self.workers.start("tests.crash.app.WorkerSettings", env={"TEST_APP": json.dumps(config), **(env or {})})
        self.started.append(started)
        if tracker is not None and tracker.get("recover", True):
            self.recovering.add(started.pid)
        return started

    async def start_ready(self, count: int = 1, **options: Any) -> list[WorkerProcess]:
        """Start workers and wait until each of them is registered."""
        started = [self.start(**options) for _ in range(count)]
        for worker in started:
            await self.registered(worker)
        return started

    async def registered(self, worker: WorkerProcess) -> Instance:
        """Wait until the worker is an instance, and return it."""

        async def find() -> Instance | None:
            assert worker.exit_code is None, f"{worker.name} ended with {worker.exit_code}:\n{worker.output()}"
            return await self.instance_of(worker)

        found = await wait_until(find, timeout=START_SECONDS, description=f"{worker.name} is registered")
        assert found is not None
        return found

    async def instance_of(self, worker: WorkerProcess) -> Instance | None:
        """Give the worker's instance; the newest, where it had to take another id."""
        mine = [found for found in await self.tracker.instances() if found.pid == worker.pid]
        return mine[-1] if mine else None

    async def enqueue(self, function: str, *arguments: Any, job_id: str | None = None, **options: Any) -> str:
        """Enqueue a job that must succeed once."""
        job_id = job_id or uuid.uuid4().hex
        self.ledger.enqueued(job_id)
        assert await self.pool.enqueue_job(function, *arguments, _job_id=job_id, **options) is not None
        return job_id

    async def enqueue_many(self, count: int, function: str, *arguments: Any) -> list[str]:
        """Enqueue that many jobs alike."""
        return [await self.enqueue(function, *arguments) for _ in range(count)]

    async def running(self, job_id: str, *, runs: int = 1) -> WorkerProcess:
        """Wait until a job has begun for the so many-th time; returns the worker that runs it."""

        def begun() -> WorkerProcess | None:
            found = self.ledger.read().runs_of(job_id)
            if len(found) < runs:
                return None
            return next(worker for worker in self.started if worker.pid == found[runs - 1].pid)

        found = await wait_until(begun, timeout=DONE_SECONDS, description=f"run {runs} of job {job_id} begins")
        assert found is not None
        return found

    async def in_flight(self, job_id: str, *, run_of: WorkerProcess | None = None) -> None:
        """Wait until the job's record is in Redis, as that worker's run if one is given."""

        async def find() -> bool:
            job = await self.tracker.job(job_id)
            if job is None or run_of is None:
                return job is not None
            instance = await self.instance_of(run_of)
            return instance is not None and job.instance_id == instance.instance_id

        await wait_until(find, timeout=DONE_SECONDS, description=f"job {job_id} is recorded in flight")

    async def succeeded(self, *job_ids: str, timeout: float = DONE_SECONDS) -> Account:
        """Wait until these jobs, or all that were enqueued, have succeeded and arq knows it."""

        async def done() -> bool:
            account = self.ledger.read()
            wanted = frozenset(job_ids) or account.enqueued
            if not wanted <= account.succeeded():
                return False
            return not any(score is not None for score in [await self.pool.zscore(default_queue_name, job_id) for job_id in wanted])

        await wait_until(done, timeout=timeout, description="every job has succeeded", poll_interval=0.05)
        return self.ledger.read()

    async def counted(self, function: str, started: int) -> bool:
        """Tell whether so many runs of a function are counted as started; more would be counted twice."""
        found = (await self.tracker.stats(function=function)).started
        assert found <= started
        return found == started

    def note_deaths(self) -> list[WorkerProcess]:
        """Tell the ledger of workers that have ended by themselves; returns those that were not known to."""
        ended = [worker for worker in self.started if worker.exit_code is not None and worker.pid not in self.noted]
        for worker in ended:
            self.noted.add(worker.pid)
            self.ledger.killed(worker.pid)
        return ended

    async def leave(self) -> None:
        """Ask every worker that is still there to leave, and recover what the dead have left."""
        alive = [worker for worker in self.started if worker.exit_code is None]
        for worker in alive:
            worker.resume()
            worker.ask_to_leave()
        for worker in alive:
            worker.wait()

        async def empty() -> bool:
            await self.tracker.recover()
            return not await self.tracker.instances()

        await wait_until(empty, timeout=START_SECONDS, description="no instance is left", poll_interval=0.1)

    async def tidy(self) -> None:
        """Wait until the fleet itself has cleared away what the dead have left, where any worker of it is to do that."""
        if not any(worker.exit_code is None and worker.pid in self.recovering for worker in self.started):
            return
        async with self.tracker.redis() as namespaced:

            async def clear() -> bool:
                return await leaked_keys(namespaced.redis, self.namespace) == []

            await wait_until(clear, timeout=START_SECONDS, description="the fleet has cleared away after the dead", poll_interval=0.1)

    async def close(self, *, doubled: int = 0, overlapping: int = 0, allowed_keys: Sequence[str] = ()) -> Account:
        """End the fleet, and hold it to account: nothing lost, so many doubled runs and overlaps, and no key left behind.

        What is left is looked for twice: while the fleet lives, which must do without help, and when everybody is gone.
        """
        if not allowed_keys:
            await self.tidy()
        await self.leave()
        account = self.ledger.read()
        assert account.lost() == frozenset()
        assert len(account.doubled()) <= doubled, f"doubled: {sorted(account.doubled())}"
        assert len(account.overlapping()) <= overlapping, f"robbed: {account.overlapping()}"
        await assert_no_leaks(self.pool, self.namespace, allowed=allowed_keys)
        async with self.tracker.redis() as namespaced:
            await assert_no_leaks(namespaced.redis, self.namespace, allowed=allowed_keys)
        return account

    async def aclose(self) -> None:
        """Close the test's own connections."""
        await self.tracker.aclose()
        await self.pool.aclose()

    async def open(self) -> None:
        """Make the test's own connections anew, once there is a server to connect to again."""
        await self.aclose()
        self.pool = await create_pool(RedisSettings.from_dsn(self.redis_url))


async def open_fleet(workers: Workers, ledger: Ledger, redis_url: str, namespace: str, **options: Any) -> Fleet:
    """Make a fleet without workers; ``options`` are the tracker's in this process."""
    pool = await create_pool(RedisSettings.from_dsn(redis_url))
    tracker_url = options.pop("tracker_url", redis_url)
    tracker = Tracker(namespace=namespace, redis_options={"url": tracker_url}, **options)
    urls = {"redis_url": redis_url, "tracker_url": tracker_url}
    return Fleet(workers=workers, ledger=ledger, **urls, namespace=namespace, tracker=tracker, pool=pool)


async def kill_under_way(victim: WorkerProcess, wire: WireProxy, held: HoldRule, *, arrives: bool) -> None:
    """Kill a worker whose command is held on its wire; the command arrives after its sender's death, or never."""
    victim.kill()
    if arrives:
        wire.cut_clients()
        held.release()
        await asyncio.sleep(0.05)
    wire.cut()


def script_call(script: Script) -> Callable[[Command], bool]:
    """Match the commands that run a script, the first time or again."""
    sha, text = script.sha.encode(), script.text.encode()
    return lambda command: len(command) > 1 and command[0] in (b"EVALSHA", b"EVAL") and command[1] in (sha, text)


def was_killed(worker: WorkerProcess) -> bool:
    """Tell whether it ended by SIGKILL."""
    return worker.exit_code == -signal.SIGKILL
