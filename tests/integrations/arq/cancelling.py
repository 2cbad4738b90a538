"""Coroutines that are cancelled where they await, as arq does it to its own: at any await, or after some turns of the loop."""

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any


class CancelledAt(Awaitable[None]):
    """Runs a coroutine and has the task that awaits it cancelled at its ``number``-th suspension; ``was_cancelled`` if it came to that."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], number: int) -> None:
        self._coroutine = coroutine
        self._left = number
        self.was_cancelled = False

    def __await__(self) -> Generator[Any, Any, None]:
        inner = self._coroutine.__await__()
        task = asyncio.current_task()
        assert task is not None
        try:
            awaited = next(inner)
            while True:
                self._left -= 1
                if self._left == 0:
                    self.was_cancelled = True
                    task.cancel()
                try:
                    sent = yield awaited
                except BaseException as exc:
                    awaited = inner.throw(exc)
                else:
                    awaited = inner.send(sent)
        except StopIteration:
            return


class CancelledLater(Awaitable[None]):
    """Runs a coroutine and has the task that awaits it cancelled when the loop has turned ``number`` times."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], number: int) -> None:
        self._coroutine = coroutine
        self._number = number
        self.was_cancelled = False

    def __await__(self) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        later = asyncio.ensure_future(self._cancel(task))
        try:
            yield from self._coroutine.__await__()
        finally:
            later.cancel()

    async def _cancel(self, task: asyncio.Task[Any]) -> None:
        for _ in range(self._number):
            await asyncio.sleep(0)
        self.was_cancelled = True
        task.cancel()
