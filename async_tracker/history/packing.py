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


_ALL_PRESENT = (1 << len(COUNTERS)) - 1


class _Present(dict[int, tuple[str, ...]]):
    """The bits that say which counters a record has -> these counters, worked out when they are first met."""

    def __missing__(self, bits: int) -> tuple[str, ...]:
        counters = self[bits] = tuple(counter for place, counter in enumerate(COUNTERS) if bits >> place & 1)
        return counters


_PRESENT = _Present()


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
    span = Span()
    add_record(span, record)
    return span


def add_record(span: Span, record: bytes) -> None:
    """Read a record and add it to a span, whole or not at all. Raises ValueError as `unpack` does.

    A question reads thousands of records: nearly all numbers are below 128, and are read without a call.
    """
    if not record or record[0] != SCHEMA:
        raise ValueError(f"a record of schema {record[0] if record else None}, this version reads {SCHEMA}")
    try:
        present, at = _read_number(record, 2)
        counted = []
        for counter in _PRESENT[present & _ALL_PRESENT]:
            value, at = (record[at], at + 1) if record[at] < 128 else _read_number(record, at)
            counted.append((counter, value))
        run_low, run, at = _read_buckets(record, at)
        run_max_ms, at = _read_number(record, at)
        wait_low, wait, at = _read_buckets(record, at)
        wait_max_ms, at = _read_number(record, at)
    except IndexError:
        raise ValueError("a record that ends too soon") from None
    if at != len(record):
        raise ValueError("a record that goes on after its end")
    counters = span.counters
    for counter, value in counted:
        counters[counter] = counters.get(counter, 0) + value
    for histogram, low, values, max_ms in ((span.run, run_low, run, run_max_ms), (span.wait, wait_low, wait, wait_max_ms)):
        buckets = histogram.buckets
        if buckets:
            count_of = buckets.get
            for bucket, value in enumerate(values, low):
                if value:
                    buckets[bucket] = count_of(bucket, 0) + value
        else:
            histogram.buckets = {bucket: value for bucket, value in enumerate(values, low) if value}
        if max_ms > histogram.max_ms:
            histogram.max_ms = max_ms
    if record[1]:
        span.late = True


def _read_buckets(record: bytes, at: int) -> tuple[int, Sequence[int], int]:
    """Read the first bucket of a histogram, the counts from there on, and where they end."""
    length, low = record[at], record[at + 1]
    at += 2
    values: Sequence[int] = record[at : at + length]
    if len(values) < length:
        raise IndexError
    if record[at : at + length].isascii():
        return low, values, at + length
    values = []
    for _ in range(length):
        value, at = _read_number(record, at)
        values.append(value)
    return low, values, at


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


def records_in(packed: bytes) -> dict[int, list[bytes]]:
    """Sort the records of a string by their places. What was packed twice has two, and the last that can be read stands.

    >>> records_in(entry(3, b"a") + entry(4, b"b") + entry(3, b"c"))
    {3: [b'a', b'c'], 4: [b'b']}
    """
    records: dict[int, list[bytes]] = {}
    for place, record in entries(packed):
        records.setdefault(place, []).append(record)
    return records


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
