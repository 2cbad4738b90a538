"""Plots for people: one picture per benchmark, bars with their intervals. Needs matplotlib, which the extra ``bench`` brings."""

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Chart, HeatMap, Report

_WIDTH_INCHES = 6.4
_BAR_INCHES = 0.45
_ROW_INCHES = 0.3
_HEAD_INCHES = 1.3
_DARK = 1.3
"""How far from what is allowed, in halvings or doublings, a field is too dark for black letters."""


class NoPlots(Exception):
    """matplotlib is not there; the text says how to get it."""


def plotting() -> tuple[Any, Any]:
    """Give matplotlib and its pyplot. Raises NoPlots."""
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
        matplotlib.use("Agg")
        return matplotlib, importlib.import_module("matplotlib.pyplot")
    except ImportError as exc:
        raise NoPlots('plots need matplotlib: pip install "async-tracker[bench]"') from exc


def draw(report: Report, path: Path) -> None:
    """Draw the charts of a report, one below the other. The ending of ``path`` says in which format. Raises NoPlots."""
    matplotlib, pyplot = plotting()
    matplotlib.rcParams["svg.hashsalt"] = report.name  # the same numbers make the same file
    heights = [_HEAD_INCHES + _BAR_INCHES * len(chart.bars) for chart in report.charts]
    heights += [_HEAD_INCHES + _ROW_INCHES * len(heat_map.rows) for heat_map in report.heat_maps]
    figure, axes = pyplot.subplots(
        len(heights), 1, figsize=(_WIDTH_INCHES, sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for axis, chart in zip(axes[: len(report.charts), 0], report.charts, strict=True):
        _draw_chart(axis, chart)
    for axis, heat_map in zip(axes[len(report.charts) :, 0], report.heat_maps, strict=True):
        _draw_heat_map(axis, heat_map)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _draw_chart(axis: Any, chart: Chart) -> None:
    bars = list(reversed(chart.bars))
    places = range(len(bars))
    errors = [[bar.value - bar.low for bar in bars], [bar.high - bar.value for bar in bars]]
    axis.barh(places, [bar.value for bar in bars], xerr=errors, height=0.6, color="#7a9cc6", ecolor="#333333", capsize=3)
    axis.set_yticks(places, [bar.label for bar in bars])
    axis.set_title(chart.title, fontsize=10)
    axis.set_xlabel(chart.axis)
    if chart.is_log:
        axis.set_xscale("log")
    if chart.goal is not None:
        axis.axvline(chart.goal, color="#b03030", linestyle="--", linewidth=1)
    for place, bar in zip(places, bars, strict=True):
        axis.annotate(_short(bar.value), (bar.high, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.margins(x=0.12)


def _draw_heat_map(axis: Any, heat_map: HeatMap) -> None:
    """What is allowed is white, half of it is blue, twice as much is red."""
    shades = [[math.nan if value is None else math.log2(max(value, 0.25)) for value in row] for row in heat_map.values]
    axis.imshow(shades, cmap="RdBu_r", vmin=-2.0, vmax=2.0, aspect="auto")
    axis.set_xticks(range(len(heat_map.columns)), heat_map.columns, fontsize=8)
    axis.set_yticks(range(len(heat_map.rows)), heat_map.rows, fontsize=8)
    axis.set_title(heat_map.title, fontsize=10)
    for y, row in enumerate(heat_map.values):
        for x, value in enumerate(row):
            if value is not None:
                color = "white" if abs(shades[y][x]) > _DARK else "black"
                axis.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=8, color=color)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def picture_path(path: Path, report: Report, reports: Sequence[Report]) -> Path:
    """Where the picture of one of several reports goes: beside the path that was asked for, with its name in it.

    >>> one, two = (Report(name=name, title="", meaning=[], tables=[]) for name in ("queries", "recovery"))
    >>> picture_path(Path("plot.svg"), two, [one, two]).name, picture_path(Path("plot.svg"), one, [one]).name
    ('plot-recovery.svg', 'plot.svg')
    """
    return path if len(reports) == 1 else path.with_stem(f"{path.stem}-{report.name}")
