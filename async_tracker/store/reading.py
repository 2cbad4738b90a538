"""What queries and the sweep read: each method is one round trip, whatever the number of instances and jobs."""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from async_tracker.connections.calls import call, call_many, load_script, raised, refused, run_script_many
from async_tracker.connections.replies import Argument, hash_of, pairs, text
from async_tracker.errors import CorruptRecord
from async_tracker.store import keys
from async_tracker.store.instance_record import StoredInstance, decode_instance
from async_tracker.store.run_record import RunRecord, StoredRun, decode_run, read_run, run_record

_READ_INSTANCES = load_script(__package__, "read_instances")
_READ_JOBS = load_script(__package__, "read_jobs")

Command = tuple[Argument, ...]

Held = dict[str, bytes | None]
"""The refs of the jobs in flight on one instance, each with its record as it stands; None where there is none."""


@dataclass(frozen=True, slots=True)
class AskedInstances:
    """What Redis answered about some instances, not yet decoded: what `Reading.decode_instances` takes."""

    replies: Sequence[tuple[str, Any]]
    separator: str


@dataclass(frozen=True, slots=True)
class InstancesRead:
    """What instances say of themselves, by id; the ones that are no more are in none of these."""

    found: dict[str, StoredInstance]
    corrupt: list[str]
    """Keys that hold something else, or what another version wrote."""
    unreadable: dict[str, dict[str, str]]
    """The fields of those that another version wrote, as they are stored, by instance id."""


@dataclass(frozen=True, slots=True)
class HeldRead:
    """The jobs in flight on instances, by instance id."""

    found: dict[str, Held]
    corrupt: list[str]
    """Keys that hold something else than the jobs of an instance."""


