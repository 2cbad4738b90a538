"""What is told of a tracker's namespace, read within a time limit and kept for a moment: for whatever passes metrics on."""

import asyncio
import logging
import platform
import threading
import time

from async_tracker import __version__
from async_tracker.connections.calls import bounded
from async_tracker.errors import ConfigError, StorageError, StorageUnavailable
from async_tracker.metrics.background import Background
from async_tracker.metrics.exposition import Told
from async_tracker.metrics.families import NAMES_MOST, PREFIX, Shown, Values
from async_tracker.records import Measures
from async_tracker.tracker import Tracker

logger = logging.getLogger("async_tracker")


class Source:
    """The metrics of a tracker's namespace. Nothing is read before it is first asked, and nothing is written.

    ``timeout``: how many seconds an answer may wait for Redis; then ``async_tracker_redis_up`` is 0, and the rest is left out.
    ``fresh_for``: for how many seconds what was read is given to all who ask. ``names_most``: how many functions, and how many queues,
    have a label of their own; all others share ``other``. Raises ConfigError for numbers that cannot work.
    """

    def __init__(self, tracker: Tracker, *, timeout: float = 3.0, fresh_for: float = 1.0, names_most: int = NAMES_MOST) -> None:
        for name, value, least in (("timeout", timeout, 0.01), ("fresh_for", fresh_for, 0.0), ("names_most", names_most, 1)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 1_000_000:
                raise ConfigError(f"{type(self).__name__}({name}={value!r:.40}): write a number of {least:g} or more")
        self._tracker = tracker
        self._timeout = float(timeout)
        self._fresh_for = float(fresh_for)
        self._shown = Shown(names_most=int(names_most))
        self._background = Background(tracker.elsewhere)
        self._reading = threading.Lock()
        self._showing = threading.Lock()
        self._asking: asyncio.Task[Told] | None = None
        self._told = Told({})
        self._fresh_until = 0.0
        self._is_away = False

    def ask(self) -> Told:
        """Read everything, or give what was read just before; from any thread. Never raises for what Redis does, and never takes long."""
        with self._reading:
            if time.monotonic() >= self._fresh_until:
                began = time.monotonic()
                try:
                    told = self._known(self._background.run(self._measures, within=self._timeout), began=began)
                except (StorageError, TimeoutError) as exc:
                    told = self._away(exc, began=began)
                self._keep(told)
            return self._told

    async def read(self) -> Told:
        """Do what `ask` does, in the running event loop with the tracker's own client: for an asyncio app."""
        if time.monotonic() < self._fresh_until:
            return self._told
        if self._asking is None or self._asking.done() or self._asking.get_loop() is not asyncio.get_running_loop():
            self._asking = asyncio.create_task(self._read())
        return await asyncio.shield(self._asking)  # one that gives up waiting must not take it from the others

    async def _read(self) -> Told:
        began = time.monotonic()
        try:
            told = self._known(await bounded(self._measures(), self._timeout), began=began)
        except (StorageError, TimeoutError) as exc:
            told = self._away(exc, began=began)
        self._keep(told)
        return told

    def close(self) -> None:
        """End the thread in which `ask` reads, if there is one."""
        self._background.close()

    async def _measures(self) -> Measures:
        return await self._tracker.measures(queues_within=self._timeout / 3)

    def _keep(self, told: Told) -> None:
        self._told, self._fresh_until = told, time.monotonic() + self._fresh_for

    def _known(self, measures: Measures, *, began: float) -> Told:
        if self._is_away:
            self._is_away = False
            logger.info("Redis answers scrapes again")
        with self._showing:  # a thread and a loop may both be asked
            values = self._shown.values(measures)
        return Told(values | self._of_itself(is_up=True, began=began), measures.bounds)

    def _away(self, exc: Exception, *, began: float) -> Told:
        why = exc if isinstance(exc, StorageError) else StorageUnavailable(f"Redis did not answer within {self._timeout:g} s")
        if not self._is_away:
            self._is_away = True
            logger.warning("scrapes are answered without metrics: %s", why)
        return Told(self._of_itself(is_up=False, began=began))

    def _of_itself(self, *, is_up: bool, began: float) -> dict[str, Values]:
        build = (__version__, platform.python_version(), self._tracker.namespace)
        return {
            f"{PREFIX}redis_up": {(): int(is_up)},
            f"{PREFIX}scrape_duration_seconds": {(): time.monotonic() - began},
            f"{PREFIX}build_info": {build: 1},
        }
