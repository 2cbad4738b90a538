"""How values are written for people, and documents for programs."""

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from async_tracker.logs import escaped
from async_tracker.records import jsonable

DOCUMENT_VERSION = 1
"""Version of every JSON document. New members may come; what is there keeps its name and meaning."""

_MEGABYTE = 1024 * 1024


def shown(text: str | None) -> str:
    r"""Write an id or a name so that it stays on its line and commands no terminal: what cannot be printed is escaped.

    >>> shown("mail:[red]*{1} é"), shown("a\nb\x1b[31m"), shown(None)
    ('mail:[red]*{1} é', 'a\\nb\\x1b[31m', '-')
    """
    return "-" if text is None else escaped(text)


def megabytes(size_bytes: int | None) -> str:
    """Write a size in memory.

    >>> megabytes(44_040_192), megabytes(None)
    ('42 MB', '-')
    """
    return "-" if size_bytes is None else f"{size_bytes / _MEGABYTE:.0f} MB"


def clock_time(moment: datetime | None) -> str:
    """Write a moment in this host's time."""
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def document(content: Mapping[str, Any], *, indented: bool = True) -> str:
    """Write a versioned JSON document, in ASCII: whatever an id holds comes through."""
    return json.dumps({"version": DOCUMENT_VERSION, **jsonable(content)}, indent=2 if indented else None)


def say_document(content: Mapping[str, Any], *, indented: bool = True) -> None:
    """Print a versioned JSON document."""
    say(document(content, indented=indented))


def say(line: str = "") -> None:
    """Print one line of the answer, at once."""
    print(line, flush=True)


def remark(line: str) -> None:
    """Print what is no part of the answer; where that cannot be, the answer stands by itself."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)
