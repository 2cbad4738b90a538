"""Whether this process itself was out of reach of the server: pure."""

import math
from dataclasses import dataclass, replace

from async_tracker.store.observation import Observation


@dataclass(slots=True, kw_only=True)
class Presence:
    """When this process last heard from the server, by the server's clock, and when it was back after an absence of ``away_after``.

    What stops a sweeper may have stopped every worker: a host that sleeps, a machine that is paused, a clock that is set forward.
    When they go on, all heartbeats are old, and the first process that judges them would take that for silence.

    >>> presence = Presence(away_after=15.0)
    >>> for now_ms in (1_000, 9_000, 90_000, 91_000):
    ...     presence.note(now_ms)
    >>> presence.back_at_ms
    90000
    """

    away_after: float = math.inf
    """Seconds."""
    back_at_ms: int | None = None
    heard_at_ms: int | None = None

    def note(self, now_ms: int) -> None:
        """Note that the server has just answered, and the time there. May be called from any thread."""
        heard_at_ms, self.heard_at_ms = self.heard_at_ms, now_ms
        if heard_at_ms is not None and now_ms - heard_at_ms >= 1000.0 * self.away_after:
            self.back_at_ms = now_ms

    def seen_from_here(self, observation: Observation) -> Observation:
        """Give the observation with the moment at which this process was back, if it was away: older evidence says nothing then."""
        self.note(observation.now_ms)
        return observation if self.back_at_ms is None else replace(observation, back_at_ms=self.back_at_ms)
