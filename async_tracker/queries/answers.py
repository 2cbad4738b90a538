"""From what is stored to what is returned."""

from collections.abc import Mapping

from async_tracker.clock import from_ms
from async_tracker.policy import InstanceState, Verdict
from async_tracker.queries.picture import Picture
from async_tracker.records import FunctionStats, Instance, Job, OpenInstance, OpenJob, Orphan, Quarantined
from async_tracker.store.instance_record import StoredInstance
from async_tracker.store.quarantine import field_text
from async_tracker.store.run_record import RunRecord, StoredRun, job_id_of


def job_of(ref: str, stored: StoredRun, now_ms: int, state: InstanceState) -> Job:
    get = stored.get
    enqueued_at_ms, started_at_ms = get("enqueued_at_ms"), stored["started_at_ms"]
    job: Job = OpenJob(
        job_id_of(ref, stored) if "scope" in stored else ref,
        stored["instance"],
        stored["run"],
        get("try", 1),
        get("function"),
        get("queue"),
        get("library", "asyncio"),
        from_ms(enqueued_at_ms) if enqueued_at_ms is not None else None,
        from_ms(started_at_ms),
        (now_ms - started_at_ms) / 1000.0 if now_ms > started_at_ms else 0.0,
        get("timeout"),
        get("progress"),
        get("message"),
        get("args"),
        get("superseded", 0),
        state,
    )
    job.__class__ = Job
    return job


def instance_of(stored: StoredInstance, picture: Picture) -> Instance:
    observation, name, description = picture.findings.observation, stored.instance_id, stored.description
    verdict = picture.verdicts.get(name) or Verdict(state=InstanceState.DEAD, reason=stored.death_reason)
    beat_ms = float(observation.instances[name]) if name in observation.instances else float(stored.died_at_ms or stored.started_at_ms)
    speaks = name in observation.watchdogs
    connections = picture.findings.registered.get(name)
    instance: Instance = OpenInstance(
        instance_id=name,
        state=verdict.state,
        reason=verdict.reason,
        library=description.library,
        host=description.host,
        pid=description.pid,
        label=description.label,
        queue=description.queue,
        queues=description.queues or ((description.queue,) if description.queue else ()),
        functions=description.functions,
        concurrency=description.concurrency,
        busy=stored.busy if not picture.held else len(picture.held.get(name, ())),
        started_at=from_ms(stored.started_at_ms),
        heartbeat_at=from_ms(beat_ms),
        heartbeat_age=max(observation.now_ms - beat_ms, 0.0) / 1000.0,
        died_at=from_ms(stored.died_at_ms) if stored.died_at_ms else None,
        rss_bytes=stored.rss_bytes,
        loop_lag=stored.loop_lag_ms / 1000.0,
        blocked_at=stored.blocked_at if speaks else (),
        blocked_for=(observation.now_ms - stored.blocked_since_ms) / 1000.0 if speaks and stored.blocked_since_ms else None,
        tags=description.tags,
        versions=description.versions,
        redis=description.redis,
        connection_ids=tuple(connections.ids) if connections is not None else (),
        host_id=description.host_id,
        jobs_started=stored.jobs_started,
        jobs_ended=stored.jobs_ended,
        dropped=stored.dropped,
    )
    instance.__class__ = Instance
    return instance


def orphan_of(record: RunRecord, picture: Picture, deaths: int) -> Orphan:
    stored, verdict = picture.instances.get(record.instance_id), picture.verdicts.get(record.instance_id)
    died_ms = picture.findings.observation.dead.get(record.instance_id, picture.now_ms)
    return Orphan(
        job_id=record.job_id,
        instance_id=record.instance_id,
        run=record.run,
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


def function_stats_of(function: str | None, queue: str | None, counters: Mapping[str, int]) -> FunctionStats:
    plain = {name: value for name, value in counters.items() if not name.endswith("_ms")}
    run_time, queue_wait = counters.get("run_ms", 0) / 1000.0, counters.get("wait_ms", 0) / 1000.0
    return FunctionStats(function=function, queue=queue, run_time=run_time, queue_wait=queue_wait, **plain)


def quarantined_of(ref: str, fields: dict[str, bytes]) -> Quarantined:
    return Quarantined(
        job_id=field_text(fields, "job_id") or ref,
        library=field_text(fields, "library") or "",
        queue=field_text(fields, "queue"),
        function=field_text(fields, "function"),
        instance_id=field_text(fields, "instance_id") or "",
        deaths=int(fields.get("deaths", b"0")),
        reason=field_text(fields, "reason") or "",
        quarantined_at=from_ms(int(fields.get("quarantined_at_ms", b"0"))),
        payload_bytes=len(fields.get("payload", b"")),
    )
