"""How the counters of one span stand in a packed string: pure.

A string holds the spans of one function on one queue: for each of them its place (the minute in its hour, or the hour in its day), the
length of its record in two bytes, and the record. Numbers in a record are variable in length, as most of them are small.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from async_tracker.history.histogram import TOP, Histogram, Stretch
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
class Record:
    """A span as it was read, to be told as it is or to be added to a `Span`."""

    counters: dict[str, int]
    run: Stretch
    wait: Stretch
    late: bool


@dataclass(slots=True)
class Span:
    """What one function on one queue, or several of them, counted in a span of time; spans are merged by addition."""

    counters: dict[str, int] = field(default_factory=dict)
    run: Histogram = field(default_factory=Histogram)
    wait: Histogram = field(default_factory=Histogram)
    late: bool = False
    """Some of it arrived more than a minute after it was counted."""

    def merge(self, other: "Span | Record") -> None:
        """Add another span, or what was read of one."""
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
    span.merge(read_record(record))
    return span


def read_record(packed: bytes) -> Record:
    """Read a record, whole or not at all. Raises ValueError as `unpack` does.

    A question reads thousands of records: nearly all numbers take one byte or two, and are read without a call.
    """
    if not packed or packed[0] != SCHEMA:
        raise ValueError(f"a record of schema {packed[0] if packed else None}, this version reads {SCHEMA}")
    try:
        present, at = _read_number(packed, 2)
        counters = {}
        for counter in _PRESENT[present & _ALL_PRESENT]:
            value = packed[at]
            at += 1
            if value > 127:
                value += (packed[at] - 1) << 7
                at += 1
                if value > 16_383:
                    value, at = _read_number(packed, at - 2)
            counters[counter] = value
        run, at = _read_stretch(packed, at)
        wait, at = _read_stretch(packed, at)
    except IndexError:
        raise ValueError("a record that ends too soon") from None
    if at != len(packed):
        raise ValueError("a record that goes on after its end")
    return Record(counters, run, wait, packed[1] != 0)


def _read_stretch(packed: bytes, at: int) -> tuple[Stretch, int]:
    """Read the first bucket of a histogram, the counts from there on and the longest duration, and tell where they end."""
    length, low = packed[at], packed[at + 1]
    at += 2
    if low + length > TOP + 1:
        raise ValueError(f"a bucket beyond {TOP}")
    end = at + length
    small = packed[at:end]
    if small.isascii():
        max_ms, at = packed[end], end + 1
        if max_ms > 127:
            max_ms, at = max_ms + ((packed[at] - 1) << 7), at + 1
            if max_ms > 16_383:
                max_ms, at = _read_number(packed, end)
        return Stretch(low, small, max_ms), at
    counts = []
    for _ in range(length):
        value, at = _read_number(packed, at)
        counts.append(value)
    max_ms, at = _read_number(packed, at)
    return Stretch(low, counts, max_ms), at


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
