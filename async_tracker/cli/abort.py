"""``abort``: the run of a job is ended for good."""

from collections.abc import Iterator

from async_tracker.cli.endings import Ending
from async_tracker.cli.reach import reach
from async_tracker.cli.stacks import chain_lines
from async_tracker.cli.target import Target
from async_tracker.cli.wording import say, say_document, shown
from async_tracker.records import Abort, AbortOutcome

_ENDINGS = {
    AbortOutcome.ABORTED: Ending.OK,
    AbortOutcome.ENDED_BEFORE: Ending.OK,
    AbortOutcome.GOES_ON: Ending.BAD_ANSWER,
    AbortOutcome.REFUSED: Ending.NOT_FOUND,
}


async def abort(target: Target, *, job_id: str, wait: float) -> int:
    """Ask for it, and show what came of it; of a run that goes on, where it waits."""
    async with reach(target) as tracker:
        found = await tracker.abort(job_id, wait)
    if target.as_json:
        say_document(found.to_dict())
    else:
        for line in lines_of(found):
            say(shown(line))
    return _ENDINGS[found.outcome]


def lines_of(found: Abort) -> Iterator[str]:
    """Lay out what came of an abort.

    >>> from async_tracker.records import Chain
    >>> chain = Chain(frames=("/app/mail.py:12 send",), ends="Future")
    >>> found = Abort(job_id="42", outcome=AbortOutcome.GOES_ON, instance_id="w:1:ab", run="f00d", says="it cleans up", chain=chain)
    >>> print(*lines_of(found), sep="\\n")
    job 42 on w:1:ab: goes_on: it cleans up
      /app/mail.py:12 send
      waits for: Future
    """
    where = f" on {found.instance_id}" if found.instance_id is not None else ""
    yield f"job {found.job_id}{where}: {found.outcome}: {found.says}"
    if found.chain is not None:
        yield from chain_lines(found.chain, indent="  ")
