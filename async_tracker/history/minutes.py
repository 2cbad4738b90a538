"""The counters of one minute as they stand in Redis, and the samples beside them: read and written, pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    """How the fleet and its queues stood at one moment: jobs in flight, jobs that could run at a time, jobs that wait; instances, orphans.

    Of several moments: the means, the queues at their fullest, and the most orphans.
    """

    busy: float = 0
    slots: float = 0
    queues: dict[str, tuple[int, float | None]] = field(default_factory=dict)
    """queue -> its depth, and for how many seconds the oldest job that is due has waited; None when none is due."""
    moments: int = 1
    """Of how many minutes this is the mean."""
    instances: float | None = None
    """How many instances were registered; None where the version that noted it did not tell, as for the next."""
    orphans: int | None = None

    def merge(self, other: "Sample") -> None:
        """Add the sample of another library, at the same moment."""
        self.busy += other.busy
        self.slots += other.slots
        self.queues |= other.queues
        if other.instances is not None:
            self.instances = (self.instances or 0) + other.instances
        if other.orphans is not None:
            self.orphans = (self.orphans or 0) + other.orphans


def mean_of(samples: Sequence[Sample]) -> Sample:
    """Make one sample of several, of which there is one at least: the means, and of each queue the fullest.

    >>> mean_of([Sample(2, 10, {"mail": (7, 1.2)}), Sample(4, 10, {"mail": (3, None)})])
    Sample(busy=3.0, slots=10.0, queues={'mail': (7, 1.2)}, moments=2, instances=None, orphans=None)
    >>> mean = mean_of([Sample(instances=4, orphans=0), Sample(), Sample(instances=2, orphans=9)])
    >>> mean.instances, mean.orphans
    (3.0, 9)
    """
    moments = sum(sample.moments for sample in samples)
    fullest: dict[str, tuple[int, float | None]] = {}
    for sample in samples:
        for name, (depth, oldest) in sample.queues.items():
            before_depth, before_oldest = fullest.get(name, (0, None))
            waits = [wait for wait in (before_oldest, oldest) if wait is not None]
            fullest[name] = (max(before_depth, depth), max(waits, default=None))
    told = [(sample.instances, sample.moments) for sample in samples if sample.instances is not None]
    return Sample(
        busy=sum(sample.busy * sample.moments for sample in samples) / moments,
        slots=sum(sample.slots * sample.moments for sample in samples) / moments,
        queues=dict(sorted(fullest.items())),
        moments=moments,
        instances=sum(count * weight for count, weight in told) / sum(weight for _, weight in told) if told else None,
        orphans=max((sample.orphans for sample in samples if sample.orphans is not None), default=None),
    )


def sample_of(busy: int, slots: int, queues: Iterable[QueueDepth], *, instances: int, orphans: int) -> str:
    """Write the sample of a minute. Between the queues and what was added later stands of how many minutes it is.

    >>> sample_of(3, 10, [QueueDepth(queue="mail", library="arq", depth=7, due=2, oldest_wait=1.25)], instances=2, orphans=0)
    '[1,3,10,{"mail":[7,1.2]},1,2,0]'
    """
    depths = {item.queue: [item.depth, round(item.oldest_wait, 1) if item.oldest_wait is not None else None] for item in queues}
    return json.dumps([_SCHEMA, busy, slots, depths, 1, instances, orphans], separators=(",", ":"))


def sample_of_hour(samples: Sequence[Sample], *, queues: int) -> str:
    """Write the sample of an hour, with at most so many queues; '' where no minute of it has one.

    >>> sample_of_hour([Sample(2, 10, {"mail": (7, 1.2)}), Sample(3, 10, {"mail": (3, None)})], queues=50), sample_of_hour([], queues=50)
    ('[1,2.5,10.0,{"mail":[7,1.2]},2,null,null]', '')
    """
    if not samples:
        return ""
    mean = mean_of(samples)
    depths = dict(list(mean.queues.items())[:queues])
    instances = None if mean.instances is None else round(mean.instances, 2)
    told = [_SCHEMA, round(mean.busy, 2), round(mean.slots, 2), depths, mean.moments, instances, mean.orphans]
    return json.dumps(told, separators=(",", ":"))


def read_sample(raw: str) -> Sample | None:
    """Read the sample of a minute or of an hour; None for one of another version.

    >>> read_sample('[1,3,10,{"mail":[7,1.2]},1,2,0]'), read_sample("[2]")
    (Sample(busy=3, slots=10, queues={'mail': (7, 1.2)}, moments=1, instances=2, orphans=0), None)
    >>> read_sample('[1,2.5,10.0,{},2]')
    Sample(busy=2.5, slots=10.0, queues={}, moments=2, instances=None, orphans=None)
    """
    return _sample_in(_loaded(raw))


def _sample_in(loaded: Any) -> Sample | None:
    try:
        schema, busy, slots, queues, *told = loaded
        if schema != _SCHEMA:
            return None
        moments, instances, orphans = (told + [1, None, None][len(told) :])[:3]
        depths = {str(queue): (int(depth), oldest) for queue, (depth, oldest) in queues.items()}
        known = None if instances is None else 0 + instances
        return Sample(0 + busy, 0 + slots, depths, max(int(moments), 1), known, None if orphans is None else int(orphans))
    except (ValueError, TypeError, AttributeError):
        return None


def read_samples(fields: Mapping[str, str]) -> tuple[dict[int, Sample], int]:
    """Read the samples of an hour by the minute, those of several libraries together, or those of a day by the hour.

    Beside them it gives how many this version cannot read.

    >>> read_samples({"5:arq": "[1,3,10,{},1,2,0]", "5:dramatiq": "[1,1,8,{},1,1,5]", "6:arq": "[9]"})
    ({5: Sample(busy=4, slots=18, queues={}, moments=1, instances=3, orphans=5)}, 1)
    """
    found: dict[int, Sample] = {}
    skipped = 0
    for name, loaded in zip(fields, _all_loaded(list(fields.values())), strict=True):
        sample, place = _sample_in(loaded), name.partition(":")[0]
        if sample is None or not place.isdecimal():
            skipped += 1
        elif int(place) in found:
            found[int(place)].merge(sample)
        else:
            found[int(place)] = sample
    return found, skipped


def _all_loaded(raws: Sequence[str]) -> list[Any]:
    """Load sixty documents as one, which takes half of the time; one by one where one of them is none, which loads as None."""
    joined = _loaded(f"[{','.join(raws)}]")
    return joined if isinstance(joined, list) and len(joined) == len(raws) else [_loaded(raw) for raw in raws]


def _loaded(raw: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


_SCHEMA = 1
