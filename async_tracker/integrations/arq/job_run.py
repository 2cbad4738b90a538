"""A run as the hooks of arq know it."""

import asyncio
from typing import Any

from async_tracker.integrations.arq.names import LIBRARY
from async_tracker.integrations.arq.outcomes import Ending
from async_tracker.runs import Run


class ArqRun(Run):
    """One run between its hooks, which find it in arq's ctx."""

    library: str = LIBRARY

    ending: Ending | None = None
    """What the wrapped function raised."""
    is_finished: bool = False
    """arq has removed the job's tries: it will not run again."""
    task: asyncio.Task[Any] | None = None
    """arq's own task for the job; None once it has nothing left to tell."""

    def __init__(self, job_id: str, run: str, instance_id: str, started_at_ms: int, started_mono_ms: float) -> None:
        """Set what every run of arq has, and nothing else: made for every job."""
        self.job_id = self.ref = job_id
        self.run = run
        self.instance_id = instance_id
        self.started_at_ms = started_at_ms
        self.started_mono_ms = started_mono_ms
