"""The order `abort`: one run of an arq worker is ended for good, as arq's own abort ends it.

Merely cancelling the task makes arq run the job again. With the job's id in its ``aborting_tasks`` arq finishes the job instead; but an
id that stays there, because the job has swallowed the cancellation, would have arq finish the next run of that id at the next deploy. So
it is taken back when the run ends otherwise. A mark in Redis, by the run's own claim, tells a sweep what to do if the worker dies
meanwhile.
"""

import asyncio
import logging
import time
from typing import Any

from async_tracker.connections.calls import bounded
from async_tracker.control.abort_answers import abort_answer, ended_before, threads_in, threads_remark
from async_tracker.control.orders import Done, Order
from async_tracker.errors import StorageError
from async_tracker.instance.chains import Walk, threads
from async_tracker.instance.stacks import chain_of
from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.integrations.arq.claims import Claims
from async_tracker.integrations.arq.job_run import ArqRun
from async_tracker.integrations.arq.jobs import Jobs
from async_tracker.integrations.arq.lookup import variable_of_run_job
from async_tracker.records import AbortOutcome, Chain, OrderOutcome

logger = logging.getLogger("async_tracker")

_LOOK_SECONDS = 0.005
"""How far looks are apart whether the task of a job has begun that arq has claimed; it takes a few round trips, and a user's hook."""

Task = asyncio.Task[Any]


class Aborts:
    """Aborts runs of one worker; ``worker`` is arq's, and None where it was not found."""

    def __init__(self, worker: Any, *, jobs: Jobs, claims: Claims, adapter: ArqAdapter, patience: float) -> None:
        """``patience``: for how many seconds Redis may take to note that a run is being aborted."""
        self._worker = worker
        self._jobs = jobs
        self._claims = claims
        self._adapter = adapter
        self._patience = patience
        self._forgetting: set[asyncio.Task[None]] = set()

    async def carry_out(self, order: Order) -> Done:
        """End the run that the order names, and wait for that as long as it says."""
        if self._worker is None:
            return Done(
                OrderOutcome.UNSUPPORTED, "the arq worker of this instance was not found when it started, so its jobs cannot be aborted"
            )
        job_id, token = str(order.arguments["job_id"]), str(order.arguments["run"])
        until = time.monotonic() + float(order.arguments.get("wait", 0.0))
        while True:
            run = self._jobs.run_of(job_id, token)
            if _has_ended(run) or (run is None and not self._claims.is_held(job_id, token)):
                return ended_before()
            inner = self._inner_task(run, job_id)
            if run is not None and inner is not None:
                return await self._abort(run, inner, until)
            if time.monotonic() >= until:
                return self._not_begun(run)
            await asyncio.sleep(_LOOK_SECONDS)

    def _inner_task(self, run: ArqRun | None, job_id: str) -> Task | None:
        """Give the task in which arq runs the function; None until it is made. Another run of the same id has another one."""
        outer = run.task if run is not None else None
        inner: Task | None = self._worker.job_tasks.get(job_id)
        if outer is None or inner is None or inner.done():
            return None
        made_here = variable_of_run_job(outer, "task")
        return inner if made_here is inner or (made_here is None and self._worker.tasks.get(job_id) is outer) else None

    async def _abort(self, run: ArqRun, inner: Task, until: float) -> Done:
        try:
            await bounded(self._adapter.note_abort(run.claim), self._patience)
        except (StorageError, TimeoutError) as exc:
            return Done(
                OrderOutcome.FAILED, f"nothing was done: that it is being aborted cannot be noted in Redis ({exc or 'it takes too long'})"
            )
        outer = run.task
        if outer is None or inner.done() or _has_ended(run):  # it ended while that was noted
            await self._forget(run.claim)
            return ended_before()
        threads_at_work = threads_in(self._chain(run))
        self._cancel(run, outer, inner)
        await asyncio.wait([outer], timeout=max(until - time.monotonic(), 0.0))
        if not outer.done():
            return self._goes_on(run, threads_at_work)
        outcome = run.outcome if run.outcome not in (None, "ended") else ("aborted" if inner.cancelled() else "ended")
        if outcome == "aborted":
            return abort_answer(
                AbortOutcome.ABORTED, f"it has ended, and does not run again{threads_remark(threads_at_work)}", threads_at_work
            )
        if outcome == "retried":  # where functions are not wrapped, arq has heard of a Retry
            return abort_answer(AbortOutcome.GOES_ON, "it has answered with Retry, and runs again as another run")
        return abort_answer(
            AbortOutcome.ENDED_BEFORE, f"it has swallowed the cancellation, and ended by itself: {outcome}", threads_at_work
        )

    def _cancel(self, run: ArqRun, outer: Task, inner: Task) -> None:
        """In one turn of the loop: arq is to finish the job, and its task is cancelled."""
        job_id, claim, aborting = run.job_id, run.claim, self._worker.aborting_tasks

        def inner_ended(task: Task) -> None:
            if not task.cancelled():  # else arq is about to look
                aborting.discard(job_id)

        def outer_ended(task: Task) -> None:
            aborting.discard(job_id)
            forgetting = asyncio.ensure_future(self._forget(claim))
            self._forgetting.add(forgetting)
            forgetting.add_done_callback(self._forgetting.discard)

        run.is_abort_asked = True
        aborting.add(job_id)
        inner.add_done_callback(inner_ended)
        outer.add_done_callback(outer_ended)
        inner.cancel()

    async def _forget(self, claim: str) -> None:
        try:
            await bounded(self._adapter.forget_abort(claim), self._patience)
        except (StorageError, TimeoutError) as exc:  # it is of this run alone, which has ended, and has a lifetime
            logger.debug("the mark of an abort stays for its lifetime: %s", exc)

    def _chain(self, run: ArqRun) -> Chain:
        return chain_of(run, Walk(threads()))

    def _goes_on(self, run: ArqRun, threads_at_work: tuple[str, ...]) -> Done:
        says = "it was cancelled, and goes on: it has swallowed that, or it cleans up"
        return abort_answer(AbortOutcome.GOES_ON, says, threads_at_work, chain=self._chain(run))

    def _not_begun(self, run: ArqRun | None) -> Done:
        says = "nothing was done: arq has claimed the job, and its function has not begun; a hook of the worker may hold it up"
        return abort_answer(AbortOutcome.GOES_ON, says, chain=self._chain(run) if run is not None else None)


def _has_ended(run: ArqRun | None) -> bool:
    """Whether the function of a run has ended: arq writes down how, which cannot be aborted any more."""
    return run is not None and (run.went_well or run.ending is not None or run.outcome is not None)
