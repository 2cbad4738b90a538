"""The pen of an instance: one writer at a time, and the number of each write."""

import asyncio
import itertools
from collections.abc import Callable


class Pen:
    """The right to write for an instance: its id, a lock that one writer holds at a time, and a higher number for each write."""

    def __init__(self, instance_id: str, *, on_renamed: Callable[[], None] | None = None) -> None:
        """``on_renamed`` is called after the instance has taken another id."""
        self.instance_id = instance_id
        self._on_renamed = on_renamed
        self.lock = asyncio.Lock()
        self._numbers = itertools.count(1)

    def rename(self, instance_id: str) -> None:
        """Write for another instance from here on."""
        self.instance_id = instance_id
        if self._on_renamed is not None:
            self._on_renamed()

    def next_number(self) -> int:
        """Give the number of the next write; safe from any thread."""
        return next(self._numbers)
