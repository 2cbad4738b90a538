"""The pen of an instance: one writer at a time, and the number of each write."""

import asyncio
import itertools
from collections.abc import Callable


def _nobody() -> None:
    """Nobody minds the name."""


class Pen:
    """Who may write for an instance: one at a time, each write with a higher number than the one before."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.on_renamed: Callable[[], None] = _nobody
        self.lock = asyncio.Lock()
        self._numbers = itertools.count(1)

    def rename(self, instance_id: str) -> None:
        """Write for another instance from here on."""
        self.instance_id = instance_id
        self.on_renamed()

    def next_number(self) -> int:
        """Give the number of the next write; safe from any thread."""
        return next(self._numbers)
