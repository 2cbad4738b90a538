"""``ps``, ``jobs``, ``orphans``, ``stats``: what there is."""

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence

from anyio import fail_after

from async_tracker.cli.endings import Ending
from async_tracker.cli.instances import blocked_remark, instance_remark
from async_tracker.cli.reach import reach, redis_of, role_asked
from async_tracker.cli.spans import seconds_of
from async_tracker.cli.tables import Table, show
from async_tracker.cli.target import Target
from async_tracker.cli.wording import megabytes, remark, say_document, shown
from async_tracker.connections.replies import REPLICA
from async_tracker.errors import StorageError
from async_tracker.integrations.known import redis_option
from async_tracker.queries.wording import counted, duration, matching, standing_remark
from async_tracker.records import ENDINGS, NOT_WELL, OUTCOMES, FunctionStats, Instance, Job, Orphan, QueueDepth
from async_tracker.tracker import Tracker

_QUEUES_TIMEOUT = 5.0
_JOBS_AT_ONCE = 500
"""How many jobs are read before they are printed as lines."""


async def ps(target: Target, *, limit: int | None = None, after: str | None = None) -> int:
    """Show instances and queues; with ``limit`` or ``after`` a page of the instances alone."""
    if limit is not None or after is not None:
        return await _page_of_instances(target, limit=limit, after=after)
    async with reach(target) as tracker:
        snapshot = await tracker.snapshot()
        queues, why_not = await known_queues(tracker)
        standing = await tracker.standing_orders()
        url = await redis_of(tracker)
        namespace = tracker.namespace
    if target.as_json:
        say_document(
            {
                "namespace": namespace,
                "redis": url,
                "taken_at": snapshot.taken_at,
                "role": snapshot.role,
                "returning": snapshot.returning,
                "instances": snapshot.instances,
                "queues": queues,
                "queues_error": why_not,
                "standing": standing,
                "corrupt": snapshot.corrupt,
            }
        )
        return Ending.OK
    show(instances_table(snapshot.instances, namespace=namespace, url=url))
    show(queues_table(queues))
    if why_not is not None:
        remark(f"The depth of queues is not known: {why_not}")
    for order in standing:
        remark(shown(standing_remark(order)))
    if snapshot.returning:
        remark(f"Redis has just become another server: {counted(snapshot.returning, 'instance')} of these may live, and may be dead")
    _warn_of_replica(snapshot.role)
    _warn_of_corrupt(snapshot.corrupt)
    if snapshot.orphans:
        remark(f"{counted(len(snapshot.orphans), 'orphan')}: see async-tracker orphans")
    return Ending.OK


async def _page_of_instances(target: Target, *, limit: int | None, after: str | None) -> int:
    """Show a page of the instances, and how many there are. No others are read, and no queues."""
    async with reach(target) as tracker:
        found = await tracker.instances(limit=limit, after=after)
        total = await tracker.instances(count=True)
        role = await role_asked(tracker)
        url = await redis_of(tracker)
        namespace = tracker.namespace
    last = found[-1].instance_id if limit is not None and len(found) == limit else None
    if target.as_json:
        say_document({"namespace": namespace, "redis": url, "role": role, "instances": found, "listed": total, "next": last})
        return Ending.OK
    show(instances_table(found, namespace=namespace, url=url, listed=total))
    _tell_of_next((last,) if last is not None else None)
    _warn_of_replica(role)
    return Ending.OK


async def known_queues(tracker: Tracker) -> tuple[list[QueueDepth], str | None]:
    """Read the queues, and tell why that cannot be done for some; the instances are worth showing all the same."""
    workers = [item.description for item in await tracker.stored_instances() if item.description.claims_server is not None]
    registry = tracker.footing.registry
    apart = {item.library: registry.claims_at(item) for item in workers if not registry.is_apart(item.library)}
    why_not = "; ".join(
        f"{library} keeps its jobs in another Redis, {shown(url)}: give it as {redis_option(library)}"
        for library, url in sorted(apart.items())
    )
    try:
        with fail_after(_QUEUES_TIMEOUT):
            return [queue for queue in await tracker.queues() if queue.library not in apart], why_not or None
    except TimeoutError:
        return [], f"their Redis did not answer within {_QUEUES_TIMEOUT:g} s"
    except StorageError as exc:
        return [], str(exc)


def instances_table(instances: Iterable[Instance], *, namespace: str, url: str, listed: int | None = None) -> Table:
    """Lay out instances: one line each, with the reason for its state and, while its loop is blocked, the line that blocks it.

    ``listed`` says how many there are where these are a page of them.
    """
    found = list(instances)
    has_versions = any(item.version is not None for item in found)
    rows = [
        (
            shown(item.instance_id),
            str(item.state),
            *((shown(item.version),) if has_versions else ()),
            shown(item.queue),
            f"{item.busy}/{item.concurrency}" if item.concurrency is not None else str(item.busy),
            f"{item.jobs_failed}/{item.jobs_ended}",
            f"{duration(item.heartbeat_age)} ago",
            duration(item.loop_lag),
            duration((item.heartbeat_at - item.started_at).total_seconds() + item.heartbeat_age),
            megabytes(item.rss_bytes),
            instance_remark(item),
        )
        for item in found
    ]
    columns = (
        "INSTANCE",
        "STATE",
        *(("VERSION",) if has_versions else ()),
        "QUEUE",
        "BUSY",
        "FAILED",
        "HEARTBEAT",
        "LOOP LAG",
        "UP",
        "MEMORY",
        "WHY",
    )
    title = f"{counted(len(rows), 'instance')}{_of_how_many(listed)} in namespace {shown(namespace)} on {shown(url)}"
    return Table(title=title, columns=columns, rows=rows)


