"""The order `abort`: the actor of one message is interrupted, and the message goes to the dead letters. Only where it was asked for.

A mark in Redis, by the run's token, comes first: it tells a sweep what to do if the worker dies meanwhile.
"""

import asyncio
import logging
import time

from async_tracker.connections.calls import bounded
from async_tracker.control.abort_answers import abort_answer, ended_before, threads_in, threads_remark
from async_tracker.control.orders import Done, Order
from async_tracker.errors import StorageError
from async_tracker.instance.chains import Walk, threads
from async_tracker.instance.journal import Journal
from async_tracker.instance.runs import Run
from async_tracker.instance.stacks import chain_of
from async_tracker.integrations.dramatiq.adapter import DramatiqAdapter
from async_tracker.integrations.dramatiq.interruption import CAN_INTERRUPT, Bracket
from async_tracker.records import AbortOutcome, Chain, OrderOutcome

logger = logging.getLogger("async_tracker")

_LOOK_SECONDS = 0.005
"""How far looks are apart whether the actor of a message has begun; hooks of other middlewares come before it."""

_NOT_ASKED_FOR = (
    "a message of this dramatiq worker cannot be aborted, for its middleware was not asked for that: write TrackerMiddleware(tracker, "
    "abort=True). Or give the actor a time_limit, have it look at a flag of yours, or stop the worker"
)
_NOT_HERE = "this Python cannot raise an exception in another thread, so a message cannot be aborted"


class AbortableRun(Run):
    """A run whose actor may be interrupted."""

    bracket: Bracket | None = None
    """The call of its actor; None where it is not to be aborted."""


async def refuse(order: Order) -> Done:
    """Refuse, where the middleware was not asked for it."""
    return Done(OrderOutcome.UNSUPPORTED, _NOT_ASKED_FOR)


class Aborts:
    """Aborts messages of one worker. Lives in the event loop of its instance."""

    def __init__(self, *, journal: Journal, adapter: DramatiqAdapter | None, patience: float) -> None:
        """``adapter``: None where the broker is not Redis, and gives back by itself what a dead worker held.

        ``patience``: for how many seconds Redis may take to note that a run is being aborted.
        """
        self._journal = journal
        self._adapter = adapter
        self._patience = patience
        self._waiting: dict[str, asyncio.Event] = {}
        """By the token of a run: set when it has ended, and its broker knows."""

    async def carry_out(self, order: Order) -> Done:
        """End the run that the order names, and wait for that as long as it says."""
        if not CAN_INTERRUPT:
            return Done(OrderOutcome.UNSUPPORTED, _NOT_HERE)
        until = time.monotonic() + float(order.arguments.get("wait", 0.0))
        while True:
            run = self._run_of(str(order.arguments["run"]))
            bracket = run.bracket if run is not None else None
            if run is None or bracket is None or bracket.is_shut:
                return ended_before()
            if bracket.is_begun:
                return await self._abort(run, bracket, until)
            if time.monotonic() >= until:
                return _not_begun(run)
            await asyncio.sleep(_LOOK_SECONDS)

    def _run_of(self, token: str) -> AbortableRun | None:
        return next((run for run in self._journal.runs() if run.token == token and isinstance(run, AbortableRun)), None)

    async def _abort(self, run: AbortableRun, bracket: Bracket, until: float) -> Done:
        try:
            await self._note(run)
        except (StorageError, TimeoutError) as exc:
            return Done(
                OrderOutcome.FAILED, f"nothing was done: that it is being aborted cannot be noted in Redis ({exc or 'it takes too long'})"
            )
        names = threads_in(_chain(run)) if bracket.is_async else ()
        if not bracket.interrupt() and run.token not in self._waiting:  # else an order before this one has interrupted it
            await self._forget(run)
            return ended_before()
        has_ended = self._waiting.setdefault(run.token, asyncio.Event())
        try:
            await asyncio.wait_for(has_ended.wait(), max(until - time.monotonic(), 0.0))
        except TimeoutError:
            return _goes_on(run, names)
        if run.outcome == "aborted":
            says = f"it has ended, and does not run again: its message is a dead letter{threads_remark(names)}"
            return abort_answer(AbortOutcome.ABORTED, says, names)
        return abort_answer(AbortOutcome.ENDED_BEFORE, f"it has swallowed the interruption, and ended by itself: {run.outcome}", names)

    async def settled(self, run: AbortableRun) -> None:
        """An interrupted run has ended, and its broker has its message acknowledged or with the dead letters."""
        has_ended = self._waiting.pop(run.token, None)
        if has_ended is not None:
            has_ended.set()
        await self._forget(run)

    async def _note(self, run: AbortableRun) -> None:
        if self._adapter is not None:
            await bounded(self._adapter.note_abort(run.record().claim), self._patience)

    async def _forget(self, run: AbortableRun) -> None:
        if self._adapter is None:
            return
        try:
            await bounded(self._adapter.forget_abort(run.record().claim), self._patience)
        except (StorageError, TimeoutError) as exc:  # it is of this run alone, which has ended, and has a lifetime
            logger.debug("the mark of an abort stays for its lifetime: %s", exc)


def _chain(run: AbortableRun) -> Chain:
    return chain_of(run, Walk(threads()))


def _goes_on(run: AbortableRun, names: tuple[str, ...]) -> Done:
    says = "it was interrupted, and goes on: it is in a call that no exception reaches before it returns, has swallowed it, or cleans up"
    return abort_answer(AbortOutcome.GOES_ON, says, names, chain=_chain(run))


def _not_begun(run: AbortableRun) -> Done:
    says = "nothing was done: its actor has not begun; a middleware of the worker may hold it up"
    return abort_answer(AbortOutcome.GOES_ON, says, chain=_chain(run))
