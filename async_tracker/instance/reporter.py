"""What the hooks of a worker report: a run starts, ends, is counted; and what a job may ask of its instance."""

import asyncio
import contextlib
import threading
from typing import Any, Unpack

from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.errors import StorageError
from async_tracker.instance import runs
from async_tracker.instance.pen import Pen
from async_tracker.instance.runs import Facts, Run, current
from async_tracker.instance.writer import Writer
from async_tracker.recovery.adapter import Adapter
from async_tracker.store.commands import Store
from async_tracker.store.fitting import fit_text, fit_whole

_TURNS = 6
"""In how many turns of the loop a write is on its way: that of the writer, those of the tasks that redis-py makes, and two to spare."""


class Reporter:
    """Takes the reports of one worker's hooks. Every plain method appends to the journal and returns, from any thread."""

    def __init__(
        self,
        *,
        store: Store,
        writer: Writer,
        pen: Pen,
        clock: ServerClock,
        adapter: Adapter | None,
        library: str,
        hook_timeout: float,
        is_durable: bool,
    ) -> None:
        """``hook_timeout``: how many seconds a job may wait for a write; ``is_durable``: each one waits until its start is written."""
        self._store = store
        self._writer = writer
        self._journal = writer.journal
        self._pen = pen
        self._clock = clock
        self._adapter = adapter
        self._library = library
        self._hook_timeout = hook_timeout
        self._is_durable = is_durable
        self._loop = asyncio.get_running_loop()

    def start_run(self, job_id: str, *, token: str | None = None, **facts: Unpack[Facts]) -> Run:
        """Put a run in flight, under its ``token`` if it has one already. Appends to the journal and returns.

        What is no text, of the id and of the names, is made one: keys and counters are made of them.
        """
        if type(job_id) is not str:
            job_id = fit_text(job_id) or "?"
        if facts.get("function") is not None:
            facts["function"] = fit_text(facts["function"])
        if facts.get("queue") is not None:
            facts["queue"] = fit_text(facts["queue"])
        if facts.get("due_at_ms") is not None:
            facts["due_at_ms"] = fit_whole(facts["due_at_ms"])
        now_mono_ms = monotonic_ms()
        started = Run(
            job_id=job_id,
            token=token or runs.tokens.new(),
            instance_id=self._pen.instance_id,
            started_at_ms=self._clock.at_ms(now_mono_ms),
            started_mono_ms=now_mono_ms,
            keeper=self,
            library=self._library,
            **facts,
        )
        started.placed = _place()
        self._journal.start(started)
        if started.job_try > 1:
            self._writer.hurry(started)
        return started

    def enter_run(self, run: Run) -> None:
        """Make it the run of this context: what `current_job` gives."""
        current.set(run)
        run.placed = _place()

    def end_run(self, run: Run) -> None:
        """Take a run out of flight; a second time changes nothing."""
        run.placed = None
        self._journal.end(run)

    def resume_run(self, run: Run) -> None:
        """Put an ended run in flight again: it still holds its claim, so the end of this instance must give its job back."""
        if run.owned and not run.in_flight:
            self._journal.resume(run)

    def finish_run(self, run: Run, outcome: str, *, ended_mono_ms: float = 0.0) -> None:
        """Take a run out of flight and count how it ended (by default now), each of them once.

        A run whose job was given to another worker is counted where it was taken away.
        """
        if run.owned and run.outcome is None:
            run.ended_mono_ms = ended_mono_ms or monotonic_ms()
            run.outcome = outcome
        run.placed = None
        self._journal.end(run)

    def count_end(self, run: Run, outcome: str, *, ended_mono_ms: float = 0.0) -> None:
        """Count how a run that is out of flight ended (by default now), once, as `finish_run` does."""
        if run.owned and run.outcome is None:
            run.ended_mono_ms = ended_mono_ms or monotonic_ms()
            run.outcome = outcome
            self._journal.count_end(run)

    def touch(self, run: Run) -> None:
        """Write a run again: something that is stored of it has changed."""
        self._journal.touch(run)

    async def is_still_owned(self, run: Run) -> bool:
        """Ask Redis whether the run's job was not given to another worker, from whichever loop the job runs in.

        Raises StorageError when Redis cannot tell.
        """
        if asyncio.get_running_loop() is self._loop:
            return await self._is_owned(run)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._is_owned(run), self._loop))

    async def _is_owned(self, run: Run) -> bool:
        if run.instance_id != self._pen.instance_id:
            return False
        is_registered = await self._store.is_registered(run.instance_id)
        if not is_registered and await self._store.has_ended(run.instance_id):
            return False
        if self._adapter is not None:
            return await self._adapter.holds(run.record())
        if not is_registered:
            raise StorageError(f"Redis knows nothing of instance {run.instance_id}: not registered yet, or its data was lost")
        return True

    async def wait_stored(self, run: Run) -> None:
        """With ``durable``, wait until the start is written, for at most ``hook_timeout`` seconds; else return at once.

        But a run that is to be written at once waits some turns of the loop: then its write is on its way, and reaches Redis even if the
        job's first statement ends the process. Only where that write stands behind another message of ours is its answer waited for,
        and not where writes fail: Redis is away, and the next try is later than a job should wait.
        """
        if run.is_prompt:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            if not self._is_durable and (run.sent or self._writer.is_behind):
                return
        elif not self._is_durable:
            return
        if not run.stored:
            self._writer.write_now()
        with contextlib.suppress(TimeoutError):  # the job begins all the same, and the writer goes on
            async with asyncio.timeout(self._hook_timeout):
                await self._writer.wait_written(
                    lambda: run.stored or not run.in_flight or (self._writer.is_behind and not self._is_durable)
                )


def _place() -> "asyncio.Task[Any] | int":
    """Give what runs at this moment: the task, or else the thread."""
    task = asyncio.current_task() if asyncio._get_running_loop() is not None else None
    return task if task is not None else threading.get_ident()
