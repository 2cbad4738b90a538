"""A run as the hooks of arq know it."""

import asyncio
from typing import Any

from async_tracker.integrations.arq.outcomes import Ending
from async_tracker.runs import Run


class ArqRun(Run):
    """One run between its hooks, which find it in arq's ctx."""

    ending: Ending | None = None
    """What the wrapped function raised."""
    ended_mono_ms: float | None = None
    """When the wrapped function ended, on the monotonic clock: hooks that run after it are no part of the run. None until then."""
    is_finished: bool = False
    """arq has removed the job's tries: it will not run again."""
    task: asyncio.Task[Any] | None = None
    """arq's own task for the job; None once it has nothing left to tell."""
