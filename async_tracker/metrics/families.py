"""Which metrics there are, and how each is made of what was counted: pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from async_tracker.policy import InstanceState, takes_jobs
from async_tracker.records import ENDINGS, Durations, FunctionStats, Instance, Measures
from async_tracker.store.counters import OTHER, short_name

PREFIX = "async_tracker_"

NAMES_MOST = 100
"""How many functions have a label of their own, and how many queues."""

BEYOND = "other"
"""The label of all functions, or queues, beyond those."""

FINISHED = (*ENDINGS, "orphaned")
"""The values of the label ``outcome``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric: its name as it is asked for, its type, its unit, its labels in their order, and what it tells."""

    name: str
    kind: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    says: str


def _families() -> tuple[Family, ...]:
    gauge, counter, histogram = "gauge", "counter", "histogram"
    of_state, of_queue, of_function = ("state", "queue", "library"), ("queue", "library"), ("queue", "function")
    rows = (
        ("instances", gauge, "instances", of_state, "Instances by state; one that works on several queues counts on each of them."),
        ("slots", gauge, "jobs", (), "Jobs that instances which take jobs can run at a time."),
        ("busy", gauge, "jobs", (), "Jobs in flight, as the instances count them."),
        ("jobs_in_flight", gauge, "jobs", of_function, "Jobs in flight that are listed; those younger than 0.05 s are not."),
        ("orphans", gauge, "jobs", (), "Jobs whose instance is dead and that are not recovered yet."),
        ("quarantined", gauge, "jobs", (), "Jobs in quarantine now."),
        ("queue_depth", gauge, "jobs", of_queue, "Jobs in a queue."),
        ("queue_oldest_wait_seconds", gauge, "seconds", of_queue, "For how long the oldest job that is due has waited; 0 when none is."),
        ("jobs_started_total", counter, "runs", of_function, "Runs that have started."),
        ("jobs_finished_total", counter, "runs", (*of_function, "outcome"), "Runs that have ended, or were left by a dead instance."),
        ("job_duration_seconds", histogram, "seconds", of_function, "How long runs took."),
        ("job_wait_seconds", histogram, "seconds", of_function, "How long jobs waited in the queue, from when they were due."),
        ("orphans_total", counter, "runs", (), "Runs that a dead instance has left."),
        ("recovered_total", counter, "runs", (), "Orphans that were made runnable again."),
        ("quarantined_total", counter, "jobs", (), "Jobs that were put into quarantine."),
        ("stalls_total", counter, "stalls", (), "How often an instance was found stalled."),
        ("instances_dead_total", counter, "instances", (), "Instances that were declared dead."),
        ("event_loop_lag_seconds", gauge, "seconds", (), "How late the event loop is that is latest of all; a blocked one, since when."),
        ("redis_up", gauge, "", (), "1 when the tracker's Redis answered this scrape within its time limit, else 0 and only this."),
        ("scrape_duration_seconds", gauge, "seconds", (), "How long it took to read all this from Redis."),
        ("build_info", gauge, "", ("version", "python", "namespace"), "Always 1; its labels tell which program this is."),
    )
    return tuple(Family(name=PREFIX + name, kind=kind, unit=unit, labels=labels, says=says) for name, kind, unit, labels, says in rows)


FAMILIES = _families()


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram as Prometheus has it: how many were not longer than each bound, and then how many there were at all."""

    cumulated: tuple[int, ...]
    total: float
    """Their sum, in seconds."""


Labels = tuple[str, ...]
Values = dict[Labels, float | Distribution]


@lru_cache(maxsize=4_096)
def label_of(name: str | None) -> str:
    r"""Write a name as a label: cut where it is very long, and text that can be sent whatever it holds.

    >>> label_of(None), label_of("(other)"), label_of("send\n"), label_of("\udcff"), len(label_of("x" * 10_000))
    ('', 'other', 'send\n', '\\udcff', 120)
    """
    if name == OTHER:
        return BEYOND
    return (short_name(name) or "").encode("utf-8", "backslashreplace").decode()


