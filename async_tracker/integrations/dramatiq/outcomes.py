"""How a run ended, as dramatiq's middlewares will have it. Nothing is guessed; what cannot be known is ``ended``."""

import asyncio
from concurrent.futures import CancelledError as FutureCancelledError
from dataclasses import dataclass

from dramatiq.errors import Retry
from dramatiq.middleware import Interrupt, TimeLimitExceeded
from dramatiq.middleware.shutdown import Shutdown

_INTERRUPTIONS = Interrupt | Retry | asyncio.CancelledError | FutureCancelledError
"""How a run ends in answer to an abort, and not by an error of its own: another interruption may have taken the place of ours."""


@dataclass(slots=True, kw_only=True)
class Ending:
    """What the middlewares have said of a message by the time that it is acknowledged."""

    error: BaseException | None = None
    is_processed: bool = False
    is_skipped: bool = False
    is_retried: bool = False
    """It was enqueued again."""
    is_dead: bool = False
    """It goes to the dead letters."""
    is_abort_asked: bool = False
    """The tracker has interrupted its actor."""


def outcome(ending: Ending) -> str:
    """Tell the outcome.

    >>> outcome(Ending(is_processed=True)), outcome(Ending(is_processed=True, error=ValueError(), is_retried=True))
    ('succeeded', 'retried')
    >>> outcome(Ending(is_processed=True, error=TimeLimitExceeded(), is_retried=True))
    'timed_out'
    >>> outcome(Ending(is_skipped=True, is_dead=True)), outcome(Ending())
    ('aborted', 'ended')
    >>> outcome(Ending(error=Retry(), is_dead=True, is_abort_asked=True)), outcome(Ending(error=ValueError(), is_abort_asked=True))
    ('aborted', 'failed')
    """
    if ending.is_skipped:
        return "aborted"
    if ending.error is not None:
        if ending.is_abort_asked and isinstance(ending.error, _INTERRUPTIONS):
            return "aborted"
        return _interrupted(ending.error) or ("retried" if ending.is_retried else "failed")
    if ending.is_dead:
        return "failed"
    return "succeeded" if ending.is_processed else "ended"


def _interrupted(error: BaseException) -> str | None:
    if isinstance(error, TimeLimitExceeded):
        return "timed_out"
    if isinstance(error, Shutdown | asyncio.CancelledError | FutureCancelledError):
        return "cancelled"
    return "aborted" if isinstance(error, Interrupt) else None
