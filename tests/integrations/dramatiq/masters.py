"""dramatiq masters with their worker processes, messages for them, and the account of it."""

import json
import os
import signal
import sys
import uuid
from typing import Any

from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from async_tracker import Instance, Job, Tracker
from tests.harness.alive import lives, parent
from tests.harness.ledger import Account, Ledger
from tests.harness.servers import assert_no_leaks
from tests.harness.wait import wait_until, wait_until_sync
from tests.harness.workers import WorkerProcess, Workers

APP = "tests.integrations.dramatiq.app"
QUICK: dict[str, Any] = {"heartbeat_interval": 0.5, "heartbeat_ttl": 1.5, "silence_limit": 60.0, "sweep_interval": 0.2}
"""Limits for tests in which the default ones are not the point."""

START_SECONDS = 60.0
DONE_SECONDS = 60.0


class Masters:
    """Masters that work on the queues of one Redis. ``tracker`` and ``broker`` are the test's own."""

    def __init__(self, *, workers: Workers, ledger: Ledger, redis_url: str, namespace: str, tracker: Tracker) -> None:
        self.workers = workers
        self.ledger = ledger
        self.redis_url = redis_url
        self.namespace = namespace
        self.tracker = tracker
        self.broker = RedisBroker(url=redis_url)
        self.started: list[WorkerProcess] = []
        self.noted: set[int] = set()
        self.leaving: set[int] = set()

    def start(self, *, processes: int = 2, threads: int = 4, settings: dict[str, Any] | None = None, **env: str) -> WorkerProcess:
        """Start a master, and do not wait. ``env`` are further TEST_… variables, and dramatiq's own."""
        command = [sys.executable, "-m", "dramatiq", APP, "-p", str(processes), "-t", str(threads)]
        told = {"TEST_REDIS_URL": self.redis_url, "TEST_LEDGER": str(self.ledger.path), "TEST_NAMESPACE": self.namespace}
        told["TEST_SETTINGS"] = json.dumps(QUICK if settings is None else settings)
        told["dramatiq_worker_timeout"] = "100"  # ms for which an idle thread waits: it is how long leaving takes
        master = self.workers.start_program([*command, *env.pop("arguments", "").split()], env={**told, **env})
        self.started.append(master)
        return master

    async def registered(self, count: int) -> list[Instance]:
        """Wait until so many instances are alive, and return them."""

        async def find() -> list[Instance] | None:
            for master in self.started:
                assert master.exit_code is None, f"{master.name} ended with {master.exit_code}:\n{master.output()}"
            found = [instance for instance in await self.tracker.instances() if instance.state == "alive"]
            return found if len(found) >= count else None

        found = await wait_until(find, timeout=START_SECONDS, description=f"{count} instances are alive", poll_interval=0.1)
        assert found is not None
        assert len(found) == count
        return found

    def send(
        self, actor: str, *args: Any, queue: str = "default", message_id: str | None = None, delay_ms: int | None = None, must: bool = True
    ) -> str:
        """Enqueue a message; unless ``must`` is False it counts as lost until it has succeeded."""
        message: Message[Any] = Message(
            queue_name=queue, actor_name=actor, args=args, kwargs={}, options={}, message_id=message_id or str(uuid.uuid4())
        )
        if must:
            self.ledger.enqueued(message.message_id)
        self.broker.enqueue(message, delay=delay_ms)
        return message.message_id

    async def in_flight(self, message_id: str, *, elsewhere_than: str | None = None) -> Job:
        """Wait until the message's record is in Redis, from another instance if one is given."""

        async def find() -> Job | None:
            job = await self.tracker.job(message_id)
            return job if job is not None and job.instance_id != elsewhere_than else None

        found = await wait_until(find, timeout=DONE_SECONDS, description=f"message {message_id} is in flight")
        assert found is not None
        return found

    def kill(self, pid: int) -> None:
        """End one worker process with SIGKILL; returns when its master has found it dead, and with that has begun to leave."""
        self.leaving.add(parent(pid))
        os.kill(pid, signal.SIGKILL)
        wait_until_sync(lambda: not lives(pid), timeout=START_SECONDS, description=f"process {pid} is dead")
        self.note_deaths()

    def note_deaths(self) -> None:
        """Tell the ledger which of the processes that have run something are dead."""
        for pid in {run.pid for run in self.ledger.read().runs} - self.noted:
            if not lives(pid):
                self.noted.add(pid)
                self.ledger.killed(pid)

    async def succeeded(self, *message_ids: str, timeout: float = DONE_SECONDS) -> Account:
        """Wait until these messages, or all that must, have succeeded."""

        def done() -> bool:
            account = self.ledger.read()
            return (frozenset(message_ids) or account.enqueued) <= account.succeeded()

        await wait_until(done, timeout=timeout, description="every message has succeeded", poll_interval=0.05)
        self.note_deaths()
        return self.ledger.read()

    async def leave(self) -> None:
        """Ask every master that is still there to leave, and recover what the dead have left.

        One that has lost a process leaves by itself, and is not asked: a second SIGTERM ends dramatiq's processes in the middle of
        leaving, and with its AsyncIO middleware they then wait for the thread of the event loop, for ever, tracked or not.
        """
        alive = [master for master in self.started if master.exit_code is None]
        for master in alive:
            if master.pid not in self.leaving:
                master.ask_to_leave()
        for master in alive:
            master.wait()

        async def empty() -> bool:
            await self.tracker.recover()
            return not await self.tracker.instances()

        await wait_until(empty, timeout=START_SECONDS, description="no instance is left", poll_interval=0.1)

    async def close(self, *, allowed_keys: tuple[str, ...] = ()) -> Account:
        """End them all, and hold them to account: nothing lost, nothing robbed, and no key left behind."""
        await self.leave()
        self.note_deaths()
        account = self.ledger.read()
        assert account.lost() == frozenset()
        assert account.overlapping() == ()
        async with self.tracker.redis() as redis:
            await assert_no_leaks(redis.redis, self.namespace, allowed=allowed_keys)
        return account

    def acks(self, broker_id: str, queue: str = "default") -> set[str]:
        """Give the ids in Redis of what a broker has fetched from a queue and not acknowledged."""
        members: Any = self.broker.client.smembers(f"dramatiq:__acks__.{broker_id}.{queue}")
        return {name.decode() for name in members}

    async def broker_id(self, instance_id: str) -> str:
        """Give the id of the broker of an instance, as it describes itself."""
        async with self.tracker.redis() as redis:
            stored = await redis.hget(f"instance:{instance_id}", "broker")
        return str(json.loads(stored)["redis"]["broker_id"])