class Reading:
    """Questions to the namespace. ``redis`` is a Namespace proxy. It keeps nothing of what it reads.

    What cannot be read is left out; where a caller reports the corrupt keys, they are in the result.
    Every method raises StorageError when Redis refuses or is away.

    ``instances_at_once``: how many instances one script reads, or the jobs of how many; with ten jobs each, 50 cost a millisecond of
    the server's time. ``records_at_once``: how many records one script or command reads at most.
    """

    def __init__(self, redis: Any, *, instances_at_once: int = 50, records_at_once: int = 2_000) -> None:
        self._redis = redis
        self._instances_at_once = instances_at_once
        self._records_at_once = records_at_once

    async def instances(self, instance_ids: Sequence[str]) -> InstancesRead:
        """Read what these instances say of themselves."""
        asked, _ = await self.ask_instances(instance_ids)
        return await self.decode_instances(asked)

    async def ask_instances(
        self, instance_ids: Sequence[str], *, beside: Sequence[Sequence[Argument]] = ()
    ) -> tuple[AskedInstances, Sequence[Any]]:
        """Ask what these instances say of themselves: the answer for `decode_instances`, and those of the commands that go beside it."""
        separator = _separator(_new_word())
        calls = [([keys.instance(name) for name in part], (separator,)) for part in _parts(instance_ids, self._instances_at_once)]
        replies = await run_script_many(self._redis, _READ_INSTANCES, calls, beside=beside)
        joined = chain.from_iterable(replies[len(beside) :])
        return AskedInstances(list(zip(instance_ids, joined, strict=True)), separator), replies[: len(beside)]

    async def decode_instances(self, asked: AskedInstances) -> InstancesRead:
        """Decode what was answered; the other tasks of the loop get a turn after every ``instances_at_once``."""
        read = InstancesRead({}, [], {})
        for number, (name, joined) in enumerate(asked.replies):
            if number % self._instances_at_once == 0:
                await asyncio.sleep(0)
            if not _is_sound(joined):
                read.corrupt.append(keys.instance(name))
            elif joined:
                texts = iter(text(joined).split(asked.separator)[:-1])
                fields = dict(zip(texts, texts, strict=True))
                try:
                    read.found[name] = decode_instance(keys.instance(name), name, fields)
                except CorruptRecord as exc:
                    read.corrupt.append(exc.key)
                    read.unreadable[name] = fields
        return read

    async def instances_and_refs(self, instance_ids: Sequence[str]) -> tuple[InstancesRead, dict[str, list[str]]]:
        """Read what these instances say of themselves, and the refs of the jobs in flight on each of them, sorted."""
        asked, replies = await self.ask_instances(instance_ids, beside=_refs_calls(instance_ids))
        return await self.decode_instances(asked), _read_refs(instance_ids, replies)

    async def refs(self, instance_ids: Sequence[str]) -> dict[str, list[str]]:
        """Read the refs of the jobs in flight on each of these instances, sorted."""
        return _read_refs(instance_ids, await self._ask(_refs_calls(instance_ids)))

    async def held(self, instance_ids: Sequence[str]) -> HeldRead:
        """Read the jobs in flight on each of these instances, with their records; another round trip when these are very many."""
        word = _new_word()
        separator = _separator(word)
        parts = list(_parts(instance_ids, self._instances_at_once))
        calls = [([keys.job(""), *map(keys.jobs, part)], (separator, word, self._records_at_once)) for part in parts]
        jobs: dict[str, tuple[list[str], list[bytes | None] | None]] = {}  # None in place of the records that are too many
        corrupt: list[str] = []
        for part, reply in zip(parts, await run_script_many(self._redis, _READ_JOBS, calls), strict=True):
            for name, members, joined in zip(part, reply[::2], reply[1::2], strict=True):
                if _is_sound(members):
                    jobs[name] = text(members).split(separator)[:-1], _records(joined, separator.encode(), word.encode())
                else:
                    corrupt.append(keys.jobs(name))
        rest = await self.raw_runs([ref for refs, raws in jobs.values() if raws is None for ref in refs])
        found: dict[str, Held] = {
            name: dict(zip(refs, raws, strict=True)) if raws is not None else {ref: rest.get(ref) for ref in refs}
            for name, (refs, raws) in jobs.items()
        }
        return HeldRead(found, corrupt)

    async def runs(self, job_ids: Sequence[str]) -> dict[str, RunRecord]:
        """Read the newest run of each of these jobs; what is not in flight is left out."""
        return _decode_runs(await self.raw_runs(job_ids))

    async def raw_runs(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        """Read the records of these jobs as they stand; what is not in flight is left out."""
        return _read_raw(job_ids, raised(await self._ask(self._runs_calls(job_ids))))

    async def adopted_and_runs(
        self, instance_ids: Sequence[str], job_ids: Sequence[str]
    ) -> tuple[dict[str, dict[str, RunRecord]], dict[str, RunRecord]]:
        """Read the orphans that an earlier sweep adopted of these dead instances and has not settled, then the newest run of each job."""
        adopted_calls: list[Command] = [("HGETALL", keys.orphans(name)) for name in instance_ids]
        replies = await self._ask([*adopted_calls, *self._runs_calls(job_ids)])
        of_instances, of_jobs = replies[: len(adopted_calls)], replies[len(adopted_calls) :]
        adopted = {
            name: _decode_adopted(hash_of(reply)) if _is_sound(reply) else {}
            for name, reply in zip(instance_ids, of_instances, strict=True)
        }
        return adopted, _decode_runs(_read_raw(job_ids, raised(of_jobs)))

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

    async def quarantined(self) -> dict[str, dict[str, bytes]]:
        """Read every quarantined job with its fields as bytes, in two round trips; the longest quarantined first."""
        names = [text(name) for name in await call(self._redis, "ZRANGE", keys.QUARANTINE, 0, -1)]
        replies = await self._ask([("HGETALL", keys.quarantined(name)) for name in names])
        return {name: hash_of(reply) for name, reply in zip(names, replies, strict=True) if _is_sound(reply) and reply}

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


def _new_word() -> str:
    """Make a word of which no one could know before it was asked with, so that it stands in nothing that is joined with it."""
    return secrets.token_hex(4)


def _separator(word: str) -> str:
    return f"\0{word}"


def _is_sound(reply: Any) -> bool:
    """Tell whether a key was of the type that it must be; otherwise another program wrote it."""
    return not (refused(reply) or isinstance(reply, int))


def _refs_calls(instance_ids: Sequence[str]) -> list[Command]:
    return [("SMEMBERS", keys.jobs(name)) for name in instance_ids]


def _read_refs(instance_ids: Sequence[str], replies: Sequence[Any]) -> dict[str, list[str]]:
    return {name: sorted(map(text, reply)) for name, reply in zip(instance_ids, replies, strict=True) if _is_sound(reply)}


def _records(joined: bytes | None, separator: bytes, missing: bytes) -> list[bytes | None] | None:
    return None if joined is None else [None if raw == missing else raw for raw in joined.split(separator)[:-1]]


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


def _parts(names: Sequence[str], count: int) -> Iterator[Sequence[str]]:
    return (names[start : start + count] for start in range(0, len(names), count))
