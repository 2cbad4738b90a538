"""Two clocks, never mixed: one to wait by, one that other machines will read.

Waiting and measuring use the monotonic clock of this process. Whatever another machine will read is in the *Redis server's*
milliseconds, which a process knows from the replies of its beats, so that no two hosts have to agree on the time.
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

_BEST_STANDS_MS = 60_000.0


def monotonic_ms() -> float:
    """Milliseconds of this process's monotonic clock; only differences mean anything."""
    return time.monotonic() * 1000.0


def from_ms(stamp_ms: float) -> datetime:
    """Make a timezone-aware datetime of epoch milliseconds.

    >>> from_ms(0).isoformat()
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(stamp_ms / 1000.0, UTC)


def to_ms(moment: datetime) -> int:
    """Make epoch milliseconds of a datetime; a naive one is taken as local time, as everywhere in Python.

    >>> to_ms(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000
    """
    return int(moment.timestamp() * 1000)


@dataclass(slots=True)
class ServerClock:
    """The server's time as this process knows it: the monotonic clock plus an offset that each reply corrects.

    Until the first reply the offset is that of this host's wall clock.
    """

    offset_ms: float = field(default_factory=lambda: time.time() * 1000.0 - monotonic_ms())
    _best_ms: float = float("inf")
    _best_at_ms: float = 0.0

    def now_ms(self) -> int:
        """The server's time now, in epoch milliseconds."""
        return self.at_ms(monotonic_ms())

    def at_ms(self, mono_ms: float) -> int:
        """The server's time at a moment of this process's monotonic clock."""
        return int(mono_ms + self.offset_ms)

    def correct(self, server_ms: int, *, sent_at_ms: float, received_at_ms: float) -> None:
        """Learn from a reply that carries the server's time; the request is taken to have been served half-way.

        A reply that was long under way says little about the time, so one that was quicker stands for a minute.

        >>> clock = ServerClock(offset_ms=0.0)
        >>> clock.correct(1_005, sent_at_ms=0.0, received_at_ms=10.0)
        >>> clock.correct(9_000, sent_at_ms=20.0, received_at_ms=5_000.0)
        >>> clock.offset_ms
        1000.0
        """
        under_way_ms = received_at_ms - sent_at_ms
        if under_way_ms <= 2.0 * self._best_ms or received_at_ms - self._best_at_ms > _BEST_STANDS_MS:
            self._best_ms, self._best_at_ms = max(under_way_ms, 0.1), received_at_ms
            self.offset_ms = server_ms - (sent_at_ms + received_at_ms) / 2.0
