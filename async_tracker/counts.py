"""Counters, gathered in the process and written with the beat: totals per function and queue, so that writing them twice is harmless."""

import functools
import json
from collections import defaultdict
from collections.abc import Mapping

COUNTERS = (
    "started",
    "succeeded",
    "failed",
    "retried",
    "cancelled",
    "timed_out",
    "aborted",
    "ended",
    "orphaned",
    "recovered",
    "run_ms",
    "wait_ms",
)

_PAIRS_KEPT = 1_000
"""Functions times queues that are counted apart; what comes later is counted as `OTHER`."""
OTHER = "(other)"


@functools.lru_cache(maxsize=_PAIRS_KEPT * len(COUNTERS))
def field_name(function: str | None, queue: str | None, counter: str) -> str:
    """Name one counter as it stands in ``stats``.

    >>> field_name("send_email", None, "failed")
    '["send_email",null,"failed"]'
    """
    return json.dumps([function, queue, counter], separators=(",", ":"))


def parse_stats(stored: Mapping[str, str]) -> dict[tuple[str | None, str | None], dict[str, int]]:
    """Read the counters of ``stats`` back; what is none of ours is left out.

    >>> parse_stats({'["send_email",null,"failed"]': "2", "rubbish": "1"})
    {('send_email', None): {'failed': 2}}
    """
    parsed: dict[tuple[str | None, str | None], dict[str, int]] = {}
    for name, value in stored.items():
        try:
            function, queue, counter = json.loads(name)
            total = int(value)
        except (ValueError, TypeError):
            continue
        if counter in COUNTERS:
            parsed.setdefault((function, queue), {})[counter] = total
    return parsed


class Counts:
    """The totals of one process. Not thread-safe: the journal counts under its lock."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str | None, str | None], defaultdict[str, int]] = {}
        self._acknowledged: dict[str, int] = {}
        self.started = 0
        self.ended = 0

    def of(self, function: str | None, queue: str | None) -> defaultdict[str, int]:
        """Give the totals of a function on a queue, by counter, to add to."""
        totals = self._totals.get((function, queue))
        if totals is None:
            key = (function, queue) if len(self._totals) < _PAIRS_KEPT else (OTHER, queue)
            totals = self._totals.setdefault(key, defaultdict(int))
        return totals

    def unsent(self) -> dict[str, int]:
        """Give the totals that have changed since they were last acknowledged, by field name."""
        changed = {}
        for (function, queue), totals in self._totals.items():
            for counter, total in totals.items():
                name = field_name(function, queue, counter)
                if self._acknowledged.get(name) != total:
                    changed[name] = total
        return changed

    def acknowledge(self, sent: Mapping[str, int]) -> None:
        """Remember what Redis has."""
        self._acknowledged.update(sent)

    def resend_all(self) -> None:
        """Redis may have lost them: the totals are sent again. What it still has of them is not counted twice."""
        self._acknowledged.clear()

    def start_anew(self) -> None:
        """Another instance id reports from here on: what was reported under the old one stays there."""
        for (function, queue), totals in self._totals.items():
            for counter in totals:
                totals[counter] -= self._acknowledged.get(field_name(function, queue, counter), 0)
        self._acknowledged.clear()
