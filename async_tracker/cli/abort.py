"""``abort``: the run of a job is ended for good."""

from async_tracker.cli.endings import Ending
from async_tracker.cli.reach import reach
from async_tracker.cli.stacks import chain_lines
from async_tracker.cli.target import Target
from async_tracker.cli.wording import say, say_document, shown
from async_tracker.records import AbortOutcome

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
        where = f" on {shown(found.instance_id)}" if found.instance_id is not None else ""
        say(f"job {shown(job_id)}{where}: {found.outcome}: {shown(found.says)}")
        for line in chain_lines(found.chain, indent="  ") if found.chain is not None else ():
            say(shown(line))
    return _ENDINGS[found.outcome]
