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
    """How often the function's own task had been asked to stop."""
    is_aborted: bool = False
    """arq had noted the job as one that it aborts."""


def ending_of(error: BaseException, *, is_aborted: bool) -> Ending:
    """Note what the function raises, from inside its task."""
    task = asyncio.current_task()
    return Ending(error, task.cancelling() if task is not None else 0, is_aborted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is known when arq's own task for the job comes to its end hook."""

    worker_stops: bool
    """arq's task for the job was cancelled: the worker is told to stop."""
    run_seconds: float
    timeout: float | None
    retry_jobs: bool
    only_aborts: bool
    """Where a function was never called and the worker does not stop, it can only have been aborted."""


def outcome(ending: Ending | None, now: Circumstances) -> str:
    """Tell the outcome of a run whose function raised, or, without an ending, was never called: then it was cancelled before.

    The order is arq's own, and so are the questions: a `Retry` comes first, whatever else it is.

    >>> now = Circumstances(worker_stops=False, run_seconds=300.1, timeout=300.0, retry_jobs=True, only_aborts=True)
    >>> outcome(Ending(ValueError(), 0), now)
    'failed'
    >>> outcome(Ending(asyncio.CancelledError(), 1), now)
    'timed_out'
    >>> outcome(Ending(asyncio.CancelledError(), 0), now)
    'cancelled'
    >>> outcome(Ending(asyncio.CancelledError(), 1, is_aborted=True), now)
    'aborted'
    >>> outcome(None, now)
    'aborted'
    """
    if ending is None:
        return _never_called(now)
    error = ending.error
    if now.retry_jobs and _is_of_arq(error, "Retry"):
        return "retried"
    if isinstance(error, asyncio.CancelledError):
        return _cancelled(ending, now)
    return "retried" if now.retry_jobs and _is_of_arq(error, "RetryJob") else "failed"


def is_retry(error: BaseException) -> bool:
    """Tell whether a function raises this to be run again.

    >>> is_retry(ValueError())
    False
    """
    return _is_of_arq(error, "Retry") or _is_of_arq(error, "RetryJob")


def _is_of_arq(error: BaseException, name: str) -> bool:
    """Whether `isinstance` says so of the class that arq has by this name; arq need not be here to be asked."""
    return any((kind.__module__, kind.__name__) == ("arq.worker", name) for kind in type(error).__mro__)


def _cancelled(ending: Ending, now: Circumstances) -> str:
    if ending.is_aborted:
        return "aborted"
    if now.worker_stops or not ending.cancel_requests:  # told to stop, or raised by the job itself: arq runs it again
        return "cancelled"
    return "timed_out" if now.timeout is not None and now.run_seconds >= now.timeout else "cancelled"


def _never_called(now: Circumstances) -> str:
    if now.worker_stops:
        return "cancelled"
    return "aborted" if now.only_aborts else "ended"
