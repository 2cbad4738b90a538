"""The names of the counters, and how a total is read back: pure."""

import functools
import json
from collections.abc import Mapping

from async_tracker.records import OUTCOMES

PAIRS_KEPT = 1_000
"""How many pairs of function and queue one process counts apart; the others share one name."""

COUNTERS = ("started", *OUTCOMES, "run_ms", "wait_ms")


@functools.lru_cache(maxsize=PAIRS_KEPT * len(COUNTERS))
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
