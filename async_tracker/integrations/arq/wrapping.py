"""The functions of one arq worker, wrapped. Copies go into the worker's own table; what the user's modules hold stays as it is."""

import asyncio
import copy
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, MutableMapping, MutableSet
from time import monotonic
from typing import Any

from async_tracker.config import Settings
from async_tracker.instance.runs import current, shown_args
from async_tracker.integrations.arq.choice import Choice
from async_tracker.integrations.arq.job_run import ArqRun
from async_tracker.integrations.arq.outcomes import ending_of, is_retry
from async_tracker.telemetry.tracing import Tracing

logger = logging.getLogger("async_tracker")


class Wrapping:
    """What one worker runs, as we have wrapped it.

    ``ignore`` is called with the run of a function that is not to be tracked, ``missed`` where a tracked function is called without a
    run, and ``make_known`` is awaited before a second try begins. ``tracing`` traces runs, and ``lost_traceparent`` tells then which run
    of a job was lost. Functions and cron jobs stand in one table of arq's, by name;
    ``worker.cron_jobs`` only says when each is queued, and keeps that for itself, so it is left alone.
    """

    def __init__(
        self,
        worker: Any,
        *,
        settings: Settings,
        choice: Choice,
        ctx_key: str,
        ignore: Callable[[ArqRun], None],
        missed: Callable[[], None],
        make_known: Callable[[ArqRun], Awaitable[None]],
        tracing: Tracing | None = None,
        lost_traceparent: Callable[[str], Awaitable[str | None]] | None = None,
    ) -> None:
        self._worker = worker
        self._ctx_key = ctx_key
        self._ignore = ignore
        self._missed = missed
        self._make_known = make_known
        self._tracing = tracing
        self._lost_traceparent = lost_traceparent
        self._redact = settings.redact
        self.fault = choice.fault(self._table)
        """What is wrong with the choice. Then all is tracked, and no arguments are recorded: some may have been meant to be spared."""
        self._choice = Choice() if self.fault is not None else choice
        self._records_args = settings.record_args and self.fault is None
        self._originals: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}

    @property
    def _table(self) -> MutableMapping[str, Any]:
        table: MutableMapping[str, Any] = self._worker.functions
        return table

    def put_in(self) -> None:
        """Put wrapped copies of all functions and cron jobs into the worker's table."""
        for name, item in list(self._table.items()):
            try:
                wrapped = copy.copy(item)
                wrapped.coroutine = self._wrapped(name, item)
            except Exception:  # no function of arq's own making: it runs as it is
                logger.exception("function %s cannot be wrapped: its jobs run, and how they end is not known", name)
                continue
            self._originals[name], self._ours[name] = item, wrapped
            self._table[name] = wrapped

    def take_out(self) -> None:
        """Put back what was there."""
        for name, wrapped in self._ours.items():
            if self._table.get(name) is wrapped:
                self._table[name] = self._originals[name]
        self._ours.clear()

    def strangers(self) -> list[str]:
        """Give the names of the functions in the worker's table that are not wrapped; what was put around ours since then is no matter."""
        return [str(name) for name, item in self._table.items() if not self._is_in(item, self._ours.get(name))]

    @staticmethod
    def _is_in(item: Any, ours: Any) -> bool:
        coroutine = getattr(item, "coroutine", None)
        while ours is not None and coroutine is not None:
            if coroutine is ours.coroutine:
                return True
            coroutine = getattr(coroutine, "__wrapped__", None)
        return False

    @property
    def may_end_unstarted(self) -> bool:
        """Whether arq may time a job out before its first statement, which looks as an abort does."""
        limits = [item.timeout_s if item.timeout_s is not None else self._worker.job_timeout_s for item in self._originals.values()]
        return any((seconds := plain_seconds(limit)) is not None and seconds <= 0 for limit in limits)

    def _wrapped(self, name: str, item: Any) -> Any:
        coroutine = _as_arq_calls(item.coroutine)
        if not self._choice.tracks(name):
            return _ignored(coroutine, item.coroutine, ctx_key=self._ctx_key, ignore=self._ignore)
        timeout = item.timeout_s if item.timeout_s is not None else self._worker.job_timeout_s
        if self._tracing is not None:
            coroutine = self._traced(self._tracing, coroutine)
        return self._tracked(coroutine, item.coroutine, plain_text(name), plain_seconds(timeout))

    def _traced(self, tracing: Tracing, coroutine: Any) -> Any:
        ctx_key, lost_traceparent = self._ctx_key, self._lost_traceparent

        async def traced_function(*args: Any, **kwargs: Any) -> Any:
            run = (args[0] if args else kwargs.get("ctx", {})).get(ctx_key)
            if run is None:  # it is not tracked
                return await coroutine(*args, **kwargs)
            run.complete()
            traced = tracing.begin(run, kwargs)
            run.traceparent = traced.traceparent
            if run.is_taken_in and run.sent:
                run.keeper.touch(run)
            try:
                if run.job_try > 1 and lost_traceparent is not None:
                    traced.link(await lost_traceparent(run.ref))
                result = await coroutine(*args, **kwargs)
            except BaseException as exc:
                is_cancelled = isinstance(exc, asyncio.CancelledError)
                traced.end("retried" if is_retry(exc) else "cancelled" if is_cancelled else "failed", exc)
                raise
            traced.end("succeeded")
            return result

        return traced_function

    def _tracked(self, coroutine: Any, shown: Any, name: str, timeout: float | None) -> Any:
        ctx_key, records_args, redact = self._ctx_key, self._records_args, self._redact
        missed, make_known = self._missed, self._make_known
        aborting: MutableSet[str] = self._worker.aborting_tasks

        @functools.wraps(shown)
        async def tracked_function(*args: Any, **kwargs: Any) -> Any:
            ctx = args[0] if args else kwargs.get("ctx", {})
            run = ctx.get(ctx_key)
            if run is None:
                missed()
                return await coroutine(*args, **kwargs)
            run.function, run.timeout = name, timeout
            current.set(run)
            if records_args:
                run.args = shown_args(args[1:], kwargs, redact)
            if run.ctx is None and run.is_taken_in and run.sent:
                run.keeper.touch(run)
            try:
                if (ctx.get("job_try") or 1) > 1:
                    await make_known(run)
                result = await coroutine(*args, **kwargs)
            except BaseException as exc:
                run.ended_mono_ms = monotonic() * 1000.0
                run.complete()
                if run.is_abort_asked and is_retry(exc):
                    raised = asyncio.CancelledError()
                    run.ending = ending_of(raised, is_aborted=True)
                    raise raised from exc
                run.ending = ending_of(exc, is_aborted=run.job_id in aborting)
                raise
            run.ended_mono_ms = monotonic() * 1000.0
            run.went_well = True
            return result

        return tracked_function


