"""``stacks``: the line at which each job of an instance waits, and what its threads do."""

from collections.abc import Iterator

from async_tracker.cli.endings import Ending, Misused, NotFound
from async_tracker.cli.reach import reach
from async_tracker.cli.target import Target
from async_tracker.cli.wording import remark, say, say_document, shown
from async_tracker.queries.wording import blocking_line, counted, duration, matching
from async_tracker.records import Chain, Stacks, WaitingJobs
from async_tracker.tracker import Tracker

_IDS_SHOWN = 5


async def stacks(target: Target, *, instance: str, job_id: str | None) -> int:
    """Ask an instance, and show what it says."""
    async with reach(target) as tracker:
        seen = await tracker.stacks(await the_instance(tracker, instance), job_id)
    if target.as_json:
        say_document(seen.to_dict())
        return Ending.OK
    if job_id is not None and not seen.jobs:
        raise NotFound(f"instance {shown(seen.instance_id)} runs no job {shown(job_id)}: see async-tracker jobs")
    for line in lines_of(seen, with_threads=job_id is None):
        say(shown(line) if line else "")
    if seen.cut:
        remark(seen.cut)
    return Ending.OK


async def the_instance(tracker: Tracker, wanted: str) -> str:
    """Find the one instance that an id, a label, or the beginning of either stands for. Raises NotFound, and Misused for several."""
    found = matching(await tracker.instances(), wanted)
    if not found:
        raise NotFound(f"no instance is called {shown(wanted)}: see async-tracker ps")
    if len(found) > 1:
        names = ", ".join(shown(item.instance_id) for item in found[:_IDS_SHOWN])
        raise Misused(
            f"{shown(wanted)} stands for {len(found)} instances, {names}{' and others' if len(found) > _IDS_SHOWN else ''}: name one"
        )
    return found[0].instance_id


def lines_of(seen: Stacks, *, with_threads: bool = True) -> Iterator[str]:
    """Lay out stacks: the groups of jobs, the largest first, then the threads.

    >>> from datetime import UTC, datetime
    >>> chain = Chain(frames=("/app/mail.py:12 send", "/app/db.py:88 fetch", "/lib/python3.11/asyncio/locks.py:213 wait"), ends="Future")
    >>> jobs = (WaitingJobs(count=2, job_ids=("a", "b"), function="send", chain=chain),)
    >>> at = datetime(2026, 1, 1, tzinfo=UTC)
    >>> seen = Stacks(instance_id="w:1:ab", taken_at=at, took=0.092, is_blocked=False, threads=(), jobs=jobs)
    >>> print(*lines_of(seen, with_threads=False), sep="\\n")
    2 jobs in flight on w:1:ab, seen within 92 ms
    <BLANKLINE>
    2 jobs of send at /app/db.py:88 fetch, in locks.py:213 wait
      a, b
        /app/mail.py:12 send
        /app/db.py:88 fetch
        /lib/python3.11/asyncio/locks.py:213 wait
        waits for: Future
    """
    count = sum(group.count for group in seen.jobs)
    blocked = "; its event loop is blocked" if seen.is_blocked else ""
    yield f"{counted(count, 'job')} in flight on {seen.instance_id}, seen within {duration(seen.took)}{blocked}"
    for group in seen.jobs:
        yield ""
        yield f"{counted(group.count, 'job')} of {group.function or '-'}{_where(group.chain)}"
        yield f"  {_ids(group)}"
        yield from chain_lines(group.chain, indent="    ")
    if with_threads:
        yield ""
        yield counted(len(seen.threads), "thread")
        for thread in seen.threads:
            yield ""
            yield f"  {thread.name}"
            yield from (f"    {frame}" for frame in thread.frames)


def _where(chain: Chain) -> str:
    """Name the line that the job's owner can change, and the one in which that waits."""
    frames = _way_down(chain)
    return f" at {blocking_line(frames[::-1])}" if frames else ""


def _way_down(chain: Chain) -> list[str]:
    """Give the frames from the outermost to the innermost, by the first branch where there are several."""
    return [*chain.frames, *(_way_down(chain.branches[0]) if chain.branches else [])]


def _ids(group: WaitingJobs) -> str:
    some = ", ".join(group.job_ids[:_IDS_SHOWN])
    more = group.count - min(len(group.job_ids), _IDS_SHOWN)
    return f"{some} and {more} more" if more else some


def chain_lines(chain: Chain, *, indent: str) -> Iterator[str]:
    """Lay out a chain, the outermost frame first, and what it branches into."""
    for frame in chain.frames:
        yield f"{indent}{frame}"
    if chain.ends:
        yield f"{indent}waits for: {chain.ends}" if chain.ends[0].isupper() else f"{indent}{chain.ends}"
    if chain.thread is not None:
        yield f"{indent}in thread {chain.thread}:"
    elif chain.branches:
        yield f"{indent}waits for {sum(branch.times for branch in chain.branches) + chain.left_out} at a time:"
    for branch in chain.branches:
        if branch.times > 1:
            yield f"{indent}  {branch.times} times:"
        yield from chain_lines(branch, indent=f"{indent}  ")
        if branch is not chain.branches[-1]:
            yield f"{indent}  -"
    if chain.left_out:
        yield f"{indent}  and {chain.left_out} more"
