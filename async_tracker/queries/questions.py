"""The answers to who is alive, what runs, and what was left behind; a few round trips each, whatever else Redis holds."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import Any

from async_tracker.clock import from_ms, to_ms
from async_tracker.connections.calls import RAW, call, call_many, refused, run_script, translated, under_way
from async_tracker.connections.replies import pairs, text
from async_tracker.errors import CorruptRecord
from async_tracker.events.encoding import decode_event
from async_tracker.liveness.evidence import Findings, findings_of, heartbeat_age, live_hosts, registered_in, weigh
from async_tracker.liveness.lookup import connections_calls, read_connections
from async_tracker.policy import Connection, Verdict
from async_tracker.queries.answers import function_stats_of, instance_of, job_of, orphan_of, quarantined_of
from async_tracker.queries.picture import Picture, is_live, state_of
from async_tracker.records import Event, Instance, Job, Orphan, Quarantined, Snapshot, Stats
from async_tracker.store import keys
from async_tracker.store.counters import COUNTERS, parse_stats
from async_tracker.store.instance_record import StoredInstance
from async_tracker.store.observation import Observation
from async_tracker.store.reading import Held, Reading
from async_tracker.store.run_record import RunRecord, job_ref, run_record
from async_tracker.store.scripts import SCRIPTS, observe_call, read_observation

_EVENTS_AT_ONCE = 100
_EVENTS_WAIT_MS = 1_000
_INSTANCES_UNDIVIDED = 100
"""The jobs of more are read in two halves."""
_JOBS_IN_A_TURN = 500
"""After how many jobs somebody else on the loop has a turn: about two milliseconds."""
_LAST_SEQUENCE = 2**64 - 1
"""The highest number that an event of one millisecond can have."""


class Queries:
    """Questions to one namespace. ``redis`` is a Namespace proxy. Each raises StorageError when Redis refuses or is away.

    ``scopes`` are what may stand before a job's id in keys.
    """

    def __init__(self, redis: Any, *, scopes: Sequence[str] = ()) -> None:
        self._redis = redis
        self._scopes = scopes

    async def snapshot(self) -> Snapshot:
        """Read instances, jobs and orphans, in at most four round trips; in six when instances have very many jobs each."""
        began = time.monotonic()
        picture = await self._look(with_jobs=True)
        jobs = await self._jobs(picture)
        return Snapshot(
            instances=self._instances(picture),
            jobs=tuple(jobs),
            orphans=self._orphans(picture, self._orphaned(picture), {}),
            taken_at=from_ms(picture.now_ms),
            duration=time.monotonic() - began,
            corrupt=tuple(sorted(set(picture.reading.corrupt))),
        )

    async def instances(self) -> list[Instance]:
        """List every instance that is registered, and the dead whose orphans are not yet recovered."""
        return list(self._instances(await self._look()))

    async def instance(self, instance_id: str) -> Instance | None:
        """Give one instance, or None."""
        return next((found for found in await self.instances() if found.instance_id == instance_id), None)

    async def jobs(self, instance_id: str | None = None, function: str | None = None) -> list[Job]:
        """List the jobs in flight on instances that are not dead, the oldest first."""
        picture = await self._look(with_jobs=True)
        return [job for job in await self._jobs(picture) if instance_id in (None, job.instance_id) and function in (None, job.function)]

    async def job(self, job_id: str) -> Job | None:
        """Give the newest run in flight of one job, or None. Raises CorruptRecord when its record cannot be read."""
        reading = Reading(self._redis)
        raws = await reading.raw_runs([job_id, *(job_ref(scope, job_id) for scope in self._scopes)])
        found = [(ref, stored) for ref, raw in raws.items() if (stored := reading.stored_run(ref, raw)) is not None]
        if reading.corrupt:
            raise CorruptRecord(reading.corrupt[0], "another version, or somebody else, wrote it")
        if not found:
            return None
        ref, stored = max(found, key=lambda entry: entry[1]["started_at_ms"])
        picture = await self._look()
        return job_of(ref, stored, picture.now_ms, state_of(picture, stored["instance"]))

    async def orphans(self) -> list[Orphan]:
        """List the jobs in flight whose instance is dead and that are not yet recovered, the oldest first."""
        picture = await self._look(with_jobs=True)
        picture.held.update(await picture.reading.held(picture.unread))
        orphaned = self._orphaned(picture)
        if not orphaned:
            return []
        deaths = await picture.reading.deaths([record.ref for record in orphaned], since_ms=0)
        return list(self._orphans(picture, orphaned, {ref: len(died) for ref, died in deaths.items()}))

    async def stats(self, function: str | None = None) -> Stats:
        """Read the counters, of one function or of all."""
        parsed = parse_stats(await Reading(self._redis).stats())
        rows = [function_stats_of(name, queue, counters) for (name, queue), counters in parsed.items() if function in (None, name)]
        rows.sort(key=lambda row: (row.function or "", row.queue or ""))
        names = [counter for counter in COUNTERS if not counter.endswith("_ms")]
        sums = {name: sum(getattr(row, name) for row in rows) for name in names}
        return Stats(functions=tuple(rows), run_time=sum(r.run_time for r in rows), queue_wait=sum(r.queue_wait for r in rows), **sums)

    async def quarantined(self) -> list[Quarantined]:
        """List the poison pills, the longest quarantined first."""
        return [quarantined_of(ref, fields) for ref, fields in (await Reading(self._redis).quarantined()).items()]

    async def events(self, since: str | datetime | None = None) -> AsyncIterator[Event]:
        """Follow the events, for ever. ``since``: an event id or a datetime to replay from; None for what comes from now on."""
        last = await self._events_start(since)
        wait_ms = _wait_ms(self._redis.redis)
        while True:
            with translated():
                reply = await self._redis.execute_command(
                    "XREAD", "COUNT", _EVENTS_AT_ONCE, "BLOCK", wait_ms, "STREAMS", keys.EVENTS, last, **RAW
                )
            for event_id, fields in _entries(reply):
                last = event_id
                event = _event(event_id, fields)
                if event is not None:
                    yield event

    async def recent_events(self, count: int = 100) -> list[Event]:
        """Give the newest events, the oldest of them first."""
        reply = await call(self._redis, "XREVRANGE", keys.EVENTS, "+", "-", "COUNT", count)
        found = [_event(text(entry[0]), _fields_of(entry[1])) for entry in reversed(reply)]
        return [event for event in found if event is not None]

    async def server_run_id(self) -> str:
        """Give the run id of the server; '' when it does not tell."""
        (info,) = await call_many(self._redis, [("INFO", "server")])
        return _run_id(info)

    async def stored_instances(self) -> list[StoredInstance]:
        """Give what every instance said of itself, as it is stored."""
        return list((await self._look()).instances.values())

    async def _events_start(self, since: str | datetime | None) -> str:
        if since is not None:
            # XREAD gives what is later than an id: of a moment, its own events too.
            return f"{max(to_ms(since) - 1, 0)}-{_LAST_SEQUENCE}" if isinstance(since, datetime) else str(since)
        newest = await call(self._redis, "XREVRANGE", keys.EVENTS, "+", "-", "COUNT", 1)
        return text(newest[0][0]) if newest else "0-0"

    async def _look(self, *, with_jobs: bool = False) -> Picture:
        observation = await self._observe()
        registered = registered_in(observation)
        names = [*observation.instances, *observation.dead]
        reading = Reading(self._redis)
        asked, replies = await reading.ask_instances(names, beside=connections_calls(registered.values(), run_id=observation.run_id))
        half = len(names) // 2 if len(names) > _INSTANCES_UNDIVIDED else len(names)
        async with under_way(reading.held(names[:half] if with_jobs else ())) as held:
            instances = await reading.decode_instances(asked)
            findings = findings_of(observation, registered, read_connections(replies, run_id=observation.run_id))
            hosts = live_hosts(observation, instances)
            verdicts = {name: self._verdict(one, findings, hosts) for name, one in instances.items() if name in observation.instances}
            return Picture(
                findings=findings,
                instances=instances,
                verdicts=verdicts,
                held=await held,
                unread=names[half:] if with_jobs else (),
                reading=reading,
            )

    async def _observe(self) -> Observation:
        names, arguments = observe_call("")
        script = SCRIPTS["observe"]
        info, reply = await call_many(self._redis, [("INFO", "server"), ("EVALSHA", script.sha, len(names), *names, *arguments)])
        if refused(reply):
            reply = await run_script(self._redis, script, names, arguments)
        return read_observation(reply, _run_id(info))

    @staticmethod
    def _verdict(stored: StoredInstance, findings: Findings, hosts: Mapping[str, int]) -> Verdict:
        name, observation = stored.instance_id, findings.observation
        gone_since_ms = observation.gone.get(name)
        if gone_since_ms is None and findings.states[name] is Connection.GONE:
            # Nobody sweeps, so nobody has noted since when: a live instance would have beaten again by half its ttl.
            missed_ms = heartbeat_age(observation, name) * 1000 - stored.limits.heartbeat_ttl * 500
            gone_since_ms = int(observation.now_ms - max(missed_ms, 1))
        return weigh(findings, stored, gone_since_ms=gone_since_ms, hosts=hosts, draining=stored.state == "draining")

    def _instances(self, picture: Picture) -> tuple[Instance, ...]:
        found = [instance_of(stored, picture) for stored in picture.instances.values()]
        return tuple(sorted(found, key=lambda item: (item.started_at, item.instance_id)))

    async def _jobs(self, picture: Picture) -> list[Job]:
        """Make the jobs in flight, the oldest first, and complete the picture: half of them while the server reads the other half."""
        found: dict[str, Job] = {}
        async with under_way(picture.reading.held(picture.unread)) as held:
            await self._make_jobs(picture, picture.held, found)
            rest = await held
        await self._make_jobs(picture, rest, found)
        picture.held.update(rest)
        refs = list(chain.from_iterable(held for name, held in picture.held.items() if is_live(picture, name)))
        if len(set(refs)) < len(refs):
            for ref, holders in Counter(refs).items():
                if holders > 1 and ref in found:
                    found[ref] = replace(found[ref], superseded=found[ref].superseded + holders - 1)
        return sorted(sorted(found.values(), key=attrgetter("job_id")), key=attrgetter("started_at"))

    @staticmethod
    async def _make_jobs(picture: Picture, held: Mapping[str, Held], found: dict[str, Job]) -> None:
        """Make the jobs of these instances, by their refs, one after the other: what was read of a record goes at once.

        Ten thousand take some tens of milliseconds, so whoever else is on the loop has a turn after every so many.
        """
        now_ms, stored_run = picture.now_ms, picture.reading.stored_run
        for name, records in held.items():
            if is_live(picture, name):
                state = state_of(picture, name)
                for ref, raw in records.items():
                    stored = stored_run(ref, raw) if raw is not None else None
                    if stored is not None and stored["instance"] == name:
                        found[ref] = job_of(ref, stored, now_ms, state)
                        if len(found) % _JOBS_IN_A_TURN == 0:
                            await asyncio.sleep(0)

    @staticmethod
    def _orphaned(picture: Picture) -> list[RunRecord]:
        found = []
        for name, held in picture.held.items():
            if not is_live(picture, name):
                for ref, raw in held.items():
                    stored = picture.reading.stored_run(ref, raw) if raw is not None else None
                    if stored is not None and stored["instance"] == name:
                        found.append(run_record(ref, stored))
        return found

    @staticmethod
    def _orphans(picture: Picture, orphaned: Sequence[RunRecord], deaths: Mapping[str, int]) -> tuple[Orphan, ...]:
        found = [orphan_of(record, picture, deaths.get(record.ref, 0)) for record in orphaned]
        return tuple(sorted(found, key=lambda orphan: (orphan.started_at, orphan.job_id)))


def _wait_ms(client: Any) -> int:
    """For how long a read may wait: well within the time after which the client gives its socket up."""
    socket_timeout = client.connection_pool.connection_kwargs.get("socket_timeout")
    return int(min(_EVENTS_WAIT_MS, socket_timeout * 500)) or 1 if socket_timeout else _EVENTS_WAIT_MS


def _run_id(info: Any) -> str:
    if isinstance(info, dict):
        return str(info.get("run_id", ""))
    lines = text(info).splitlines() if isinstance(info, bytes | str) else []
    return next((line[7:] for line in lines if line.startswith("run_id:")), "")


def _entries(reply: Any) -> list[tuple[str, Mapping[str, str]]]:
    """Read the entries of one stream, in the shapes that redis-py gives them in RESP2 and RESP3."""
    if not reply:
        return []
    streams: Sequence[Any] = list(reply.values()) if isinstance(reply, dict) else [stream[1] for stream in reply]
    entries = streams[0]
    if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], tuple | list):
        entries = entries[0]
    return [(text(entry[0]), _fields_of(entry[1])) for entry in entries]


def _fields_of(fields: Any) -> Mapping[str, str]:
    if isinstance(fields, dict):
        return {text(name): text(value) for name, value in fields.items()}
    return pairs(fields or [])


def _event(event_id: str, fields: Mapping[str, str]) -> Event | None:
    try:
        return decode_event(event_id, fields.get("event", ""))
    except CorruptRecord:  # another version's event: whoever follows the stream skips it
        return None
