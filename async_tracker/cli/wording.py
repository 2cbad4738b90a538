"""How values are written for people, and documents for programs."""

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from async_tracker.records import jsonable

DOCUMENT_VERSION = 1
"""Version of every JSON document. New members may come; what is there keeps its name and meaning."""

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_MEGABYTE = 1024 * 1024


def shown(text: str | None) -> str:
    r"""Write an id or a name so that it stays on its line and commands no terminal: what cannot be printed is escaped.

    >>> shown("mail:[red]*{1} é"), shown("a\nb\x1b[31m"), shown(None)
    ('mail:[red]*{1} é', 'a\\nb\\x1b[31m', '-')
    """
    if text is None:
        return "-"
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def duration(seconds: float | None) -> str:
    """Write a duration with the two units that matter.

    >>> duration(0.0004), duration(0.0123), duration(4.25), duration(75), duration(7_500), duration(90_000), duration(None)
    ('0.4 ms', '12 ms', '4.2 s', '1 min 15 s', '2 h 5 min', '1 d 1 h', '-')
    """
    if seconds is None:
        return "-"
    if 0 < seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)} min {int(seconds % _MINUTE)} s"
    if seconds < _DAY:
        return f"{int(seconds // _HOUR)} h {int(seconds % _HOUR // _MINUTE)} min"
    return f"{int(seconds // _DAY)} d {int(seconds % _DAY // _HOUR)} h"


def megabytes(size_bytes: int | None) -> str:
    """Write a size in memory.

    >>> megabytes(44_040_192), megabytes(None)
    ('42 MB', '-')
    """
    return "-" if size_bytes is None else f"{size_bytes / _MEGABYTE:.0f} MB"


def clock_time(moment: datetime | None) -> str:
    """Write a moment in this host's time."""
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def counted(number: int, noun: str) -> str:
    """Write a number of things.

    >>> counted(1, "job"), counted(0, "orphan")
    ('1 job', '0 orphans')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


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
    """Print what is no part of the answer."""
    print(line, file=sys.stderr, flush=True)
