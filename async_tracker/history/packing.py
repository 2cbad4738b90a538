"""How the counters of one span stand in a packed string: pure.

A string holds the spans of one function on one queue: for each of them its place (the minute in its hour, or the hour in its day), the
length of its record in two bytes, and the record. Numbers in a record are variable in length, as most of them are small.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from async_tracker.history.histogram import TOP, Histogram
from async_tracker.store.counters import COUNTERS, RUN, WAIT

SCHEMA = 1
"""The first byte of each record."""


@dataclass(slots=True)
class Span:
    """What one function on one queue, or several of them, counted in a span of time; spans are merged by addition."""

    counters: dict[str, int] = field(default_factory=dict)
    run: Histogram = field(default_factory=Histogram)
    wait: Histogram = field(default_factory=Histogram)
    late: bool = False
    """Some of it arrived more than a minute after it was counted."""

    def merge(self, other: "Span") -> None:
        """Add another span."""
        for counter, value in other.counters.items():
            self.counters[counter] = self.counters.get(counter, 0) + value
        self.run.merge(other.run)
        self.wait.merge(other.wait)
        self.late = self.late or other.late

    def count(self, counter: str, value: int) -> None:
        """Add one field of a minute; one that this version does not know is left out.

        >>> span = Span()
        >>> for counter, value in [("started", 2), ("r9", 2), ("rmax", 6), ("later", 1)]:
        ...     span.count(counter, value)
        >>> span.counters, span.run.buckets, span.run.max_ms
        ({'started': 2}, {9: 2}, 6)
        """
        if counter in COUNTERS:
            self.counters[counter] = self.counters.get(counter, 0) + value
        elif counter == "late":
            self.late = True
        elif counter[:1] in (RUN, WAIT):
            histogram, bucket = (self.run if counter[0] == RUN else self.wait), counter[1:]
            if bucket == "max":
                histogram.max_ms = max(histogram.max_ms, value)
            elif bucket.isdecimal() and int(bucket) <= TOP:
                histogram.buckets[int(bucket)] = histogram.buckets.get(int(bucket), 0) + value


def pack(span: Span) -> bytes:
    """Write one span as a record."""
    packed = bytearray([SCHEMA, int(span.late)])
    counted = [max(span.counters.get(counter, 0), 0) for counter in COUNTERS]
    _write_number(packed, sum(1 << place for place, value in enumerate(counted) if value))  # most of them are 0
    for value in filter(None, counted):
        _write_number(packed, value)
    for histogram in (span.run, span.wait):
        buckets = {bucket: count for bucket, count in histogram.buckets.items() if count > 0}
        low, high = min(buckets, default=0), max(buckets, default=-1)
        packed += bytes([high - low + 1, low])
        for bucket in range(low, high + 1):
            _write_number(packed, buckets.get(bucket, 0))
        _write_number(packed, histogram.max_ms)
    return bytes(packed)


def unpack(record: bytes) -> Span:
    """Read a record. Raises ValueError for one of another schema, and for what is none.

    >>> span = Span({"started": 300, "failed": 1}, Histogram({9: 200, 40: 1}, 3_000))
    >>> unpack(pack(span)) == span, len(pack(span))
    (True, 46)
    >>> unpack(b"\\x02later")
    Traceback (most recent call last):
    ValueError: a record of schema 2, this version reads 1
    """
    if not record or record[0] != SCHEMA:
        raise ValueError(f"a record of schema {record[0] if record else None}, this version reads {SCHEMA}")
    span = Span()
    try:
        span.late = bool(record[1])
        present, at = _read_number(record, 2)
        for place, counter in enumerate(COUNTERS):
            if present >> place & 1:
                span.counters[counter], at = _read_number(record, at)
        for histogram in (span.run, span.wait):
            at = _read_histogram(histogram, record, at)
    except IndexError:
        raise ValueError("a record that ends too soon") from None
    if at != len(record):
        raise ValueError("a record that goes on after its end")
    return span


def _read_histogram(histogram: Histogram, record: bytes, at: int) -> int:
    """Read a histogram. A question reads tens of thousands: nearly all numbers are below 128, and are read in one go."""
    length, low = record[at], record[at + 1]
    at += 2
    values: Sequence[int] = record[at : at + length]
    if len(values) < length:
        raise IndexError
    if record[at : at + length].isascii():
        at += length
    else:
        values = []
        for _ in range(length):
            value, at = _read_number(record, at)
            values.append(value)
    histogram.buckets = {bucket: value for bucket, value in enumerate(values, low) if value}
    histogram.max_ms, at = _read_number(record, at)
    return at


def entry(place: int, record: bytes) -> bytes:
    """Write a record as it stands in its string."""
    return bytes([place]) + len(record).to_bytes(2, "big") + record


def entries(packed: bytes) -> Iterator[tuple[int, bytes]]:
    """Read the records of a string with their places; what is left after the last whole one is no record.

    >>> list(entries(entry(3, b"abc") + entry(59, b"") + b"?"))
    [(3, b'abc'), (59, b'')]
    """
    at = 0
    while at + 3 <= len(packed):
        end = at + 3 + int.from_bytes(packed[at + 1 : at + 3], "big")
        if end > len(packed):
            return
        yield packed[at], packed[at + 3 : end]
        at = end


def spans_in(packed: bytes) -> tuple[dict[int, Span], int]:
    """Read the spans of a string by their places, and tell how many this version cannot read.

    >>> spans_in(entry(3, pack(Span({"started": 2}))) + entry(4, b"?"))
    ({3: Span(counters={'started': 2}, run=<Histogram of 0, the longest 0 ms>, wait=<Histogram of 0, the longest 0 ms>, late=False)}, 1)
    """
    spans, skipped = {}, 0
    for place, record in entries(packed):
        try:
            spans[place] = unpack(record)
        except ValueError:
            skipped += 1
    return spans, skipped


def _write_number(packed: bytearray, number: int) -> None:
    while number > 127:
        packed.append(number & 127 | 128)
        number >>= 7
    packed.append(number)


def _read_number(record: bytes, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while record[at] > 127:
        number |= (record[at] & 127) << shift
        shift += 7
        at += 1
    return number | record[at] << shift, at + 1
