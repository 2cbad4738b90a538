"""Much work in small parts: after each part the other tasks of the loop have a turn."""

import heapq
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

import anyio.lowlevel

T = TypeVar("T")


async def in_turns(items: Iterable[T], at_a_time: int) -> AsyncIterator[list[T]]:
    """Give some items at a time; the other tasks of the loop have a turn between two parts."""
    left = iter(items)
    while part := list(islice(left, at_a_time)):
        yield part
        if len(part) == at_a_time:
            await anyio.lowlevel.checkpoint()


async def sorted_in_turns(items: Sequence[T], key: Callable[[T], Any], at_a_time: int) -> list[T]:
    """Sort as `sorted` does, and keep the loop for no longer than it takes to sort, or to merge, ``at_a_time`` items."""
    parts = [sorted(part, key=key) async for part in in_turns(items, at_a_time)]
    if len(parts) < 2:
        return parts[0] if parts else []
    found: list[T] = []
    async for part in in_turns(heapq.merge(*parts, key=key), at_a_time):
        found += part
    return found
