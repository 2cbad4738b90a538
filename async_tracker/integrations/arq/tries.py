"""Which tries of a worker's jobs are kept: those of runs that ended because their worker did."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from async_tracker.clock import monotonic_ms
from async_tracker.integrations.arq.adapter import RETRY_MS
from async_tracker.integrations.arq.job_run import ArqRun
from async_tracker.store.run_record import RunRecord


class Tries:
    """How often arq tries the jobs of one worker, and how many tries of each are given back at ``most``; 0: none."""

    def __init__(self, worker: Any, *, most: int) -> None:
        self._worker = worker
        self.most = most

    def note(self, run: ArqRun) -> None:
        """Note what arq allows the job of a run whose function was not called, from within arq's own task for it."""
        run.max_tries = self._max_tries(_function_in_hand(asyncio.current_task()))

    def with_tries(self, record: RunRecord, *, max_tries: int | None, task: "asyncio.Task[Any] | None") -> RunRecord:
        """Add to a record how often its job is tried, where that is known, and how many tries are kept.

        ``max_tries`` is what was noted of the run before, ``task`` arq's own for the job.
        """
        if max_tries is None:
            table: Mapping[str, Any] = self._worker.functions
            function = table.get(record.function) if record.function is not None else _function_in_hand(task)
            max_tries = self._max_tries(function)
        return replace(record, keep_tries=self.most, max_tries=max_tries)

    def may_keep(self, run: ArqRun, task: "asyncio.Task[Any] | None") -> bool:
        """Tell whether the try of a cancelled run may be given back: arq's own ``task`` was cancelled, and arq runs the job again.

        The count must not have expired meanwhile: it would begin anew, below 0.
        """
        if task is None or task.cancelling() == 0 or not self._worker.retry_jobs or run.job_id in self._worker.aborting_tasks:
            return False
        is_young = monotonic_ms() - run.started_mono_ms < RETRY_MS / 2
        return is_young and run.record().tries_to_keep > 0

    def _max_tries(self, function: Any) -> int | None:
        """Give arq's own answer; None where the function is not known, or the answer is no number."""
        if function is None:
            return None
        own = getattr(function, "max_tries", None)
        most = self._worker.max_tries if own is None else own
        return most if type(most) is int else None


def _function_in_hand(task: "asyncio.Task[Any] | None") -> Any:
    """Give the function that arq runs in its task for a job: a variable of ``Worker.run_job``; None where it is not there."""
    coroutine = task.get_coro() if task is not None else None
    frame = getattr(coroutine, "cr_frame", None)
    return frame.f_locals.get("function") if frame is not None and frame.f_code.co_name == "run_job" else None
