"""What queries return.

All frozen; none knows Redis. Times are timezone-aware datetimes of the server's clock, durations are float seconds,
sizes are bytes, and ``to_dict()`` gives what ``json.dumps`` takes.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from async_tracker.policy import NO_LIBRARY, InstanceState

EVENT_SCHEMA = 1


def jsonable(value: Any) -> Any:
    """Turn a record, or anything in one, into what ``json.dumps`` takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: jsonable(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [jsonable(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


def to_dict(self: Any) -> dict[str, Any]:
    """Give the record as JSON-ready values: datetimes as ISO 8601, tuples as lists."""
    result: dict[str, Any] = jsonable(self)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One running worker process, from start to exit."""

    instance_id: str
    state: InstanceState
    reason: str
    library: str
    host: str
    pid: int
    label: str | None = None
    queue: str | None = None
    """The name of its queue, for people; of several, all of them."""
    queues: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    concurrency: int | None = None
    busy: int = 0
    """How many runs it has in flight: those that are listed, and those that were too young to be listed at its last beat."""
    started_at: datetime
    heartbeat_at: datetime
    heartbeat_age: float
    died_at: datetime | None = None
    rss_bytes: int | None = None
    loop_lag: float = 0.0
    """The longest that a beat found its event loop late, in seconds, since the beat before."""
    blocked_at: tuple[str, ...] = ()
    """Where its loop is blocked, innermost frame first (``file:line function``); empty unless the watchdog speaks."""
    blocked_for: float | None = None
    tags: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    redis: str | None = None
    """The tracker's Redis as this instance reaches it; no password."""
    connection_ids: tuple[int, ...] = ()
    host_id: str = ""
    jobs_started: int = 0
    jobs_ended: int = 0
    dropped: int = 0
    """Writes that the journal gave up during an outage."""
    failing: str = ""
    """Which loops of its tracker fail, and how; its jobs run on. Empty where none does."""

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One in-flight job: a run that has started and not ended."""

    job_id: str
    instance_id: str
    run: str
    job_try: int = 1
    function: str | None = None
    queue: str | None = None
    library: str = NO_LIBRARY
    enqueued_at: datetime | None = None
    started_at: datetime
    running_for: float
    timeout: float | None = None
    progress: float | None = None
    progress_message: str | None = None
    args: str | None = None
    superseded: int = 0
    """Older runs of this job id that are still alive."""
    instance_state: InstanceState = InstanceState.ALIVE

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """An in-flight job whose instance is dead, and that is not yet recovered."""

    job_id: str
    instance_id: str
    run: str
    job_try: int = 1
    function: str | None = None
    queue: str | None = None
    library: str = NO_LIBRARY
    started_at: datetime
    orphaned_at: datetime
    orphaned_for: float
    reason: str
    deaths: int = 0
    """How often a worker has died under this job before, within the recovery window."""

    to_dict = to_dict


class RecoveryAction(StrEnum):
    """What became of an orphan."""

    RECOVERED = "recovered"
    """Runnable again at once."""
    DELAYED = "delayed"
    """Runnable again after ``delay`` seconds: it died with its worker before."""
    QUARANTINED = "quarantined"
    """It killed its worker once too often."""
    ENDED = "ended"
    """It had ended before its worker died; nothing was left to do."""
    TAKEN = "taken"
    """Another worker holds it already; left alone."""
    LEFT = "left"
    """The worker is no queue's: there is nothing to release. Removed from the orphans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a sweep did, or with ``dry_run`` would do, with one orphan."""

    job_id: str
    instance_id: str
    action: RecoveryAction
    function: str | None = None
    queue: str | None = None
    library: str = NO_LIBRARY
    job_try: int = 1
    delay: float = 0.0
    deaths: int = 0
    reason: str = ""
    dry_run: bool = False

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A poison pill: a job that kept killing its worker and is kept from running."""

    job_id: str
    library: str
    queue: str | None
    function: str | None
    instance_id: str
    deaths: int
    reason: str
    quarantined_at: datetime
    payload_bytes: int

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """How full a queue is. ``oldest_wait`` is for how long the oldest job that is due has waited, in seconds; None when none is due."""

    queue: str
    library: str
    depth: int
    due: int
    oldest_wait: float | None

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Instances, jobs and orphans, read within ``duration`` seconds."""

    instances: tuple[Instance, ...]
    jobs: tuple[Job, ...]
    orphans: tuple[Orphan, ...]
    taken_at: datetime
    duration: float
    corrupt: tuple[str, ...] = ()
    """Keys that hold no record that this version can read; they were skipped."""
    unlisted: int = 0
    """How many runs in flight are not among ``jobs``: at the last beats of their instances they were too young to be written. The
    ``busy`` of the instances includes them."""

    to_dict = to_dict


ENDINGS = ("succeeded", "failed", "retried", "cancelled", "timed_out", "aborted", "ended")
"""How a run can end. ``ended``: it ended, and how cannot be known."""

OUTCOMES = (*ENDINGS, "orphaned", "recovered")
"""What can become of a run that has started: it ends, or it is left by a dead instance, and then given back.

The counters, the fields of `FunctionStats` and `Stats` and the columns of ``async-tracker stats`` are these.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionStats:
    """The counters of one function on one queue. ``run_time`` and ``queue_wait`` are sums, in seconds."""

    function: str | None
    queue: str | None
    started: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    timed_out: int = 0
    aborted: int = 0
    ended: int = 0
    orphaned: int = 0
    recovered: int = 0
    run_time: float = 0.0
    queue_wait: float = 0.0

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The counters of a namespace; a killed worker takes at most one beat of them with it."""

    functions: tuple[FunctionStats, ...]
    started: int
    succeeded: int
    failed: int
    retried: int
    cancelled: int
    timed_out: int
    aborted: int
    ended: int
    orphaned: int
    recovered: int
    run_time: float
    queue_wait: float

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. ``event_id`` orders events and is what ``events(since=…)`` takes."""

    event_id: str
    type: str
    at: datetime
    instance_id: str | None = None
    job_id: str | None = None
    function: str | None = None
    queue: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    schema: int = EVENT_SCHEMA

    to_dict = to_dict
