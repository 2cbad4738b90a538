"""``history``: what was, in small charts on a terminal, and as a table where none is."""

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from rich.console import Console
from rich.text import Text

from async_tracker.cli.charts import ASCII, GAP, Glyphs, axis, chart, gathered, glyphs_for, marks
from async_tracker.cli.endings import Ending
from async_tracker.cli.reach import reach
from async_tracker.cli.spans import seconds_of, span_of
from async_tracker.cli.tables import Table, plain_lines, show
from async_tracker.cli.target import Target
from async_tracker.cli.wording import clock_time, remark, say, say_document, shown
from async_tracker.queries.wording import counted, duration
from async_tracker.records import ENDINGS, NOT_WELL, OUTCOMES, Deploy, History, HistoryPoint

_STEPS = (60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)
_COLUMNS = 72
_EVERY = 12
_ROWS = 2
_FACTS_WIDTH = 60
_INDENT = "  "
_QUEUES_SHOWN = 2
_DEPLOYS_SHOWN = 8
_DAY = 86_400.0


async def history(target: Target, *, function: str | None, queue: str | None, since: str, step: str | None, ascii_only: bool) -> int:
    """Show what was."""
    seconds = seconds_of("--since", since)
    width = seconds_of("--step", step) if step is not None else fitting_step(seconds)
    async with reach(target) as tracker:
        found = await tracker.history(function, queue, since=seconds, step=width)
        namespace = tracker.namespace
    if target.as_json:
        say_document({"history": found})
        return Ending.OK
    if sys.stdout.isatty():
        console = Console(highlight=False)
        glyphs = ASCII if ascii_only else glyphs_for(console.encoding)
        for line in picture(found, namespace=namespace, width=console.width, glyphs=glyphs):
            console.print(line)
    else:
        say("\n".join([*step_lines(found, namespace=namespace), ""]))
        show(deploys_table(found.deploys))
    _remark_on(found)
    return Ending.OK


def fitting_step(since: float) -> float:
    """Choose the step for a span of time, so that its points fit on a terminal of 80 columns; from a day on, hours, which are read soonest.

    >>> [fitting_step(hours * 3_600.0) for hours in (1, 6, 24, 168, 720)]
    [60.0, 300.0, 3600.0, 10800.0, 43200.0]
    """
    least = since / _COLUMNS
    return float(next(step for step in _STEPS if step >= least and (since < _DAY or step >= 3_600)))


