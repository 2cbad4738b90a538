"""How a command can end."""

from enum import IntEnum


class Ending(IntEnum):
    """The exit codes, which scripts and probes rely on."""

    OK = 0
    BAD_ANSWER = 1
    """The question was answered, and the answer is bad; or Redis refused to answer it."""
    USAGE = 2
    UNREACHABLE = 3
    """Redis could not be reached, or not in time."""
    NOT_FOUND = 4
    SOME_FAILED = 5
    """Of many that were meant, some did it and some did not."""
    INTERRUPTED = 130


class NotFound(Exception):
    """What was named on the command line does not exist."""


class Misused(Exception):
    """The command cannot be run like this; the text says what to write instead."""
