"""What a benchmark found: tables, sentences, charts and the data behind them, for a terminal, a page and a program."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_markdown(self) -> str:
        """Write it so that it reads as well on a terminal as on a page.

        >>> print(Table(title="Speed", columns=["way", "jobs/s"], rows=[["tracked", "990"]]).to_markdown())
        | way     | jobs/s |
        | ------- | -----: |
        | tracked |    990 |
        """
        widths = [max(len(str(row[i])) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        lines = [_line(self.columns, widths), _line(rule, widths), *(_line(row, widths) for row in self.rows)]
        return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = cells
    padded = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
    return "| " + " | ".join(padded) + " |"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of a chart, with its interval."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Bars with intervals, and the goal as a line if there is one."""

    title: str
    axis: str
    bars: Sequence[Bar]
    goal: float | None = None
    is_log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """A number for each cell of a grid; 1 is what is allowed. None where nothing was measured."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One benchmark's findings. ``meaning`` says in sentences what the numbers mean."""

    name: str
    title: str
    meaning: Sequence[str]
    tables: Sequence[Table]
    charts: Sequence[Chart] = ()
    heat_maps: Sequence[HeatMap] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    """How long it took to find out; None where that was not measured."""

    def to_markdown(self, *, heading: str = "##") -> str:
        """Write all but charts and data."""
        parts = [f"{heading} {self.name}: {self.title}"]
        for table in self.tables:
            parts += [f"{heading}# {table.title}" if len(self.tables) > 1 else table.title, table.to_markdown()]
        took = [] if self.seconds is None else [f"(Measured in {self.seconds / 60:.1f} minutes.)"]
        return "\n\n".join([*parts, *self.meaning, *took])


def write_json(path: Path, environment: Mapping[str, Any], reports: Sequence[Report]) -> None:
    """Write everything that was measured."""
    found = {
        report.name: {"title": report.title, "meaning": list(report.meaning), "seconds": report.seconds, **report.data}
        for report in reports
    }
    path.write_text(json.dumps({"schema": SCHEMA, "environment": environment, "benchmarks": found}, indent=1) + "\n")
