"""What queries and the sweep read: each method is one round trip, whatever the number of instances and jobs."""

import asyncio
import secrets
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from async_tracker.connections.calls import call, call_many, load_script, refused, run_script_many
from async_tracker.connections.replies import Argument, pairs, text
from async_tracker.errors import CorruptRecord
from async_tracker.store import keys
from async_tracker.store.instance_record import StoredInstance, decode_instance
from async_tracker.store.run_record import RunRecord, StoredRun, decode_run, read_run, run_record

_READ_INSTANCES = load_script(__package__, "read_instances")
_READ_JOBS = load_script(__package__, "read_jobs")

_INSTANCES_AT_ONCE = 50
"""Instances that one script reads, or their jobs: with ten of these each, a millisecond of the server's time."""
_RECORDS_AT_ONCE = 2_000
"""Records that one script or command reads at most."""

Held = dict[str, bytes | None]
"""The refs of the jobs in flight on one instance, each with its record as it stands; None where there is none."""


class Reading:
    """Questions to the namespace. ``redis`` is a Namespace proxy. Corrupt records are skipped and their keys gathered in ``corrupt``."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self._word = secrets.token_hex(4)
        self._separator = f"\0{self._word}"  # nobody can have foreseen it, so nobody has written it into what is joined with it
        self.corrupt: list[str] = []
        self.strange: dict[str, dict[str, str]] = {}
        """Instances that another version wrote, with their fields as they are."""

    async def instances(self, instance_ids: Sequence[str]) -> dict[str, StoredInstance]:
        """Read what these instances say of themselves; the ones that are no more are left out."""
        asked, _ = await self.ask_instances(instance_ids)
        return await self.decode_instances(asked)

    async def ask_instances(
        self, instance_ids: Sequence[str], *, beside: Sequence[Sequence[Argument]] = ()
    ) -> tuple[Iterable[tuple[str, Any]], Sequence[Any]]:
        """Ask what these instances say of themselves: the answer for `decode_instances`, and those of the commands that go beside it."""
        calls = [([keys.instance(name) for name in part], (self._separator,)) for part in _parts(instance_ids, _INSTANCES_AT_ONCE)]
        replies = await run_script_many(self.redis, _READ_INSTANCES, calls, beside=beside)
        return zip(instance_ids, chain.from_iterable(replies[len(beside) :]), strict=True), replies[: len(beside)]

    async def decode_instances(self, asked: Iterable[tuple[str, Any]]) -> dict[str, StoredInstance]:
        """Read what was answered; whoever else is on the loop has a turn after every so many."""
        found = {}
        for number, (name, joined) in enumerate(asked):
            if number % _INSTANCES_AT_ONCE == 0:
                await asyncio.sleep(0)
            if self._sound(keys.instance(name), joined) and joined:
                texts = iter(text(joined).split(self._separator)[:-1])
                fields = dict(zip(texts, texts, strict=True))
                try:
                    found[name] = decode_instance(keys.instance(name), name, fields)
                except CorruptRecord as exc:
                    self.corrupt.append(exc.key)
                    self.strange[name] = fields
        return found

    async def refs(self, instance_ids: Sequence[str]) -> dict[str, list[str]]:
        """Read the refs of the jobs in flight on each of these instances, sorted."""
        return {name: sorted(refs) for name, (refs, _) in (await self._jobs(instance_ids, records_at_once=-1)).items()}

    async def held(self, instance_ids: Sequence[str]) -> dict[str, Held]:
        """Read the jobs in flight on each of these instances, with their records; another round trip when these are very many."""
        found = await self._jobs(instance_ids, records_at_once=_RECORDS_AT_ONCE)
        rest = await self.raw_runs([ref for refs, raws in found.values() if raws is None for ref in refs])
        return {
            name: dict(zip(refs, raws, strict=True)) if raws is not None else {ref: rest.get(ref) for ref in refs}
            for name, (refs, raws) in found.items()
        }

    async def _jobs(self, instance_ids: Sequence[str], *, records_at_once: int) -> dict[str, tuple[list[str], list[bytes | None] | None]]:
        """Read refs and records; None in place of the records that are too many."""
        raw_separator, missing = self._separator.encode(), self._word.encode()
        parts = list(_parts(instance_ids, _INSTANCES_AT_ONCE))
        arguments = (self._separator, self._word, records_at_once)
        calls = [([keys.job(""), *map(keys.jobs, part)], arguments) for part in parts]
        found: dict[str, tuple[list[str], list[bytes | None] | None]] = {}
        for part, reply in zip(parts, await run_script_many(self.redis, _READ_JOBS, calls), strict=True):
            for name, members, records in zip(part, reply[::2], reply[1::2], strict=True):
                if self._sound(keys.jobs(name), members):
                    raws = None if records is None else [None if raw == missing else raw for raw in records.split(raw_separator)[:-1]]
                    found[name] = text(members).split(self._separator)[:-1], raws
        return found

    async def runs(self, job_ids: Sequence[str]) -> dict[str, RunRecord]:
        """Read the newest run of each of these jobs; what is not in flight is left out."""
        found = {}
        for ref, raw in (await self.raw_runs(job_ids)).items():
            stored = self.stored_run(ref, raw)
            if stored is not None:
                found[ref] = run_record(ref, stored)
        return found

    async def raw_runs(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        """Read the records of these jobs as they stand; what is not in flight is left out."""
        parts = list(_parts(job_ids, _RECORDS_AT_ONCE))
        replies = await call_many(self.redis, [("MGET", *map(keys.job, part)) for part in parts]) if parts else []
        return {ref: raw for ref, raw in zip(job_ids, chain.from_iterable(replies), strict=True) if raw is not None}

    def stored_run(self, ref: str, raw: bytes) -> StoredRun | None:
        """Give what is stored of a run; None, and its key noted, when it cannot be read."""
        try:
            return read_run(raw)
        except ValueError:
            self.corrupt.append(keys.job(ref))
            return None

    async def adopted(self, instance_ids: Sequence[str]) -> dict[str, dict[str, RunRecord]]:
        """Read the orphans that an earlier sweep of these dead instances has found and not yet settled."""
        replies = await call_many(self.redis, [("HGETALL", keys.orphans(name)) for name in instance_ids]) if instance_ids else []
        kept: dict[str, dict[str, RunRecord]] = {}
        for name, reply in zip(instance_ids, replies, strict=True):
            fields = _fields(reply) if self._sound(keys.orphans(name), reply) else {}
            kept[name] = {}
            for ref, raw in fields.items():
                try:
                    kept[name][ref] = decode_run(keys.job(ref), ref, raw)
                except CorruptRecord as exc:
                    self.corrupt.append(exc.key)
        return kept

    async def deaths(self, job_ids: Sequence[str], *, since_ms: int) -> dict[str, list[str]]:
        """Tell under which runs of these jobs a worker has died since then."""
        replies = await call_many(self.redis, [("HGETALL", keys.recoveries(job_id)) for job_id in job_ids]) if job_ids else []
        deaths: dict[str, list[str]] = {}
        for job_id, reply in zip(job_ids, replies, strict=True):
            stamps = pairs(_flat(reply)) if self._sound(keys.recoveries(job_id), reply) else {}
            deaths[job_id] = [run for run, stamp in stamps.items() if stamp.isdigit() and int(stamp) >= since_ms]
        return deaths

    async def stats(self) -> dict[str, str]:
        """Read the counters of all time."""
        return pairs(_flat(await call(self.redis, "HGETALL", keys.STATS)))

    async def quarantined(self) -> dict[str, dict[str, bytes]]:
        """Read every quarantined job with its fields as bytes, in two round trips; the longest quarantined first."""
        names = [text(name) for name in await call(self.redis, "ZRANGE", keys.QUARANTINE, 0, -1)]
        replies = await call_many(self.redis, [("HGETALL", keys.quarantined(name)) for name in names]) if names else []
        return {
            name: _fields(reply) for name, reply in zip(names, replies, strict=True) if self._sound(keys.quarantined(name), reply) and reply
        }

    def _sound(self, key: str, reply: Any) -> bool:
        if refused(reply) or isinstance(reply, int):  # the key is of another type: somebody else wrote it
            self.corrupt.append(key)
            return False
        return True


def _parts(names: Sequence[str], count: int) -> Iterator[Sequence[str]]:
    return (names[start : start + count] for start in range(0, len(names), count))


def _flat(reply: Any) -> list[bytes]:
    """Make a hash flat: redis-py gives a dict where its callback ran, and a list where it did not."""
    return [part for pair in reply.items() for part in pair] if isinstance(reply, dict) else list(reply)


def _fields(reply: Any) -> dict[str, bytes]:
    flat = _flat(reply)
    return {text(flat[i]): flat[i + 1] for i in range(0, len(flat), 2)}
