"""Records that are made by the thousand: pure."""

import dataclasses
from typing import Any


def writable(record: type) -> Any:
    """Give a class with the slots of a frozen record whose objects can be written to; one becomes the record when its ``__class__`` is set.

    A question makes records by the thousand, and a frozen dataclass sets each field by a call of ``object.__setattr__``. Measured with
    Python 3.11: 2.4 us for a job and 4.0 us for an instance, against 0.5 and 1.4 us this way.
    """
    names = [item.name for item in dataclasses.fields(record)]
    return dataclasses.make_dataclass(f"Writable{record.__name__}", names, slots=True, eq=False, repr=False, init=False)
