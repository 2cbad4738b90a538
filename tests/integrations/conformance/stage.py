"""Where the scenarios play: worker processes of one integration on one Redis, and an observer who only asks."""

import json
import os
import signal
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio

from async_tracker import Instance, Job, Tracker
from tests.harness.alive import lives
from tests.harness.ledger import Account, Ledger
from tests.harness.servers import assert_no_leaks
from tests.harness.wait import wait_until, wait_until_sync
from tests.harness.workers import WorkerProcess, Workers
from tests.integrations.conformance.drivers import Driver
from tests.integrations.dramatiq.masters import QUICK

SECONDS = 60.0
"""How long anything may take on a machine that is busy with something else."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """``tracker`` is the observer's."""

    driver: Driver
    workers: Workers
    ledger: Ledger
    client: redis.asyncio.Redis
    redis_url: str
    namespace: str
    tracker: Tracker
    told: Path
    """The file for which jobs wait that run until the test has seen what it wants to see."""
    started: list[WorkerProcess] = field(default_factory=list)

    def start(self, **settings: Any) -> None:
        """Start one worker, and do not wait."""
        env = {
            "TEST_REDIS_URL": self.redis_url,
            "TEST_LEDGER": str(self.ledger.path),
            "TEST_NAMESPACE": self.namespace,
            "TEST_SETTINGS": json.dumps({**QUICK, "hook_timeout": 5.0, **settings}),
            "dramatiq_worker_timeout": "100",
            **({"PYTHONPATH": str(self.driver.folder)} if self.driver.folder is not None else {}),
        }
        self.started.append(self.workers.start_program(self.driver.command, env=env))

    async def start_ready(self, count: int = 1, **settings: Any) -> list[Instance]:
        """Start workers, and wait until so many more are alive. Returns all that are."""
        wanted = len(await self.alive()) + count
        for _ in range(count):
            self.start(**settings)

        async def found() -> bool:
            return len(await self.alive()) >= wanted

        await wait_until(found, timeout=SECONDS, description=f"{wanted} workers are alive", poll_interval=0.05)
        return await self.alive()

    async def alive(self) -> list[Instance]:
        """Give the instances that are alive and whose processes are there."""
        return [found for found in await self.tracker.instances() if found.state == "alive" and lives(found.pid)]

    async def send(self, function: str, *args: Any, job_id: str | None = None, must: bool = True) -> str:
        """Give a job to the queue; unless ``must`` is False it counts as lost until it has succeeded."""
        job_id = job_id or uuid.uuid4().hex
        if must:
            self.ledger.enqueued(job_id)
        await self.driver.enqueue(self.client, job_id, function, args)
        return job_id

    async def hold(self, *, job_id: str | None = None, must: bool = True) -> str:
        """Give a job to the queue that runs until `tell`, or for ten minutes."""
        return await self.send("hold", 600.0, str(self.told), job_id=job_id, must=must)

    def tell(self) -> None:
        """Let the jobs end that wait for it."""
        self.told.touch()

    async def in_flight(self, job_id: str, *, elsewhere_than: str | None = None) -> Job:
        """Wait until the job's record is there with its progress, from another instance if one is given."""

        async def find() -> Job | None:
            job = await self.tracker.job(job_id)
            return job if job is not None and job.progress is not None and job.instance_id != elsewhere_than else None

        found = await wait_until(find, timeout=SECONDS, description=f"job {job_id} is in flight")
        assert found is not None
        return found

    async def kill(self, instance_id: str) -> None:
        """End a worker with SIGKILL."""
        instance = await self.tracker.instance(instance_id)
        assert instance is not None
        os.kill(instance.pid, signal.SIGKILL)
        wait_until_sync(lambda: not lives(instance.pid), timeout=SECONDS, description=f"process {instance.pid} is dead")
        self.ledger.killed(instance.pid)

    async def succeeded(self) -> Account:
        """Wait until every job that must has succeeded."""

        def done() -> bool:
            account = self.ledger.read()
            return account.enqueued <= account.succeeded()

        await wait_until(done, timeout=SECONDS, description="every job has succeeded", poll_interval=0.05)
        return self.ledger.read()

    def leave(self) -> None:
        """Ask every worker that is still there to leave, and wait."""
        alive = [worker for worker in self.started if worker.exit_code is None]
        for worker in alive:
            worker.ask_to_leave()
        for worker in alive:
            worker.wait(SECONDS)

    async def close(self) -> Account:
        """End it all, and hold it to account: nothing lost, nothing robbed, no key left behind."""
        self.leave()

        async def empty() -> bool:
            await self.tracker.recover()
            return not await self.tracker.instances()

        await wait_until(empty, timeout=SECONDS, description="no instance is left", poll_interval=0.1)
        account = self.ledger.read()
        assert account.lost() == frozenset()
        assert account.overlapping() == ()
        await assert_no_leaks(self.client, self.namespace)
        return account
