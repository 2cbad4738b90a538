"""The tasks in which an instance runs its loops: kept running, and ended for certain."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any

logger = logging.getLogger("async_tracker")

_RESTART_SECONDS = 1.0
_CANCEL_AGAIN_SECONDS = 0.1


_REMEMBERED_SECONDS = 60.0
_SHOWN_LENGTH = 200


class Failures:
    """Which loops of an instance have failed within the last minute, for its heartbeat to say. Each failure is kept as a short text."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, str]] = {}

    def note(self, loop: str, exc: Exception) -> bool:
        """Remember that a loop has failed. Returns whether that is new: it had not failed like this within the last minute."""
        known = self._last.get(loop)
        shown = f"{type(exc).__name__}: {exc}"[:_SHOWN_LENGTH]
        self._last[loop] = (time.monotonic(), shown)
        return known is None or known[1] != shown or time.monotonic() - known[0] > _REMEMBERED_SECONDS

    def text(self) -> str:
        """Say which loops fail, and how; '' where none does."""
        since = time.monotonic() - _REMEMBERED_SECONDS
        return "; ".join(f"{loop}: {shown}" for loop, (at, shown) in self._last.items() if at >= since)


async def keep_running(loop_body: Callable[[], Coroutine[Any, Any, None]], *, name: str, failures: Failures) -> None:
    """Run a loop for ever: a defect of the tracker must not silence an instance that works. A failure is logged once, and noted."""
    while True:
        try:
            await loop_body()
        except Exception as exc:  # the edge of a loop: whatever it was, the next round may do better
            if failures.note(name, exc):
                logger.exception("the tracker's %s failed and starts again; please report it", name)
            await asyncio.sleep(_RESTART_SECONDS)


async def end_tasks(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks until they are done: the driver has been seen to swallow a cancellation that met a timeout of its own."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
