"""The jobs of one arq worker between their hooks. What is done here is done for every job, and nothing of ours in it waits.

A job passes three places: its start, its end, and arq's having written what became of it. Most pass all of them before the writer has
looked at the run: of those nothing is kept but a tally. The others are taken in by the journal, completed, and looked after.

What every job passes is written to touch few objects: between two calls of a hook a worker runs so much else that ours is out of the
processor's caches. So the hooks call nothing of ours, and ask a run for little.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.instance.counts import Counts, Tally
from async_tracker.instance.journal import Journal
from async_tracker.instance.runs import Run, current
from async_tracker.instance.runtime import Runtime
from async_tracker.instance.writer import Writer
from async_tracker.integrations.arq.claims import Claims
from async_tracker.integrations.arq.job_run import ArqRun
from async_tracker.integrations.arq.outcomes import Circumstances, outcome
from async_tracker.integrations.arq.tries import Tries
from async_tracker.integrations.arq.wrapping import Wrapping
from async_tracker.integrations.hook_failures import HookFailures

logger = logging.getLogger("async_tracker")

Ctx = dict[str, Any]
Hook = Callable[[Ctx], Awaitable[None]]


class _Tallies(dict[str | None, Tally]):
    """function -> its tally, made when it is first asked for."""

    def __init__(self, counts: Counts, queue: str) -> None:
        super().__init__()
        self._counts = counts
        self._queue = queue

    def __missing__(self, function: str | None) -> Tally:
        tally = self[function] = self._counts.tally(function, self._queue)
        return tally


class Jobs:
    """The jobs of one worker, and the three hooks that each of them passes. Closed, it lets every job pass untracked.

    ``keep_try`` is awaited where a run was cancelled, if the worker keeps tries. ``on_strangers`` is told the functions in the worker's
    table that are not wrapped, when a job has come to its end uncalled by us.
    """

    _runtime: Runtime
    _claims: Claims
    _clock: ServerClock
    _writer: Writer
    _journal: Journal
    _tallies: _Tallies
    _worker: Any
    _wrapping: Wrapping | None
    """None where nothing is wrapped: then neither names nor outcomes are known."""
    _queue: str
    _hold: str | None
    _tries: Tries
    _tasks: Mapping[str, asyncio.Task[Any]] | None
    """arq's own: job id -> the task of its run. None where the worker is not known."""

    def __init__(
        self,
        *,
        ctx_key: str,
        is_durable: bool,
        on_strangers: Callable[[Sequence[str]], None],
        keep_try: Callable[[ArqRun], Awaitable[None]],
    ) -> None:
        self._ctx_key = ctx_key
        self._on_strangers = on_strangers
        self._keep_try = keep_try
        self._is_durable = is_durable
        self._failed = HookFailures().note
        self._learn = self.learn
        """Made once: every run is told it."""
        self._held: dict[str, str] = {}
        """The claims whose jobs have not started; empty while closed, and where arq's tasks are not known."""
        self.is_open = False
        self._new: dict[Run, Run] = {}
        self._unfinished: dict[ArqRun, None] = {}
        """The runs that were taken in and whose task arq had not finished when it was last looked at."""
        self.interrupted: list[ArqRun] = []
        """Runs whose task ended before arq is known to have given the claim back, which Redis may have done all the same."""

    def open(
        self,
        *,
        runtime: Runtime,
        claims: Claims,
        worker: Any,
        wrapping: Wrapping | None,
        tries: Tries,
        queue: str,
        hold: str | None,
    ) -> None:
        """The worker starts: its jobs are tracked from here on. ``worker`` is arq's, and None where it is not known."""
        tasks = worker.tasks if worker is not None else None
        self._runtime, self._claims, self._worker, self._wrapping = runtime, claims, worker, wrapping
        self._clock, self._writer, self._journal = runtime.clock, runtime.writer, runtime.journal
        self._queue, self._hold, self._tasks, self._tries = queue, hold, tasks, tries
        self._held = claims.held if tasks is not None else {}
        self._new = runtime.journal.new
        self._tallies = _Tallies(runtime.journal.counts, queue)
        self.is_open = True

    def close(self) -> None:
        """No job is tracked from here on."""
        self.is_open = False
        self._held = {}

    # what every job passes

    def start_hook(self, user: Hook | None, *, enters: bool = False) -> Hook:
        """Make the hook that puts a run in flight, then awaits the user's.

        With ``enters``, or for the user's hook, it makes it the run of that context as well: what `current_job` gives.
        """
        ctx_key, is_durable, is_entered = self._ctx_key, self._is_durable, enters or user is not None

        async def hook(ctx: Ctx) -> None:
            try:
                claim = self._held.pop(ctx["job_id"], None)
                if claim is None:
                    self._begun_otherwise(ctx)
                else:
                    run = ctx[ctx_key] = ArqRun()
                    run.ctx = ctx
                    run.claim = claim
                    run.learn = self._learn
                    run.started_mono_ms = monotonic() * 1000.0
                    self._new[run] = run  # what `Journal.start` does, without its two calls
                    if not self._writer.is_awake:
                        self._writer.wake()
            except Exception as exc:  # the edge of a hook
                self._failed(exc)
            if is_durable and (begun := ctx.get(ctx_key)) is not None and not self._is_awaited_later(ctx):
                await self._runtime.wait_stored(begun)
            if is_entered:
                current.set(ctx.get(ctx_key))
            if user is not None:
                try:
                    await user(ctx)
                except asyncio.CancelledError:
                    if (left := ctx.get(ctx_key)) is not None and self._tries.most:
                        self._tries.note(left)
                    raise

        return hook

    def end_hook(self, user: Hook | None) -> Hook:
        """Make the hook that awaits the user's, then takes the run out of flight: arq has yet to write what became of the job."""
        ctx_key = self._ctx_key

        async def hook(ctx: Ctx) -> None:
            try:
                if user is not None:
                    await user(ctx)
            finally:
                try:
                    run = ctx.get(ctx_key)
                    if run is not None:
                        if run.went_well:
                            run.outcome = "succeeded"
                            run.in_flight = False
                            if run.ctx is None:  # the writer reads it or has read it
                                self._ended_in_sight(run)
                        else:
                            self._ended_otherwise(run)
                            if self._tries.most and run.outcome == "cancelled":
                                await self._keep_try(run)
                except Exception as exc:  # the edge of a hook
                    self._failed(exc)

        return hook

    def after_hook(self, user: Hook | None) -> Hook:
        """Make the hook that awaits the user's, then counts the run and lets go of it: arq has written what became of the job."""
        ctx_key = self._ctx_key

        async def hook(ctx: Ctx) -> None:
            try:
                if user is not None:
                    await user(ctx)
            finally:
                try:
                    run = ctx.pop(ctx_key, None)
                    if run is not None:
                        if run.ctx is None or run.outcome is None or self._new.pop(run, None) is None:
                            self._finished_otherwise(run)
                        else:
                            tally = self._tallies[run.function]
                            tally += (  # both or none
                                run.ended_mono_ms - run.started_mono_ms,
                                run.started_mono_ms + self._clock.offset_ms - ctx["score"],
                            )
                except Exception as exc:  # the edge of a hook
                    self._failed(exc)

        return hook

    # what few jobs pass

    def _begun_otherwise(self, ctx: Ctx) -> None:
        """A run whose claim is not at hand: it was made under an earlier id of ours, or past the worker's pool; or arq's tasks are not."""
        if not self.is_open:
            return
        run: ArqRun = ArqRun()
        job_id = ctx["job_id"]
        run.ctx, run.learn = ctx, self._learn
        run.claim = self._claims.take(job_id)
        run.started_mono_ms = monotonic_ms()
        if self._tasks is None:
            run.task = asyncio.current_task()
        run.complete()
        ctx[self._ctx_key] = run
        if run.instance_id == self._runtime.instance_id:
            self._journal.start(run)
        else:  # declared dead meanwhile: others are told to run that job
            run.in_flight = run.owned = False

    async def make_known(self, run: ArqRun) -> None:
        """Have a run of a second try written at once, and wait until that is under way.

        Its job may have killed its worker before, and may do so in its first statement: then its name must be known.
        That takes a few turns of the loop, or a round trip where a beat is under way or starts are durable; ``hook_timeout`` at most.
        """
        if run.in_flight and (self._writer.hurry(run) or self._is_durable):
            await self._runtime.wait_stored(run)

    def _is_awaited_later(self, ctx: Ctx) -> bool:
        """Whether `make_known` will wait for this run, when its function is known: then one write has both."""
        return (ctx.get("job_try") or 1) > 1 and self._wrapping is not None and not self._wrapping.strangers()

    def learn(self, run: ArqRun) -> None:
        """Complete a run. May be called from several threads at once: each of them learns the same."""
        ctx = run.ctx
        if ctx is None:
            return
        job_id = run.job_id = run.ref = ctx["job_id"]
        run.instance_id, _, run.token = run.claim.rpartition(":")
        run.started_at_ms = self._clock.at_ms(run.started_mono_ms)
        run.job_try = ctx.get("job_try") or 1
        run.queue, run.hold = self._queue, self._hold
        run.enqueued_at, run.due_at_ms = ctx.get("enqueue_time"), ctx.get("score")
        run.expects_name = self._wrapping is not None
        run.keeper = self._runtime
        run.tries = self._tries if self._tries.most else None
        if self._tasks is not None:
            run.task = self._tasks.get(job_id)
        self._unfinished[run] = None
        run.ctx = None

    def find(self, job_id: str) -> ArqRun | None:
        """Give the newest run of a job that arq is not known to have done with."""
        runs = [run for run in (*self._unfinished, *list(self._new)) if isinstance(run, ArqRun) and run.outcome is None]
        return next((run for run in reversed(runs) if (run.ctx["job_id"] if run.ctx is not None else run.job_id) == job_id), None)

    def run_of(self, job_id: str, token: str) -> ArqRun | None:
        """Give the run of a job by its token, if arq is not known to have done with it."""
        self._journal.take_in()
        return next((run for run in self._unfinished if run.token == token and run.job_id == job_id), None)

    def ignore(self, run: ArqRun) -> None:
        """The function is not to be tracked."""
        current.set(None)
        run.task = None
        self._journal.discard(run)
        self._unfinished.pop(run, None)

    def _ended_in_sight(self, run: ArqRun) -> None:
        if not run.owned:  # counted where it was taken away
            run.outcome = None
        elif run.is_taken_in:
            self._journal.end(run)

    def _ended_otherwise(self, run: ArqRun) -> None:
        if run.outcome is not None:
            return
        self._journal.take_in_run(run)
        if self._wrapping is None:  # nothing is known of its end: what arq does next will tell
            self._runtime.end_run(run)
        elif run.function is None and self.is_open and (strangers := self._wrapping.strangers()):  # it may be one of those
            self._runtime.finish_run(run, "ended", ended_mono_ms=run.ended_mono_ms)
            self._on_strangers(strangers)
        else:
            self._runtime.finish_run(run, outcome(run.ending, self._circumstances(run)), ended_mono_ms=run.ended_mono_ms)
            run.ending = None  # its traceback holds the frames of the job, and they this run

    def _circumstances(self, run: ArqRun) -> Circumstances:
        task = asyncio.current_task()
        return Circumstances(
            worker_stops=task is not None and task.cancelling() > 0,
            run_seconds=((run.ended_mono_ms or monotonic_ms()) - run.started_mono_ms) / 1000.0,
            timeout=run.timeout,
            retry_jobs=self._worker.retry_jobs,
            only_aborts=run.is_abort_asked
            or (self._worker.allow_abort_jobs and self._wrapping is not None and not self._wrapping.may_end_unstarted),
        )

    def _finished_otherwise(self, run: ArqRun) -> None:
        self._journal.take_in_run(run)
        if run.outcome is None:  # without wrapping, this is when it can be told; without our end hook it is still in flight
            self._runtime.finish_run(run, self._heard_of(run), ended_mono_ms=run.ended_mono_ms)
        self._unfinished.pop(run, None)

    def look_after(self) -> None:
        """Find the runs whose task arq has finished, whichever hooks it called on the way."""
        self._claims.forget_old()
        self._journal.take_in()
        for run in list(self._unfinished):
            task = run.task
            if task is None or task.done():
                del self._unfinished[run]
                run.task = None
                self._task_done(task, run)

    def _task_done(self, task: asyncio.Task[Any] | None, run: ArqRun) -> None:
        """The task of a run that has not passed its last hook; None where arq had let go of it before the run was read."""
        if task is None or task.cancelled() or task.exception() is not None:
            # arq did not get to giving its claim back, and this worker is about to end: the job is an orphan then.
            self._runtime.resume_run(run)
            self.interrupted.append(run)
        elif run.in_flight or run.outcome is None:
            self._runtime.finish_run(run, self._heard_of(run), ended_mono_ms=run.ended_mono_ms)

    def _heard_of(self, run: ArqRun) -> str:
        """Tell the outcome of a run that has not passed its end hook, as far as it is known without."""
        if self._wrapping is not None:
            return "succeeded" if run.went_well else "ended"
        return "ended" if run.is_finished else "retried"

    def tasks(self) -> set[asyncio.Task[Any]]:
        """Give arq's tasks for the jobs that it has not finished."""
        self.look_after()
        return {run.task for run in self._unfinished if run.task is not None}
