"""Whatever a job, a user or a worker library hands in, made fit to be stored; None where it cannot be. Pure, and raises nothing.

One value that cannot be written must not keep the others of its batch from being written.
"""

import math
from typing import Any

_LARGEST = 2**53
"""Whole numbers beyond it are not read back as they were by every program."""


def fit_text(value: Any, *, length: int | None = None) -> str | None:
    r"""Make mere text, cut after ``length`` characters. Bytes are read as UTF-8.

    >>> fit_text("half way"), fit_text(b"caf\xc3\xa9"), fit_text(7), fit_text(None), fit_text("abcdef", length=3)
    ('half way', 'café', '7', None, 'abc')
    >>> class Unspeakable:
    ...     def __str__(self): raise RuntimeError
    >>> fit_text(Unspeakable()) is None
    True
    """
    if value is None:
        return None
    try:
        if isinstance(value, bytes | bytearray):
            made = bytes(value[:length] if length is not None else value).decode("utf-8", "replace")
        else:
            made = str.__str__(value) if isinstance(value, str) else str.__str__(str(value))
    except Exception:  # it is another program's object: whatever it raises, it is no text
        return None
    return made if length is None else made[:length]


def fit_number(value: Any) -> float | None:
    """Make a finite float of whatever is a number: Decimal, Fraction, those of numpy. Text is none.

    >>> import decimal, fractions
    >>> fit_number(decimal.Decimal("0.5")), fit_number(fractions.Fraction(1, 4)), fit_number(7), fit_number(None)
    (0.5, 0.25, 7.0, None)
    >>> fit_number(float("nan")), fit_number(float("inf")), fit_number("0.5"), fit_number(10**400), fit_number(1j)
    (None, None, None, None, None)
    """
    if value is None or isinstance(value, str | bytes | bytearray):
        return None
    try:
        made = float(value) + 0.0
    except Exception:  # as above
        return None
    return made if math.isfinite(made) else None


def fit_whole(value: Any) -> int | None:
    """Make a whole number, not larger than every program can read.

    >>> import decimal
    >>> fit_whole(True), fit_whole(decimal.Decimal("3")), fit_whole(2.0), fit_whole(2.5), fit_whole(10**30), fit_whole("3")
    (1, 3, 2, None, None, None)
    """
    number = fit_number(value)
    return int(number) if number is not None and number.is_integer() and abs(number) <= _LARGEST else None


def fit_fraction(value: Any) -> float | None:
    """Make a fraction from 0 to 1: what lies outside is taken for the nearer end.

    >>> fit_fraction(1.0000000000000002), fit_fraction(-1e-17), fit_fraction(0.5), fit_fraction(float("nan")), fit_fraction("half")
    (1.0, 0.0, 0.5, None, None)
    """
    number = fit_number(value)
    return None if number is None else min(max(number, 0.0), 1.0)
