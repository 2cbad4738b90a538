"""What is read from Redis, once for all who look: a reading is shared while it is fresh, and takes a twentieth of the time at most."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from async_tracker.doctor.examination import examine
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.policy import takes_jobs
from async_tracker.queries.questions import Fleet, Overdue
from async_tracker.queries.rates import Rates
from async_tracker.records import History, Instance, QueueDepth, Stats
from async_tracker.tracker import Tracker
from async_tracker.web.past import Past
from async_tracker.web.spans import STEPS, TRENDS, WINDOWS

SHARE = 20
"""A reading that took a second is not repeated for this many: so it never takes more than a twentieth of the process."""
PATIENCE = 10.0
"""Seconds after which a reading is given up: Redis is away, or as good as away."""

_LOOKED_AT_ALL_THE_TIME = ("instances", "snapshot", "orphans", "events")
_FRESH_FOR = {
    **dict.fromkeys(_LOOKED_AT_ALL_THE_TIME, 1.0),
    **dict.fromkeys(("quarantined", "queues", "stats"), 5.0),
    **dict.fromkeys(("window", "history", "overdue"), 10.0),
    "doctor": 30.0,
}
"""How long a reading is fresh at least, in seconds."""
_RATES_OVER = 60.0
"""Seconds over which it is told how many runs start just now."""
_KEPT_MOST = 64
"""Readings of windows and histories that are kept: there is one for each function that is opened."""

OVERDUE_MOST = 3
"""Jobs past their timeout that are named; all are counted."""

Pair = tuple[str | None, str | None]
"""A function and a queue."""

Kind = tuple[str | None, ...]
"""What is read: the question, then what it is asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one question found. ``number`` grows with each; ``at_ms`` is the server's time, as well as this process knows it."""

    value: Any
    at_ms: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Redis does not answer, since when and why."""

    since_ms: int
    why: str


class Readings:
    """The readings of one tracker. Each method that reads raises StorageError when Redis refuses or is away."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.outage: Outage | None = None
        self._rates = Rates[Pair](over=_RATES_OVER)
        self._past = Past(tracker)
        self._trends: dict[str, Mapping[Pair, Sequence[float | None]]] = {}
        self._found: dict[Kind, Reading] = {}
        self._fresh_until: dict[Kind, float] = {}
        self._failed: dict[Kind, StorageError] = {}
        self._under_way: dict[Kind, asyncio.Task[Reading]] = {}
        self._ahead_ms = 0.0
        self._number = 0
        self._ask: Mapping[str | None, Callable[..., Awaitable[Any]]] = {
            "instances": self._fleet,
            "snapshot": tracker.snapshot,
            "overdue": self._overdue,
            "orphans": tracker.left_behind,
            "quarantined": tracker.quarantined,
            "queues": tracker.queues,
            "stats": self._stats,
            "window": self._window,
            "history": self._history,
            "events": self._past.read,
            "doctor": lambda: examine(tracker),
        }

    def now_ms(self) -> int:
        """Give the server's time, by the last that it told."""
        return int(time.time() * 1000 + self._ahead_ms)

    def last(self, *kind: str | None) -> Reading | None:
        """Give the newest reading that succeeded, however old."""
        return self._found.get(kind)

    def per_minute(self) -> dict[Pair, float]:
        """Tell how many runs of each function and queue start in a minute just now; empty until that can be told."""
        return {pair: round(rate, 1) for pair, rate in self._rates.per_minute().items()}

    def trends(self, window: str) -> Mapping[Pair, Sequence[float | None]]:
        """Tell how many runs of each function and queue have started a minute in the course of a window, by its newest reading."""
        return self._trends.get(window, {})

    def forget(self) -> None:
        """Read anew when next asked: something was just changed. The doctor's findings stay: they are of another kind."""
        for kind in self._fresh_until.keys() - {("doctor",)}:
            self._fresh_until[kind] = 0.0

    async def get(self, *kind: str | None) -> Reading:
        """Give a fresh reading; all who ask meanwhile are given the same one.

        ``get("window", "1h")`` is the counters of a window, ``get("history", "1h", function, queue)`` its points.
        """
        if time.monotonic() < self._fresh_until.get(kind, 0.0):
            if kind in self._failed:
                raise self._failed[kind]
            if kind in self._found:
                return self._found[kind]
        if kind not in self._under_way:
            self._under_way[kind] = asyncio.create_task(self._read(kind))
            self._under_way[kind].add_done_callback(lambda task: self._ended(kind, task))
        return await asyncio.shield(self._under_way[kind])  # one that gives up waiting must not take it from the others

    async def soon(self, *kind: str | None, within: float) -> Reading | None:
        """Give a fresh reading where it is there within so many seconds, else the newest that succeeded: for what may take long."""
        with suppress(StorageError, TimeoutError):
            async with asyncio.timeout(within):
                return await self.get(*kind)
        return self.last(*kind)

    def _ended(self, kind: Kind, task: asyncio.Task[Reading]) -> None:
        del self._under_way[kind]
        if not task.cancelled():
            task.exception()  # those that waited have got it; where none did, it is dropped

    async def _read(self, kind: Kind) -> Reading:
        question, *about = kind
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                value = await self._ask[question](*about)
        except (StorageError, TimeoutError) as exc:
            error = exc if isinstance(exc, StorageError) else StorageUnavailable(f"Redis did not answer within {PATIENCE:g} s")
            self._failed[kind] = error
            if isinstance(error, StorageUnavailable) and self.outage is None and question != "queues":  # queues may be in another Redis
                self.outage = Outage(since_ms=self.now_ms(), why=str(error))
            raise error from exc
        finally:
            took = time.monotonic() - began
            self._fresh_until.pop(kind, None)  # so that it comes last
            self._fresh_until[kind] = began + max(_FRESH_FOR[str(question)], SHARE * took) - 0.05 * _FRESH_FOR[str(question)]
            self._let_go_of_old()
        self._failed.pop(kind, None)
        if question != "queues":
            self.outage = None
        self._tell_the_time(question, value)
        self._number += 1
        self._found[kind] = Reading(value=value, at_ms=self.now_ms(), number=self._number)
        return self._found[kind]

    def _tell_the_time(self, question: str | None, value: Any) -> None:
        if question == "instances" and value.instances:
            self._ahead_ms = server_ms(value.instances[0]) - time.time() * 1000
        elif question == "snapshot":
            self._ahead_ms = (value.taken_at.timestamp() - time.time()) * 1000

    async def _fleet(self) -> Fleet:
        last = self.last("instances")
        return await self.tracker.fleet(last.value if last is not None else None)

    async def _overdue(self) -> Overdue:
        """Find the jobs that run for longer than their timeout allows."""
        fleet: Fleet = (await self.get("instances")).value
        return await self.tracker.overdue(fleet.instances, most=OVERDUE_MOST)

    async def _stats(self) -> Stats:
        found = await self.tracker.stats()
        self._rates.add({(row.function, row.queue): row.started for row in found.functions}, at=self.now_ms() / 1000)
        return found

    async def _window(self, window: str) -> Stats:
        found = await self.tracker.trends(window=WINDOWS[window], step=TRENDS[window])
        self._trends[window] = found.started
        return found.stats

    async def _history(self, window: str, function: str | None, queue: str | None) -> History:
        return await self.tracker.history(function, queue, since=WINDOWS[window], step=STEPS[window])

    def _let_go_of_old(self) -> None:
        """Forget the readings about single functions that were read longest ago, where there are too many."""
        about = [kind for kind in self._fresh_until if len(kind) > 1]
        for kind in about[: max(len(about) - _KEPT_MOST, 0)]:
            for kept in (self._found, self._fresh_until, self._failed):
                kept.pop(kind, None)

    async def aclose(self) -> None:
        """End what is still being read."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def server_ms(instance: Instance) -> int:
    """Tell the server's time at which an instance was looked at."""
    return round(instance.heartbeat_at.timestamp() * 1000 + instance.heartbeat_age * 1000)


def unserved(queues: list[QueueDepth], instances: list[Instance]) -> list[QueueDepth]:
    """Find the queues that have work which is due, and no instance that could take it."""
    served = {(item.library, name) for item in instances if takes_jobs(item.state) for name in item.queues}
    return [item for item in queues if item.due and (item.library, item.queue) not in served]