class Names:
    """The names that have a label of their own: the first so many that were seen. Which they are does not change while it lives.

    >>> names = Names(2)
    >>> [names.label(name) for name in ("send", None, "pay", "log", "send")]
    ['send', '', 'pay', 'other', 'send']
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: set[str] = {"", BEYOND}

    def label(self, name: str | None) -> str:
        """Give the label of a name."""
        label = label_of(name)
        if label in self._kept:
            return label
        if len(self._kept) - 2 < self._most:
            self._kept.add(label)
            return label
        return BEYOND


class Held:
    """Counters as they were last shown: one that has fallen a little is shown as it was, until it has grown past that.

    A Redis that lost its last moments in a failover has counters that are a little too low until the instances have made them whole.
    Prometheus takes any fall for a restart from nothing, and would count all that there is once more. What has fallen by more than half
    did begin anew.

    >>> held = Held()
    >>> [held.held(("started",), value) for value in (10, 9, 11, 2)]
    [10, 10, 11, 2]
    """

    def __init__(self) -> None:
        self._shown: dict[tuple[str, ...], float | Distribution] = {}

    def held(self, key: tuple[str, ...], value: float | Distribution) -> float | Distribution:
        """Give what is shown for what was counted."""
        before = self._shown.get(key)
        if before is not None and _amount(before) / 2 <= _amount(value) < _amount(before):
            return before
        self._shown[key] = value
        return value

    def hold(self, name: str, values: Values) -> Values:
        """Give what is shown of a whole metric."""
        return {labels: self.held((name, *labels), value) for labels, value in values.items()}


def _amount(value: float | Distribution) -> float:
    return value.cumulated[-1] if isinstance(value, Distribution) else value


class Shown:
    """Makes the values of all metrics, one measuring after the other."""

    def __init__(self, *, names_most: int = NAMES_MOST) -> None:
        self._functions = Names(names_most)
        self._queues = Names(names_most)
        self._held = Held()

    def values(self, measures: Measures) -> dict[str, Values]:
        """Give the values of each metric by its labels, except those that say how the measuring went."""
        values = {
            "instances": self._instances(measures.instances),
            "slots": _alone(sum(item.concurrency or 0 for item in measures.instances if takes_jobs(item.state))),
            "busy": _alone(sum(item.busy for item in measures.instances if item.state != InstanceState.DEAD)),
            "orphans": _alone(measures.orphans),
            "quarantined": _alone(measures.quarantined),
            "queue_depth": self._of_queues((item.queue, item.library, item.depth) for item in measures.queues),
            "queue_oldest_wait_seconds": self._longest(measures),
            **self._durations(measures.durations),
            **self._counters(measures.stats.functions),
            "orphans_total": _alone(measures.stats.orphaned),
            "recovered_total": _alone(measures.stats.recovered),
            "quarantined_total": _alone(measures.quarantines),
            "stalls_total": _alone(measures.stalls),
            "instances_dead_total": _alone(measures.instances_dead),
            "event_loop_lag_seconds": _alone(max(map(_lag, measures.instances), default=0.0)),
            "jobs_in_flight": _summed(
                ((self._queues.label(item.queue), self._functions.label(item.function)), item.count) for item in measures.in_flight
            ),
        }
        counted = {family.name.removeprefix(PREFIX) for family in FAMILIES if family.kind != "gauge"}
        return {PREFIX + name: self._held.hold(name, of_it) if name in counted else of_it for name, of_it in values.items()}

    def _instances(self, instances: Iterable[Instance]) -> Values:
        counted = Counter((item.state, item.queues or (item.queue,), item.library) for item in instances)  # a fleet is much alike
        told: dict[Labels, float] = {}
        for (found, queues, library), number in counted.items():
            for queue in dict.fromkeys(map(self._queues.label, queues)):
                for state in InstanceState:
                    told.setdefault((state.value, queue, library), 0)
                told[found.value, queue, library] += number
        return dict(told)

    def _of_queues(self, rows: Iterable[tuple[str, str, float]]) -> Values:
        return _summed(((self._queues.label(queue), library), value) for queue, library, value in rows)

    def _longest(self, measures: Measures) -> Values:
        longest: Values = {}
        for item in measures.queues:
            labels = self._queues.label(item.queue), item.library
            waited = max(item.oldest_wait or 0.0, 0.0)
            before = longest.get(labels, 0.0)
            longest[labels] = max(waited, before) if isinstance(before, float) else waited
        return longest

    def _durations(self, durations: Iterable[Durations]) -> dict[str, Values]:
        run: dict[Labels, tuple[tuple[int, ...], float]] = {}
        wait: dict[Labels, tuple[tuple[int, ...], float]] = {}
        for item in durations:
            labels = self._queues.label(item.queue), self._functions.label(item.function)
            for into, counts, total in ((run, item.run_time_counts, item.run_time), (wait, item.queue_wait_counts, item.queue_wait)):
                before = into.get(labels)
                merged = counts if before is None else tuple(map(sum, zip(before[0], counts, strict=True)))
                into[labels] = merged, total + (before[1] if before is not None else 0.0)
        return {"job_duration_seconds": _distributions(run), "job_wait_seconds": _distributions(wait)}

    def _counters(self, rows: Iterable[FunctionStats]) -> dict[str, Values]:
        started: defaultdict[Labels, float] = defaultdict(int)
        finished: defaultdict[Labels, float] = defaultdict(int)
        for row in rows:
            labels = self._queues.label(row.queue), self._functions.label(row.function)
            started[labels] += row.started
            for outcome in FINISHED:
                finished[*labels, outcome] += getattr(row, outcome)
        return {"jobs_started_total": dict(started), "jobs_finished_total": dict(finished)}


def _alone(value: float) -> Values:
    return {(): value}


def _summed(rows: Iterable[tuple[Labels, float]]) -> Values:
    summed: defaultdict[Labels, float] = defaultdict(int)
    for labels, value in rows:
        summed[labels] += value
    return dict(summed)


def _distributions(merged: Mapping[Labels, tuple[tuple[int, ...], float]]) -> Values:
    """Cumulate the counts; of what is not known of any run, as how long plain asyncio jobs have waited, nothing is shown.

    >>> _distributions({("mail", "send"): ((1, 0, 2), 0.5), ("mail", "log"): ((0, 0, 0), 0.0)})
    {('mail', 'send'): Distribution(cumulated=(1, 1, 3), total=0.5)}
    """
    return {labels: Distribution(tuple(accumulate(counts)), total) for labels, (counts, total) in merged.items() if any(counts)}


def _lag(instance: Instance) -> float:
    return 0.0 if instance.state == InstanceState.DEAD else max(instance.loop_lag, instance.blocked_for or 0.0)
