"""The tasks in which an instance runs its loops: kept running, and ended for certain."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any

logger = logging.getLogger("async_tracker")

_RESTART_SECONDS = 1.0
_CANCEL_AGAIN_SECONDS = 0.1


async def keep_running(loop_body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a loop for ever: a defect of the tracker must not silence an instance that works."""
    while True:
        try:
            await loop_body()
        except Exception:  # the edge of a loop: whatever it was, the next round may do better
            logger.exception("a loop of the tracker failed and starts again; please report it")
            await asyncio.sleep(_RESTART_SECONDS)


async def end_tasks(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks until they are done: the driver has been seen to swallow a cancellation that met a timeout of its own."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
