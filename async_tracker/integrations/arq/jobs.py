"""The jobs of one arq worker between their hooks. What is done here is done for every job, and nothing in it waits.

A job passes three places: its start, its end, and arq's having written what became of it. Most pass all of them before anybody has
looked at the run: of those nothing is kept but a tally. The others are taken in by the journal, completed, and looked after.
"""

import asyncio
import logging
from asyncio import current_task
from dataclasses import dataclass
from time import monotonic
from typing import Any

from async_tracker.clock import monotonic_ms
from async_tracker.counts import Tally
from async_tracker.integrations.arq.adapter import Serializer
from async_tracker.integrations.arq.claims import Claims
from async_tracker.integrations.arq.job_run import ArqRun
from async_tracker.integrations.arq.names import IN_PROGRESS
from async_tracker.integrations.arq.outcomes import Circumstances, outcome
from async_tracker.runs import current
from async_tracker.runtime import Runtime

logger = logging.getLogger("async_tracker")

Ctx = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class WorkerFacts:
    """What ``install`` has read of the WorkerSettings; without it, arq's defaults and what the pool tells."""

    functions: tuple[str, ...] = ()
    queue: str | None = None
    concurrency: int | None = None
    job_timeout: float | None = None
    allow_abort_jobs: bool = False
    retry_jobs: bool = True
    serializer: Serializer | None = None
    is_installed: bool = False
    """The functions are wrapped, so names and outcomes are known."""


