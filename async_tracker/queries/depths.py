"""How full the queues of every worker library are, also of those that have just lost their workers."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from async_tracker.errors import StorageError
from async_tracker.records import QueueDepth
from async_tracker.store.instance_record import Description, StoredInstance, decode_queues, encode_queues

logger = logging.getLogger("async_tracker")

_REMEMBERED_SECONDS = 86_400.0


class TellsDepths(Protocol):
    """The adapter of a worker library, as far as it is asked here."""

    @property
    def library(self) -> str:
        """The library's name."""
        ...

    async def queues(self, described: Sequence[Description]) -> list[QueueDepth]:
        """Tell how full the queues are that these instances work on. Raises StorageError."""
        ...


ByLibrary = Callable[[Iterable[Description]], Iterable[tuple[TellsDepths, Sequence[Description]]]]
"""Sorts instances by their libraries, and gives the adapter of each; those of unknown libraries are left out."""


class Depths:
    """Asks the libraries of some instances for their queues, and remembers for a day on which queues instances worked."""

    def __init__(self, by_library: ByLibrary) -> None:
        self._by_library = by_library
        self._worked_on: dict[str, float] = {}
        """The queues that instances were seen to work on, and when they last were, on the monotonic clock."""

    async def of(self, described: Iterable[Description]) -> list[QueueDepth]:
        """Tell how full the queues are that these instances work on. Raises StorageError."""
        depths: list[QueueDepth] = []
        for adapter, of_library in self._by_library(described):
            depths += await adapter.queues(of_library)
        return depths

    async def of_the_last_day(self, now: Iterable[StoredInstance], *, within: float) -> tuple[list[QueueDepth], list[str]]:
        """Tell how full the queues are that these instances work on, or others worked on when this was asked within the last day.

        Each library is given ``within`` seconds. Returns the depths, and the names of the libraries that did not tell.
        """
        self._note(now)
        depths: list[QueueDepth] = []
        unread: list[str] = []
        for adapter, described in self._by_library(item for item in map(decode_queues, self._worked_on) if item is not None):
            try:
                async with asyncio.timeout(within):
                    depths += await adapter.queues(described)
            except (StorageError, TimeoutError) as exc:
                logger.debug("it is not known how full the queues of %s are: %s", adapter.library, exc)
                unread.append(adapter.library)
        return depths, unread

    def _note(self, instances: Iterable[StoredInstance]) -> None:
        at = time.monotonic()
        kinds = {_kind(item.description): item.description for item in instances}  # a fleet is much alike
        self._worked_on |= dict.fromkeys((queues for described in kinds.values() if (queues := encode_queues(described))), at)
        self._worked_on = {queues: last for queues, last in self._worked_on.items() if at - last < _REMEMBERED_SECONDS}


def _kind(described: Description) -> tuple[object, ...]:
    """Give what `encode_queues` writes of an instance."""
    return described.library, described.broker, described.queues, described.queue
