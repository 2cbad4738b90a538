"""What an arq worker can be told while it works: to take no more jobs, to take them again, to end."""

import asyncio
import signal
from collections.abc import Callable
from datetime import datetime
from typing import Any

from async_tracker.errors import UnsupportedControl
from async_tracker.integrations.arq.lookup import variable_of_run_job

_CLAIM_SECONDS = 0.005
"""How far looks are apart, whether a claim is under way that was begun before the order; it takes a few round trips."""

_NOT_FOUND = "the arq worker of this instance was not found when it started, so it cannot be told anything"


class ArqControls:
    """The controls of one worker; ``worker`` is arq's, and None where it was not found.

    A worker whose ``max_jobs`` is 0 claims nothing. Its ``allow_pick_jobs`` is left alone: arq's shutdown means that, and so does the
    tracker's ``draining``; and it does not end the picking that is under way.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._max_jobs: Any = None
        """What is given back; None while the worker is not quiet."""
        self._cron_jobs: list[Any] | None = None
        """What is given back; None while cron jobs are queued."""

    @property
    def max_jobs(self) -> Any:
        """How many jobs the worker runs at a time, when it takes jobs."""
        return self._worker.max_jobs if self._max_jobs is None else self._max_jobs

    async def quiet(self, *, cron: bool) -> str:
        """Claim nothing more; returns once no claim is under way."""
        worker = self._found()
        if self._max_jobs is None:
            self._max_jobs, worker.max_jobs = worker.max_jobs, 0
        if cron:
            self._give_cron_back()
        elif self._cron_jobs is None:
            self._cron_jobs, worker.cron_jobs = worker.cron_jobs, []
        while worker.job_counter > _running(worker):  # noqa: ASYNC110 - arq has nothing that could be awaited
            await asyncio.sleep(_CLAIM_SECONDS)
        return f"it takes no more jobs, and runs the {_running(worker)} that it has{self._cron_remark()}"

    def _cron_remark(self) -> str:
        if self._cron_jobs is not None:
            return "; its cron jobs are skipped" if self._cron_jobs else ""
        return "; its cron jobs are still queued" if self._worker.cron_jobs else ""

    async def resume(self) -> str:
        """Claim again."""
        self._found()
        self.let_go()
        return "it takes jobs again"

    def let_go(self) -> None:
        """Leave the worker as it was found."""
        if self._max_jobs is not None:
            self._worker.max_jobs, self._max_jobs = self._max_jobs, None
        self._give_cron_back()

    def _give_cron_back(self) -> None:
        """What was to be queued meanwhile stays skipped: else every missed run of a job came with one of the next polls."""
        if self._cron_jobs is None:
            return
        now = datetime.now(tz=getattr(self._worker, "timezone", None))
        for job in self._cron_jobs:
            if job.next_run is not None:
                job.calculate_next(now)
        self._worker.cron_jobs, self._cron_jobs = self._cron_jobs, None

    async def stop(self, *, group: bool) -> str:
        """End the worker as SIGTERM would, without a signal: the process may be more than this worker."""
        worker = self._found()
        if worker.main_task is None or worker.main_task.done():
            raise UnsupportedControl("it was not started by Worker.run or Worker.async_run, so arq cannot end it")
        seconds = getattr(worker, "_job_completion_wait", 0)
        running = _running(worker)
        handler: Callable[[signal.Signals], None] = worker.handle_sig_wait_for_completion if seconds else worker.handle_sig
        handler(signal.SIGTERM)
        if not running:
            return "arq's worker ends; it has no job in hand"
        what = f"{running} in hand {'has' if running == 1 else 'have'}"
        if seconds:
            return f"arq's worker ends; the {what} {seconds:g} s to end (job_completion_wait)"
        return f"arq's worker ends; the {running} in hand are cancelled, and queued again as after SIGTERM"

    def in_hand(self) -> int:
        """Count the jobs that are claimed and not done."""
        return int(self._found().job_counter)

    def _found(self) -> Any:
        if self._worker is None:
            raise UnsupportedControl(_NOT_FOUND)
        return self._worker


def _running(worker: Any) -> int:
    """Count the runs that were claimed and have not ended; ``job_counter`` is higher by those whose claim is under way.

    Where a job outlives its timeout and its claim, arq runs it a second time beside the first, and forgets the task of the first.
    """
    known = {task for task in worker.tasks.values() if not task.done()}
    return len(known | {task for task in asyncio.all_tasks() if variable_of_run_job(task, "self") is worker})
