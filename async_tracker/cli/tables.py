"""Tables: for eyes on a terminal, and without frames, colours or a limit of width for everything else."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from async_tracker.cli.wording import say

STYLES = {
    "alive": "green",
    "ok": "green",
    "recovered": "green",
    "quiet": "cyan",
    "draining": "cyan",
    "delayed": "yellow",
    "stalled_blocked": "yellow",
    "stalled_silent": "yellow",
    "returning": "yellow",
    "warning": "yellow",
    "dead": "bold red",
    "problem": "bold red",
    "quarantined": "bold red",
}

_GAP = 3
_LAST_COLUMN = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of texts that are already fit to be shown; none of them is markup."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default_factory=list)


def show(table: Table) -> None:
    """Print a table as it suits where it goes to. Nothing is ever cut: a terminal too narrow for columns is given a block for each row."""
    if not sys.stdout.isatty():
        for line in (table.title, *plain_lines(table), ""):
            say(line)
        return
    console = Console(highlight=False)
    if not table.rows:
        console.print(Text(table.title, style="bold"))
    elif _width_of_columns(table) <= console.width:
        console.print(framed(table))
    else:
        console.print(Text(table.title, style="bold"))
        for row in table.rows:
            console.print(_block(table.columns, row))
        console.print()


def framed(table: Table) -> RichTable:
    """Make the table that a terminal shows; where it is too narrow, the last column gives way."""
    made = RichTable(title=Text(table.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in table.columns:
        made.add_column(Text(name), overflow="fold", no_wrap=name != table.columns[-1])
    for row in table.rows:
        made.add_row(*(_styled(cell) for cell in row))
    return made


def _styled(cell: str) -> Text:
    return Text(cell, style=STYLES.get(cell, ""), overflow="fold")


def _width_of_columns(table: Table) -> int:
    """Tell how wide a terminal must be: all columns whole, except the last one, which may be folded."""
    widths = [max(cell_len(line[i]) for line in (table.columns, *table.rows)) for i in range(len(table.columns))]
    return sum(widths[:-1]) + min(widths[-1], _LAST_COLUMN) + _GAP * len(widths)


def _block(columns: Sequence[str], row: Sequence[str]) -> Text:
    """Write a row as a block: its name on one line, the rest under it."""
    made = Text(overflow="fold")
    made.append(row[0], style="bold")
    for name, cell in zip(columns[1:], row[1:], strict=True):
        if cell not in ("", "-"):
            made.append(f"\n    {name.lower():<12}")
            made.append(_styled(cell))
    return made


def plain_lines(table: Table) -> list[str]:
    """Align the columns as wide as they are.

    >>> plain_lines(Table(title="", columns=("ID", "STATE"), rows=[("web:1:ab", "alive")]))
    ['ID        STATE', 'web:1:ab  alive']
    """
    lines = [list(table.columns), *map(list, table.rows)] if table.rows else []
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(table.columns))] if lines else []
    return ["  ".join(_padded(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cell_len(cell))