def _remark_on(found: History) -> None:
    late = sum(point.is_late for point in found.points)
    if late:
        remark(f"{counted(late, 'step')} of {len(found.points)} hold what arrived more than a minute after it had happened")
    if found.skipped:
        remark(f"{counted(found.skipped, 'record')} left out, because this version cannot read them")
    if found.function is not None and not any(point.started for point in found.points):
        remark(f"no run of {shown(found.function)} has started in this time; async-tracker stats lists the functions that there are")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One chart: what it is called, its values, and how one of them is written."""

    name: str
    values: Sequence[float | None]
    write: Callable[[float], str]
    top: float = 0.0
    """What a column is compared with, where that is more than the highest value."""


def series_of(found: History) -> list[Series]:
    """Choose what is worth a chart: what has never been other than 0 or unknown is none, except the runs that started."""
    points, number = found.points, "{:,.0f}".format
    every = [Series(name="started", values=_values(points, lambda point: point.started), write=number)]
    outcomes = [("not well", NOT_WELL), *((name, (name,)) for name in OUTCOMES if name not in ENDINGS)]
    every += [Series(name=name, values=_values(points, partial(_sum_of, counters)), write=number) for name, counters in outcomes]
    for name, field in (("run time, p50", "run_time_p50"), ("run time, p95", "run_time_p95"), ("wait, p95", "queue_wait_p95")):
        every.append(Series(name=name, values=_values(points, partial(_field_of, field)), write=duration))
    slots = max((point.slots for point in points if point.slots is not None), default=0.0)
    busy = _values(points, lambda point: point.busy)
    of_slots = f", of {slots:,.0f}" if slots else ""
    every.append(Series(name=f"in flight in the fleet{of_slots}", values=busy, write=_some, top=slots))
    for queue in _fullest_queues(points):
        every.append(Series(name=f"waiting in {shown(queue)}", values=_values(points, partial(_depth_of, queue)), write=number))
        every.append(Series(name=f"oldest wait in {shown(queue)}", values=_values(points, partial(_wait_of, queue)), write=duration))
    return [series for at, series in enumerate(every) if at == 0 or series.top or any(map(_is_some, series.values))]


def _is_some(value: float | None) -> bool:
    return value is not None and value > 0.0  # of a gap it is not


def _some(value: float) -> str:
    return f"{value:,.3g}" if value < 1_000 else f"{value:,.0f}"


def _values(points: Iterable[HistoryPoint], value_of: Callable[[HistoryPoint], float | None]) -> list[float | None]:
    return [GAP if point.is_gap else value_of(point) for point in points]


def _sum_of(counters: Iterable[str], point: HistoryPoint) -> float:
    return float(sum(getattr(point, name) for name in counters))


def _field_of(name: str, point: HistoryPoint) -> float | None:
    value: float | None = getattr(point, name)
    return value


def _fullest_queues(points: Iterable[HistoryPoint]) -> list[str]:
    depths: dict[str, int] = {}
    for point in points:
        for item in point.queues:
            depths[item.queue] = max(depths.get(item.queue, 0), item.depth)
    return sorted(depths, key=lambda name: (-depths[name], name))[:_QUEUES_SHOWN]


def _depth_of(queue: str, point: HistoryPoint) -> float | None:
    return next((float(item.depth) for item in point.queues if item.queue == queue), None)


def _wait_of(queue: str, point: HistoryPoint) -> float | None:
    return next((item.oldest_wait or 0.0 for item in point.queues if item.queue == queue), None)


def picture(found: History, *, namespace: str, width: int, glyphs: Glyphs) -> list[Text]:
    """Lay out a history in charts under each other, with one axis of time, on a terminal of so many columns."""
    columns = max(min(width - len(_INDENT), 240), 8)
    moments = [point.at.astimezone() for point in found.points]
    size = max(math.ceil(len(moments) / columns), 1)
    drawn = moments[::size]
    lines = [Text(line, style="bold") for line in _title(found, namespace, size)]
    for series in series_of(found):
        values = gathered(series.values, columns)
        known = [value for value in values if value is not None and not math.isnan(value)]
        top = max([series.top, *known])
        lines.append(_heading(series, known, min(max(len(drawn) + len(_INDENT), _FACTS_WIDTH), width)))
        for row in chart(values, top=top, rows=_ROWS, glyphs=glyphs):
            lines.append(Text(_INDENT + row, style="cyan"))
    lines += _deploy_lines(found.deploys, drawn, glyphs)
    form = "%H:%M" if len(found.points) * found.step <= _DAY else "%m-%d %Hh"
    lines.append(Text(_INDENT + axis(drawn, every=_EVERY, form=form, glyphs=glyphs), style="dim"))
    if any(point.is_gap for point in found.points):
        lines.append(Text(f"{_INDENT}{glyphs.gap} nothing is known: no instance was sweeping", style="dim"))
    return lines


def _title(found: History, namespace: str, size: int) -> list[str]:
    what = shown(found.function) if found.function is not None else "all functions"
    where = f" on queue {shown(found.queue)}" if found.queue is not None else ""
    columns = f"a column is {span_of(found.step)}" if size == 1 else f"a column is the highest of {size} times {span_of(found.step)}"
    span = span_of(len(found.points) * found.step)
    return [f"{what}{where} in namespace {shown(namespace)}", f"the last {span}, {columns}, and the last one is not over"]


def _heading(series: Series, known: Sequence[float], width: int) -> Text:
    """Write what a chart is of at the left, and its highest value and its last at the right where there is room."""
    highest = f"highest {series.write(max(known))}" if known else "nothing is known"
    made = Text(series.name)
    for facts in (f"{highest}, last {series.write(known[-1])}" if known else "", highest):
        room = width - made.cell_len - len(facts)
        if facts and room >= len(_INDENT):
            made.append(" " * room)
            made.append(facts, style="dim")
            break
    return made


def _deploy_lines(deploys: Sequence[Deploy], drawn: Sequence[datetime], glyphs: Glyphs) -> list[Text]:
    if not deploys:
        return []
    columns = [max(sum(moment <= deploy.at for moment in drawn) - 1, 0) for deploy in deploys]
    lines = [Text("deploys"), Text(_INDENT + marks(columns, glyphs=glyphs), style="yellow")]
    hidden = len(deploys) - _DEPLOYS_SHOWN
    if hidden > 0:
        lines.append(Text(f"{_INDENT}and {counted(hidden, 'deploy')} before these", style="dim"))
    for deploy in deploys[-_DEPLOYS_SHOWN:]:
        lines.append(Text(f"{_INDENT}{glyphs.mark} {clock_time(deploy.at)}  {shown(deploy.version)}"))
    return lines


def step_lines(found: History, *, namespace: str) -> list[str]:
    """Write a history as one line for each step, and one for each gap however many steps it has."""
    rows: list[tuple[str, ...]] = []
    gaps: dict[int, int] = {}
    for point, before in zip(found.points, (None, *found.points), strict=False):
        if point.is_gap:
            if before is None or not before.is_gap:
                rows.append((clock_time(point.at), *("" for _ in _POINT_COLUMNS[1:])))
            gaps[len(rows)] = gaps.get(len(rows), 0) + 1
            continue
        depth = sum(item.depth for item in point.queues) if point.queues else None
        waits = [item.oldest_wait for item in point.queues if item.oldest_wait is not None]
        rows.append(
            (
                clock_time(point.at),
                str(point.started),
                f"{_sum_of(NOT_WELL, point):.0f}",
                str(point.orphaned),
                *(duration(value) for value in (point.run_time_p50, point.run_time_p95, point.queue_wait_p95)),
                _some(point.busy) if point.busy is not None else "-",
                _some(point.slots) if point.slots is not None else "-",
                str(depth) if depth is not None else "-",
                duration(max(waits, default=None)),
            )
        )
    title = f"{_title(found, namespace, 1)[0]}: {counted(len(found.points), 'step')} of {span_of(found.step)}, the last one is not over"
    lines = plain_lines(Table(title=title, columns=_POINT_COLUMNS, rows=rows))
    for row, steps in gaps.items():
        lines[row] += f"  a gap of {counted(steps, 'step')}: no instance was sweeping"
    return [title, *lines]


_POINT_COLUMNS = ("AT", "STARTED", "NOT WELL", "ORPHANED", "RUN P50", "RUN P95", "WAIT P95", "BUSY", "SLOTS", "WAITING", "OLDEST WAIT")


def deploys_table(deploys: Iterable[Deploy]) -> Table:
    """Lay out deploys."""
    rows = [(clock_time(deploy.at), shown(deploy.version)) for deploy in deploys]
    return Table(title=counted(len(rows), "deploy"), columns=("AT", "VERSION"), rows=rows)
