"""How a run ended, as arq will see it: from what the wrapped function raised and from who was cancelled.

Nothing is guessed; what cannot be known is ``ended``.
"""

import asyncio
from dataclasses import dataclass


@dataclass(slots=True)
class Ending:
    """What the wrapped function saw of its own end, where it did not succeed."""

    error: BaseException
    cancel_requests: int
    """How often somebody had asked the function's own task to stop."""


def ending_of(error: BaseException) -> Ending:
    """Note what the function raises, from inside its task."""
    task = asyncio.current_task()
    return Ending(error, task.cancelling() if task is not None else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is known when arq's own task for the job comes to its end hook."""

    worker_stops: bool
    """arq's task for the job was cancelled: the worker is told to stop."""
    run_seconds: float
    timeout: float | None
    allow_abort_jobs: bool
    retry_jobs: bool


def outcome(ending: Ending | None, now: Circumstances) -> str:
    """Tell the outcome of a run whose function raised, or, without an ending, was never called: then it was cancelled before.

    >>> now = Circumstances(worker_stops=False, run_seconds=300.1, timeout=300.0, allow_abort_jobs=True, retry_jobs=True)
    >>> outcome(Ending(ValueError(), 0), now)
    'failed'
    >>> outcome(Ending(asyncio.CancelledError(), 1), now)
    'timed_out'
    >>> outcome(Ending(asyncio.CancelledError(), 0), now)
    'cancelled'
    >>> outcome(None, now)
    'aborted'
    """
    if ending is None:
        return _never_called(now)
    error = ending.error
    if isinstance(error, asyncio.CancelledError):
        return _cancelled(ending, now)
    if now.retry_jobs and type(error).__module__ == "arq.worker" and type(error).__name__ in ("Retry", "RetryJob"):
        return "retried"
    return "failed"


def _cancelled(ending: Ending, now: Circumstances) -> str:
    if now.worker_stops or not ending.cancel_requests:  # told to stop, or raised by the job itself: arq runs it again
        return "cancelled"
    if now.timeout is not None and now.run_seconds >= now.timeout:
        return "timed_out"
    return "aborted" if now.allow_abort_jobs else "cancelled"


def _never_called(now: Circumstances) -> str:
    if now.worker_stops:
        return "cancelled"
    return "aborted" if now.allow_abort_jobs else "ended"
