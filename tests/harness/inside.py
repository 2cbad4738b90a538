"""What runs in the test's own process for a tracker: the one place at which tests go past what its users hold."""

from async_tracker import Abort, Tracker
from async_tracker.control.aborting import Meant, abort
from async_tracker.instance.runtime import Runtime
from async_tracker.integrations.dramatiq.interruption import Bracket
from async_tracker.integrations.dramatiq.message_run import DramatiqRun
from async_tracker.integrations.dramatiq.middleware import TrackerMiddleware
from tests.harness.wait import wait_until


def has_runtime(tracker: Tracker) -> bool:
    """Tell whether an instance of this tracker runs in this process."""
    return tracker._runtimes.asked is not None and tracker._runtimes.asked.is_running


def runtime_of(tracker: Tracker) -> Runtime:
    """Give what runs for the tracker's instance; fails where none is registered."""
    runtime = tracker._runtimes.asked
    assert runtime is not None, "the tracker has no instance in this process"
    return runtime


def brackets_of(middleware: TrackerMiddleware) -> dict[str, Bracket]:
    """Give, by the id of its message, the bracket of each message that the workers of this process have in hand."""
    runs = [run for tracked in middleware._workers for run in tracked.runtime.journal.runs()]
    return {run.job_id: run.bracket for run in runs if isinstance(run, DramatiqRun) and run.bracket is not None}


async def abort_soon(tracker: Tracker, job_id: str, *, wait: float) -> Abort:
    """Abort a job that is listed, as `Tracker.abort` does: its end may take ``wait``, the answer as long as a busy machine needs."""
    job = await wait_until(lambda: tracker.job(job_id), description="the job is listed")
    assert job is not None
    return await abort(tracker._control("test"), job_id, Meant(job.instance_id, job.run), wait=wait, beyond=60.0)
