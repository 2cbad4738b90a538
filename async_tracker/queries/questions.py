"""The answers to who is alive, what runs, and what was left behind; a few round trips each, whatever else Redis holds."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from async_tracker.clock import from_ms
from async_tracker.connections.access import check_mode
from async_tracker.connections.calls import call_many
from async_tracker.connections.replies import REPLICA, info_of, role_of, run_id_of
from async_tracker.errors import CorruptRecord, StorageError
from async_tracker.liveness.evidence import (
    OpenConnections,
    fleet_evidence,
    heartbeat_age,
    judged_with_all,
    live_hosts,
    rests_on_others,
    unnoted_since_ms,
    verdicts_of,
)
from async_tracker.liveness.lookup import Command, connections_calls, few_connections, is_there, presence_call, read_connections
from async_tracker.policy import DEFAULT_LIMITS, Connection, InstanceState, Verdict
from async_tracker.queries.answers import (
    by_start,
    instance_of,
    job_of,
    jobs_in,
    orphan_of,
    orphaned_runs,
    orphans_in,
    quarantined_of,
    stats_of,
    unlisted_in,
    with_older_runs,
)
from async_tracker.queries.function_lists import FunctionLists
from async_tracker.queries.measuring import measures_of
from async_tracker.queries.picture import Picture
from async_tracker.queries.turns import in_turns, sorted_in_turns
from async_tracker.queries.under_way import under_way
from async_tracker.records import Instance, Job, Measures, Orphan, Quarantined, Snapshot, Stats
from async_tracker.store import keys
from async_tracker.store.instance_record import StoredInstance
from async_tracker.store.observation import Connections, Observation, together
from async_tracker.store.reading import NAMES_CALLS, AskedInstances, HeldRead, InstancesRead, Reading, Said, read_names, stored_run
from async_tracker.store.run_record import RunRecord, job_ref
from async_tracker.store.scripts import observe_some_calls, read_observed_some

T = TypeVar("T")

_INSTANCES_OF_A_PAGE = 4
"""How many instances are read first for a page of jobs; if it is not full, twice as many next."""

OF_REPLICA = "it is a replica, which may be behind: give the url of its primary"
"""What is said where only a primary will do."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The evidence, and what Redis answered about instances, not yet decoded."""

    observation: Observation
    registered: Mapping[str, Connections]
    instances: AskedInstances
    few: Mapping[int, str]
    """The connections that are asked for each by itself, and their names; empty where the server's list of them is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All instances, the keys of those that this version cannot read, and the ids of both."""

    instances: list[Instance]
    unread: list[str]
    names: list[str]
    said: Said = field(default_factory=Said, repr=False, compare=False)
    """What they said, for the next one who asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftBehind:
    """What dead instances have left and is not yet recovered: the orphans, and the keys of what this version cannot read of it."""

    orphans: list[Orphan]
    unread: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """The jobs in flight that run for longer than their timeout allows: how many, those of them that do so by most, the worst first."""

    total: int
    jobs: list[Job]
    unread: list[str]
    """The keys of the jobs, and of the lists of them, that this version cannot read."""


class Queries:
    """Questions to one namespace. ``redis`` is a Namespace proxy. Each raises StorageError when Redis refuses or is away.

    ``scopes`` are what may stand before a job's id in keys, ``reading`` reads the records, and ``function_lists`` are those that were
    read before. The jobs of more than ``instances_undivided`` instances are read in two halves, and other tasks of the loop have a turn
    after every ``jobs_in_a_turn`` jobs that are made, and every ``instances_in_a_turn`` instances: by default after about two
    milliseconds. ``is_own`` says that the connections of ``redis`` are the tracker's own, so that a few others may be asked for by
    `presence_call`: on a connection by which its owner has the server track keys, that would end it.
    """

    def __init__(
        self,
        redis: Any,
        *,
        scopes: Sequence[str] = (),
        reading: Reading | None = None,
        function_lists: FunctionLists | None = None,
        instances_undivided: int = 100,
        jobs_in_a_turn: int = 500,
        instances_in_a_turn: int = 200,
        is_own: bool = False,
    ) -> None:
        self._redis = redis
        self._scopes = scopes
        self._reading = reading or Reading(redis)
        self._function_lists = function_lists or FunctionLists()
        self._instances_undivided = instances_undivided
        self._jobs_in_a_turn = jobs_in_a_turn
        self._instances_in_a_turn = instances_in_a_turn
        self._is_own = is_own

    async def snapshot(self) -> Snapshot:
        """Read instances, jobs and orphans, in at most four round trips; in more where the jobs are more than some ten thousand."""
        began = time.monotonic()
        picture, jobs = await self._picture_and_jobs()
        return Snapshot(
            instances=tuple(await self._instances_in(picture)),
            jobs=tuple(jobs),
            orphans=orphans_in(picture, orphaned_runs(picture), {}),
            taken_at=from_ms(picture.now_ms),
            duration=time.monotonic() - began,
            corrupt=tuple(sorted(set(picture.corrupt))),
            unlisted=sum([unlisted_in(picture, part) async for part in in_turns(list(picture.instances), self._instances_in_a_turn)]),
            role=picture.evidence.observation.role,
            returning=sum(verdict.state is InstanceState.RETURNING for verdict in picture.verdicts.values()),
        )

    async def instances(self, *, limit: int | None = None, after: str | None = None) -> list[Instance]:
        """List every instance that is registered, and the dead whose orphans are not yet recovered; the longest running first.

        With ``limit`` or ``after``: at most so many, from after that id on, in the order of their ids.
        """
        if limit is None and after is None:
            return await self._instances_in(await self._picture())
        found: list[Instance] = []
        names = await self._names_after(after)
        while names and (limit is None or len(found) < limit):
            wanted = self._instances_undivided if limit is None else min(limit - len(found), self._instances_undivided)
            part, names = names[:wanted], names[wanted:]
            picture = await self._picture_of(part)
            found += [instance_of(picture.instances[name], picture) for name in part if name in picture.instances]
        return found

    async def fleet(self, known: Fleet | None = None) -> Fleet:
        """List every instance as `instances` does, and beside them the keys of those that this version cannot read.

        ``known`` is the fleet that was read before: one round trip less is taken while no instance is new, and nothing is decoded of
        those that say what they said then.
        """
        names, said = (list(known.names), known.said) if known is not None else ([], Said())
        asked: _Asked | None = None
        if names:
            asked, replies = await self._ask_beside(names, NAMES_CALLS, with_jobs=False, said=said)
            known_now = list(dict.fromkeys(chain(*read_names(replies))))
            if not set(known_now) <= set(names):
                asked = None  # some have come: they are asked for with all others
            names = known_now
        if asked is None:
            names = names or await self._names()
            asked, _ = await self._ask_beside(names, (), with_jobs=False, said=said)
        picture = await self._judged_with_functions(asked, said)
        said.forget_others(frozenset(names))
        unread = sorted({keys.instance(name) for name in names} & set(picture.corrupt))
        return Fleet(instances=await self._instances_in(picture), unread=unread, names=names, said=said)

    async def count_instances(self) -> int:
        """Count the instances that are registered, and the dead whose orphans are not yet recovered. None is read."""
        return await self._reading.count_instances()

    async def instance(self, instance_id: str) -> Instance | None:
        """Give one instance, or None."""
        picture = await self._picture_of([instance_id])
        stored = picture.instances.get(instance_id)
        return instance_of(stored, picture) if stored is not None else None

    async def instances_on(self, host_id: str, *, primary: bool = False) -> list[Instance]:
        """List the instances of one host, the longest running first: only they are read.

        Where none of them is known to be there, so are the dead, and those of which it is not known on which host they are. With
        ``primary`` it raises StorageError where a replica answers.
        """
        names = await self._reading.names_on(host_id)
        found = await self._instances_among(names, host_id, primary=primary) if names else []
        if any(item.state is not InstanceState.DEAD for item in found):
            return found
        return await self._instances_among(await self._reading.names_perhaps_on(host_id), host_id, primary=primary)

    async def _instances_among(self, names: Sequence[str], host_id: str, *, primary: bool) -> list[Instance]:
        picture = await self._picture_of(names)
        if primary and picture.evidence.observation.role == REPLICA:
            raise StorageError(OF_REPLICA)
        return [item for item in await self._instances_in(picture) if item.host_id == host_id]

    async def unreadable_instances(self, *, host_id: str | None = None) -> list[str]:
        """Give the keys of instances that cannot be read: another version wrote them, or another program; of one host's alone, if given."""
        names = await self._names() if host_id is None else await self._reading.names_perhaps_on(host_id)
        return sorted((await self._reading.instances(names)).corrupt)

    async def jobs(self, instance_id: str | None = None, function: str | None = None) -> list[Job]:
        """List the jobs in flight on instances that are not dead, the oldest first; of one instance or function if given.

        Of one instance, nothing else is read: a job that runs on others as well does not say so.
        """
        _, jobs = await self._picture_and_jobs([instance_id] if instance_id is not None else None)
        return [job async for part in in_turns(jobs, self._jobs_in_a_turn) for job in part if function in (None, job.function)]

    async def page_of_jobs(
        self, instance_id: str | None = None, function: str | None = None, *, limit: int | None, after: tuple[str, str] | None
    ) -> list[Job]:
        """List at most ``limit`` jobs in flight, from after this instance and job on, in the order of instances' ids and jobs' ids.

        Only the instances of the page are read, some at a time.
        """
        names = [instance_id] if instance_id is not None else await self._names_after(after[0] if after is not None else None, itself=True)
        found: list[Job] = []
        at_once = _INSTANCES_OF_A_PAGE
        while names and (limit is None or len(found) < limit):
            part, names = names[:at_once], names[at_once:]
            at_once = min(2 * at_once, self._instances_undivided)
            picture, asked = await self._picture_of_some(part, with_jobs=True)
            live = [name for name in part if asked.observation.knows(name) and picture.is_live(name)]
            refs = [pair for name in live for pair in self._refs_after(name, asked.instances, after)]
            for some in _parts(refs, self._jobs_in_a_turn):
                raws = await self._reading.raw_runs([ref for _, ref in some])
                for name, ref in some:
                    stored = picture.read(ref, raws.get(ref))
                    if stored is not None and stored["instance"] == name and function in (None, stored.get("function")):
                        found.append(job_of(ref, stored, picture.now_ms, picture.state_of(name)))
                if limit is not None and len(found) >= limit:
                    break
        return found[:limit]

    def _refs_after(self, name: str, asked: AskedInstances, after: tuple[str, str] | None) -> list[tuple[str, str]]:
        """Give the refs of the jobs of an instance in the order of the jobs' ids, those of a page that come after this one."""
        pairs = sorted((self._job_id(ref), ref) for ref in self._reading.refs_in(asked, name))
        return [(name, ref) for job_id, ref in pairs if after is None or (name, job_id) > after]

    def _job_id(self, ref: str) -> str:
        return next((ref.removeprefix(f"{scope}:") for scope in self._scopes if scope and ref.startswith(f"{scope}:")), ref)

    async def overdue(self, states: Mapping[str, InstanceState], *, most: int) -> Overdue:
        """Find the jobs past their timeout on these live instances, whose states are as they were last judged; name ``most`` of them.

        The server looks at the records. Two round trips, and one more for each further two thousand jobs.
        """
        read = await self._reading.overdue_runs(list(states), most=most)
        jobs = [job_of(ref, stored, read.now_ms, states[name]) for name, ref, stored in read.worst]
        jobs.sort(key=lambda job: ((job.timeout or 0.0) - job.running_for, job.job_id))
        return Overdue(total=read.count, jobs=jobs[:most], unread=sorted(read.corrupt))

    async def count_jobs(self, instance_id: str | None = None) -> int:
        """Count the jobs that are listed as in flight, on all registered instances or on one. No record is read."""
        return await self._reading.count_jobs([instance_id] if instance_id is not None else (await self._reading.names())[0])

    async def job(self, job_id: str) -> Job | None:
        """Give the newest run in flight of one job, or None. Raises CorruptRecord when its record cannot be read."""
        raws = await self._reading.raw_runs([job_id, *(job_ref(scope, job_id) for scope in self._scopes)])
        read = {ref: stored_run(raw) for ref, raw in raws.items()}
        if corrupt := [keys.job(ref) for ref, stored in read.items() if stored is None]:
            raise CorruptRecord(corrupt[0], "another version, or another program, wrote it")
        found = [(ref, stored) for ref, stored in read.items() if stored is not None]
        if not found:
            return None
        ref, stored = max(found, key=lambda item: item[1]["started_at_ms"])
        picture = await self._picture_of([stored["instance"]])
        return job_of(ref, stored, picture.now_ms, picture.state_of(stored["instance"]))

    async def orphans(self, *, limit: int | None = None, after: tuple[str, str] | None = None) -> list[Orphan]:
        """List the jobs in flight whose instance is dead and that are not yet recovered, the oldest first.

        With ``limit`` or ``after``: at most so many, from after this instance and job on, in the order of instances' ids and jobs' ids.
        """
        is_page = limit is not None or after is not None
        picture, orphaned = await self._orphaned(is_page=is_page, limit=limit, after=after)
        deaths = await self._deaths(orphaned)
        if is_page:
            return [orphan_of(record, picture, deaths.get(record.ref, 0)) for record in orphaned]
        return list(orphans_in(picture, orphaned, deaths))

    async def left_behind(self) -> LeftBehind:
        """List the orphans as `orphans` does, and beside them the keys of what cannot be read of dead instances and of their jobs."""
        picture, orphaned = await self._orphaned()
        found = orphans_in(picture, orphaned, await self._deaths(orphaned))
        observation = picture.evidence.observation
        lives = {keys.instance(name) for name in [*observation.instances, *observation.dead] if picture.is_live(name)}
        return LeftBehind(orphans=list(found), unread=sorted(set(picture.corrupt) - lives))

    async def _orphaned(
        self, *, is_page: bool = False, limit: int | None = None, after: tuple[str, str] | None = None
    ) -> tuple[Picture, list[RunRecord]]:
        """Read the runs that dead instances hold; those of a page alone and in its order, if ``is_page``."""
        asked = await self._ask(await self._names(), with_jobs=True)
        picture = await self._judged(asked, await self._ask_connections(asked))
        dead = picture.dead
        if is_page:
            dead = sorted(name for name in dead if after is None or name >= after[0])
        orphaned: list[RunRecord] = []
        for part in _parts(dead, self._instances_undivided):
            read, _ = await self._reading.held(asked.instances, part)
            picture.add(read.found, corrupt=read.corrupt)
            orphaned = orphaned_runs(picture)
            if is_page:
                orphaned = [record for record in orphaned if after is None or (record.instance_id, record.job_id) > after]
                if limit is not None and len(orphaned) >= limit:
                    break
        if is_page:
            orphaned = sorted(orphaned, key=lambda record: (record.instance_id, record.job_id))[:limit]
        return picture, orphaned

    async def _deaths(self, orphaned: Sequence[RunRecord]) -> dict[str, int]:
        """Count the workers that have died under each of these jobs, by ref."""
        deaths = await self._reading.deaths([record.ref for record in orphaned], since_ms=0)
        return {ref: len(died) for ref, died in deaths.items()}

    async def count_orphans(self) -> int:
        """Count the jobs that are listed for instances which were declared dead. No record is read."""
        _, dead = await self._reading.names()
        return await self._reading.count_jobs(dead)

    async def stats(self, function: str | None = None, queue: str | None = None) -> Stats:
        """Read the counters, of one function or queue or of all."""
        return stats_of(await self._reading.stats(), function, queue)

    async def measures(self) -> tuple[Measures, list[StoredInstance]]:
        """Count everything, in three round trips; beside it, what every instance said of itself."""
        reading = self._reading
        names, index = await reading.names_and_totals()
        asked, of_totals = await self._ask_beside(names, reading.totals_calls(index), with_jobs=True)
        every = [name for name in asked.instances.jobs if asked.observation.knows(name)]
        calls = self._connections_calls(asked)
        async with under_way(partial(reading.count_runs, asked.instances, every, beside=calls)) as answer:
            read = await reading.decode_instances(asked.instances)
            totals = reading.read_totals(index, of_totals)
            counted, connections = await answer.get()
        picture = await self._judged(asked, await self._seen(asked, connections), read)
        picture.listed = counted.listed
        instances = await self._instances_in(picture)
        measures = measures_of(picture, instances, counted.found, index=index, totals=totals)
        return measures, list(picture.instances.values())

    async def quarantined(self) -> list[Quarantined]:
        """List the poison pills, the longest quarantined first."""
        return [quarantined_of(ref, fields) for ref, fields in (await self._reading.quarantined()).items()]

    async def stored_instances(self) -> list[StoredInstance]:
        """Give what every instance said of itself, as it is stored."""
        return list((await self._reading.instances(await self._names())).found.values())

    async def server_run_id(self) -> str:
        """Give the run id of the server; '' when it does not tell. Raises StorageError where it is a replica: nothing can be done there."""
        info, replication = await call_many(self._redis, [("INFO", "server"), ("INFO", "replication")])
        if role_of(replication) == REPLICA:
            raise StorageError(OF_REPLICA)
        return run_id_of(info)

    # the look at Redis with which each begins

    async def _names(self) -> list[str]:
        """Give the ids of all instances: first the registered ones, then the dead whose orphans are not yet recovered."""
        registered, dead = await self._reading.names()
        return list(dict.fromkeys([*registered, *dead]))

    async def _names_after(self, after: str | None, *, itself: bool = False) -> list[str]:
        """Give the ids of all instances that come after this one, with ``itself`` from it on, sorted."""
        return sorted(name for name in await self._names() if after is None or name > after or (itself and name == after))

    async def _picture(self) -> Picture:
        """Read who is there, and judge each: in three round trips."""
        return await self._judged_with_functions(await self._ask(await self._names()))

    async def _picture_of(self, names: Sequence[str]) -> Picture:
        """Read some instances and judge them: in two round trips, unless a verdict rests on others."""
        return (await self._picture_of_some(names))[0]

    async def _picture_of_some(self, names: Sequence[str], *, with_jobs: bool = False) -> tuple[Picture, _Asked]:
        asked = await self._ask(names, with_jobs=with_jobs)
        picture = await self._judged_with_functions(asked)
        await self._judge_by_others(picture)
        return picture, asked

    async def _judge_by_others(self, picture: Picture) -> None:
        """Judge those instances anew of which the verdict rests on others: these are read as far as it takes."""
        found, evidence = picture.instances, picture.evidence
        silent = [name for name, stored in found.items() if rests_on_others(evidence.observation, stored)]
        gone = {name: stored for name, stored in found.items() if evidence.states.get(name) is Connection.GONE}
        if silent:
            whole = await self._picture()
            picture.verdicts.update({name: whole.verdicts[name] for name in found if name in whole.verdicts})
        elif gone:
            with_all = judged_with_all(evidence, await self._reading.connections())
            picture.verdicts.update(verdicts_of(with_all, gone))

    async def _picture_and_jobs(self, names: Sequence[str] | None = None) -> tuple[Picture, list[Job]]:
        """Read who is there, judge each, and make the jobs in flight, the oldest first; of these instances alone, if given.

        In two halves when the instances are many: the server reads the jobs of one half while the instances are decoded, and those of
        the other while jobs are made of what it read.
        """
        is_whole = names is None
        asked = await self._ask(names if names is not None else await self._names(), with_jobs=True)
        every = [name for name in asked.instances.jobs if asked.observation.knows(name)]
        half = len(every) // 2 if len(every) > self._instances_undivided else len(every)
        calls = self._connections_calls(asked)
        jobs: dict[str, Job] = {}
        async with under_way(partial(self._reading.held, asked.instances, every[:half], beside=calls)) as answer:
            read = await self._reading.decode_instances(asked.instances)
            first, replies = await answer.get()
        picture = await self._judged(asked, await self._seen(asked, replies), read)
        if not is_whole:
            await self._judge_by_others(picture)
        lists = self._function_lists.unread(read.found.values())
        beside = self._reading.functions_calls(lists)
        async with under_way(partial(self._reading.held, asked.instances, every[half:], beside=beside)) as answer:
            await self._make_jobs(picture, first, jobs)
            second, replies = await answer.get()
        self._add_functions(picture, lists, replies)
        await self._make_jobs(picture, second, jobs)
        with_older_runs(jobs, await self._holders(picture))
        return picture, await sorted_in_turns(list(jobs.values()), by_start, self._jobs_in_a_turn)

    async def _make_jobs(self, picture: Picture, read: HeldRead, jobs: dict[str, Job]) -> None:
        """Put jobs into the picture and make what is in flight of them, by their refs; other tasks have a turn after every so many."""
        picture.add(read.found, corrupt=read.corrupt)
        async for made in in_turns(jobs_in(picture, read.found), self._jobs_in_a_turn):
            jobs.update(made)

    async def _holders(self, picture: Picture) -> dict[str, int]:
        """Count the live instances that hold each job which several hold."""
        once: set[str] = set()
        several: dict[str, int] = {}
        async for part in in_turns(picture.held.items(), self._instances_in_a_turn):
            for name, records in part:
                if picture.is_live(name):
                    for ref in once & records.keys():
                        several[ref] = several.get(ref, 1) + 1
                    once.update(records)
        return several

    async def _instances_in(self, picture: Picture) -> list[Instance]:
        """Make the instances, the longest running first."""
        stored = list(picture.instances.values())
        made = [instance_of(item, picture) async for part in in_turns(stored, self._instances_in_a_turn) for item in part]
        return await sorted_in_turns(made, by_start, self._jobs_in_a_turn)

    async def _ask(self, names: Sequence[str], *, with_jobs: bool = False) -> _Asked:
        """Ask for the evidence on these instances, what they say of themselves, and which jobs are in flight on them: one round trip."""
        return (await self._ask_beside(names, (), with_jobs=with_jobs))[0]

    async def _ask_beside(
        self, names: Sequence[str], others: Sequence[Sequence[Any]], *, with_jobs: bool, said: Said | None = None
    ) -> tuple[_Asked, Sequence[Any]]:
        """Do what `_ask` does, and run other commands in the same round trip; ``said`` is what the instances said before."""
        said = said or Said()
        asked, (info, replication, *replies) = await self._reading.ask_instances(
            names,
            with_jobs=with_jobs,
            beside=[("INFO", "server"), ("INFO", "replication"), *others],
            first=observe_some_calls(names),
            said=said,
        )
        of_others, evidence = replies[: len(others)], replies[len(others) :]
        server = info_of(info)
        check_mode(self._redis.redis, server)
        # Connections of instances are those to the primary, and the note is of the primary: a replica knows of heartbeats alone.
        role = role_of(replication)
        run_id = "" if role == REPLICA else run_id_of(info)
        parts = [part async for some in in_turns(read_observed_some(names, evidence, run_id), 1) for part in some]
        observation = replace(together(parts), role=role)
        if observation.server_since_ms == observation.now_ms:
            uptime = float(server.get("uptime_in_seconds", 0))
            observation = replace(observation, server_since_ms=unnoted_since_ms(observation, uptime=uptime))
        registered: dict[str, Connections] = {}
        async for some in in_turns(observation.instances, self._instances_in_a_turn):
            registered |= said.connections_of(observation.connections, some)
        return _Asked(observation, registered, asked, self._few(observation, registered)), of_others

    async def _judged_with_functions(self, asked: _Asked, said: Said | None = None) -> Picture:
        """Judge each instance, and know all its functions: the lists that are not known go in the round trip that the connections take."""
        read = await self._reading.decode_instances(asked.instances, said)
        lists = self._function_lists.unread(read.found.values())
        of_connections = self._connections_calls(asked)
        calls = [*of_connections, *self._reading.functions_calls(lists)]
        replies = await call_many(self._redis, calls) if calls else ()
        picture = await self._judged(asked, await self._seen(asked, replies[: len(of_connections)]), read)
        self._add_functions(picture, lists, replies[len(of_connections) :])
        return picture

    def _add_functions(self, picture: Picture, lists: Sequence[str], replies: Sequence[Any]) -> None:
        read = self._reading.read_functions(lists, replies)
        picture.functions = self._function_lists.with_read(read)
        picture.corrupt += read.corrupt

    async def _ask_connections(self, asked: _Asked) -> OpenConnections:
        """Ask which of the connections of the instances the server still has."""
        calls = self._connections_calls(asked)
        return await self._seen(asked, await call_many(self._redis, calls) if calls else ())

    def _connections_calls(self, asked: _Asked) -> list[Command]:
        """Give the commands that ask for the connections of the instances: for each by itself where they are few, and that may be asked."""
        each = [presence_call(number) for number in asked.few]
        return each or connections_calls(asked.registered.values(), run_id=asked.observation.run_id)

    def _few(self, observation: Observation, registered: Mapping[str, Connections]) -> dict[int, str]:
        """Give the connections that are asked for each by itself, where all their instances have beaten lately; else none.

        A user may be allowed to ask so and not for the list, as sweeps do. Whether the connection of one that beats is there, or cannot
        be known to be, comes to the same; of one that is late it would not, and a question must judge as a sweep does.
        """
        few = few_connections(registered.values(), run_id=observation.run_id) if self._is_own else {}
        is_late = few and any(heartbeat_age(observation, name) >= DEFAULT_LIMITS.heartbeat_ttl for name in observation.instances)
        return {} if is_late else few

    async def _seen(self, asked: _Asked, replies: Sequence[Any]) -> OpenConnections:
        """Read the answers to these commands. Where one of few connections is not known to be there, the server's list of them is read."""
        few, run_id = asked.few, asked.observation.run_id
        if few and all(is_there(reply) for reply in replies):
            return OpenConnections(few, run_id)
        if few:
            replies = await call_many(self._redis, connections_calls(asked.registered.values(), run_id=run_id))
        return await read_connections(replies, run_id=run_id)

    async def _judged(self, asked: _Asked, seen: OpenConnections, read: InstancesRead | None = None) -> Picture:
        """Judge each instance by the same rules as a sweep does; ``read`` is what was decoded of the instances, if it was."""
        if read is None:
            read = await self._reading.decode_instances(asked.instances)
        found = {name: stored for name, stored in read.found.items() if asked.observation.knows(name)}
        evidence = fleet_evidence(asked.observation, asked.registered, seen)
        hosts = live_hosts(asked.observation, found)
        verdicts: dict[str, Verdict] = {}
        async for part in in_turns(found.items(), self._instances_in_a_turn):
            verdicts |= verdicts_of(evidence, dict(part), hosts=hosts)
        return Picture(evidence=evidence, instances=found, verdicts=verdicts, corrupt=list(read.corrupt))


def _parts(items: Sequence[T], count: int) -> Iterator[Sequence[T]]:
    return (items[start : start + count] for start in range(0, len(items), count))
