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

_STYLES = {
    "alive": "green",
    "ok": "green",
    "recovered": "green",
    "draining": "cyan",
    "delayed": "yellow",
    "stalled_blocked": "yellow",
    "stalled_silent": "yellow",
    "warning": "yellow",
    "dead": "bold red",
    "problem": "bold red",
    "quarantined": "bold red",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of texts that are already fit to be shown; none of them is markup."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default_factory=list)


def show(table: Table) -> None:
    """Print a table as it suits where it goes to; on a terminal too narrow for it, texts are folded and never cut."""
    if sys.stdout.isatty():
        Console().print(framed(table))
        return
    say(table.title)
    for line in plain_lines(table):
        say(line)
    say()


def framed(table: Table) -> RichTable:
    """Make the table that a terminal shows."""
    made = RichTable(title=Text(table.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in table.columns:
        made.add_column(Text(name), overflow="fold")
    for row in table.rows:
        made.add_row(*(Text(cell, style=_STYLES.get(cell, ""), overflow="fold") for cell in row))
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
