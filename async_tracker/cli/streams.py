"""The standard streams as a process may find them: closed, full, or with a reader that is gone."""

import os
import sys


def open_missing() -> None:
    """Put the null device in the place of each standard stream that is closed, so that no socket takes its number.

    ``has_answer_stream`` tells afterwards whether the answer can be read.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115  # as long as the process
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        _missing.append(1)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


_missing: list[int] = []


def has_answer_stream() -> bool:
    """Tell whether the process was started with a stdout."""
    return not _missing


def let_go() -> None:
    """Write no more to stdout: what is still to be flushed would fail again at the end of the process."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):  # it has no descriptor, and so nothing to fail with
        return
