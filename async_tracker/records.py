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
    """What it can run, where its library tells. Of a list that is longer than a kilobyte, sorted, the first names alone while Redis has
    lost it: until one of the instances that have the same list writes it again, within six hours."""
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
    version: str | None = None
    """What its team calls the deploy that it belongs to, by the setting ``version``."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of Python, of this package and of the worker library."""
    redis: str | None = None
    """The tracker's Redis as this instance reaches it; no password."""
    connection_ids: tuple[int, ...] = ()
    host_id: str = ""
    jobs_started: int = 0
    jobs_ended: int = 0
    jobs_failed: int = 0
    """Of those that have ended, how many did so with an error or by their timeout; as of its last beat, as the two before."""
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


class OrderOutcome(StrEnum):
    """What came of an order to an instance."""

    DONE = "done"
    REFUSED = "refused"
    """The instance may not be told this, or not now; ``says`` has the reason."""
    UNSUPPORTED = "unsupported"
    """Its worker library cannot do it."""
    FAILED = "failed"
    """It was tried, and something went wrong."""
    UNANSWERED = "unanswered"
    """Not answered in time, and taken back: a loop that is blocked, a process that is stopped, a lost host."""
    GONE = "gone"
    """The instance ended, or was declared dead, before it answered."""
    NOT_FOUND = "not_found"
    """No such instance is registered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one instance answered to an order."""

    order: str
    """What was asked: ``quiet`` for example."""
    instance_id: str
    """The instance; where it goes by another id meanwhile, the new one, and ``details["asked"]`` is the one that was asked."""
    outcome: OrderOutcome
    says: str = ""
    """What came of it, in words."""
    details: Mapping[str, Any] = field(default_factory=dict)

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingOrder:
    """An order that stands: instances that register meanwhile, in its scope, begin with it."""

    order: str
    queue: str | None
    """Whose workers it is for; None for all."""
    by: str
    until: datetime
    left: float
    """For how many seconds it stands from now on."""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    to_dict = to_dict


class RecoveryAction(StrEnum):
    """What became of an orphan."""

    RECOVERED = "recovered"
    """Runnable again at once."""
    DELAYED = "delayed"
    """Runnable again after ``delay`` seconds: it died with its worker before."""
    QUARANTINED = "quarantined"
    """It killed its worker once too often."""
    ABORTED = "aborted"
    """It was being aborted when its worker died: it is finished, and does not run again."""
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
    role: str = ""
    """``primary``, or ``replica``: what that holds may be of a while ago, and instances are judged there by their heartbeats alone. Empty
    where Redis does not tell."""
    returning: int = 0
    """How many of ``instances`` are ``returning``: Redis is another server since a moment ago, and they have not come back there yet."""

    to_dict = to_dict


ENDINGS = ("succeeded", "failed", "retried", "cancelled", "timed_out", "aborted", "ended")
"""How a run can end. ``ended``: it ended, and how cannot be known."""

FAILURES = ("failed", "timed_out")
"""How runs end that have failed; of what was retried, cancelled or aborted that is not said."""

