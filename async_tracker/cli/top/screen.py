"""What stands on the screen: a pure function of what was read, what was chosen, and how much room there is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from async_tracker.cli.top.reading import WINDOW, Reading
from async_tracker.cli.top.state import VIEWS, Bounds, State, View
from async_tracker.cli.top.tables import Column, Row, Rows, rate_text, rows_of
from async_tracker.cli.wording import shown
from async_tracker.policy import InstanceState, takes_jobs
from async_tracker.queries.wording import counted, duration

_GAP = 1
_FIRST_WIDTH = 18
"""How much room the first column must have: others are dropped for it, from the right."""
_ABOVE, _BELOW = 4, 1
"""Lines above and below the rows."""
_KEYS = (("1-4", "view"), ("<>", "sort"), ("r", "reverse"), ("/", "filter"), ("space", "pause"), ("q", "quit"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What is not in ASCII, and what stands for it where a terminal has no more."""

    dot: str
    cut: str
    falling: str
    rising: str


UNICODE = Marks(dot="·", cut="…", falling="▼", rising="▲")
ASCII = Marks(dot="|", cut="~", falling="v", rising="^")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Columns and lines of the terminal."""

    width: int
    height: int

    @property
    def page(self) -> int:
        """How many rows fit."""
        return max(self.height - _ABOVE - _BELOW, 0)


def bounds_of(reading: Reading, state: State, size: Size) -> Bounds:
    """Tell what keys move within."""
    rows = rows_of(reading, state.view)
    names = tuple(column.name for column, _ in _fitting(rows.columns, size.width))
    return Bounds(columns=names, rows=len(rows.chosen(state.order, state.wanted)), page=size.page)


def picture(reading: Reading, state: State, size: Size, *, trouble: str | None, every: float, marks: Marks) -> list[Text]:
    """Draw the screen: as many lines as it has, each as wide at most.

    ``trouble`` is why what is shown is not of just now; None where it is. ``every`` is in seconds.
    """
    view = rows_of(reading, state.view)
    chosen = view.chosen(state.order, state.wanted)
    first = min(state.first, max(len(chosen) - size.page, 0))
    lines = [
        _title(reading, state, every, marks),
        _summary(reading, marks),
        _views(reading, state, len(chosen), len(view.rows)),
        *_table(view, chosen[first : first + size.page], state, size, marks),
    ]
    lines = lines[: max(size.height - _BELOW, 0)]
    lines += [Text()] * (size.height - _BELOW - len(lines))
    lines.append(_bottom(state, trouble))
    return [_cut(line, size.width, marks) for line in lines[: size.height]]


def _title(reading: Reading, state: State, every: float, marks: Marks) -> Text:
    made = Text(f"{shown(reading.namespace)} on {shown(reading.url)}", style="bold")
    made.append(f"  {reading.taken_at.astimezone():%H:%M:%S}, every {every:g} s")
    if state.is_paused:
        made.append("  PAUSED", style="reverse")
    return made


def _summary(reading: Reading, marks: Marks) -> Text:
    states = Counter(item.state for item in reading.instances)
    unwell = [
        f"{states[state]} {str(state).replace('_', ' ')}" for state in InstanceState if states[state] and state is not InstanceState.ALIVE
    ]
    slots = sum(item.concurrency or 0 for item in reading.instances if takes_jobs(item.state))
    waiting = sum(item.depth for item in reading.queues)
    oldest = max((item.oldest_wait for item in reading.queues if item.oldest_wait is not None), default=None)
    parts = [
        counted(len(reading.instances), "instance") + (f" ({', '.join(unwell)})" if unwell else ""),
        f"{reading.in_flight}/{slots} busy" if slots else f"{reading.in_flight} busy",
        counted(reading.orphans, "orphan"),
        f"{rate_text(reading.per_minute)} runs/min",
    ]
    if reading.queues:
        parts.append(f"{waiting:,} waiting" + (f", oldest {duration(oldest)}" if oldest is not None else ""))
    style = "bold red" if reading.orphans or states[InstanceState.DEAD] else "yellow" if unwell else ""
    return Text(f" {marks.dot} ".join(parts), style=style)


def _views(reading: Reading, state: State, chosen: int, every: int) -> Text:
    """Write which views there are, which one this is, and what it is restricted to."""
    made = Text()
    for number, view in enumerate(VIEWS, start=1):
        made.append(f"[{number} {view}]" if view is state.view else f" {number} {view} ", style="reverse" if view is state.view else "")
    if state.is_typing or state.wanted:
        made.append(f"  / {shown(state.wanted)}{'_' if state.is_typing else ''}", style="bold")
    made.append(f"  {chosen} of {every}" if chosen != every else f"  {every}")
    if state.view is View.FUNCTIONS:
        made.append(f", times of the last {WINDOW / 60:g} min", style="dim")
    if state.view is View.QUEUES and reading.queues_error:
        made.append(f"  {shown(reading.queues_error)}", style="yellow")
    return made


def _table(view: Rows, rows: Sequence[Row], state: State, size: Size, marks: Marks) -> list[Text]:
    fitting = _fitting(view.columns, size.width)
    names = []
    for column, width in fitting:
        name = column.name
        if name == state.order.column:
            falls = column.is_number is not state.order.is_reversed
            name += marks.falling if falls else marks.rising
        names.append(_aligned(name, column, width, marks))
    places = [view.columns.index(column) for column, _ in fitting]
    lines = [Text((" " * _GAP).join(names).rstrip(), style="bold")]
    for row in rows:
        texts = [_aligned(row.cells[at], column, width, marks) for at, (column, width) in zip(places, fitting, strict=True)]
        lines.append(Text((" " * _GAP).join(texts).rstrip(), style=row.style))
    return lines


def _fitting(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """Choose the columns that fit, each with its width; the first one takes what is left.

    >>> columns = [Column(name="JOB", width=60), Column(name="TRY", width=3), Column(name="QUEUE", width=20)]
    >>> [(column.name, width) for column, width in _fitting(columns, 40)]
    [('JOB', 36), ('TRY', 3)]
    """
    first, *others = columns
    kept: list[Column] = []
    left = width
    for column in others:
        needed = column.width + _GAP
        if left - needed < _FIRST_WIDTH:
            break
        kept.append(column)
        left -= needed
    return [(first, max(min(left, first.width), 1)), *((column, column.width) for column in kept)]


def _aligned(text: str, column: Column, width: int, marks: Marks) -> str:
    """Write a text in as many cells as a column has."""
    if cell_len(text) > width:
        text = set_cell_size(text, width - 1) + marks.cut
    room = " " * (width - cell_len(text))
    return room + text if column.is_number else text + room


def _bottom(state: State, trouble: str | None) -> Text:
    if trouble is not None:
        return Text(trouble, style="bold white on red")
    if state.is_typing:
        return Text("type what rows must have in them; Enter keeps it, Esc clears it", style="dim")
    made = Text()
    for key, does in _KEYS:
        made.append(key, style="bold")
        made.append(f" {does}  ", style="dim")
    return made


def _cut(line: Text, width: int, marks: Marks) -> Text:
    """Cut a line that is too long."""
    if line.cell_len <= width:
        return line
    cut = line.copy()
    cut.truncate(max(width - 1, 0), overflow="crop")
    cut.append(marks.cut)
    return cut
