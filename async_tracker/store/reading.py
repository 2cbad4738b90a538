"""What queries and the sweep read: each method is one round trip, whatever the number of instances and jobs."""

from collections.abc import Sequence
from typing import Any

from async_tracker import keys
from async_tracker.calls import call, call_many, load_script, pairs, refused, run_script_many, text
from async_tracker.errors import CorruptRecord
from async_tracker.stored import RunRecord, StoredInstance, decode_instance, decode_run, read_run

_READ_INSTANCES = load_script(__package__, "read_instances")

_JOBS_AT_ONCE = 2_000
_INSTANCES_AT_ONCE = 100
"""Instances that one script reads: well under a millisecond of the server's time."""


class Reading:
    """Questions to the namespace. ``redis`` is a Namespace proxy. Corrupt records are skipped and their keys gathered in ``corrupt``."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.corrupt: list[str] = []
        self.strange: dict[str, dict[str, str]] = {}
        """Instances that another version wrote, with their fields as they are."""

    async def instances(self, instance_ids: Sequence[str]) -> dict[str, StoredInstance]:
        """Read what these instances say of themselves; the ones that are no more are left out."""
        hashes, _ = await self._read(instance_ids, with_jobs=False)
        return self._decode_instances(instance_ids, hashes)

    async def instances_and_jobs(self, instance_ids: Sequence[str]) -> tuple[dict[str, StoredInstance], dict[str, list[str]]]:
        """Read these instances and the ids of the jobs in flight on each."""
        hashes, sets = await self._read(instance_ids, with_jobs=True)
        jobs = {
            name: sorted([text(member) for member in members])
            for name, members in zip(instance_ids, sets, strict=True)
            if self._sound(keys.jobs(name), members)
        }
        return self._decode_instances(instance_ids, hashes), jobs

    async def _read(self, instance_ids: Sequence[str], *, with_jobs: bool) -> tuple[list[Any], list[Any]]:
        parts = [instance_ids[i : i + _INSTANCES_AT_ONCE] for i in range(0, len(instance_ids), _INSTANCES_AT_ONCE)]
        calls = []
        for part in parts:
            names = [keys.instance(name) for name in part] + ([keys.jobs(name) for name in part] if with_jobs else [])
            calls.append((names, (len(part),)))
        hashes: list[Any] = []
        sets: list[Any] = []
        for part, reply in zip(parts, await run_script_many(self.redis, _READ_INSTANCES, calls), strict=True):
            hashes += reply[: len(part)]
            sets += reply[len(part) :]
        return hashes, sets

    async def runs(self, job_ids: Sequence[str]) -> dict[str, RunRecord]:
        """Read the newest run of each of these jobs; what is not in flight is left out."""
        return {ref: RunRecord(**attributes) for ref, attributes in (await self.run_attributes(job_ids)).items()}

    async def run_attributes(self, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Read the same as `runs`, as the attributes of a `RunRecord`."""
        found: dict[str, dict[str, Any]] = {}
        parts = [job_ids[i : i + _JOBS_AT_ONCE] for i in range(0, len(job_ids), _JOBS_AT_ONCE)]
        replies = await call_many(self.redis, [("MGET", *(keys.job(job_id) for job_id in part)) for part in parts]) if parts else []
        for part, reply in zip(parts, replies, strict=True):
            for job_id, raw in zip(part, reply, strict=True):
                if raw is not None:
                    try:
                        found[job_id] = read_run(keys.job(job_id), job_id, raw)
                    except CorruptRecord as exc:
                        self.corrupt.append(exc.key)
        return found

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

    def _decode_instances(self, instance_ids: Sequence[str], replies: Sequence[Any]) -> dict[str, StoredInstance]:
        found = {}
        for name, reply in zip(instance_ids, replies, strict=True):
            if self._sound(keys.instance(name), reply) and reply:
                fields = pairs(_flat(reply))
                try:
                    found[name] = decode_instance(keys.instance(name), name, fields)
                except CorruptRecord as exc:
                    self.corrupt.append(exc.key)
                    self.strange[name] = fields
        return found

    def _sound(self, key: str, reply: Any) -> bool:
        if refused(reply) or isinstance(reply, int):  # the key is of another type: somebody else wrote it
            self.corrupt.append(key)
            return False
        return True


def _flat(reply: Any) -> list[bytes]:
    """Make a hash flat: redis-py gives a dict where its callback ran, and a list where it did not."""
    return [part for pair in reply.items() for part in pair] if isinstance(reply, dict) else list(reply)


def _fields(reply: Any) -> dict[str, bytes]:
    flat = _flat(reply)
    return {text(flat[i]): flat[i + 1] for i in range(0, len(flat), 2)}
