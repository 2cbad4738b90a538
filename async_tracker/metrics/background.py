"""An event loop in a thread of its own, for those who ask from a thread or from within a loop that must not be entered twice."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from async_tracker.connections.calls import bounded

T = TypeVar("T")

_STARTS_WITHIN = 5.0
_ENDS_WITHIN = 2.0


class Background:
    """Runs coroutines in a thread that is started when it is first needed; in a forked child it is another one.

    ``around`` is entered in the loop before anything runs there, and left at its end. The thread holds up no process that ends.
    """

    def __init__(self, around: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._around = around
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0

    def run(self, work: Callable[[], Coroutine[Any, Any, T]], *, within: float) -> T:
        """Run a coroutine there and give what it returns. Raises Python's TimeoutError when ``within`` seconds are over."""
        return asyncio.run_coroutine_threadsafe(bounded(work(), within), self._started()).result(within + _STARTS_WITHIN)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                ready: Future[asyncio.AbstractEventLoop] = Future()
                self._thread = threading.Thread(target=self._serve, args=(ready,), name="async-tracker metrics", daemon=True)
                self._thread.start()
                self._loop, self._pid = ready.result(_STARTS_WITHIN), os.getpid()
            return self._loop

    def _serve(self, ready: "Future[asyncio.AbstractEventLoop]") -> None:
        loop = asyncio.new_event_loop()
        around = self._around()
        try:
            loop.run_until_complete(around.__aenter__())
            ready.set_result(loop)
            loop.run_forever()
            loop.run_until_complete(around.__aexit__(None, None, None))
        except BaseException as exc:  # the edge of a thread: the thread that waits for the loop must get it
            if ready.done():
                raise
            ready.set_exception(exc)
        finally:
            loop.close()

    def close(self) -> None:
        """End the thread; what is run later starts another one."""
        with self._lock:
            loop, self._loop = self._loop, None
            if loop is not None and self._thread is not None and self._pid == os.getpid():
                loop.call_soon_threadsafe(loop.stop)
                self._thread.join(_ENDS_WITHIN)
