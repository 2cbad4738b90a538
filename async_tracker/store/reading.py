"""What queries and the sweep read: each method is one round trip, whatever the number of instances and jobs."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

from async_tracker.connections.calls import ScriptCall, call, call_many, load_script, raised, refused, refused_by_type, run_scripts
from async_tracker.connections.replies import Argument, hash_of, members_of, pairs, scores_of, text
from async_tracker.errors import CorruptRecord, StorageError
from async_tracker.store import keys
from async_tracker.store.counters import Total, TotalsIndex, read_total
from async_tracker.store.instance_record import Description, StoredInstance, decode_instance, decode_queues, read_functions
from async_tracker.store.observation import Connections
from async_tracker.store.run_record import (
    RUN_BEGINS,
    RunRecord,
    StoredRun,
    decode_run,
    instance_mark,
    read_run,
    read_said,
    run_record,
)

_READ_INSTANCES = load_script(__package__, "read_instances")
_READ_JOBS = load_script(__package__, "read_jobs")
_READ_RUNS = load_script(__package__, "read_runs")
_COUNT_JOBS = load_script(__package__, "count_jobs")
_COUNT_RUNS = load_script(__package__, "count_runs")
_FIND_OVERDUE = load_script(__package__, "find_overdue")

_FIELDS_AT_ONCE = 500

_STRINGS_AT_ONCE = 250
"""Packed strings that one command reads: of some 3 kB each."""

_LISTS_AT_ONCE = 20
"""Lists of functions that one command reads: a thousand names are some 20 kB."""

_PARTS_IN_A_MESSAGE = 20
"""How many scripts that read records go in one message: packing its names holds the loop for a few milliseconds."""

_PARTS_TO_LOOK_AT = 2
"""How many scripts that only look at records go in one message; the next message is packed while the loop has had a turn."""

_LIST_LASTS_MS = 180_000
"""For how long the list of queues is whole after a sweep has renewed it, which it does once a minute."""

_COUNTED_AT_ONCE = 500
"""The jobs of how many instances one script counts."""

T = TypeVar("T")

Command = tuple[Argument, ...]

NAMES_CALLS: Sequence[Command] = (("ZRANGE", keys.INSTANCES, 0, -1), ("ZRANGE", keys.DEAD, 0, -1))

Held = dict[str, bytes | None]
"""The refs of the jobs in flight on one instance, each with its record as it stands; None where there is none."""


@dataclass(frozen=True, slots=True)
class AskedInstances:
    """What Redis answered about some instances, not yet decoded: what `Reading.decode_instances` and `Reading.held` take."""

    replies: Sequence[tuple[str, Any]]
    jobs: Mapping[str, Any]
    """The jobs in flight on each of them; empty unless they were asked for."""
    separator: str


class Said:
    """What instances said when they were asked last, and what was made of it: of those that say the same again nothing is decoded.

    For one who asks again and again. It holds as much as Redis does of all of them.
    """

    __slots__ = ("connections", "instances", "separator")

    def __init__(self) -> None:
        self.separator = _separator(_new_word())
        """The answers that are compared are joined by the same one."""
        self.instances: dict[str, tuple[Any, StoredInstance]] = {}
        self.connections: dict[str, tuple[str, Connections]] = {}

    def connections_of(self, stored: Mapping[str, str], instance_ids: Iterable[str]) -> dict[str, Connections]:
        """Decode the connections of these instances, those that have changed."""
        found: dict[str, Connections] = {}
        for name in instance_ids:
            text, before = stored.get(name, ""), self.connections.get(name)
            found[name] = before[1] if before is not None and before[0] == text else Connections.decode(text)
            self.connections[name] = text, found[name]
        return found

    def forget_others(self, instance_ids: Collection[str]) -> None:
        """Forget all but these."""
        for kept in (self.instances, self.connections):
            for name in kept.keys() - instance_ids:
                del kept[name]


@dataclass(frozen=True, slots=True)
class InstancesRead:
    """What instances say of themselves, by id; the ones that are no more are in none of these."""

    found: dict[str, StoredInstance]
    corrupt: list[str]
    """Keys that hold something else, or what another version wrote."""
    unreadable: dict[str, dict[str, str]]
    """The fields of those that another version wrote, as they are stored, by instance id."""


@dataclass(frozen=True, slots=True)
class FunctionsRead:
    """Long lists of functions, by their digests; the ones that are no more are in neither."""

    found: dict[str, tuple[str, ...]]
    corrupt: list[str]
    """Keys that hold something else."""


@dataclass(frozen=True, slots=True)
class HeldRead:
    """The jobs in flight on instances, by instance id."""

    found: dict[str, Held]
    corrupt: list[str]
    """Keys that hold something else than the jobs of an instance."""


@dataclass(frozen=True, slots=True)
class RunsCounted:
    """The runs in flight on instances, by instance id."""

    listed: dict[str, int]
    """How many jobs are listed."""
    found: dict[str, dict[tuple[str | None, str | None], int]]
    """How many runs have a record, by function and queue; one that cannot be read, or is another instance's, does not count."""


