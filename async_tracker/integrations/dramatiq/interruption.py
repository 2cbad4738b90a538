"""How the actor of one message is interrupted, and nothing else: no other message, and no thread between two of them.

An exception that is raised in a thread from outside comes at some later instruction of it, and ends the thread where nothing catches it. So
it is raised only while the thread is within the call of the actor's function, and the call does not return before it has come. The two
threads agree on it by a lock. The thread that interrupts holds it for the moment in which it raises. The thread of the actor takes it when
the function has ended, and never gives it back: from then on nothing can be raised for this message.

The lock is one that its owner may take again. The exception may come at any instruction, also between taking the lock and noting it, and
then the closing is merely done once more.

The coroutine of an ``async`` actor is cancelled in its own event loop, which hits nothing else; no exception is raised in its thread.
"""

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError as FutureCancelledError
from typing import Any

from dramatiq.actor import Actor
from dramatiq.asyncio import async_to_sync
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Interrupt
from dramatiq.threading import current_platform, raise_thread_exception, supported_platforms


class Aborted(Interrupt):
    """The run was aborted by an order. An actor may catch it to clean up, and should let it pass."""


CAN_INTERRUPT = current_platform in supported_platforms
"""Whether this Python can raise an exception in another thread."""


class Bracket:
    """The call of one actor for one message. To be made in the thread that will run it."""

    def __init__(self, message: MessageProxy) -> None:
        self._message = message
        self._thread_id = threading.get_ident()
        self._lock = threading.RLock()
        self._is_raised = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self.is_async = False
        self.is_begun = False
        """The function is being called, or was."""
        self.is_asked = False
        """It was interrupted; once the bracket is shut, for good."""
        self.is_shut = False
        """The function has ended, and nothing is raised for it any more."""

    # in another thread

    def interrupt(self) -> bool:
        """Interrupt the function, from another thread. Returns False, and does nothing, where it has not begun or has ended."""
        if not self.is_begun or not self._lock.acquire(blocking=False):
            return False
        try:
            if self.is_shut:
                return False
            self.is_asked = True
            if self.is_async:
                self._cancel()
            else:
                self._is_raised = True
                raise_thread_exception(self._thread_id, Aborted)  # type: ignore[no-untyped-call]
            return True
        finally:
            self._lock.release()

    def _cancel(self) -> None:
        loop, task = self._loop, self._task
        if loop is not None and task is not None:  # else the coroutine finds that it is asked when it begins
            loop.call_soon_threadsafe(task.cancel)

    # in the thread of the actor

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the function. Raises what it raises; a message that was interrupted is not retried, whatever comes of it."""
        has_ended = False
        result: Any = None
        try:
            try:
                self.is_begun = True
                result = function(*args, **kwargs)
                has_ended = True
            finally:
                self.shut()
        except Aborted:
            self.shut()
            self._forbid_retries()
            if not has_ended:
                raise
        except FutureCancelledError as exc:
            self.shut()
            self._forbid_retries()
            if self.is_asked and self.is_async:
                raise Aborted from exc
            raise
        except BaseException:
            self.shut()
            self._forbid_retries()
            raise
        return result

    def shut(self) -> None:
        """Let nothing be raised from here on, and let come what has not come yet. May be called again, and from no other thread."""
        self._lock.acquire()  # for good
        if self._is_raised:
            self._let_come()
        self.is_shut = True

    def _let_come(self) -> None:
        """Have the exception come here, whether or not it has come before.

        CPython can take a pending exception back, but then goes on believing that there is one: from there on the process is slower, and
        on 3.11 hangs at the next call under a profiler. So it is raised once more, in the place of one that is pending: that comes within
        a few instructions, and nothing is pending afterwards.
        """
        try:
            raise_thread_exception(self._thread_id, Aborted)  # type: ignore[no-untyped-call]
            while True:
                pass
        except Aborted:
            self._is_raised = False

    def _forbid_retries(self) -> None:
        if self.is_asked:
            self._message.options["throws"] = BaseException

    # in the loop of an async actor

    async def follow(self, function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Run the coroutine function of the actor, in a task that can be cancelled."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self.is_asked:
            raise asyncio.CancelledError
        return await function(*args, **kwargs)


CurrentBracket = Callable[[], Bracket | None]
"""Gives the bracket of the message that this thread has in hand; None where there is none, or it is not to be aborted."""


def put_brackets(actor: Actor[..., Any], current: CurrentBracket) -> None:
    """Have the function of an actor called within the bracket of its message; once, however often it is asked for."""
    function: Any = actor.fn
    if getattr(function, "__code__", None) in (_IN_BRACKET, _IN_BRACKET_ASYNC):
        return
    actor.fn = _around_async(function, current) if _is_made_async(function) else _around(function, current)


def _around(function: Callable[..., Any], current: CurrentBracket) -> Callable[..., Any]:
    @functools.wraps(function)
    def in_bracket(*args: Any, **kwargs: Any) -> Any:
        bracket = current()
        if bracket is None or bracket.is_begun:  # called by a program, or by another actor
            return function(*args, **kwargs)
        return bracket.call(function, *args, **kwargs)

    return in_bracket


def _around_async(function: Any, current: CurrentBracket) -> Callable[..., Any]:
    made: Callable[..., Awaitable[Any]] = function.__wrapped__

    @functools.wraps(function)
    def in_bracket(*args: Any, **kwargs: Any) -> Any:
        bracket = current()
        if bracket is None or bracket.is_begun:
            return function(*args, **kwargs)
        bracket.is_async = True

        def followed() -> Awaitable[Any]:
            return bracket.follow(made, *args, **kwargs)

        return bracket.call(async_to_sync(followed))

    return in_bracket


def _is_made_async(function: Any) -> bool:
    """Whether dramatiq has made it of a coroutine function, which its event loop runs."""
    return getattr(function, "__code__", None) is _MADE_ASYNC and inspect.iscoroutinefunction(function.__wrapped__)


async def _nothing() -> None:
    """Stands for the function of an ``async`` actor."""


_MADE_ASYNC = async_to_sync(_nothing).__code__
_IN_BRACKET = _around(_nothing, lambda: None).__code__
_IN_BRACKET_ASYNC = _around_async(async_to_sync(_nothing), lambda: None).__code__
