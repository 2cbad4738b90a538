"""Waiting for a state, never for a time: a wait that runs out fails the test and says what it waited for."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, overload

import anyio

T = TypeVar("T")

POLL_INTERVAL = 0.01
PATIENCE = 60.0
"""Seconds after which no wait goes on for want of polls: a state that is not there by then is not coming, on any machine."""

_ASKING_SHARE = 0.25
_LONGEST_PAUSE = 0.05
"""A poll that takes long is followed by a longer pause, up to this one: asking is to be a quarter of a wait at most, as what is waited for
needs the same cores."""


class NotReached(AssertionError):
    """The state did not come about in time."""

    def __init__(self, description: str, timeout: float, last: object) -> None:
        super().__init__(f"not reached within {timeout} s: {description} (last seen: {last!r})")


class Waiting:
    """How long a wait goes on: for its seconds, and where the machine is too busy to poll as often as it should, for as many polls."""

    def __init__(self, timeout: float, poll_interval: float) -> None:
        self._timeout = timeout
        self._poll_interval = poll_interval
        self._polls_left = timeout / poll_interval if poll_interval else 0.0
        self._began = self._asked_at = time.monotonic()

    def pause(self) -> float | None:
        """Say after each poll how long to wait for the next one; None where it was the last one."""
        self._polls_left -= 1
        now = time.monotonic()
        waited, took = now - self._began, now - self._asked_at
        pause = max(self._poll_interval, min(took / _ASKING_SHARE - took, _LONGEST_PAUSE))
        if waited >= self._timeout and (self._polls_left <= 0 or waited >= PATIENCE):
            return None
        self._asked_at = now + pause
        return pause


@overload
async def wait_until(predicate: Callable[[], Awaitable[T]], *, timeout: float = ..., description: str, poll_interval: float = ...) -> T: ...
@overload
async def wait_until(predicate: Callable[[], T], *, timeout: float = ..., description: str, poll_interval: float = ...) -> T: ...
async def wait_until(predicate: Callable[[], Any], *, timeout: float = 10.0, description: str, poll_interval: float = POLL_INTERVAL) -> Any:
    """Call ``predicate`` until it returns something true, and return that. Fails with ``description`` after ``timeout`` seconds.

    On a busy machine that is as many polls as fit into them on an idle one. The predicate may be a coroutine function; whatever it
    raises passes through.
    """
    waiting = Waiting(timeout, poll_interval)
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        pause = waiting.pause()
        if pause is None:
            raise NotReached(description, timeout, answer)
        await anyio.sleep(pause)


def wait_until_sync(predicate: Callable[[], T], *, timeout: float = 10.0, description: str, poll_interval: float = POLL_INTERVAL) -> T:
    """Do what ``wait_until`` does, for a test without an event loop."""
    waiting = Waiting(timeout, poll_interval)
    while True:
        answer = predicate()
        if answer:
            return answer
        pause = waiting.pause()
        if pause is None:
            raise NotReached(description, timeout, answer)
        time.sleep(pause)


class Lived:
    """How long a block took as its event loop has lived it: on a busy machine a loop that waits a second has a longer one."""

    def __init__(self) -> None:
        self.naps = 0

    @property
    def seconds(self) -> float:
        return self.naps * POLL_INTERVAL


@asynccontextmanager
async def lived() -> AsyncIterator[Lived]:
    """``async with lived() as taken``: afterwards ``taken.seconds`` are at most those that have passed, and fewer on a busy machine."""
    taken = Lived()

    async def nap() -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            taken.naps += 1

    task = asyncio.create_task(nap())
    try:
        yield taken
    finally:
        task.cancel()
