"""The store against a model of dicts: claim, start, end, beat, die, sweep, return and retry, in any order, on a real server.

The model knows who is registered, who is dead, which job is queued, claimed by which run, recorded, or quarantined. After every step the
server must hold just that, and no job that was enqueued and has not ended may be anywhere but in the queue or in quarantine. Claims expire,
as arq's do, so that a second run begins beside the first; and the id of an orphan, or of a quarantined job, may be enqueued anew.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import hypothesis
import pytest
import redis.asyncio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from async_tracker.connections.replies import text
from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.integrations.arq.names import DEFAULT_QUEUE, IN_PROGRESS, JOB, RESULT, RETRY
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.records import Recovery, RecoveryAction
from async_tracker.recovery.leftovers import Leftovers
from async_tracker.recovery.quarantine import kept_payload
from async_tracker.recovery.recoverer import Recoverer, RecoveryLimits
from async_tracker.store.commands import Store
from async_tracker.store.counters import TotalsBatch
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections
from async_tracker.store.reading import Reading
from async_tracker.store.run_record import RunRecord
from async_tracker.store.writes import Beat, Ended, Judged, Status
from tests.harness.leaving import deregister
from tests.harness.servers import leaked_keys

JOBS = [f"j{number}" for number in range(4)]
MAX_RECOVERIES = 1
DESCRIPTION = Description(library="arq", host="h", host_id="h", pid=1, queue=DEFAULT_QUEUE)
FIELDS = encode_description(DESCRIPTION, Limits())
NAMESPACE = "model"
COUNTED = TotalsBatch(number=1, after=0, grown={"c": 1})

picks = st.integers(min_value=0, max_value=1_000)


def beat_of(number: int, *, busy: int, connections: str = "", totals: TotalsBatch | None = None) -> Beat:
    return Beat(sequence=number, connections=connections, fields={"busy": busy}, totals=totals)


class StoreMachine(RuleBasedStateMachine):
    """Rules are what may happen; ``pick`` chooses among those it may happen to."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self.registered: dict[str, dict[str, str]] = {}
        self.dead: dict[str, dict[str, str]] = {}
        self.recorded: set[tuple[str, str]] = set()
        self.records: dict[str, tuple[str, str]] = {}
        """Job -> instance and run of the record that stands."""
        self.claims: dict[str, str] = {}
        """Job -> token of the claim that stands."""
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
            reading = Reading(proxy)
            leftovers = Leftovers(
                store=self.store, reading=reading, library="arq", adapter=self.adapter, recovery_window=3600.0, on_event=lambda event: None
            )
            self.recoverer = Recoverer(
                store=self.store,
                reading=reading,
                adapter=self.adapter,
                leftovers=leftovers,
                limits=RecoveryLimits(max_recoveries=MAX_RECOVERIES, recovery_window=3600.0),
                on_event=lambda event: None,
            )

        self.run(make())

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.run(self.client.aclose())
        self._runner.close()

    def sequence(self, name: str) -> int:
        self.sequences[name] = self.sequences.get(name, 0) + 1
        return self.sequences[name]

    def holds(self, name: str, job: str) -> bool:
        """Tell whether the claim of a job is still that of this instance's run."""
        return self.claims.get(job) == f"{name}:{(self.registered | self.dead)[name][job]}"

    def record(self, name: str, job: str) -> RunRecord:
        run = {**self.registered, **self.dead}[name][job]
        return RunRecord(job_id=job, instance_id=name, token=run, queue=DEFAULT_QUEUE, library="arq", started_at_ms=self.number)

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

    @precondition(lambda self: set(JOBS) - self.queued - self.quarantined)
    @rule()
    def enqueue(self) -> None:
        """Enqueue every job whose id is not in use."""
        for job in sorted(set(JOBS) - self.queued - self.quarantined):
            self.run(self._enqueue(job, b"payload"))

    async def _enqueue(self, job: str, payload: bytes) -> None:
        await self.client.set(JOB + job, payload)
        await self.client.zadd(DEFAULT_QUEUE, {job: 1})
        self.queued.add(job)

    def free(self, name: str) -> list[str]:
        """Give the jobs that an instance may claim; one that it runs already is left to others, for it has one run of each here."""
        return sorted(self.queued - set(self.claims) - set(self.registered[name]))

    @precondition(lambda self: any(self.free(name) for name in self.registered))
    @rule(pick=picks, lives=st.lists(st.sampled_from(["record", "start", "claim"]), min_size=1, max_size=3), dies=st.booleans())
    def claim_and_start(self, pick: int, lives: list[str], dies: bool) -> None:
        """arq claims, counts the try, and then the journal writes the record; a worker may be killed in between."""
        names = [name for name in sorted(self.registered) if self.free(name)]
        name = names[pick % len(names)]
        for job, lives_to in zip(self.free(name), lives, strict=False):
            self._start(name, job, lives_to)
        if dies:
            self._die(name)

    def _start(self, name: str, job: str, lives_to: str) -> None:
        self.number += 1
        run = f"{self.number:016x}"
        self.registered[name][job] = run
        self.claims[job] = f"{name}:{run}"
        self.run(self.client.set(IN_PROGRESS + job, f"{name}:{run}", nx=True))
        if lives_to != "claim":
            self.tried.add(job)
            self.run(self.client.incr(RETRY + job))
        if lives_to == "record":
            reply = self.run(self.store.write(name, self.sequence(name), started=[self.record(name, job)], ended=[]))
            assert reply.status is Status.WRITTEN
            self.recorded.add((name, job))
            self.records[job] = (name, run)

    @precondition(lambda self: any(self.registered.values()))
    @rule(pick=picks)
    def end(self, pick: int) -> None:
        """A run ends: arq takes the job off its queue, and its claim, and the journal writes it."""
        running = sorted((name, job) for name, jobs in self.registered.items() for job in jobs)
        name, job = running[pick % len(running)]
        run = self.registered[name].pop(job)
        self.queued.discard(job)
        self.claims.pop(job, None)  # whoever's it is by now: arq does not ask
        if self.records.get(job) == (name, run):
            del self.records[job]
        self.tried.discard(job)

        async def finish() -> None:
            await self.client.delete(IN_PROGRESS + job, JOB + job, RETRY + job)
            await self.client.zrem(DEFAULT_QUEUE, job)
            await self.store.write(name, self.sequence(name), started=[], ended=[Ended(job_id=job, token=run)])

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
        late = RunRecord(job_id=job, instance_id=name, token="late", library="arq", started_at_ms=10**15)
        reply = self.run(self.store.write(name, 0, started=[late], ended=[]))
        assert reply.status is Status.STALE

    async def _judged(self, name: str, **changed: str) -> Judged:
        seen = await self.store.observe("s")
        evidence: dict[str, Any] = {
            "heartbeat": seen.instances[name],
            "connections": seen.connections[name],
            "watchdog": "",
            "reason": "it is gone",
        }
        return Judged(instance_id=name, **{**evidence, **changed})

    @precondition(lambda self: any(self.registered.values()))
    @rule(pick=picks)
    def die(self, pick: int) -> None:
        """One that holds something: what a worker that holds nothing leaves is soon told."""
        holding = [name for name in sorted(self.registered) if self.registered[name]]
        self._die(holding[pick % len(holding)])

    def _die(self, name: str) -> None:
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
        record = RunRecord(job_id=job, instance_id=name, token="zombie", library="arq", started_at_ms=10**15)
        deeds: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "register": lambda: self.store.register(name, number, "", FIELDS),
            "beat": lambda: self.store.beat(name, beat_of(number, busy=9, connections="x", totals=COUNTED)),
            "write": lambda: self.store.write(name, number, started=[record], ended=[Ended(job_id=job, token=None)]),
            "deregister": lambda: deregister(self.store, name),
        }
        reply = self.run(deeds[how]())
        assert reply == -1 if how == "deregister" else reply.status is Status.UNKNOWN

    @precondition(lambda self: len(self.registered) > 2)
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        """An orderly end; what it leaves is orphaned at once, and counts against nobody."""
        name = self.pick_registered(pick)
        left = self.run(deregister(self.store, name))
        held = self.registered.pop(name)
        assert left == len([job for job in held if (name, job) in self.recorded])
        if left:
            self.dead[name] = held
        else:  # arq's expiry is all that is left for claims that nobody was told of
            self.run(self._forget(name, held))

    async def _forget(self, name: str, held: dict[str, str]) -> None:
        for job, run in held.items():
            if self.claims.get(job) == f"{name}:{run}":
                del self.claims[job]
                await self.client.delete(IN_PROGRESS + job)

    @precondition(lambda self: self.claims)
    @rule(pick=picks, starts_again=st.booleans())
    def a_claim_expires(self, pick: int, starts_again: bool) -> None:
        """The longest timeout is over, whether the run is or not: arq may start the job a second time."""
        job = sorted(self.claims)[pick % len(self.claims)]
        del self.claims[job]
        self.run(self.client.delete(IN_PROGRESS + job))
        others = [name for name in sorted(self.registered) if job in self.free(name)]
        if starts_again and others:
            self._start(others[pick % len(others)], job, "record")

    @precondition(lambda self: any(self.dead.values()))
    @rule(pick=picks)
    def the_id_of_an_orphan_is_enqueued_anew(self, pick: int) -> None:
        """Somebody has taken the old job away, claim and all, and given its id to another one."""
        orphans = sorted({job for jobs in self.dead.values() for job in jobs})
        job = orphans[pick % len(orphans)]

        self.run(self.client.delete(IN_PROGRESS + job, RETRY + job))
        self.run(self._enqueue(job, b"another payload"))
        self.claims.pop(job, None)
        self.tried.discard(job)

    @precondition(lambda self: self.quarantined - self.queued)
    @rule(pick=picks)
    def the_id_of_a_quarantined_job_is_enqueued_anew(self, pick: int) -> None:
        free = sorted(self.quarantined - self.queued)
        job = free[pick % len(free)]

        self.run(self.client.delete(RESULT + job))
        self.run(self._enqueue(job, b"another payload"))

    @precondition(lambda self: self.dead)
    @rule()
    def sweep(self) -> None:
        """What a dry run tells is what is done then, and it changes nothing."""

        async def sweep(dry_run: bool) -> tuple[Any, set[str]]:
            instances = (await Reading(self.store.redis).instances(sorted(self.dead))).found
            draining = {name for name, stored in instances.items() if stored.state == "draining"}
            now_ms = (await self.store.observe("")).now_ms
            return (await self.recoverer.recover(sorted(self.dead), now_ms=now_ms, dry_run=dry_run)).done, draining

        expected = {(name, job): self.becomes(name, job) for name, jobs in self.dead.items() for job in jobs}
        told = {held for held, what in expected.items() if what in ("orphan", "taken")}
        planned, _ = self.run(sweep(dry_run=True))
        assert {(one.instance_id, one.job_id) for one in planned} == told
        self.run(self._compare())
        done, draining = self.run(sweep(dry_run=False))
        assert {(one.instance_id, one.job_id) for one in done} == told
        for one in done:
            self._note(one, is_orphan=expected[one.instance_id, one.job_id] == "orphan", counted=one.instance_id not in draining)
        self._bury(expected)

    def becomes(self, name: str, job: str) -> str:
        """Tell what a sweep makes of a run of a dead instance: orphan, taken (the job is another one's), given back, or nothing."""
        if not self.holds(name, job) or job not in self.queued:
            return "taken" if (name, job) in self.recorded else "nothing"
        return "orphan" if (name, job) in self.recorded or job in self.tried else "given back"

    def _note(self, one: Recovery, *, is_orphan: bool, counted: bool) -> None:
        if not is_orphan:
            assert one.action in (RecoveryAction.TAKEN, RecoveryAction.ENDED)
            return
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

    def _bury(self, expected: Mapping[tuple[str, str], str]) -> None:
        for (name, job), what in expected.items():
            if what in ("orphan", "given back"):
                del self.claims[job]
            if self.records.get(job) == (name, self.dead[name][job]):
                del self.records[job]
            self.recorded.discard((name, job))
        self.dead.clear()

    @precondition(lambda self: self.quarantined)
    @rule(pick=picks)
    def retry(self, pick: int) -> None:
        job = sorted(self.quarantined)[pick % len(self.quarantined)]

        async def retry() -> bool:
            fields = (await Reading(self.store.redis).quarantined())[job]
            done = await self.adapter.retry(job, DEFAULT_QUEUE, kept_payload(fields))
            return done and await self.store.unquarantine(job, "{}")

        is_free = job not in self.queued and job not in self.claims
        assert self.run(retry()) == is_free
        if is_free:
            self.quarantined.discard(job)
            self.queued.add(job)
            self.deaths.pop(job, None)

    @invariant()
    def the_server_holds_what_the_model_says(self) -> None:
        if hasattr(self, "client"):
            self.run(self._compare())

    async def _compare(self) -> None:
        """In as few messages as may be: this is most of what the test does, and a message takes a busy machine long."""
        async with self.client.pipeline(transaction=False) as pipe:
            for name in ("instances", "dead", "quarantine"):
                pipe.zrange(f"{NAMESPACE}:{name}", 0, -1)
            pipe.zrange(DEFAULT_QUEUE, 0, -1).mget([IN_PROGRESS + job for job in JOBS])
            for name in self.registered:
                pipe.smembers(f"{NAMESPACE}:jobs:{name}")
            instances, dead, quarantine, queued, tokens, *listed = await pipe.execute()
        members = [{text(member) for member in found} for found in (instances, dead, quarantine, queued)]
        assert members == [set(self.registered), set(self.dead), self.quarantined, self.queued]
        assert {job: text(token) for job, token in zip(JOBS, tokens, strict=True) if token is not None} == self.claims
        standing = await Reading(self.store.redis).runs(JOBS)
        assert {job: (record.instance_id, record.token) for job, record in standing.items()} == self.records
        for (name, held), jobs in zip(self.registered.items(), listed, strict=True):
            assert {text(job) for job in jobs} == {job for job in held if (name, job) in self.recorded}
        owned = {f"{key}:{name}" for name in self.dead for key in ("instance", "jobs", "orphans", "settled", "counters")}
        owned |= {f"job:{job}" for held in self.dead.values() for job in held} | {f"quarantined:{job}" for job in self.quarantined}
        assert await leaked_keys(self.client, NAMESPACE, allowed=owned | {"dead", "quarantine", "connections"}) == []


@pytest.mark.timeout(600)  # thousands of steps, each with its round trips
@pytest.mark.lasts
def test_whatever_happens_in_whatever_order_the_store_holds_what_a_dict_would(redis_url: str):
    class OnThisServer(StoreMachine):
        url = redis_url

    run_state_machine_as_test(OnThisServer, settings=hypothesis.settings(max_examples=70, stateful_step_count=40, deadline=None))
