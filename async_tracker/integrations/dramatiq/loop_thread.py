"""The tracker's own event loop in a worker of threads: one thread per process, made after the fork, gone at shutdown."""

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

T = TypeVar("T")

_START_SECONDS = 5.0


class LoopThread:
    """A thread with an event loop, entered through a portal. A daemon: a process that simply ends is not held up by it."""

    def __init__(self) -> None:
        self._ready: Future[BlockingPortal] = Future()
        self._thread = threading.Thread(target=self._run, name="async-tracker", daemon=True)

    def start(self) -> None:
        """Start the thread and wait until its loop runs. Raises what kept it from running."""
        self._thread.start()
        self._ready.result(_START_SECONDS)

    def _run(self) -> None:
        try:
            anyio.run(self._serve)
        except BaseException as exc:  # the edge of a thread: the thread that waits for the loop must get it
            if self._ready.done():
                raise
            self._ready.set_exception(exc)

    async def _serve(self) -> None:
        async with BlockingPortal() as portal:
            self._ready.set_result(portal)
            await portal.sleep_until_stopped()

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run a coroutine function in the loop, wait for it, and return or raise what it does."""
        return self._ready.result().call(function, *args)

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Have a function called in the loop, and do not wait for it."""
        self._ready.result().start_task_soon(function, *args)

    def stop(self) -> None:
        """End the loop, with whatever still runs in it, and the thread."""
        portal = self._ready.result()
        portal.call(portal.stop, True)
        self._thread.join(_START_SECONDS)