def _of_how_many(listed: int | None) -> str:
    return f" of {listed} listed" if listed is not None else ""


def queues_table(queues: Iterable[QueueDepth]) -> Table:
    """Lay out queues."""
    rows = [(shown(item.queue), item.library, str(item.depth), str(item.due), duration(item.oldest_wait)) for item in queues]
    return Table(title=counted(len(rows), "queue"), columns=("QUEUE", "LIBRARY", "DEPTH", "DUE", "OLDEST WAIT"), rows=rows)


async def jobs(
    target: Target,
    *,
    instance: str | None,
    function: str | None,
    limit: int | None = None,
    after: tuple[str, str] | None = None,
    as_lines: bool = False,
) -> int:
    """Show the jobs in flight, all of them or a page; ``as_lines``, each as it is read."""
    if as_lines:
        return await _jobs_by_the_line(target, instance=instance, function=function, limit=limit, after=after)
    if limit is not None or after is not None:
        return await _page_of_jobs(target, instance=instance, function=function, limit=limit, after=after)
    async with reach(target) as tracker:
        snapshot = await tracker.snapshot()
    by_id = {item.instance_id: item for item in snapshot.instances}
    wanted = {item.instance_id for item in matching(snapshot.instances, instance)} if instance is not None else None
    found = [
        job for job in snapshot.jobs if (wanted is None or job.instance_id in wanted) and (function is None or job.function == function)
    ]
    if target.as_json:
        say_document({"taken_at": snapshot.taken_at, "role": snapshot.role, "jobs": found, "corrupt": snapshot.corrupt})
        return Ending.OK
    show(jobs_table(found, by_id))
    _warn_of_replica(snapshot.role)
    _warn_of_corrupt(snapshot.corrupt)
    return Ending.OK


async def _jobs_by_the_line(
    target: Target, *, instance: str | None, function: str | None, limit: int | None, after: tuple[str, str] | None
) -> int:
    """Print a document for each job, one page after the other: never more than a page is held, however many there are."""
    left = limit if limit is not None else sys.maxsize
    async with reach(target) as tracker:
        for name in [None] if instance is None else await _instances_called(tracker, instance):
            place = after
            while left:
                asked = min(left, _JOBS_AT_ONCE)
                page = await tracker.jobs(name, function, limit=asked, after=place)
                for job in page:
                    say_document({"job": job}, indented=False)
                left -= len(page)
                if len(page) < asked:
                    break
                place = (page[-1].instance_id, page[-1].job_id)
    return Ending.OK


async def _page_of_jobs(
    target: Target, *, instance: str | None, function: str | None, limit: int | None, after: tuple[str, str] | None
) -> int:
    """Show a page of the jobs in flight, and how many there are. Only the instances of the page are read."""
    async with reach(target) as tracker:
        names: list[str | None] = [None]
        if instance is not None:
            names = list(await _instances_called(tracker, instance))
        found: list[Job] = []
        for name in names:
            left = limit - len(found) if limit is not None else None
            found += await tracker.jobs(name, function, limit=left, after=after) if left != 0 else []
        total = sum([await tracker.jobs(name, count=True) for name in names])
        role = await role_asked(tracker)
    last = (found[-1].instance_id, found[-1].job_id) if limit is not None and len(found) == limit else None
    if target.as_json:
        say_document({"role": role, "jobs": found, "listed": total, "next": last})
        return Ending.OK
    show(jobs_table(found, {}, listed=total))
    _tell_of_next(last)
    _warn_of_replica(role)
    return Ending.OK


def _tell_of_next(last: Sequence[str] | None) -> None:
    if last:
        remark(f"The next page: --after {' '.join(shlex.quote(shown(part)) for part in last)}")


async def _instances_called(tracker: Tracker, wanted: str) -> list[str]:
    """Find the ids that an id, a label, or the beginning of either stands for; nothing else is read where it is an id."""
    if await tracker.instance(wanted) is not None:
        return [wanted]
    return sorted(item.instance_id for item in matching(await tracker.instances(), wanted))


def jobs_table(found: Iterable[Job], instances: Mapping[str, Instance], *, listed: int | None = None) -> Table:
    """Lay out jobs in flight, each with the state of its instance; ``listed`` says how many there are where these are a page of them."""
    rows = [
        (
            shown(job.job_id),
            shown(job.function),
            str(job.job_try),
            duration(job.running_for),
            progress(job),
            shown(job.queue),
            shown(job.instance_id),
            str(job.instance_state),
            _job_remark(job, instances.get(job.instance_id)),
        )
        for job in found
    ]
    columns = ("JOB", "FUNCTION", "TRY", "RUNNING FOR", "PROGRESS", "QUEUE", "INSTANCE", "STATE", "REMARKS")
    return Table(title=f"{counted(len(rows), 'job')}{_of_how_many(listed)} in flight", columns=columns, rows=rows)


