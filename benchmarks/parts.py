"""Where the microseconds of tracking go: timers around the parts of it, inside a worker that does everything else as well."""

import functools
import time
from collections.abc import Callable
from typing import Any

from async_tracker.integrations.arq.claims import Claims
from async_tracker.integrations.arq.jobs import Jobs
from async_tracker.writer import Writer

PARTS: tuple[tuple[str, type, str], ...] = (
    ("put the run in flight", Jobs, "begun"),
    ("take it out of flight", Jobs, "ended"),
    ("count it", Jobs, "finished"),
    ("name the claim", Claims, "claim"),
    ("look for what is to be written", Writer, "_look"),
)


def time_parts() -> dict[str, float]:
    """Put timers around the parts; the dict that is returned grows by the seconds that each takes, the timer's own included."""
    seconds: dict[str, float] = {}
    for label, owner, name in PARTS:
        seconds[label] = 0.0
        setattr(owner, name, _timed(getattr(owner, name), label, seconds))
    return seconds


def _timed(part: Callable[..., Any], label: str, seconds: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(part)
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return part(*args, **kwargs)
        finally:
            seconds[label] += time.perf_counter() - began

    return timed
