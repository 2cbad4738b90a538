"""The answers to who is alive, what runs, and what was left behind; a few round trips each, whatever else Redis holds."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import anyio.lowlevel

from async_tracker.clock import from_ms
from async_tracker.connections.calls import call_many, refused, run_script
from async_tracker.connections.replies import REPLICA, role_of, run_id_of
from async_tracker.errors import CorruptRecord, StorageError
from async_tracker.liveness.evidence import findings_of, registered_in, rests_on_others, verdicts_of
from async_tracker.liveness.lookup import connections_calls, read_connections
from async_tracker.queries.answers import (
    instance_of,
    instances_in,
    job_of,
    jobs_in,
    oldest_first,
    orphaned_runs,
    orphans_in,
    quarantined_of,
    stats_of,
    unlisted_in,
)
from async_tracker.queries.picture import Picture
from async_tracker.queries.under_way import under_way
from async_tracker.records import Instance, Job, Orphan, Quarantined, Snapshot, Stats
from async_tracker.store import keys
from async_tracker.store.instance_record import StoredInstance
from async_tracker.store.observation import Connections, Observation
from async_tracker.store.reading import AskedInstances, HeldRead, Reading, stored_run
from async_tracker.store.run_record import job_ref
from async_tracker.store.scripts import SCRIPTS, observe_call, read_observation

OF_REPLICA = "it is a replica, which may be behind: give the url of its primary"
"""What is said where only a primary will do."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The evidence, and what Redis answered about instances and their connections, not yet decoded."""

    observation: Observation
    registered: Mapping[str, Connections]
    instances: AskedInstances
    connections: Sequence[Any]


