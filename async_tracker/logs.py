"""How the log lines of this library stay on their line, whatever an id, a name or an error in them holds.

Pure: no logger is made here. A tracker that is made sets the filter on the logger of this library, ``async_tracker``.
"""

from typing import Any


def escaped(text: str) -> str:
    r"""Write what cannot be printed as an escape: a line break, and what would command a terminal.

    >>> escaped("mail:[red]*{1} é"), escaped("a\nb\x1b[31m")
    ('mail:[red]*{1} é', 'a\\nb\\x1b[31m')
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode("ascii") for character in text)


def on_one_line(record: Any) -> bool:
    """Let every record of a logger pass, with its message on one line; a filter. The traceback of an exception stays as it is.

    >>> import logging
    >>> record = logging.LogRecord("x", logging.INFO, "x.py", 1, "job %s", ("a\\nb",), None)
    >>> on_one_line(record), record.getMessage() == r"job a\\nb"
    (True, True)
    """
    message = record.getMessage()
    if not message.isprintable():
        record.msg, record.args = escaped(message), ()
    return True