class Jobs:
    """The jobs of one worker, from its start-up to its shutdown."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        claims: Claims,
        facts: WorkerFacts,
        ctx_key: str,
        queue: str,
        hold: str | None,
    ) -> None:
        self._runtime = runtime
        self._claims = claims
        self._held = claims.held
        self._journal = runtime.journal
        self._new = runtime.journal.new
        self._writer = runtime.writer
        self._clock = runtime.clock
        self._tallies: dict[str | None, Tally] = {}
        self._facts = facts
        self._ctx_key = ctx_key
        self._queue = queue
        self._hold = hold
        self._loop = asyncio.get_running_loop()
        self._unfinished: dict[ArqRun, None] = {}
        """The runs that were taken in and whose task arq had not finished when it was last looked at."""
        self._learn = self.learn
        """Made once: every run is told it."""
        self._has_failed = False

    def begun(self, ctx: Ctx) -> ArqRun | None:
        """The job starts: put its run in flight."""
        try:
            if not self._runtime.is_open:
                return None
            run: ArqRun = ArqRun()
            run.ctx = ctx
            run.learn = self._learn
            job_id = run.job_id = ctx["job_id"]
            claim = self._held.pop(IN_PROGRESS + job_id, None)
            run.claim = claim if claim is not None else self._claims.otherwise(job_id)
            run.started_mono_ms = monotonic() * 1000.0
            run.task = current_task(self._loop)
            run.outcome = run.ending = None  # what the class has as well: found here it is found sooner
            run.owned, run.is_taken_in = True, False
            ctx[self._ctx_key] = run
            self._new[run] = run  # what `Journal.start` does, without its two calls
            if not self._writer.is_awake:
                self._writer.wake()
            if claim is None:
                self._disown_if_stale(run)
            return run
        except Exception as exc:  # the edge of a hook
            self._failed(exc)
            return None

    def _disown_if_stale(self, run: ArqRun) -> None:
        """A run whose claim was made under an id that was declared dead meanwhile is not ours: others are told to run that job."""
        run.complete()
        if run.instance_id != self._runtime.instance_id:
            self._journal.discard(run)
            run.owned = False

    def learn(self, run: ArqRun) -> None:
        """Complete a run. May be called from several threads at once: each of them learns the same."""
        ctx = run.ctx
        if ctx is None:
            return
        run.ref = run.job_id
        run.instance_id, _, run.run = run.claim.rpartition(":")
        run.started_at_ms = self._clock.at_ms(run.started_mono_ms)
        run.job_try = ctx.get("job_try") or 1
        run.queue, run.hold = self._queue, self._hold
        run.enqueued_at, run.due_at_ms = ctx.get("enqueue_time"), ctx.get("score")
        run.expects_name = self._facts.is_installed
        run.keeper = self._runtime
        self._unfinished[run] = None
        run.ctx = None

    def ignore(self, run: ArqRun) -> None:
        """The function is not to be tracked."""
        current.set(None)
        run.task = None
        self._journal.discard(run)
        self._unfinished.pop(run, None)

    def ended(self, ctx: Ctx) -> None:
        """The job has ended; arq has yet to write what became of it."""
        try:
            run: ArqRun | None = ctx.get(self._ctx_key)
            if run is None or run.outcome is not None:
                return
            if run.ended_mono_ms and run.ending is None and run.owned:
                run.outcome = "succeeded"
                run.in_flight = False
                if run.is_taken_in:
                    self._journal.end(run)
            else:
                self._ended_otherwise(run)
        except Exception as exc:  # the edge of a hook
            self._failed(exc)

    def _ended_otherwise(self, run: ArqRun) -> None:
        self._journal.take_in()
        if not self._facts.is_installed:  # nothing is known of its end: what arq does next will tell
            self._runtime.end_run(run)
        else:
            self._runtime.finish_run(run, outcome(run.ending, self._circumstances(run)), ended_mono_ms=run.ended_mono_ms)
            run.ending = None  # its traceback holds the frames of the job, and they this run

    def _circumstances(self, run: ArqRun) -> Circumstances:
        task = current_task(self._loop)
        return Circumstances(
            worker_stops=task is not None and task.cancelling() > 0,
            run_seconds=((run.ended_mono_ms or monotonic_ms()) - run.started_mono_ms) / 1000.0,
            timeout=run.timeout,
            allow_abort_jobs=self._facts.allow_abort_jobs,
            retry_jobs=self._facts.retry_jobs,
        )

    def finished(self, ctx: Ctx) -> None:
        """arq has written what became of the job."""
        try:
            run: ArqRun | None = ctx.pop(self._ctx_key, None)
            if run is None:
                return
            if run.outcome is None:  # without wrapping, this is when it can be told
                self._runtime.count_end(run, "ended" if run.is_finished else "retried", ended_mono_ms=run.ended_mono_ms)
            elif self._new.pop(run, None) is not None:
                tally = self._tallies.get(run.function) or self._tally(run.function)
                tally.runs += 1
                tally.run_ms += run.ended_mono_ms - run.started_mono_ms
                due_at_ms = ctx.get("score")
                if due_at_ms is not None:
                    waited_ms = run.started_mono_ms + self._clock.offset_ms - due_at_ms
                    if waited_ms > 0.0:
                        tally.wait_ms += waited_ms
            if run.ctx is None:  # somebody has looked at it
                self._unfinished.pop(run, None)
        except Exception as exc:  # the edge of a hook
            self._failed(exc)

    def _tally(self, function: str | None) -> Tally:
        tally = self._tallies[function] = self._journal.counts.tally(function, self._queue)
        return tally

    def look_after(self) -> None:
        """Find the runs whose task arq has finished, whichever hooks it called on the way."""
        self._journal.take_in()
        for run in list(self._unfinished):
            task = run.task
            if task is None or task.done():
                del self._unfinished[run]
                run.task = None
                if task is not None:
                    self._task_done(task, run)

    def _task_done(self, task: asyncio.Task[Any], run: ArqRun) -> None:
        if task.cancelled() or task.exception() is not None:
            # arq did not get to giving its claim back, and this worker is about to end: the job is an orphan then.
            self._runtime.resume_run(run)
        elif run.in_flight or run.outcome is None:
            self._runtime.finish_run(run, "ended" if run.is_finished else "retried", ended_mono_ms=run.ended_mono_ms)

    def tasks(self) -> set[asyncio.Task[Any]]:
        """Give arq's tasks for the jobs that it has not finished."""
        self.look_after()
        return {run.task for run in self._unfinished if run.task is not None}

    def _failed(self, exc: Exception) -> None:
        """Say once that a hook failed: a defect of ours must not fill the log of a busy worker."""
        if not self._has_failed:
            self._has_failed = True
            logger.error("a hook of the tracker failed, its job runs on; further failures are not logged", exc_info=exc)
