"""The long lists of functions that instances share: each is read once, since what a digest names does not change."""

from collections.abc import Iterable

from async_tracker.store.instance_record import StoredInstance
from async_tracker.store.reading import FunctionsRead

_LISTS_KEPT = 100


class FunctionLists:
    """The lists that were read, by their digests; the newest hundred."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[str, ...]] = {}

    def unread(self, found: Iterable[StoredInstance]) -> list[str]:
        """Give the digests of those lists of these instances that are to be read."""
        named = dict.fromkeys(stored.function_list for stored in found)
        return [digest for digest in named if digest is not None and digest not in self._read]

    def with_read(self, read: FunctionsRead) -> dict[str, tuple[str, ...]]:
        """Give all lists that are known by now, by their digests."""
        lists = {**self._read, **read.found}
        self._read = dict(list(lists.items())[-_LISTS_KEPT:])
        return lists