NOT_WELL = tuple(name for name in ENDINGS if name not in ("succeeded", "ended"))
"""How a run can end otherwise than well, as far as is known."""

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
    run_time_p50: float | None = None
    """This and the following, in seconds: known for a ``window`` alone, within 10 % of themselves from 1 ms to 24 h; of no run None."""
    run_time_p95: float | None = None
    run_time_p99: float | None = None
    run_time_max: float | None = None
    queue_wait_p50: float | None = None
    queue_wait_p95: float | None = None
    queue_wait_p99: float | None = None
    queue_wait_max: float | None = None
    per_minute: float | None = None
    """How many runs started in a minute, in the mean of the window."""

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
    window: float | None = None
    """Of how many seconds up to now these are; None for all of time."""

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """How many jobs of one function on one queue are in flight, of those that are listed."""

    function: str | None
    queue: str | None
    count: int

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long the runs of one function on one queue took, and how long they waited, of all time.

    Each of the counts is of the durations that are longer than the bound before its own, and not longer than its own; the last one of
    those beyond all bounds. ``Measures.bounds`` says what the bounds are.
    """

    function: str | None
    queue: str | None
    since: datetime
    """When the first of them was counted."""
    run_time_counts: tuple[int, ...]
    run_time: float
    """Their sum, in seconds."""
    queue_wait_counts: tuple[int, ...]
    queue_wait: float

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What can be counted of a namespace, at one moment: what the metrics are made of."""

    taken_at: datetime
    instances: tuple[Instance, ...]
    in_flight: tuple[InFlight, ...]
    orphans: int
    quarantined: int
    """How many jobs are in quarantine now."""
    stats: Stats
    durations: tuple[Durations, ...]
    """In the order in which they were first counted."""
    bounds: tuple[float, ...] = ()
    """The bounds of durations, in seconds."""
    stalls: int = 0
    """How often an instance was found stalled, of all time; likewise the next two."""
    instances_dead: int = 0
    quarantines: int = 0
    queues: tuple[QueueDepth, ...] = ()
    unread: tuple[str, ...] = ()
    """The worker libraries of which it is not known how full their queues are: their Redis did not answer."""

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSample:
    """How full a queue was; ``oldest_wait`` in seconds is None where no job was due."""

    queue: str
    depth: int
    oldest_wait: float | None

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPoint:
    """One step of a history, of the functions that were asked for together. Counters are of the step, durations in seconds."""

    at: datetime
    """When the step began, of the server's clock; the last one is not over yet."""
    is_gap: bool
    """Nothing is known of this step: no instance swept, and none counted. Its counters are 0 and mean nothing."""
    is_late: bool = False
    """Some of what is counted here arrived more than a minute after it happened."""
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
    run_time_p50: float | None = None
    run_time_p95: float | None = None
    run_time_p99: float | None = None
    run_time_max: float | None = None
    queue_wait_p50: float | None = None
    queue_wait_p95: float | None = None
    queue_wait_p99: float | None = None
    queue_wait_max: float | None = None
    busy: float | None = None
    """Jobs in flight in the fleet, the mean of the samples; None without one, as for the following."""
    slots: float | None = None
    """Jobs that the fleet could run at a time; draining and quiet instances are no capacity."""
    queues: tuple[QueueSample, ...] = ()
    """The queues at their fullest in this step."""
    instances: float | None = None
    """Instances that were registered, the mean of the samples; the dead are none. None without a sample, as for the next."""
    orphans: int | None = None
    """Jobs of dead instances that were not yet given back, the most of the samples: what was given back between two is in none."""

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """A version that was new in the fleet, or was back after another one, by the setting ``version`` of its first instance."""

    version: str
    at: datetime
    """When that instance registered, of the server's clock."""

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What was, in steps of ``step`` seconds, the oldest first."""

    function: str | None
    queue: str | None
    step: float
    points: tuple[HistoryPoint, ...]
    deploys: tuple[Deploy, ...] = ()
    """The deploys since the first point began, of whatever function and queue; the oldest first."""
    skipped: int = 0
    """Records that another version wrote, and this one cannot read."""

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Where a task, or a thread that works for it, waits: ``file:line function``, no values."""

    frames: tuple[str, ...] = ()
    """From the outermost function down to the line at which it waits."""
    ends: str = ""
    """What is waited for there: the type of it, or ``running``, ``not begun``, ``about to go on``, ``a free thread``. Empty where the
    branches say it, and for a thread."""
    thread: str | None = None
    """The thread that works for it, by its name; what that does is the one branch."""
    branches: tuple["Chain", ...] = ()
    """What it waits for at the same time, of `gather` or a task group; equal ones once."""
    times: int = 1
    """How many of the branches beside it are equal to this one."""
    left_out: int = 0
    """How many branches were not followed."""

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJobs:
    """Jobs in flight of one function that wait in the same way."""

    count: int
    job_ids: tuple[str, ...]
    """Their ids, the oldest first; fewer than ``count`` where the answer had to be cut."""
    function: str | None
    chain: Chain

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadStack:
    """What a thread of the worker's process does."""

    name: str
    frames: tuple[str, ...]
    """``file:line function``, from the outermost down to where it is."""

    to_dict = to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacks:
    """What every thread of an instance does, and where each of its jobs in flight waits, at one moment.

    Jobs go on while others are looked at: each chain is of one moment, and all are of some ms.
    """

    instance_id: str
    taken_at: datetime
    took: float
    """In how many seconds it was read in the worker."""
    is_blocked: bool
    """The event loop did not run: the watchdog's thread has read it."""
    threads: tuple[ThreadStack, ...]
    jobs: tuple[WaitingJobs, ...]
    """The largest group first."""
    cut: str = ""
    """What was left out, for the answer to stay small; empty where nothing was."""

    to_dict = to_dict


class AbortOutcome(StrEnum):
    """What came of an abort."""

    ABORTED = "aborted"
    """The run has ended by it, and the job is over: it does not run again."""
    GOES_ON = "goes_on"
    """The job was told, and goes on: it has swallowed the cancellation, or cleans up. ``chain`` is where it waits."""
    ENDED_BEFORE = "ended_before"
    """The run has ended by itself."""
    REFUSED = "refused"
    """Nothing was done; ``says`` has the reason, and what to do instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """What came of the abort of one job."""

    job_id: str
    outcome: AbortOutcome
    instance_id: str | None = None
    """The instance that ran it; None where none does."""
    run: str | None = None
    """The token of the run that was meant; another run of the same job was not."""
    says: str = ""
    """What came of it, in words."""
    chain: Chain | None = None
    """Where a run that goes on waits."""
    threads: tuple[str, ...] = ()
    """The threads that worked for it (`asyncio.to_thread`), by name: no thread can be aborted, so they go on with what they do."""

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