@dataclass(frozen=True, slots=True)
class OverdueRead:
    """The runs in flight on instances that are past their timeout: how many there are, and some of those that are so by most."""

    now_ms: int
    count: int
    worst: list[tuple[str, str, StoredRun]]
    """The instance, the job's ref and its record: of each instance at most as many as were asked for, in no order."""
    corrupt: list[str]
    """Keys that hold something else than jobs, or what another version wrote."""


@dataclass(frozen=True, slots=True)
class HistoryIndex:
    """What there is a history of: the server's time in ms, and what is on its way into the history."""

    now_ms: int
    series: list[str]
    """The pairs of function and queue."""
    open_minutes: list[int]
    """The minutes that are not packed."""
    open_hours: list[int]
    """The hours that are not rolled up."""
    deploys: list[str]
    """When in ms, a colon and the version; the oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRead:
    """What Redis keeps of some spans of time, as it stands. Packed strings are by span and pair of function and queue."""

    minutes: dict[int, dict[str, str]]
    samples: dict[int, dict[str, str]]
    samples_of_days: dict[int, dict[str, str]]
    packed: dict[tuple[int, str], bytes]
    packed_days: dict[tuple[int, str], bytes]


class Reading:
    """Questions to the namespace. ``redis`` is a Namespace proxy. It keeps nothing of what it reads.

    What cannot be read is left out; where a caller reports the corrupt keys, they are in the result.
    Every method raises StorageError when Redis refuses or is away.

    ``instances_at_once``: how many instances one script reads, or the jobs of how many. ``records_at_once``: how many records one
    script or command reads, 7,000 at most; a thousand cost about two milliseconds of the server's time.
    """

    def __init__(self, redis: Any, *, instances_at_once: int = 50, records_at_once: int = 1_000) -> None:
        self._redis = redis
        self._instances_at_once = instances_at_once
        self._records_at_once = records_at_once

    async def instances(self, instance_ids: Sequence[str]) -> InstancesRead:
        """Read what these instances say of themselves."""
        asked, _ = await self.ask_instances(instance_ids)
        return await self.decode_instances(asked)

    async def ask_instances(
        self,
        instance_ids: Sequence[str],
        *,
        with_jobs: bool = False,
        beside: Sequence[Sequence[Argument]] = (),
        first: Sequence[ScriptCall] = (),
        said: Said | None = None,
    ) -> tuple[AskedInstances, Sequence[Any]]:
        """Ask what these instances say of themselves, and with ``with_jobs`` which jobs are in flight on them.

        Returns the answer for `decode_instances` and `held`, and those of the commands that go ``beside`` it and of the scripts that
        go ``first``, in this order.
        """
        separator = said.separator if said is not None else _separator(_new_word())
        parts = list(_parts(instance_ids, self._instances_at_once))
        calls: list[ScriptCall] = [*first, *((_READ_INSTANCES, [*map(keys.instance, part)], (separator,)) for part in parts)]
        calls += [(_READ_JOBS, [*map(keys.jobs, part)], (separator,)) for part in parts if with_jobs]
        replies = await run_scripts(self._redis, calls, beside=beside)
        others = len(beside) + len(first)
        of_parts = raised(replies[len(beside) :])[len(first) :]
        answers = [_listed(reply, len(part)) for reply, part in zip(of_parts, [*parts, *(parts if with_jobs else ())], strict=True)]
        told = list(zip(instance_ids, chain.from_iterable(answers[: len(parts)]), strict=True))
        jobs = dict(zip(instance_ids if with_jobs else (), chain.from_iterable(answers[len(parts) :]), strict=True))
        return AskedInstances(told, jobs, separator), replies[:others]

    async def decode_instances(self, asked: AskedInstances, said: Said | None = None) -> InstancesRead:
        """Decode what was answered; the other tasks of the loop get a turn after every ``instances_at_once``.

        With ``said``, with which it was asked, nothing is decoded of those that say what they said before.
        """
        read = InstancesRead({}, [], {})
        for number, (name, joined) in enumerate(asked.replies):
            if number % self._instances_at_once == 0:
                await asyncio.sleep(0)
            if not _is_sound(joined):
                read.corrupt.append(keys.instance(name))
            elif joined:
                before = said.instances.get(name) if said is not None else None
                if before is not None and before[0] == joined:
                    read.found[name] = before[1]
                    continue
                texts = iter(text(joined).split(asked.separator)[:-1])
                fields = dict(zip(texts, texts, strict=True))
                try:
                    read.found[name] = decode_instance(keys.instance(name), name, fields)
                except CorruptRecord as exc:
                    read.corrupt.append(exc.key)
                    read.unreadable[name] = fields
                else:
                    if said is not None:
                        said.instances[name] = joined, read.found[name]
        return read

    def functions_calls(self, digests: Sequence[str]) -> list[Command]:
        """Give the commands that ask for long lists of functions."""
        return [("MGET", *map(keys.functions, part)) for part in _parts(digests, _LISTS_AT_ONCE)]

    def read_functions(self, digests: Sequence[str], replies: Sequence[Any]) -> FunctionsRead:
        """Read what was answered to `functions_calls`."""
        read = FunctionsRead({}, [])
        for part, reply in zip(_parts(digests, _LISTS_AT_ONCE), replies, strict=True):
            if refused(reply):
                continue  # they are named by the instances as far as they fit
            for digest, raw in zip(part, _listed(reply, len(part)), strict=True):
                if raw is None:
                    continue
                try:
                    read.found[digest] = read_functions(digest, text(raw))
                except ValueError:
                    read.corrupt.append(keys.functions(digest))
        return read

    async def instances_and_refs(self, instance_ids: Sequence[str]) -> tuple[InstancesRead, dict[str, list[str]]]:
        """Read what these instances say of themselves, and the refs of the jobs in flight on each of them, sorted."""
        asked, replies = await self.ask_instances(instance_ids, beside=_refs_calls(instance_ids))
        return await self.decode_instances(asked), _read_refs(instance_ids, replies)

    async def refs(self, instance_ids: Sequence[str]) -> dict[str, list[str]]:
        """Read the refs of the jobs in flight on each of these instances, sorted."""
        return _read_refs(instance_ids, await self._ask(_refs_calls(instance_ids)))

    def refs_in(self, asked: AskedInstances, instance_id: str) -> list[str]:
        """Give the refs of the jobs that were in flight on an instance when Redis answered, which was ``with_jobs``."""
        members = asked.jobs[instance_id]
        return text(members).split(asked.separator)[:-1] if _is_sound(members) else []

    async def held(
        self, asked: AskedInstances, instance_ids: Sequence[str], *, beside: Sequence[Sequence[Argument]] = ()
    ) -> tuple[HeldRead, Sequence[Any]]:
        """Read the records of the jobs that were in flight on these instances when Redis answered, which was ``with_jobs``.

        Returns them, and the answers of the commands that go ``beside``. What is very much is asked for in several messages; the other
        tasks of the loop get a turn after every so many.
        """
        corrupt = [keys.jobs(name) for name in instance_ids if not _is_sound(asked.jobs[name])]
        listed = {name: asked.jobs[name] for name in instance_ids if _is_sound(asked.jobs[name])}
        separator, prefix = asked.separator.encode(), keys.job("").encode()
        names: list[bytes] = []
        for number, members in enumerate(listed.values()):
            if number % self._instances_at_once == 0:
                await asyncio.sleep(0)
            names += [prefix + ref for ref in members.split(separator)[:-1]]
        records, replies = await self._records(names, beside=beside)
        raws = iter(records)
        found: dict[str, Held] = {}
        for number, (name, members) in enumerate(listed.items()):
            if number % self._instances_at_once == 0:
                await asyncio.sleep(0)
            found[name] = dict(zip(text(members).split(asked.separator)[:-1], raws, strict=False))  # its share of them
        return HeldRead(found, corrupt), replies

    async def _records(
        self, names: Sequence[bytes], *, beside: Sequence[Sequence[Argument]] = ()
    ) -> tuple[list[bytes | None], Sequence[Any]]:
        """Read these records, in their order; None for one that is not there. Returns them, and the answers of what goes ``beside``."""
        word = _new_word()
        separator, missing = _separator(word), word.encode()
        parts = list(_parts(names, self._records_at_once))
        found: list[bytes | None] = []
        others: list[Any] = []
        for number, some in enumerate(list(_parts(parts, _PARTS_IN_A_MESSAGE)) or [[]]):
            calls: list[ScriptCall] = [(_READ_RUNS, part, (separator, word)) for part in some]
            first = beside if number == 0 else ()
            replies = await run_scripts(self._redis, calls, beside=first)
            others += replies[: len(first)]
            for reply in raised(replies[len(first) :]):
                found += [None if raw == missing else raw for raw in reply.split(separator.encode())[:-1]]
                await asyncio.sleep(0)
        return found, others

    async def count_runs(
        self, asked: AskedInstances, instance_ids: Sequence[str], *, beside: Sequence[Sequence[Argument]] = ()
    ) -> tuple[RunsCounted, Sequence[Any]]:
        """Count the runs of the jobs that were in flight on these instances when Redis answered, which was ``with_jobs``.

        The server looks at their records, and none is read. Returns the counts, and the answers of the commands that go ``beside``.
        """
        counted, others = RunsCounted({}, {}), list[Any]()
        separator = _separator(_new_word())
        parts: list[list[tuple[str, list[bytes]]]] = []
        async for part in self._in_parts(asked, instance_ids, counted.listed):
            parts.append(part)
        for number, some in enumerate(list(_parts(parts, _PARTS_IN_A_MESSAGE)) or [[]]):
            calls: list[ScriptCall] = []
            for part in some:
                of_each: list[Argument] = [word for name, names in part for word in (len(names), instance_mark(name))]
                calls.append((_COUNT_RUNS, list(chain.from_iterable(names for _, names in part)), (separator, RUN_BEGINS, *of_each)))
            first = beside if number == 0 else ()
            replies = await run_scripts(self._redis, calls, beside=first)
            others += replies[: len(first)]
            for part, reply in zip(some, raised(replies[len(first) :]), strict=True):
                for (name, _), said in zip(part, _listed(reply, len(part)), strict=True):
                    _count_said(name, said.split(separator.encode()), counted.found.setdefault(name, {}))
                await asyncio.sleep(0)
        return counted, others

    async def overdue_runs(self, instance_ids: Sequence[str], *, most: int) -> OverdueRead:
        """Find the runs in flight on these instances that are past their timeout, and give the worst ``most`` of each instance.

        The server looks at their records; of those that are in time none is read.
        """
        separator = _separator(_new_word())
        parts = list(_parts(instance_ids, self._instances_at_once))
        replies = raised(await run_scripts(self._redis, [(_READ_JOBS, [*map(keys.jobs, part)], (separator,)) for part in parts]))
        members = chain.from_iterable(_listed(reply, len(part)) for reply, part in zip(replies, parts, strict=True))
        asked = AskedInstances((), dict(zip(instance_ids, members, strict=True)), separator)
        found = OverdueRead(0, 0, [], [keys.jobs(name) for name in instance_ids if not _is_sound(asked.jobs[name])])
        some: list[list[tuple[str, list[bytes]]]] = []
        async for part in self._in_parts(asked, instance_ids, {}):
            some.append(part)
            if len(some) == _PARTS_TO_LOOK_AT:
                found = await self._look_for_overdue(some, most, found)
                some = []
        return await self._look_for_overdue(some, most, found) if some else found

    async def _look_for_overdue(self, parts: Sequence[Sequence[tuple[str, list[bytes]]]], most: int, before: OverdueRead) -> OverdueRead:
        """Look at some parts of the records, and add what is found to what was found before."""
        calls: list[ScriptCall] = []
        for part in parts:
            of_each: list[Argument] = [word for name, names in part for word in (len(names), instance_mark(name))]
            calls.append((_FIND_OVERDUE, list(chain.from_iterable(names for _, names in part)), (RUN_BEGINS, most, *of_each)))
        now_ms, count, worst, corrupt = before.now_ms, before.count, before.worst, before.corrupt
        for part, reply in zip(parts, raised(await run_scripts(self._redis, calls)), strict=True):
            now_ms, *of_instances = _listed(reply, len(part) + 1)
            for (name, names), (late, found, other) in zip(part, of_instances, strict=True):
                count += late
                for is_ours, placed in ((True, found), (False, other)):
                    for place, raw in zip(placed[::2], placed[1::2], strict=True):
                        key = text(names[place - 1])
                        stored = stored_run(raw)
                        if stored is None:
                            corrupt.append(key)
                            count -= is_ours
                        elif is_ours or (stored["instance"] == name and _is_past(stored, now_ms)):
                            worst.append((name, key.removeprefix(keys.job("")), stored))
                            count += not is_ours
            await asyncio.sleep(0)
        return OverdueRead(now_ms, count, worst, corrupt)

    async def _in_parts(
        self, asked: AskedInstances, instance_ids: Sequence[str], listed: dict[str, int]
    ) -> AsyncIterator[list[tuple[str, list[bytes]]]]:
        """Give the names of the records on each instance, so many at a time, and note how many there are."""
        separator, prefix = asked.separator.encode(), keys.job("").encode()
        part: list[tuple[str, list[bytes]]] = []
        room = self._records_at_once
        for name in instance_ids:
            members = asked.jobs[name]
            names = [prefix + ref for ref in members.split(separator)[:-1]] if _is_sound(members) else []
            listed[name] = len(names)
            while names:
                part.append((name, names[:room]))
                names, room = names[room:], room - min(room, len(names))
                if not room:
                    yield part
                    await asyncio.sleep(0)
                    part, room = [], self._records_at_once
        if part:
            yield part

    async def count_jobs(self, instance_ids: Sequence[str]) -> int:
        """Count the jobs that are listed as in flight on these instances; no record is read."""
        calls: list[ScriptCall] = [(_COUNT_JOBS, [*map(keys.jobs, part)], (0,)) for part in _parts(instance_ids, _COUNTED_AT_ONCE)]
        return sum(raised(await run_scripts(self._redis, calls)))

    async def count_instances(self) -> int:
        """Count the instances that are registered, and the dead whose orphans are not yet recovered."""
        return sum(raised(await self._ask([("ZCARD", keys.INSTANCES), ("ZCARD", keys.DEAD)])))

    async def queues(self) -> list[Description] | None:
        """Read which queues instances work on, by library and broker; None where the list may not be whole: no sweep has renewed it."""
        asked: list[Command] = [("TIME",), ("ZCARD", keys.INSTANCES), ("ZCARD", keys.DEAD), ("ZRANGE", keys.QUEUES, 0, -1, "WITHSCORES")]
        now, registered, dead, listed = await self._ask(asked)
        if not _is_sound(listed):
            return None
        said_at_ms = dict(zip(map(text, members_of(listed)), scores_of(listed), strict=True))
        now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
        if abs(now_ms - said_at_ms.pop("", 0)) > _LIST_LASTS_MS:
            return None
        found = map(decode_queues, said_at_ms) if registered or dead else ()
        return [described for described in found if described is not None]

    async def connections(self) -> dict[str, str]:
        """Give the connections that every registered instance has named, as they are stored."""
        return pairs(await call(self._redis, "HGETALL", keys.CONNECTIONS))

    async def names(self) -> tuple[list[str], list[str]]:
        """Give the ids of all registered instances, and of the dead whose orphans are not yet recovered."""
        return read_names(await self._ask(NAMES_CALLS))

    async def names_on(self, host_id: str) -> list[str] | None:
        """Give the ids of the registered instances of one host; None where the list of hosts does not name as many as are registered."""
        low, high = f"[{host_id} ", f"({host_id}!"  # the next character after the space
        asked: list[Command] = [("ZCARD", keys.INSTANCES), ("ZCARD", keys.HOSTS), ("ZRANGE", keys.HOSTS, low, high, "BYLEX")]
        registered, on_hosts, listed = await self._ask(asked)
        if refused(on_hosts) or not _is_sound(listed) or int(on_hosts) < int(raised([registered])[0]):
            return None
        return [text(name).removeprefix(f"{host_id} ") for name in listed]

    async def names_perhaps_on(self, host_id: str) -> list[str]:
        """Give the ids of all instances, also of the dead, that the list of hosts does not place on another host."""
        *names, listed = await self._ask([*NAMES_CALLS, ("ZRANGE", keys.HOSTS, 0, -1)])
        entries = (text(entry).partition(" ") for entry in (listed if _is_sound(listed) else ()))
        elsewhere = {name for host, _, name in entries if host != host_id}
        return [name for name in dict.fromkeys(chain(*read_names(names))) if name not in elsewhere]

    async def runs(self, job_ids: Sequence[str]) -> dict[str, RunRecord]:
        """Read the newest run of each of these jobs; what is not in flight is left out."""
        return _decode_runs(await self.raw_runs(job_ids))

    async def raw_runs(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        """Read the records of these jobs as they stand; what is not in flight is left out."""
        found, _ = await self.raw_runs_beside((), job_ids)
        return found

    async def raw_runs_beside(self, beside: Sequence[Command], job_ids: Sequence[str]) -> tuple[dict[str, bytes], Sequence[Any]]:
        """Read what `raw_runs` reads, and give the answers of other commands that go in the same round trip, before it."""
        replies = await self._ask([*beside, *self._runs_calls(job_ids)])
        return _read_raw(job_ids, raised(replies[len(beside) :])), replies[: len(beside)]

    async def adopted_and_runs(
        self, instance_ids: Sequence[str], job_ids: Sequence[str]
    ) -> tuple[dict[str, dict[str, RunRecord]], dict[str, RunRecord], set[str]]:
        """Read the orphans that an earlier sweep adopted of these dead instances and has not settled, then the newest run of each job.

        The last set has those of the instances of which a sweep has settled runs.
        """
        count = len(instance_ids)
        adopted_calls: list[Command] = [("HGETALL", keys.orphans(name)) for name in instance_ids]
        settled_calls: list[Command] = [("EXISTS", keys.settled(name)) for name in instance_ids]
        replies = await self._ask([*adopted_calls, *settled_calls, *self._runs_calls(job_ids)])
        adopted: dict[str, dict[str, RunRecord]] = {}
        for name, reply in zip(instance_ids, replies[:count], strict=True):
            adopted[name] = _decode_adopted(hash_of(reply)) if _is_sound(reply) else {}
            await asyncio.sleep(0)
        have_run = {name for name, reply in zip(instance_ids, replies[count : 2 * count], strict=True) if reply == 1}
        return adopted, _decode_runs(_read_raw(job_ids, raised(replies[2 * count :]))), have_run

    async def deaths(self, job_ids: Sequence[str], *, since_ms: int) -> dict[str, list[str]]:
        """Give the runs of each of these jobs under which a worker has died since then."""
        replies = await self._ask([("HGETALL", keys.recoveries(job_id)) for job_id in job_ids])
        deaths: dict[str, list[str]] = {}
        for job_id, reply in zip(job_ids, replies, strict=True):
            stamps = pairs(reply) if _is_sound(reply) else {}
            deaths[job_id] = [run for run, stamp in stamps.items() if stamp.isdigit() and int(stamp) >= since_ms]
        return deaths

    async def stats(self) -> dict[str, str]:
        """Read the counters of all time."""
        return pairs(await call(self._redis, "HGETALL", keys.STATS))

    async def names_and_totals(self) -> tuple[list[str], TotalsIndex]:
        """Give the ids of all instances, and the counters of all time with the names of those that are kept elsewhere.

        A key of another type holds nothing. Raises StorageError for what is refused otherwise.
        """
        registered, dead, *index = await self._ask(
            [
                ("ZRANGE", keys.INSTANCES, 0, -1),
                ("ZRANGE", keys.DEAD, 0, -1),
                ("HGETALL", keys.STATS),
                ("ZRANGE", keys.SERIES, 0, -1),
                ("ZCARD", keys.QUARANTINE),
            ]
        )
        names = dict.fromkeys(map(text, chain(*raised([registered, dead]))))
        raised([reply for reply in index if not refused_by_type(reply)])
        stats, series, quarantined = (reply if not refused(reply) else None for reply in index)
        return list(names), TotalsIndex(
            stats=pairs(stats) if stats is not None else {},
            series=[text(name) for name in series or ()],
            quarantined=int(quarantined or 0),
        )

    def totals_calls(self, index: TotalsIndex) -> list[Command]:
        """Give the commands that ask for the durations of all time."""
        return [("HGETALL", keys.total(pair)) for pair in index.series]

    def read_totals(self, index: TotalsIndex, replies: Sequence[Any]) -> list[Total]:
        """Read what was answered to `totals_calls`; what counts nothing is left out."""
        found = []
        for pair, reply in zip(index.series, replies, strict=True):
            if _is_sound(reply) and reply:
                try:
                    found.append(read_total(pair, pairs(reply)))
                except (ValueError, TypeError):
                    continue  # another program has put it into the list
        return found

    async def instance_ids(self) -> list[str]:
        """Give the ids of all registered instances."""
        return [text(name) for name in _listed(await call(self._redis, "ZRANGE", keys.INSTANCES, 0, -1))]

    async def open_spans(self) -> tuple[list[int], list[int]]:
        """Give the minutes whose counters are not packed, and the hours that are not rolled up, the oldest first."""
        minutes, hours = raised(await call_many(self._redis, [("ZRANGE", keys.MINUTES, 0, -1), ("ZRANGE", keys.HOURS, 0, -1)]))
        return _numbers(minutes), _numbers(hours)

    async def minute_in_parts(self, minute: int) -> AsyncIterator[dict[str, str]]:
        """Read the counters of one minute that is over, some at a time: the server has a turn for others between two."""
        cursor = 0
        while True:
            cursor, found = await call(self._redis, "HSCAN", keys.minute(minute), cursor, "COUNT", _FIELDS_AT_ONCE)
            yield pairs(found)
            if not int(cursor):
                return

    async def series(self) -> list[str]:
        """Give the pairs of function and queue that have a history."""
        return [text(name) for name in await call(self._redis, "ZRANGE", keys.SERIES, 0, -1)]

    async def packed_hour(self, hour: int, pairs_wanted: Sequence[str]) -> dict[str, bytes]:
        """Read the packed minutes of one hour, of those of these pairs that have some."""
        raws = await call(self._redis, "MGET", *(keys.packed(f"{hour}:{pair}") for pair in pairs_wanted))
        return {pair: raw for pair, raw in zip(pairs_wanted, raws, strict=True) if raw is not None}

    async def samples(self, hour: int) -> dict[str, str]:
        """Read the samples of one hour; another program's key is none."""
        (reply,) = await self._ask([("HGETALL", keys.samples(str(hour)))])
        return pairs(reply) if _is_sound(reply) else {}

    async def history_index(self) -> HistoryIndex:
        """Read what there is a history of."""
        asked: list[Command] = [("TIME",), *(("ZRANGE", key, 0, -1) for key in (keys.SERIES, keys.MINUTES, keys.HOURS, keys.DEPLOYS))]
        now, series, minutes, hours, deploys = raised(await call_many(self._redis, asked))
        now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
        return HistoryIndex(
            now_ms, [text(name) for name in series], _numbers(minutes), _numbers(hours), [text(deploy) for deploy in deploys]
        )

    async def history(self, wanted: Sequence[str], *, minutes: Sequence[int], hours: Sequence[int], days: Sequence[int]) -> HistoryRead:
        """Read, in one round trip: the counters of minutes that are not packed, and of these pairs the packed minutes of hours and the
        packed hours of days, with the samples of both.
        """
        of_hours = [(hour, pair) for hour in hours for pair in wanted]
        of_days = [(day, pair) for day in days for pair in wanted]
        hour_parts, day_parts = list(_parts(of_hours, _STRINGS_AT_ONCE)), list(_parts(of_days, _STRINGS_AT_ONCE))
        commands: list[Command] = [("HGETALL", keys.minute(minute)) for minute in minutes]
        commands += [("HGETALL", keys.samples(str(hour))) for hour in hours]
        commands += [("HGETALL", keys.samples(f"d{day}")) for day in days]
        commands += [("MGET", *(keys.packed(f"{hour}:{pair}") for hour, pair in part)) for part in hour_parts]
        commands += [("MGET", *(keys.packed(f"d{day}:{pair}") for day, pair in part)) for part in day_parts]
        replies = iter(await self._ask(commands))
        return HistoryRead(
            minutes=_sound_hashes(minutes, replies),
            samples=_sound_hashes(hours, replies),
            samples_of_days=_sound_hashes(days, replies),
            packed=_found(of_hours, chain.from_iterable(raised(list(islice(replies, len(hour_parts)))))),
            packed_days=_found(of_days, chain.from_iterable(raised(list(replies)))),
        )

    async def quarantined(self, only: Collection[str] | None = None) -> dict[str, dict[str, bytes]]:
        """Read every quarantined job, or only those of these refs, with its fields as bytes, in two round trips; the oldest first."""
        listed = [text(name) for name in await call(self._redis, "ZRANGE", keys.QUARANTINE, 0, -1)]
        names = listed if only is None else [name for name in listed if name in only]
        replies = await self._ask([("HGETALL", keys.quarantined(name)) for name in names])
        unread = {"reason": b"its record is of another type: another program wrote it"}  # shown, so that it can be dropped
        return {
            name: hash_of(reply) if _is_sound(reply) else unread
            for name, reply in zip(names, replies, strict=True)
            if reply or not _is_sound(reply)
        }

    async def unfit(self, instance_ids: Sequence[str], refs: Sequence[str] = ()) -> list[str]:
        """Name the keys of these instances and jobs that are of another type than the tracker makes them: another program wrote them."""
        asked: list[Command] = []
        for name in instance_ids:
            asked += [("SCARD", keys.jobs(name)), ("SCARD", keys.told(name))]
            hashes = (keys.instance(name), keys.orphans(name), keys.settled(name), keys.counters(name))
            asked += [("HGET", key, "") for key in hashes]
        asked += [("HGET", key(ref), "") for ref in refs for key in (keys.recoveries, keys.quarantined)]
        replies = await self._ask(asked)
        return [str(command[1]) for command, reply in zip(asked, replies, strict=True) if refused_by_type(reply)]

    def _runs_calls(self, job_ids: Sequence[str]) -> list[Command]:
        return [("MGET", *map(keys.job, part)) for part in _parts(job_ids, self._records_at_once)]

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in one round trip; a refusal is a reply, as that of a key of another type."""
        replies = await call_many(self._redis, commands) if commands else []
        raised([reply for reply in replies if not refused(reply)])  # a server that is loading its data has refused nothing
        return replies


def stored_run(raw: bytes) -> StoredRun | None:
    """Read the record of a run as it stands; None when it cannot be read: then the job's key is corrupt."""
    try:
        return read_run(raw)
    except ValueError:
        return None


