"""An abort, from the side of the person who asks for it: which run is meant, who runs it, and what came of it."""

from dataclasses import dataclass

from async_tracker.control.control import Control
from async_tracker.control.orders import BEYOND_SECONDS
from async_tracker.errors import OrderFailed, UnsupportedControl
from async_tracker.records import Abort, AbortOutcome, Answer, OrderOutcome
from async_tracker.store.stacks_record import read_chain

_NOT_THERE = "it does not run, as far as is known: it has ended, or there is no such job"
_WORKER_GONE = "its worker is gone: the job is about to be recovered. Abort it once it runs again"


@dataclass(frozen=True, slots=True)
class Meant:
    """The run that is to be aborted, and the instance that runs it."""

    instance_id: str
    run: str


def refused(job_id: str, says: str = "") -> Abort:
    """Refuse to abort a job that does not run; ``says`` is where it is, '' where that is not known.

    >>> refused("42").says
    'it does not run, as far as is known: it has ended, or there is no such job'
    """
    return Abort(job_id=job_id, outcome=AbortOutcome.REFUSED, says=says or _NOT_THERE)


async def abort(control: Control, job_id: str, meant: Meant, *, wait: float, beyond: float = BEYOND_SECONDS) -> Abort:
    """Have an instance abort a run, and wait for ``wait`` seconds for its end; ``beyond`` that and its interval for its answer.

    Raises UnsupportedControl where its library cannot do it, and OrderFailed where the instance does not answer, or takes no such order.
    """
    arguments = {"job_id": job_id, "run": meant.run, "wait": wait}
    (answer,) = await control.ask([meant.instance_id], "abort", arguments=arguments, beyond=wait + beyond)
    if answer.outcome is OrderOutcome.UNSUPPORTED:
        raise UnsupportedControl(f"{meant.instance_id}: {answer.says}")
    if answer.outcome is OrderOutcome.NOT_FOUND:
        return Abort(job_id=job_id, outcome=AbortOutcome.REFUSED, instance_id=meant.instance_id, run=meant.run, says=_WORKER_GONE)
    if answer.outcome is not OrderOutcome.DONE:
        raise OrderFailed(f"{meant.instance_id}: {answer.says}", answer.outcome)
    return _abort_of(answer, job_id, meant)


def _abort_of(answer: Answer, job_id: str, meant: Meant) -> Abort:
    try:
        chain = answer.details.get("chain")
        return Abort(
            job_id=job_id,
            outcome=AbortOutcome(answer.details["outcome"]),
            instance_id=meant.instance_id,
            run=meant.run,
            says=answer.says,
            chain=read_chain(chain) if chain is not None else None,
            threads=tuple(map(str, answer.details.get("threads", ()))),
        )
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise OrderFailed(f"{meant.instance_id}: its answer cannot be read: {exc!r:.100}", OrderOutcome.FAILED) from exc
