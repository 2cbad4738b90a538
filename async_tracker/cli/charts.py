"""Small charts for a terminal, of block characters or of ASCII alone: pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

GAP = math.nan
"""The value of a step of which nothing is known. One of which it is known that there is no value is None."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What a chart is drawn with."""

    levels: str
    """A cell that is empty, then ever fuller ones; the second stands for 0."""
    gap: str
    mark: str
    tick: str


BLOCKS = Glyphs(levels=" ▁▂▃▄▅▆▇█", gap="·", mark="▲", tick="╵")
ASCII = Glyphs(levels=" _.:=#", gap="?", mark="^", tick="|")


def glyphs_for(encoding: str | None) -> Glyphs:
    """Choose what a stream of this encoding can show.

    >>> glyphs_for("utf-8") is BLOCKS, glyphs_for("ascii") is ASCII, glyphs_for("latin-1") is ASCII, glyphs_for(None) is ASCII
    (True, True, True, True)
    """
    try:
        "".join((BLOCKS.levels, BLOCKS.gap, BLOCKS.mark, BLOCKS.tick)).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def gathered(values: Sequence[float | None], columns: int) -> list[float | None]:
    """Make at most so many values of as many as there are: of those that share a column, the highest.

    >>> gathered([1.0, 5.0, None, GAP, GAP, GAP], 3)
    [5.0, None, nan]
    """
    size = max(math.ceil(len(values) / columns), 1)
    return [_highest(values[start : start + size]) for start in range(0, len(values), size)]


def _highest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is None or not math.isnan(value)]
    return max((value for value in known if value is not None), default=None) if known else GAP


def chart(values: Sequence[float | None], *, top: float, rows: int, glyphs: Glyphs) -> list[str]:
    """Draw one column for each value, ``rows`` lines high; ``top`` is what fills a column.

    What is more than 0 is never drawn as 0, and what is less than the top never as the top.

    >>> chart([0.0, 1.0, 4.0, 8.0, None, GAP], top=8.0, rows=1, glyphs=BLOCKS)
    ['▁▂▅█ ·']
    >>> chart([0.0, 3.0, 6.0], top=6.0, rows=2, glyphs=ASCII)
    ['  #', '_##']
    """
    per_row = len(glyphs.levels) - 1
    heights = [_height(value, top, rows * per_row) for value in values]
    lines = []
    for row in range(rows - 1, -1, -1):
        cells = [glyphs.levels[min(max(height - row * per_row, 0), per_row)] for height in heights]
        if row == 0:
            cells = [glyphs.gap if _is_gap(value) else cell for value, cell in zip(values, cells, strict=True)]
        lines.append("".join(cells))
    return lines


def _is_gap(value: float | None) -> bool:
    return value is not None and math.isnan(value)


def _height(value: float | None, top: float, full: int) -> int:
    if value is None or math.isnan(value):
        return 0
    if value <= 0.0 or top <= 0.0:
        return 1
    return full if value >= top else min(max(1 + round(value / top * (full - 1)), 2), full - 1)


def axis(moments: Sequence[datetime], *, every: int, form: str, glyphs: Glyphs) -> str:
    """Write the time under every so many columns, where there is room for it.

    >>> from datetime import timedelta
    >>> noon = datetime(2026, 7, 29, 12)
    >>> axis([noon + timedelta(minutes=5 * n) for n in range(26)], every=12, form="%H:%M", glyphs=ASCII)
    '|12:00      |13:00'
    """
    line = ""
    for column in range(0, len(moments), every):
        label = glyphs.tick + moments[column].strftime(form)
        if column + len(label) <= len(moments):
            line = line.ljust(column) + label
    return line


def marks(columns: Sequence[int], *, glyphs: Glyphs) -> str:
    """Draw a mark in each of these columns.

    >>> marks([2, 5, 2], glyphs=ASCII)
    '  ^  ^'
    """
    return "".join(glyphs.mark if column in columns else " " for column in range(max(columns, default=-1) + 1))
