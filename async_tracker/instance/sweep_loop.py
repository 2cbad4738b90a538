"""The loop that sweeps: a step of the sweeper, then a wait."""

import logging
from collections.abc import Callable

from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.instance.alarms import Alarms
from async_tracker.recovery.lease import Seat
from async_tracker.recovery.sweeper import Sweeper

logger = logging.getLogger("async_tracker")


class SweepLoop:
    """Steps for ever; when Redis is away, or ``seat`` gives None, it tries again later."""

    def __init__(self, *, sweeper: Sweeper, alarms: Alarms, seat: Callable[[], Seat | None]) -> None:
        self._sweeper = sweeper
        self._alarms = alarms
        self._seat = seat
        self._is_refused = False
        """Redis did not let the last sweep through, and the log says so."""

    async def run(self) -> None:
        """Wait, and sweep where it is our turn."""
        while True:
            await self._alarms.sleep(self._sweeper.interval())
            seat = self._seat()
            if seat is None:
                continue
            try:
                await self._sweeper.step(seat)
                self._got_through()
            except StorageError as exc:
                self._put_off(exc)

    def _got_through(self) -> None:
        if self._is_refused and self._sweeper.is_sweeper:  # to ask whose turn it is may be allowed where to sweep is not
            self._is_refused = False
            logger.info("sweeps get through again")

    def _put_off(self, exc: StorageError) -> None:
        """Log a refusal once: it lasts until a person mends it. That Redis is away is logged by the heartbeat."""
        if isinstance(exc, StorageUnavailable) or self._is_refused:
            logger.debug("sweep put off: %s", exc)
        else:
            self._is_refused = True
            logger.warning("no sweep gets through, so nothing is recovered from here: %s", exc)