def _ignored(coroutine: Any, shown: Any, *, ctx_key: str, ignore: Callable[[ArqRun], None]) -> Any:
    @functools.wraps(shown)
    async def ignored_function(ctx: Any, /, *args: Any, **kwargs: Any) -> Any:
        run = ctx.pop(ctx_key, None)
        if run is not None:
            ignore(run)
        return await coroutine(ctx, *args, **kwargs)

    return ignored_function


def _as_arq_calls(coroutine: Any) -> Any:
    """Give what can be awaited as arq would run it: arq takes coroutines only, and we would await anything."""
    if inspect.iscoroutinefunction(coroutine):
        return coroutine

    async def called(*args: Any, **kwargs: Any) -> Any:
        made = coroutine(*args, **kwargs)
        if not asyncio.iscoroutine(made):
            raise TypeError(f"a coroutine was expected, got {made!r}")
        return await made

    return called


def plain_text(text: Any) -> str:
    """Give a name as mere text: it may be a member of an enumeration, which some ways of writing show otherwise.

    >>> import enum
    >>> plain_text(enum.StrEnum("Name", ["SEND"]).SEND), plain_text(None)
    ('send', 'None')
    """
    return str.__str__(text) if isinstance(text, str) else str(text)


def plain_seconds(seconds: Any) -> float | None:
    """Give a time limit as a number that can be written down: arq takes any that can be added to one.

    >>> import fractions
    >>> plain_seconds(7), plain_seconds(fractions.Fraction(1, 2)), plain_seconds(None), plain_seconds("soon")
    (7, 0.5, None, None)
    """
    try:
        return seconds if seconds is None or type(seconds) is int else float(seconds)
    except (TypeError, ValueError, OverflowError):
        return None
