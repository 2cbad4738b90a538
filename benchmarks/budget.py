"""How many rounds fit into the time that there is: what is measured in rounds ends when that is over."""

import time
from collections.abc import Callable, Iterator


def rounds(most: int, *, seconds: float | None, now: Callable[[], float] = time.monotonic) -> Iterator[int]:
    """Number the rounds from 0: ``most`` of them, and fewer where those before say that the next would end after ``seconds``.

    The first is made whatever it takes. With None for the seconds there is no limit.

    >>> times = iter([0.0, 10.0, 20.0, 30.0])
    >>> list(rounds(9, seconds=25.0, now=lambda: next(times))), list(rounds(3, seconds=None))
    ([0, 1], [0, 1, 2])
    """
    began = now()
    for number in range(most):
        if number and seconds is not None:
            taken = now() - began
            if taken + taken / number > seconds:
                return
        yield number


def share(seconds: float | None, part: float) -> float | None:
    """Give a part of the time; of no limit, none.

    >>> share(900.0, 0.5), share(None, 0.5)
    (450.0, None)
    """
    return None if seconds is None else seconds * part
