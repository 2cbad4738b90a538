"""Spans of time as people type them: ``5m``, ``6h``, ``7d``. Pure."""

import re

from async_tracker.cli.endings import Misused
from async_tracker.cli.wording import shown

_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds_of(option: str, span: str) -> float:
    """Read the span of time that was given for an option. Raises Misused for what is none.

    >>> seconds_of("--since", "90s"), seconds_of("--since", "1.5h")
    (90.0, 5400.0)
    """
    found = _SPAN.fullmatch(span)
    if found is None:
        raise Misused(f"{option} {shown(span)!r} is no span of time: write 10m, 1h or 7d; hours are kept for 30 days")
    return float(found[1]) * _SECONDS[found[2]]


def span_of(seconds: float) -> str:
    """Write a span of time as it can be typed.

    >>> span_of(21_600.0), span_of(300.0), span_of(5_400.0), span_of(604_800.0), span_of(90.5)
    ('6h', '5m', '90m', '7d', '90.5s')
    """
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit] and not seconds % _SECONDS[unit]:
            return f"{seconds / _SECONDS[unit]:g}{unit}"
    return f"{seconds:g}s"
