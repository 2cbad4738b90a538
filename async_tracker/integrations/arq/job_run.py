"""A run as the hooks of arq know it."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from async_tracker.instance.runs import Run
from async_tracker.integrations.arq.names import LIBRARY
from async_tracker.integrations.arq.outcomes import Ending
from async_tracker.store.run_record import RunRecord


class KnowsTries(Protocol):
    """What knows of a worker how often its jobs are tried."""

    def with_tries(self, record: RunRecord, *, max_tries: int | None, task: "asyncio.Task[Any] | None") -> RunRecord:
        """Add to a record how often its job is tried, and how many tries are kept."""
        ...


class ArqRun(Run):
    """One run between its hooks, which find it in arq's ctx.

    Made for every job, and most are gone before the writer reads them. So it starts with what the hook has at hand, and learns the
    rest from ``ctx`` when it is asked to be complete.
    """

    library: str = LIBRARY

    ctx: dict[str, Any] | None
    """arq's own facts of the job; None once they were read, or are not needed any more: it holds this run in its turn."""
    claim: str
    """The instance id and the token of this run, as arq's claim has them."""
    learn: "Callable[[ArqRun], None]"
    """Reads them."""
    went_well: bool = False
    """The wrapped function has returned."""
    ending: Ending | None = None
    """What the wrapped function raised."""
    is_finished: bool = False
    """arq has removed the job's tries: it will not run again."""
    task: asyncio.Task[Any] | None = None
    """arq's own task for the job; None until the writer reads the run, and once it has nothing left to tell."""

    is_abort_asked: bool = False
    """It is being aborted: it is not to run again, whatever it answers."""
    tries: "KnowsTries | None" = None
    """Knows how often the job is tried at most; None where no tries are kept."""
    max_tries: int | None = None
    """That, where it was noted before the end of the task."""

    __init__ = object.__init__

    library_files: tuple[str, ...] = ("arq/worker.py", "asyncio/tasks.py", "integrations/arq/wrapping.py")

    def place(self) -> Any:
        """arq's own task for the job: it waits for the function's, or is in a hook."""
        return self.task

    def record(self, *, superseded: int = 0) -> RunRecord:
        """Give what is stored of it; where tries are kept, what a sweep must know to give this one back."""
        record = super().record(superseded=superseded)
        return self.tries.with_tries(record, max_tries=self.max_tries, task=self.task) if self.tries is not None else record

    def complete(self) -> None:
        """Learn what is needed only where the run is read."""
        if self.ctx is not None:
            self.learn(self)