def progress(job: Job) -> str:
    """Say how far a job is."""
    parts = [f"{job.progress:.0%}" if job.progress is not None else "", shown(job.progress_message) if job.progress_message else ""]
    return " ".join(part for part in parts if part) or "-"


def _job_remark(job: Job, instance: Instance | None) -> str:
    parts = [blocked_remark(instance) if instance is not None else ""]
    if job.superseded:
        parts.append(f"{counted(job.superseded, 'older run')} still alive")
    if job.args is not None:
        parts.append(f"args: {shown(job.args)}")
    return "; ".join(part for part in parts if part)


async def orphans(target: Target, *, limit: int | None = None, after: tuple[str, str] | None = None) -> int:
    """Show the jobs that dead instances have left, all of them or a page."""
    total, role = None, ""
    async with reach(target) as tracker:
        found = await tracker.orphans(limit=limit, after=after)
        if limit is not None or after is not None:
            total = await tracker.orphans(count=True)
            role = await role_asked(tracker)
    last = (found[-1].instance_id, found[-1].job_id) if limit is not None and len(found) == limit else None
    if target.as_json:
        say_document({"orphans": found} if total is None else {"role": role, "orphans": found, "listed": total, "next": last})
        return Ending.OK
    show(orphans_table(found, listed=total))
    _tell_of_next(last)
    _warn_of_replica(role)
    return Ending.OK


def orphans_table(found: Iterable[Orphan], *, listed: int | None = None) -> Table:
    """Lay out orphans, with how often a worker has died under each before; ``listed`` as in `jobs_table`."""
    rows = [
        (
            shown(item.job_id),
            shown(item.function),
            str(item.job_try),
            str(item.deaths),
            f"{duration(item.orphaned_for)} ago",
            shown(item.queue),
            shown(item.instance_id),
            shown(item.reason),
        )
        for item in found
    ]
    columns = ("JOB", "FUNCTION", "TRY", "DEATHS", "ORPHANED", "QUEUE", "DEAD INSTANCE", "WHY")
    return Table(title=f"{counted(len(rows), 'orphan')}{_of_how_many(listed)}", columns=columns, rows=rows)


async def stats(target: Target, *, function: str | None, queue: str | None, window: str | None) -> int:
    """Show the counters: the totals, or those of a window with percentiles."""
    seconds = seconds_of("--window", window) if window is not None else None
    async with reach(target) as tracker:
        found = await tracker.stats(function, queue, seconds)
    if target.as_json:
        say_document({"stats": found})
        return Ending.OK
    show(stats_table(found.functions) if seconds is None else window_table(found.functions, seconds))
    return Ending.OK


def window_table(functions: Iterable[FunctionStats], window: float) -> Table:
    """Lay out the counters of a window: rates, outcomes that are not well, and percentiles."""
    rows = []
    for item in functions:
        not_well = sum(getattr(item, name) for name in NOT_WELL)
        runs = (item.run_time_p50, item.run_time_p95, item.run_time_p99, item.run_time_max)
        waits = (item.queue_wait_p50, item.queue_wait_p95)
        times = [duration(seconds) if seconds is not None else "-" for seconds in (*runs, *waits)]
        rows.append((shown(item.function), shown(item.queue), str(item.started), f"{item.per_minute or 0.0:.3g}", str(not_well), *times))
    columns = ("FUNCTION", "QUEUE", "STARTED", "PER MIN", "NOT WELL", "RUN P50", "P95", "P99", "MAX", "WAIT P50", "WAIT P95")
    return Table(title=f"{counted(len(rows), 'function')} in the last {duration(window)}", columns=columns, rows=rows)


_SHOWN_COUNTERS = ("started", *OUTCOMES)


def stats_table(functions: Iterable[FunctionStats]) -> Table:
    """Lay out counters; a mean is over the runs that have ended."""
    rows = []
    for item in functions:
        counters = [getattr(item, name) for name in _SHOWN_COUNTERS]
        ended = sum(getattr(item, name) for name in ENDINGS)
        means = [duration(total / ended) if ended else "-" for total in (item.run_time, item.queue_wait)]
        rows.append((shown(item.function), shown(item.queue), *map(str, counters), *means))
    columns = ("FUNCTION", "QUEUE", *(name.replace("_", " ").upper() for name in _SHOWN_COUNTERS), "MEAN RUN", "MEAN WAIT")
    return Table(title=counted(len(rows), "function"), columns=columns, rows=rows)


def _warn_of_corrupt(corrupt: Iterable[str]) -> None:
    for key in corrupt:
        remark(f"Skipped, because this version cannot read it: {shown(key)}")


def _warn_of_replica(role: str) -> None:
    if role == REPLICA:
        remark("This is a replica, which may be behind; instances are judged by their heartbeats alone: give the url of its primary")
