"""The counters of one minute as they stand in Redis, and the sample beside them: read and written, pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from async_tracker.history.packing import Span
from async_tracker.records import QueueDepth


def spans_of(fields: Mapping[str, str]) -> dict[str, Span]:
    """Sort the fields of a minute by function and queue; what is none of ours is left out.

    >>> spans = spans_of({'started["send",null]': "2", 'r9["send",null]': "2", "rubbish": "x"})
    >>> list(spans), spans['["send",null]'].counters, spans['["send",null]'].run.count
    (['["send",null]'], {'started': 2}, 2)
    """
    spans: dict[str, Span] = {}
    for name, value in fields.items():
        counter, bracket, rest = name.partition("[")
        if not bracket or not value.removeprefix("-").isdecimal():
            continue
        span = spans.get(bracket + rest)
        if span is None:
            span = spans[bracket + rest] = Span()
        span.count(counter, int(value))
    return spans


@dataclass(slots=True)
class Sample:
    """How the fleet and its queues stood at one moment: jobs in flight, jobs that could run at a time, jobs that wait."""

    busy: int = 0
    slots: int = 0
    queues: dict[str, tuple[int, float | None]] = field(default_factory=dict)
    """queue -> its depth, and for how many seconds the oldest job that is due has waited; None when none is due."""

    def merge(self, other: "Sample") -> None:
        """Add the sample of another library, at the same moment."""
        self.busy += other.busy
        self.slots += other.slots
        self.queues |= other.queues


def sample_of(busy: int, slots: int, queues: Iterable[QueueDepth]) -> str:
    """Write a sample.

    >>> sample_of(3, 10, [QueueDepth(queue="mail", library="arq", depth=7, due=2, oldest_wait=1.25)])
    '[1,3,10,{"mail":[7,1.2]}]'
    """
    depths = {item.queue: [item.depth, round(item.oldest_wait, 1) if item.oldest_wait is not None else None] for item in queues}
    return json.dumps([1, busy, slots, depths], separators=(",", ":"))


def read_sample(raw: str) -> Sample | None:
    """Read a sample; None for one of another version.

    >>> read_sample('[1,3,10,{"mail":[7,1.2]}]'), read_sample("[2]")
    (Sample(busy=3, slots=10, queues={'mail': (7, 1.2)}), None)
    """
    try:
        schema, busy, slots, queues = json.loads(raw)
        if schema != 1:
            return None
        return Sample(int(busy), int(slots), {queue: (int(depth), oldest) for queue, (depth, oldest) in queues.items()})
    except (ValueError, TypeError, AttributeError):
        return None
