"""The pulse of an event loop: the stamp by which the watchdog knows that the loop runs."""

import time
from collections.abc import Callable

from async_tracker.instance.alarms import Alarms

TICK_SECONDS = 0.25
"""How often the loop shows that it runs; where that does not come, the watchdog takes the loop for blocked."""


class Pulse:
    """The loop's sign of life inside the process: a time stamp that the watchdog thread reads, and by how much it was late."""

    def __init__(self) -> None:
        self.ticked_at = time.monotonic()
        self._lag = 0.0

    def tick(self, late: float = 0.0) -> None:
        """The loop runs; ``late`` is by how many seconds it missed its time."""
        self.ticked_at = time.monotonic()
        self._lag = max(self._lag, late)

    def take_lag_ms(self) -> int:
        """Give the longest delay since the last call, in ms."""
        lag, self._lag = self._lag, 0.0
        return int(max(lag, 0.0) * 1000)

    async def run(self, alarms: Alarms, step: Callable[[], None]) -> None:
        """Tick for ever, and call ``step`` each time."""
        while True:
            due = time.monotonic() + TICK_SECONDS
            await alarms.sleep(TICK_SECONDS)
            self.tick(time.monotonic() - due)
            step()