class Queries:
    """Questions to one namespace. ``redis`` is a Namespace proxy. Each raises StorageError when Redis refuses or is away.

    ``scopes`` are what may stand before a job's id in keys, and ``reading`` reads the records. The jobs of more than
    ``instances_undivided`` instances are read in two halves, and other tasks of the loop have a turn after every ``jobs_in_a_turn``
    jobs that are made: by default after about two milliseconds.
    """

    def __init__(
        self,
        redis: Any,
        *,
        scopes: Sequence[str] = (),
        reading: Reading | None = None,
        instances_undivided: int = 100,
        jobs_in_a_turn: int = 500,
    ) -> None:
        self._redis = redis
        self._scopes = scopes
        self._reading = reading or Reading(redis)
        self._instances_undivided = instances_undivided
        self._jobs_in_a_turn = jobs_in_a_turn

    async def snapshot(self) -> Snapshot:
        """Read instances, jobs and orphans, in at most four round trips."""
        began = time.monotonic()
        picture, jobs = await self._picture_and_jobs()
        return Snapshot(
            instances=instances_in(picture),
            jobs=tuple(jobs),
            orphans=orphans_in(picture, orphaned_runs(picture), {}),
            taken_at=from_ms(picture.now_ms),
            duration=time.monotonic() - began,
            corrupt=tuple(sorted(set(picture.corrupt))),
            unlisted=unlisted_in(picture),
            role=picture.findings.observation.role,
        )

    async def instances(self) -> list[Instance]:
        """List every instance that is registered, and the dead whose orphans are not yet recovered; the longest running first."""
        return list(instances_in(await self._picture()))

    async def instance(self, instance_id: str) -> Instance | None:
        """Give one instance, or None."""
        picture = await self._picture_of(instance_id)
        stored = picture.instances.get(instance_id)
        return instance_of(stored, picture) if stored is not None else None

    async def jobs(self, instance_id: str | None = None, function: str | None = None) -> list[Job]:
        """List the jobs in flight on instances that are not dead, the oldest first; of one instance or function if given."""
        _, jobs = await self._picture_and_jobs()
        return [job for job in jobs if instance_id in (None, job.instance_id) and function in (None, job.function)]

    async def job(self, job_id: str) -> Job | None:
        """Give the newest run in flight of one job, or None. Raises CorruptRecord when its record cannot be read."""
        raws = await self._reading.raw_runs([job_id, *(job_ref(scope, job_id) for scope in self._scopes)])
        read = {ref: stored_run(raw) for ref, raw in raws.items()}
        if corrupt := [keys.job(ref) for ref, stored in read.items() if stored is None]:
            raise CorruptRecord(corrupt[0], "another version, or another program, wrote it")
        found = [(ref, stored) for ref, stored in read.items() if stored is not None]
        if not found:
            return None
        ref, stored = max(found, key=lambda entry: entry[1]["started_at_ms"])
        picture = await self._picture_of(stored["instance"])
        return job_of(ref, stored, picture.now_ms, picture.state_of(stored["instance"]))

    async def orphans(self) -> list[Orphan]:
        """List the jobs in flight whose instance is dead and that are not yet recovered, the oldest first."""
        observation = await self._observe()
        asked = await self._ask(observation, [*observation.instances, *observation.dead], with_jobs=True)
        picture = await self._judged(asked)
        read = await self._reading.held(asked.instances, picture.dead)
        picture.add(read.found, corrupt=read.corrupt)
        orphaned = orphaned_runs(picture)
        deaths = await self._reading.deaths([record.ref for record in orphaned], since_ms=0)
        return list(orphans_in(picture, orphaned, {ref: len(died) for ref, died in deaths.items()}))

    async def stats(self, function: str | None = None, queue: str | None = None) -> Stats:
        """Read the counters, of one function or queue or of all."""
        return stats_of(await self._reading.stats(), function, queue)

    async def quarantined(self) -> list[Quarantined]:
        """List the poison pills, the longest quarantined first."""
        return [quarantined_of(ref, fields) for ref, fields in (await self._reading.quarantined()).items()]

    async def stored_instances(self) -> list[StoredInstance]:
        """Give what every instance said of itself, as it is stored."""
        return list((await self._picture()).instances.values())

    async def server_run_id(self) -> str:
        """Give the run id of the server; '' when it does not tell. Raises StorageError where it is a replica: nothing can be done there."""
        info, replication = await call_many(self._redis, [("INFO", "server"), ("INFO", "replication")])
        if role_of(replication) == REPLICA:
            raise StorageError(OF_REPLICA)
        return run_id_of(info)

    # the look at Redis with which each begins

    async def _picture(self) -> Picture:
        """Read who is there, and judge each."""
        observation = await self._observe()
        return await self._judged(await self._ask(observation, [*observation.instances, *observation.dead]))

    async def _picture_of(self, instance_id: str) -> Picture:
        """Read one instance and judge it; the others are read as well where that verdict rests on them."""
        observation = await self._observe()
        is_known = instance_id in observation.instances or instance_id in observation.dead
        picture = await self._judged(await self._ask(observation, [instance_id] if is_known else []))
        stored = picture.instances.get(instance_id)
        if stored is None or not rests_on_others(observation, stored):
            return picture
        return await self._judged(await self._ask(observation, [*observation.instances, *observation.dead]))

    async def _picture_and_jobs(self) -> tuple[Picture, list[Job]]:
        """Read who is there, judge each, and make the jobs in flight, the oldest first.

        In two halves when the instances are many: the server reads the jobs of one half while the instances are decoded, and those of
        the other while jobs are made of what it read.
        """
        observation = await self._observe()
        names = [*observation.instances, *observation.dead]
        half = len(names) // 2 if len(names) > self._instances_undivided else len(names)
        asked = await self._ask(observation, names, with_jobs=True)
        jobs: dict[str, Job] = {}
        async with under_way(partial(self._reading.held, asked.instances, names[:half])) as answer:
            picture = await self._judged(asked)
            first = await answer.get()
        async with under_way(partial(self._reading.held, asked.instances, names[half:])) as answer:
            await self._make_jobs(picture, first, jobs)
            second = await answer.get()
        await self._make_jobs(picture, second, jobs)
        return picture, oldest_first(jobs, picture)

    async def _make_jobs(self, picture: Picture, read: HeldRead, jobs: dict[str, Job]) -> None:
        """Put jobs into the picture and make what is in flight of them, by their refs; other tasks have a turn after every so many."""
        picture.add(read.found, corrupt=read.corrupt)
        making = jobs_in(picture, read.found)
        while made := dict(islice(making, self._jobs_in_a_turn)):
            jobs.update(made)
            if len(made) == self._jobs_in_a_turn:
                await anyio.lowlevel.checkpoint()

    async def _observe(self) -> Observation:
        names, arguments = observe_call("")
        script = SCRIPTS["observe"]
        asked = [("INFO", "server"), ("INFO", "replication"), ("EVALSHA", script.sha, len(names), *names, *arguments)]
        info, replication, reply = await call_many(self._redis, asked)
        if refused(reply):
            reply = await run_script(self._redis, script, names, arguments)
        # Connections of instances are those to the primary, and the note is of the primary: a replica knows of heartbeats alone.
        role = role_of(replication)
        return replace(read_observation(reply, "" if role == REPLICA else run_id_of(info)), role=role)

    async def _ask(self, observation: Observation, names: Sequence[str], *, with_jobs: bool = False) -> _Asked:
        """Ask what these instances say of themselves, for their connections, and which jobs are in flight on them, in one round trip."""
        registered = registered_in(observation)
        of_these = [registered[name] for name in names if name in registered]
        beside = connections_calls(of_these, run_id=observation.run_id)
        instances, connections = await self._reading.ask_instances(names, with_jobs=with_jobs, beside=beside)
        return _Asked(observation, registered, instances, connections)

    async def _judged(self, asked: _Asked) -> Picture:
        """Decode what was answered, and judge each instance by the same rules as a sweep does."""
        read = await self._reading.decode_instances(asked.instances)
        observation = asked.observation
        seen = read_connections(asked.connections, run_id=observation.run_id)
        findings = findings_of(observation, asked.registered, seen, among=read.found)
        return Picture(findings=findings, instances=read.found, verdicts=verdicts_of(findings, read.found), corrupt=list(read.corrupt))
