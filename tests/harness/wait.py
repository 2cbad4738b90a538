"""Waiting for a state, never for a time: a wait that runs out fails the test and says what it waited for."""

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

import anyio

T = TypeVar("T")

POLL_INTERVAL = 0.01


class NotReached(AssertionError):
    """The state did not come about in time."""

    def __init__(self, description: str, timeout: float, last: object) -> None:
        super().__init__(f"not reached within {timeout} s: {description} (last seen: {last!r})")


@overload
async def wait_until(predicate: Callable[[], Awaitable[T]], *, timeout: float = ..., description: str, poll_interval: float = ...) -> T: ...
@overload
async def wait_until(predicate: Callable[[], T], *, timeout: float = ..., description: str, poll_interval: float = ...) -> T: ...
async def wait_until(predicate: Callable[[], Any], *, timeout: float = 10.0, description: str, poll_interval: float = POLL_INTERVAL) -> Any:
    """Call ``predicate`` until it returns something true, and return that. Fails with ``description`` after ``timeout`` seconds.

    The predicate may be a coroutine function; whatever it raises passes through.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise NotReached(description, timeout, answer)
        await anyio.sleep(poll_interval)


def wait_until_sync(predicate: Callable[[], T], *, timeout: float = 10.0, description: str, poll_interval: float = POLL_INTERVAL) -> T:
    """Do what ``wait_until`` does, for a test without an event loop."""
    deadline = time.monotonic() + timeout
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise NotReached(description, timeout, answer)
        time.sleep(poll_interval)
