"""From what is stored to what is returned: pure."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from async_tracker.clock import from_ms
from async_tracker.policy import NO_LIBRARY, InstanceState, Verdict
from async_tracker.queries.picture import Held, Picture
from async_tracker.records import FunctionStats, Instance, Job, Orphan, Quarantined, Stats
from async_tracker.store.counters import COUNTERS, parse_stats, short_name
from async_tracker.store.instance_record import StoredInstance
from async_tracker.store.quarantine import field_text
from async_tracker.store.run_record import LAST_MOMENT_MS, RunRecord, StoredRun, job_id_of, run_record
from async_tracker.store.writable import writable

_WritableInstance, _WritableJob = writable(Instance), writable(Job)


def job_of(ref: str, stored: StoredRun, now_ms: int, state: InstanceState) -> Job:
    """Make the job that is called ``ref`` in keys, which runs on an instance in this state."""
    get = stored.get
    enqueued_at_ms, started_at_ms = get("enqueued_at_ms"), stored["started_at_ms"]
    made = _WritableJob()
    made.job_id = job_id_of(ref, stored) if "scope" in stored else ref
    made.instance_id = stored["instance"]
    made.run = stored["run"]
    made.job_try = get("try", 1)
    made.function = get("function")
    made.queue = get("queue")
    made.library = get("library", NO_LIBRARY)
    made.enqueued_at = from_ms(enqueued_at_ms) if enqueued_at_ms is not None else None
    made.started_at = from_ms(started_at_ms)
    made.running_for = (now_ms - started_at_ms) / 1000.0 if now_ms > started_at_ms else 0.0
    made.timeout = get("timeout")
    made.progress = get("progress")
    made.progress_message = get("message")
    made.args = get("args")
    made.superseded = get("superseded", 0)
    made.instance_state = state
    made.__class__ = Job
    job: Job = made
    return job


def jobs_in(picture: Picture, held: Mapping[str, Held]) -> Iterator[tuple[str, Job]]:
    """Make the jobs in flight of these instances, each with its ref, one after the other: what was read of a record goes at once."""
    now_ms, read = picture.now_ms, picture.read
    for name, records in held.items():
        if picture.is_live(name):
            state = picture.state_of(name)
            for ref, raw in records.items():
                stored = read(ref, raw)
                if stored is not None and stored["instance"] == name:
                    yield ref, job_of(ref, stored, now_ms, state)


def with_older_runs(jobs: dict[str, Job], holders: Mapping[str, int]) -> None:
    """Have each job that several instances hold say how many older runs of it are still alive. ``holders`` counts them, by ref."""
    for ref, count in holders.items():
        if ref in jobs:
            jobs[ref] = dataclasses.replace(jobs[ref], superseded=jobs[ref].superseded + count - 1)


def by_start(item: Job | Instance) -> tuple[Any, str]:
    """The order of answers: what has run for longest comes first."""
    return item.started_at, item.job_id if isinstance(item, Job) else item.instance_id


def instance_of(stored: StoredInstance, picture: Picture) -> Instance:
    """Make one instance. Its jobs are counted where they were read; otherwise its own last count is given."""
    observation, name, description = picture.evidence.observation, stored.instance_id, stored.description
    verdict = picture.verdicts.get(name) or Verdict(state=InstanceState.DEAD, reason=stored.death_reason)
    beat_ms = float(observation.instances[name]) if name in observation.instances else float(stored.died_at_ms or stored.started_at_ms)
    speaks = name in observation.watchdogs
    connections = picture.evidence.registered.get(name)
    made = _WritableInstance()
    made.instance_id = name
    made.state = verdict.state
    made.reason = verdict.reason
    made.library = description.library
    made.host = description.host
    made.pid = description.pid
    made.label = description.label
    made.queue = description.queue
    made.queues = description.queues or ((description.queue,) if description.queue else ())
    made.functions = picture.functions.get(stored.function_list or "", description.functions)
    made.concurrency = description.concurrency
    listed = picture.listed_on(name)
    made.busy = busy_of(stored, listed=listed) if listed is not None else stored.busy
    made.started_at = from_ms(stored.started_at_ms)
    made.heartbeat_at = from_ms(beat_ms)
    made.heartbeat_age = max(observation.now_ms - beat_ms, 0.0) / 1000.0
    made.died_at = from_ms(stored.died_at_ms) if stored.died_at_ms else None
    made.rss_bytes = stored.rss_bytes
    made.loop_lag = stored.loop_lag_ms / 1000.0
    made.blocked_at = stored.blocked_at if speaks else ()
    made.blocked_for = (observation.now_ms - stored.blocked_since_ms) / 1000.0 if speaks and stored.blocked_since_ms else None
    made.tags = description.tags
    made.version = description.version
    made.versions = description.versions
    made.redis = description.redis
    made.connection_ids = tuple(connections.ids) if connections is not None else ()
    made.host_id = description.host_id
    made.jobs_started = stored.jobs_started
    made.jobs_ended = stored.jobs_ended
    made.jobs_failed = stored.jobs_failed
    made.dropped = stored.dropped
    made.failing = stored.failing
    made.__class__ = Instance
    instance: Instance = made
    return instance


def busy_of(stored: StoredInstance, *, listed: int) -> int:
    """Tell how many runs an instance has in flight: those that are listed, and those that were too young for it at its last beat.

    A beat is up to ``heartbeat_interval`` old, so that some of these may be listed by now: there were no more than ``busy`` in all.

    >>> from async_tracker.policy import Limits
    >>> from async_tracker.store.instance_record import Description, StoredInstance
    >>> who = Description(library="arq", host="h", host_id="h", pid=1)
    >>> beat = StoredInstance(instance_id="w", description=who, limits=Limits(), started_at_ms=0, busy=10, unlisted=8)
    >>> [busy_of(beat, listed=listed) for listed in (0, 2, 10, 12)]
    [8, 10, 10, 12]
    """
    young = 0 if stored.died_at_ms is not None else stored.unlisted
    return max(listed, min(listed + young, stored.busy))


def unlisted_in(picture: Picture, among: Iterable[str]) -> int:
    """Count the runs in flight that are not listed on the live ones of these instances, by their last beats."""
    listed = {name: len(picture.held.get(name, ())) for name in among if picture.is_live(name)}
    return sum(busy_of(picture.instances[name], listed=count) - count for name, count in listed.items())


def orphaned_runs(picture: Picture) -> list[RunRecord]:
    """Give the runs in flight, among the jobs that were read, whose instance is dead."""
    found = []
    for name, records in picture.held.items():
        if not picture.is_live(name):
            for ref, raw in records.items():
                stored = picture.read(ref, raw)
                if stored is not None and stored["instance"] == name:
                    found.append(run_record(ref, stored))
    return found


def orphans_in(picture: Picture, orphaned: Iterable[RunRecord], deaths: Mapping[str, int]) -> tuple[Orphan, ...]:
    """Make the orphans, the oldest first. ``deaths`` says by ref how often a worker has died under the job before."""
    found = [orphan_of(record, picture, deaths.get(record.ref, 0)) for record in orphaned]
    return tuple(sorted(found, key=lambda orphan: (orphan.started_at, orphan.job_id)))


def orphan_of(record: RunRecord, picture: Picture, deaths: int) -> Orphan:
    """Make one orphan."""
    stored, verdict = picture.instances.get(record.instance_id), picture.verdicts.get(record.instance_id)
    died_ms = picture.evidence.observation.dead.get(record.instance_id, picture.now_ms)
    return Orphan(
        job_id=record.job_id,
        instance_id=record.instance_id,
        run=record.token,
        job_try=record.job_try,
        function=record.function,
        queue=record.queue,
        library=record.library,
        started_at=from_ms(record.started_at_ms),
        orphaned_at=from_ms(died_ms),
        orphaned_for=max(picture.now_ms - died_ms, 0) / 1000.0,
        reason=verdict.reason if verdict is not None else stored.death_reason if stored is not None else "",
        deaths=deaths,
    )


def stats_of(stored: Mapping[str, str], function: str | None, queue: str | None = None) -> Stats:
    """Make the counters of one function or queue, or of all, of what is stored of them.

    >>> found = stats_of({'["send",null,"failed"]': "2", '["send",null,"run_ms"]': "1500", '["pay","q","failed"]': "1"}, None)
    >>> [(row.function, row.failed) for row in found.functions], found.failed, found.run_time
    ([('pay', 1), ('send', 2)], 3, 1.5)
    """
    parsed, function, queue = parse_stats(stored), short_name(function), short_name(queue)
    rows = [
        function_stats_of(name, of_queue, counters)
        for (name, of_queue), counters in parsed.items()
        if function in (None, name) and queue in (None, of_queue)
    ]
    rows.sort(key=lambda row: (row.function or "", row.queue or ""))
    names = [counter for counter in COUNTERS if not counter.endswith("_ms")]
    sums = {name: sum(getattr(row, name) for row in rows) for name in names}
    run_time, queue_wait = sum(row.run_time for row in rows), sum(row.queue_wait for row in rows)
    return Stats(functions=tuple(rows), run_time=run_time, queue_wait=queue_wait, **sums)


def function_stats_of(function: str | None, queue: str | None, counters: Mapping[str, int]) -> FunctionStats:
    """Make the counters of one function on one queue; sums of time become seconds."""
    plain = {name: value for name, value in counters.items() if not name.endswith("_ms")}
    run_time, queue_wait = counters.get("run_ms", 0) / 1000.0, counters.get("wait_ms", 0) / 1000.0
    return FunctionStats(function=function, queue=queue, run_time=run_time, queue_wait=queue_wait, **plain)


def quarantined_of(ref: str, fields: dict[str, bytes]) -> Quarantined:
    """Make a quarantined job of its fields; its payload is only measured."""
    return Quarantined(
        job_id=field_text(fields, "job_id") or ref,
        library=field_text(fields, "library") or "",
        queue=field_text(fields, "queue"),
        function=field_text(fields, "function"),
        instance_id=field_text(fields, "instance_id") or "",
        deaths=_whole(fields, "deaths"),
        reason=field_text(fields, "reason") or "",
        quarantined_at=from_ms(min(_whole(fields, "quarantined_at_ms"), LAST_MOMENT_MS)),
        payload_bytes=len(fields.get("payload", b"")),
    )


def _whole(fields: Mapping[str, bytes], name: str) -> int:
    """Read a whole number; 0 where another program wrote something else: the job must be shown, to be retried or dropped.

    >>> _whole({"deaths": b"3"}, "deaths"), _whole({"deaths": b"many"}, "deaths"), _whole({}, "deaths")
    (3, 0, 0)
    """
    stored = fields.get(name, b"")
    return int(stored) if stored.isdigit() and len(stored) < 16 else 0
