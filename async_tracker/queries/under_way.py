"""A question that the server works on while its asker does something else."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")


class Answer(Generic[T]):
    """What a question under way comes to."""

    def __init__(self) -> None:
        self._is_there = anyio.Event()
        self._value: Any = None
        self._failure: Exception | None = None

    async def fetch(self, question: Callable[[], Awaitable[T]]) -> None:
        """Ask, and keep what comes."""
        try:
            self._value = await question()
        except Exception as exc:  # raised where the answer is awaited
            self._failure = exc
        finally:
            self._is_there.set()

    async def get(self) -> T:
        """Wait for the answer, and give it or raise what the question raised."""
        await self._is_there.wait()
        if self._failure is not None:
            raise self._failure
        value: T = self._value
        return value


@asynccontextmanager
async def under_way(question: Callable[[], Awaitable[T]]) -> AsyncIterator[Answer[T]]:
    """Send a question, and let the server work on it while the block does something else; then the block gets the answer.

    A block that ends without the answer, by an exception or because its task is cancelled, ends the question too: nothing is left
    running. What the block raises is raised as it is, and in no group of exceptions.
    """
    answer: Answer[T] = Answer()
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(answer.fetch, question)
        await anyio.lowlevel.checkpoint()  # it is sent
        try:
            yield answer
        except Exception as exc:
            failure = exc
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
