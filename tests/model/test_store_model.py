"""The store against a model of dicts: claim, start, end, beat, die, sweep, return and retry, in any order, on a real server.

The model knows who is registered, who is dead, which job is queued, claimed by which run, or quarantined. After every step the server must
hold just that, and no job that was enqueued and has not ended may be anywhere but in the queue or in quarantine.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import hypothesis
import redis.asyncio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from async_tracker.calls import text
from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.integrations.arq.names import DEFAULT_QUEUE, IN_PROGRESS, JOB, RETRY
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.records import RecoveryAction
from async_tracker.recovery import Policy, Recoverer, kept_payload
from async_tracker.store import Beat, Ended, Judged, Status, Store
from async_tracker.store.reading import Reading
from async_tracker.stored import Connections, Description, RunRecord, encode_description
from tests.harness.servers import leaked_keys

JOBS = [f"j{number}" for number in range(4)]
MAX_RECOVERIES = 2
DESCRIPTION = Description(library="arq", host="h", host_id="h", pid=1, queue=DEFAULT_QUEUE)
FIELDS = encode_description(DESCRIPTION, Limits())
NAMESPACE = "model"

picks = st.integers(min_value=0, max_value=1_000)


def beat_of(number: int, *, busy: int, connections: str = "", counters: dict[str, int] | None = None) -> Beat:
    return Beat(sequence=number, connections=connections, fields={"busy": busy}, counters=counters or {}, minute=0)


class StoreMachine(RuleBasedStateMachine):
    """Rules are what may happen; ``pick`` chooses among those it may happen to."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self.registered: dict[str, dict[str, str]] = {}
        self.dead: dict[str, dict[str, str]] = {}
        self.recorded: set[tuple[str, str]] = set()
        self.tried: set[str] = set()
        self.sequences: dict[str, int] = {}
        self.queued: set[str] = set()
        self.quarantined: set[str] = set()
        self.deaths: dict[str, int] = {}
        self.number = 0

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    @initialize()
    def connect(self) -> None:
        async def make() -> None:
            self.client = redis.asyncio.Redis.from_url(self.url)
            await self.client.flushdb()
            proxy = Namespace(self.client, NAMESPACE)
            self.store = Store(proxy)
            self.adapter = ArqAdapter(self.client, receipt_key=proxy.full_key)
            policy = Policy(max_recoveries=MAX_RECOVERIES, recovery_window=3600.0)
            self.recoverer = Recoverer(store=self.store, adapter=self.adapter, policy=policy, on_event=lambda event: None)

        self.run(make())

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.run(self.client.aclose())
        self._runner.close()

    def sequence(self, name: str) -> int:
        self.sequences[name] = self.sequences.get(name, 0) + 1
        return self.sequences[name]

    def claimed(self) -> dict[str, str]:
        """Give job -> token of every claim."""
        return {job: f"{name}:{run}" for held in (self.registered, self.dead) for name, jobs in held.items() for job, run in jobs.items()}

    def record(self, name: str, job: str) -> RunRecord:
        run = {**self.registered, **self.dead}[name][job]
        return RunRecord(job_id=job, instance_id=name, run=run, queue=DEFAULT_QUEUE, library="arq", started_at_ms=self.number)

    def pick_registered(self, pick: int) -> str:
        return sorted(self.registered)[pick % len(self.registered)]

    @precondition(lambda self: len(self.registered) < 3)
    @rule()
    def register(self) -> None:
        self.number += 1
        name = f"w:{self.number}:n"
        reply = self.run(self.store.register(name, self.sequence(name), Connections(server="s", ids={self.number: "c"}).encode(), FIELDS))
        assert reply.status is Status.WRITTEN
        self.registered[name] = {}

    @rule(job=st.sampled_from(JOBS))
    def enqueue(self, job: str) -> None:
        """Enqueue a job unless its id is in use."""
        if job in self.queued | self.quarantined:
            return

        async def enqueue() -> None:
            await self.client.set(JOB + job, b"payload")
            await self.client.zadd(DEFAULT_QUEUE, {job: 1})

        self.run(enqueue())
        self.queued.add(job)

    @precondition(lambda self: self.registered and self.queued - set(self.claimed()))
    @rule(pick=picks, lives_to=st.sampled_from(["claim", "start", "record"]))
    def claim_and_start(self, pick: int, lives_to: str) -> None:
        """arq claims, counts the try, and then the journal writes the record; a worker may be killed in between."""
        name = self.pick_registered(pick)
        free = sorted(self.queued - set(self.claimed()))
        job = free[pick % len(free)]
        self.number += 1
        run = f"{self.number:016x}"
        self.registered[name][job] = run
        self.run(self.client.set(IN_PROGRESS + job, f"{name}:{run}", nx=True))
        if lives_to != "claim":
            self.tried.add(job)
            self.run(self.client.incr(RETRY + job))
        if lives_to == "record":
            reply = self.run(self.store.write(name, self.sequence(name), started=[self.record(name, job)], ended=[]))
            assert reply.status is Status.WRITTEN
            self.recorded.add((name, job))

    @precondition(lambda self: any(self.registered.values()))
    @rule(pick=picks)
    def end(self, pick: int) -> None:
        """A run ends: arq takes the job off its queue, and the journal writes it."""
        running = sorted((name, job) for name, jobs in self.registered.items() for job in jobs)
        name, job = running[pick % len(running)]
        run = self.registered[name].pop(job)
        self.queued.discard(job)
        self.tried.discard(job)

        async def finish() -> None:
            await self.client.delete(IN_PROGRESS + job, JOB + job, RETRY + job)
            await self.client.zrem(DEFAULT_QUEUE, job)
            await self.store.write(name, self.sequence(name), started=[], ended=[Ended(job_id=job, run=run)])

        self.run(finish())
        self.recorded.discard((name, job))

    @precondition(lambda self: self.registered)
    @rule(pick=picks)
    def beat(self, pick: int) -> None:
        name = self.pick_registered(pick)
        reply = self.run(self.store.beat(name, beat_of(self.sequence(name), busy=1)))
        assert reply.status is Status.WRITTEN

    @precondition(lambda self: self.registered)
    @rule(pick=picks, job=st.sampled_from(JOBS))
    def a_write_arrives_late(self, pick: int, job: str) -> None:
        """An older number than was seen: whatever it says, it changes nothing."""
        name = self.pick_registered(pick)
        late = RunRecord(job_id=job, instance_id=name, run="late", library="arq", started_at_ms=10**15)
        reply = self.run(self.store.write(name, 0, started=[late], ended=[]))
        assert reply.status is Status.STALE

    async def _judged(self, name: str, **changed: str) -> Judged:
        seen = await self.store.observe("s")
        evidence = {"heartbeat": seen.instances[name], "connections": seen.connections[name], "watchdog": "", "reason": "it is gone"}
        return Judged(instance_id=name, **{**evidence, **changed})

    @precondition(lambda self: self.registered)
    @rule(pick=picks)
    def die(self, pick: int) -> None:
        name = self.pick_registered(pick)

        async def die() -> bool:
            return await self.store.declare_dead(await self._judged(name), "{}")

        assert self.run(die())
        self.dead[name] = self.registered.pop(name)

    @precondition(lambda self: self.registered)
    @rule(pick=picks, what=st.sampled_from(["heartbeat", "connections", "watchdog"]))
    def judged_by_evidence_that_has_changed_since(self, pick: int, what: str) -> None:
        name = self.pick_registered(pick)

        async def die() -> bool:
            return await self.store.declare_dead(await self._judged(name, **{what: "5"}), "{}")

        assert not self.run(die())

    @precondition(lambda self: self.dead)
    @rule(pick=picks, job=st.sampled_from(JOBS), how=st.sampled_from(["register", "beat", "write", "deregister"]))
    def a_dead_one_returns(self, pick: int, job: str, how: str) -> None:
        """Nothing that it does under its old id changes anything."""
        name = sorted(self.dead)[pick % len(self.dead)]
        number = self.sequence(name) + 1_000
        record = RunRecord(job_id=job, instance_id=name, run="zombie", library="arq", started_at_ms=10**15)
        deeds: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "register": lambda: self.store.register(name, number, "", FIELDS),
            "beat": lambda: self.store.beat(name, beat_of(number, busy=9, connections="x", counters={"c": 1})),
            "write": lambda: self.store.write(name, number, started=[record], ended=[Ended(job_id=job, run=None)]),
            "deregister": lambda: self.store.deregister(name),
        }
        reply = self.run(deeds[how]())
        assert reply == -1 if how == "deregister" else reply.status is Status.UNKNOWN

    @precondition(lambda self: self.registered)
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        """An orderly end; what it leaves is orphaned at once, and counts against nobody."""
        name = self.pick_registered(pick)
        left = self.run(self.store.deregister(name))
        held = self.registered.pop(name)
        assert left == len([job for job in held if (name, job) in self.recorded])
        if left:
            self.dead[name] = held
        else:  # arq's expiry is all that is left for claims that nobody was told of
            self.run(self._forget(held))

    async def _forget(self, held: dict[str, str]) -> None:
        for job in held:
            await self.client.delete(IN_PROGRESS + job)

    @precondition(lambda self: self.dead)
    @rule(dry_run=st.booleans())
    def sweep(self, dry_run: bool) -> None:
        async def sweep() -> tuple[Any, set[str]]:
            instances = await Reading(self.store.redis).instances(sorted(self.dead))
            draining = {name for name, stored in instances.items() if stored.state == "draining"}
            return await self.recoverer.recover(sorted(self.dead), now_ms=(await self.store.observe("")).now_ms, dry_run=dry_run), draining

        done, draining = self.run(sweep())
        orphans = {(name, job) for name, jobs in self.dead.items() for job in jobs if job in self.tried}  # others were never started
        assert {(one.instance_id, one.job_id) for one in done} == orphans
        if dry_run:
            return
        for one in done:
            counted = one.instance_id not in draining
            self.deaths[one.job_id] = self.deaths.get(one.job_id, 0) + counted
            assert one.deaths == self.deaths[one.job_id]
            if one.action is RecoveryAction.QUARANTINED:
                assert one.deaths > MAX_RECOVERIES
                self.queued.discard(one.job_id)
                self.quarantined.add(one.job_id)
                self.tried.discard(one.job_id)
                del self.deaths[one.job_id]
            else:
                assert one.action in (RecoveryAction.RECOVERED, RecoveryAction.DELAYED)
                assert one.deaths <= 2 * MAX_RECOVERIES or not counted
                assert (one.delay > 0) == (one.deaths > 1)
        self.dead.clear()

    @precondition(lambda self: self.quarantined)
    @rule(pick=picks)
    def retry(self, pick: int) -> None:
        job = sorted(self.quarantined)[pick % len(self.quarantined)]

        async def retry() -> bool:
            fields = (await Reading(self.store.redis).quarantined())[job]
            done = await self.adapter.retry(job, DEFAULT_QUEUE, kept_payload(fields))
            return done and await self.store.unquarantine(job, "{}")

        assert self.run(retry())
        self.quarantined.discard(job)
        self.queued.add(job)

    @invariant()
    def the_server_holds_what_the_model_says(self) -> None:
        if hasattr(self, "client"):
            self.run(self._compare())

    async def _compare(self) -> None:
        members = {name: {text(member) for member in await self._members(name)} for name in ("instances", "dead", "quarantine")}
        assert members == {"instances": set(self.registered), "dead": set(self.dead), "quarantine": self.quarantined}
        assert {text(job) for job in await self.client.zrange(DEFAULT_QUEUE, 0, -1)} == self.queued
        claims = {job: await self.client.get(IN_PROGRESS + job) for job in JOBS}
        assert {job: text(token) for job, token in claims.items() if token is not None} == self.claimed()
        for name, held in self.registered.items():
            listed = {text(job) for job in await self.client.smembers(f"{NAMESPACE}:jobs:{name}")}
            assert listed == {job for job in held if (name, job) in self.recorded}
        owned = {f"{key}:{name}" for name in self.dead for key in ("instance", "jobs", "orphans", "settled", "counters")}
        owned |= {f"job:{job}" for held in self.dead.values() for job in held} | {f"quarantined:{job}" for job in self.quarantined}
        assert await leaked_keys(self.client, NAMESPACE, allowed=owned | {"dead", "quarantine", "connections"}) == []

    async def _members(self, name: str) -> list[bytes]:
        found: list[bytes] = await self.client.zrange(f"{NAMESPACE}:{name}", 0, -1)
        return found


def test_whatever_happens_in_whatever_order_the_store_holds_what_a_dict_would(redis_url: str):
    class OnThisServer(StoreMachine):
        url = redis_url

    run_state_machine_as_test(OnThisServer, settings=hypothesis.settings(max_examples=100, stateful_step_count=40, deadline=None))
