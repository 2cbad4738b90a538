"""``recover`` and ``quarantine``: what a person can do about orphans and poison pills."""

from collections.abc import Iterable, Sequence

from async_tracker.cli.asking import agreed, must_be_able_to_ask
from async_tracker.cli.endings import Ending, NotFound
from async_tracker.cli.reach import reach
from async_tracker.cli.tables import Table, show
from async_tracker.cli.target import Target
from async_tracker.cli.wording import clock_time, remark, say, say_document, shown
from async_tracker.queries.wording import counted, duration
from async_tracker.records import Quarantined, Recovery
from async_tracker.tracker import Tracker


async def recover(target: Target, *, job_ids: tuple[str, ...] = (), dry_run: bool, yes: bool) -> int:
    """Recover orphans, all or these; without ``yes`` a person is shown what would be done, and asked.

    A bad answer where one of these jobs is no orphan.
    """
    only = job_ids or None
    async with reach(target) as tracker:
        if not dry_run and not yes:
            must_be_able_to_ask("recover", target)
            planned = await tracker.recover(dry_run=True, only=only)
            show(recoveries_table(planned, dry_run=True))
            if not agreed("Look for dead instances now and recover what they left?" if only is None else "Recover these jobs now?"):
                return Ending.OK
        done = await tracker.recover(dry_run=dry_run, only=only)
    if target.as_json:
        say_document({"dry_run": dry_run, "recoveries": done})
    else:
        show(recoveries_table(done, dry_run=dry_run))
    others = [job_id for job_id in dict.fromkeys(job_ids) if all(item.job_id != job_id for item in done)]
    if others:
        remark(f"no orphans: {', '.join(map(shown, others))}")
    return Ending.BAD_ANSWER if others else Ending.OK


def recoveries_table(found: Iterable[Recovery], *, dry_run: bool) -> Table:
    """Lay out what was done, or would be, with each orphan."""
    rows = [
        (
            shown(item.job_id),
            str(item.action),
            shown(item.function),
            shown(item.queue),
            str(item.deaths),
            duration(item.delay) if item.delay else "-",
            shown(item.instance_id),
            shown(item.reason),
        )
        for item in found
    ]
    columns = ("JOB", "ACTION", "FUNCTION", "QUEUE", "DEATHS", "DELAY", "DEAD INSTANCE", "WHY")
    title = f"{counted(len(rows), 'orphan')}; nothing was changed, this is what would be done" if dry_run else counted(len(rows), "orphan")
    return Table(title=title, columns=columns, rows=rows)


async def quarantine_list(target: Target) -> int:
    """Show all quarantined jobs."""
    async with reach(target) as tracker:
        found = await tracker.quarantined()
    if target.as_json:
        say_document({"quarantined": found})
    else:
        show(quarantined_table(found))
    return Ending.OK


def quarantined_table(found: Iterable[Quarantined]) -> Table:
    """Lay out quarantined jobs."""
    rows = [
        (
            shown(item.job_id),
            shown(item.function),
            shown(item.queue),
            str(item.deaths),
            clock_time(item.quarantined_at),
            f"{item.payload_bytes} B",
            shown(item.instance_id),
            shown(item.reason),
        )
        for item in found
    ]
    columns = ("JOB", "FUNCTION", "QUEUE", "DEATHS", "QUARANTINED", "PAYLOAD", "LAST INSTANCE", "WHY")
    return Table(title=f"{counted(len(rows), 'job')} in quarantine", columns=columns, rows=rows)


async def quarantine_show(target: Target, *, job_id: str) -> int:
    """Show one quarantined job."""
    async with reach(target) as tracker:
        (found,) = await _those(tracker, [job_id])
    if target.as_json:
        say_document({"quarantined": found})
        return Ending.OK
    facts = [
        ("job", shown(found.job_id)),
        ("function", shown(found.function)),
        ("library", shown(found.library)),
        ("queue", shown(found.queue)),
        ("deaths", f"{found.deaths}: so many workers died running it"),
        ("quarantined", clock_time(found.quarantined_at)),
        ("last instance", shown(found.instance_id)),
        ("why it died", shown(found.reason)),
        ("payload", f"{found.payload_bytes} bytes, never unpickled here"),
    ]
    for name, value in facts:
        say(f"{name + ':':<15}{value}")
    return Ending.OK


async def _those(tracker: Tracker, job_ids: Sequence[str]) -> list[Quarantined]:
    """Find these quarantined jobs. Raises NotFound, before anything is done, when one of them is not quarantined."""
    by_id = {item.job_id: item for item in await tracker.quarantined()}
    missing = [job_id for job_id in job_ids if job_id not in by_id]
    if missing:
        raise NotFound(f"not in quarantine: {', '.join(map(shown, missing))}")
    return [by_id[job_id] for job_id in dict.fromkeys(job_ids)]


async def quarantine_retry(target: Target, *, job_ids: tuple[str, ...]) -> int:
    """Put quarantined jobs back; a bad answer when one of them had to stay."""
    stayed: list[str] = []
    retried: list[str] = []
    async with reach(target) as tracker:
        for item in await _those(tracker, job_ids):
            (retried if await tracker.retry_quarantined(item.job_id) else stayed).append(item.job_id)
    if target.as_json:
        say_document({"retried": retried, "stayed": stayed})
    for job_id in retried if not target.as_json else ():
        say(f"{shown(job_id)} is queued again")
    for job_id in stayed:
        remark(f"{shown(job_id)} stays in quarantine: its id was enqueued anew meanwhile")
    return Ending.BAD_ANSWER if stayed else Ending.OK


async def quarantine_drop(target: Target, *, job_ids: tuple[str, ...], yes: bool) -> int:
    """Forget quarantined jobs for good."""
    async with reach(target) as tracker:
        found = await _those(tracker, job_ids)
        if not yes:
            must_be_able_to_ask("quarantine drop", target)
            show(quarantined_table(found))
            if not agreed(f"Forget {counted(len(found), 'job')} for good, with payload?"):
                return Ending.OK
        dropped = [item.job_id for item in found if await tracker.drop_quarantined(item.job_id)]
    if target.as_json:
        say_document({"dropped": dropped})
    for job_id in dropped if not target.as_json else ():
        say(f"{shown(job_id)} is forgotten")
    return Ending.OK