def read_names(replies: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Read what was answered to `NAMES_CALLS`: the ids of all registered instances, and of the dead. Raises StorageError where refused."""
    registered, dead = raised(list(replies))
    return [text(name) for name in _listed(registered)], [text(name) for name in _listed(dead)]


def _is_past(stored: StoredRun, now_ms: int) -> bool:
    """Tell whether a run goes on for longer than its timeout allows."""
    timeout = stored.get("timeout")
    return timeout is not None and now_ms - stored["started_at_ms"] > timeout * 1000


def _count_said(instance_id: str, said: Sequence[bytes], found: dict[tuple[str | None, str | None], int]) -> None:
    """Count what the records of one instance say: text and number in turn, and an empty part at the end."""
    for what, number in zip(said[0:-1:2], said[1::2], strict=True):
        count = int(number)
        if count:
            pair = read_said(what)
        else:  # a whole record
            stored, count = stored_run(what), 1
            pair = (stored.get("function"), stored.get("queue")) if stored is not None and stored["instance"] == instance_id else None
        if pair is not None:
            found[pair] = found.get(pair, 0) + count


def _new_word() -> str:
    """Make a word by chance, for one question: so that it stands in nothing that is joined with it."""
    return secrets.token_hex(4)


def _separator(word: str) -> str:
    return f"\0{word}"


def _listed(reply: Any, count: int | None = None) -> Sequence[Any]:
    """Give the reply to a question for a list, of so many; raises StorageError for anything else: what is between us and Redis made it."""
    if not isinstance(reply, list | tuple) or (count is not None and len(reply) != count):
        raise StorageError(f"Redis answers with what it never returns: {reply!r:.100}")
    return reply


def _is_sound(reply: Any) -> bool:
    """Tell whether a key was of the type that it must be; otherwise another program wrote it."""
    return not (refused(reply) or isinstance(reply, int))


def _refs_calls(instance_ids: Sequence[str]) -> list[Command]:
    return [("SMEMBERS", keys.jobs(name)) for name in instance_ids]


def _read_refs(instance_ids: Sequence[str], replies: Sequence[Any]) -> dict[str, list[str]]:
    return {name: sorted(map(text, reply)) for name, reply in zip(instance_ids, replies, strict=True) if _is_sound(reply)}


def _read_raw(refs: Sequence[str], replies: Sequence[Any]) -> dict[str, bytes]:
    return {ref: raw for ref, raw in zip(refs, chain.from_iterable(replies), strict=True) if raw is not None}


def _decode_runs(raws: dict[str, bytes]) -> dict[str, RunRecord]:
    return {ref: run_record(ref, stored) for ref, raw in raws.items() if (stored := stored_run(raw)) is not None}


def _decode_adopted(fields: dict[str, bytes]) -> dict[str, RunRecord]:
    found = {}
    for ref, raw in fields.items():
        try:
            found[ref] = decode_run(keys.job(ref), ref, raw)
        except CorruptRecord:
            continue  # what another version adopted is left to a sweep of that version
    return found


def _numbers(members: Sequence[Any]) -> list[int]:
    return sorted(int(name) for name in members if name.isdigit())


def _sound_hashes(names: Sequence[int], replies: Iterator[Any]) -> dict[int, dict[str, str]]:
    return {name: pairs(reply) for name, reply in zip(names, replies, strict=False) if _is_sound(reply)}


def _found(names: Sequence[tuple[int, str]], raws: Iterable[bytes | None]) -> dict[tuple[int, str], bytes]:
    return {name: raw for name, raw in zip(names, raws, strict=True) if raw is not None}


def _parts(names: Sequence[T], count: int) -> Iterator[Sequence[T]]:
    return (names[start : start + count] for start in range(0, len(names), count))
