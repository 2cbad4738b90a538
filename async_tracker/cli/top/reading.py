"""What one look at the namespace has found: read by a `Watch`, which asks for no more than is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

from async_tracker.cli.lists import known_queues
from async_tracker.cli.top.state import View
from async_tracker.policy import InstanceState
from async_tracker.queries.rates import Rates
from async_tracker.records import FunctionStats, Instance, Job, QueueDepth
from async_tracker.tracker import Tracker

WINDOW = 300.0
"""Seconds whose percentiles are shown."""

_RATES_OVER = 30.0
"""Seconds over which a rate is taken: what workers count arrives with their heartbeats, some seconds apart."""

_SELDOM = 4.0
"""Seconds between two questions about that window, and about the queues."""

Pair = tuple[str | None, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look. Rates are runs started in a minute, over the last half."""

    namespace: str
    url: str
    taken_at: datetime
    instances: Sequence[Instance] = ()
    jobs: Sequence[Job] | None = None
    """None where they are not shown, and so were not read."""
    orphans: int = 0
    functions: Sequence[FunctionStats] = ()
    """The totals of each function on each queue."""
    window: Mapping[Pair, FunctionStats] = field(default_factory=dict)
    """The last five minutes of those that ran in them."""
    function_rates: Mapping[Pair, float] = field(default_factory=dict)
    instance_rates: Mapping[str, float] = field(default_factory=dict)
    queues: Sequence[QueueDepth] = ()
    queues_error: str | None = None

    @property
    def in_flight(self) -> int:
        """How many runs are in flight on instances that are not dead."""
        return sum(item.busy for item in self.instances if item.state is not InstanceState.DEAD)

    @property
    def per_minute(self) -> float | None:
        """How many runs start in a minute; None until that can be told."""
        return sum(self.function_rates.values()) if self.function_rates else None

    def rate_of_queue(self, queue: str) -> float | None:
        """Tell how many runs of a queue start in a minute; None until that can be told."""
        if not self.function_rates:
            return None
        return sum(rate for (_, of_queue), rate in self.function_rates.items() if of_queue == queue)


class Watch:
    """Looks at one namespace again and again. Each look raises StorageError when Redis refuses or is away."""

    def __init__(self, tracker: Tracker, *, url: str) -> None:
        self._tracker = tracker
        self._url = url
        self._function_rates, self._instance_rates = Rates[Pair](over=_RATES_OVER), Rates[str](over=_RATES_OVER)
        self._seldom_at = -_SELDOM
        self._window: dict[Pair, FunctionStats] = {}
        self._queues: Sequence[QueueDepth] = ()
        self._queues_error: str | None = None

    async def look(self, view: View) -> Reading:
        """Read what this view shows. Jobs are read for their own view alone, for there may be very many."""
        tracker = self._tracker
        snapshot = await tracker.snapshot() if view is View.JOBS else None
        instances = snapshot.instances if snapshot is not None else await tracker.instances()
        orphans = len(snapshot.orphans) if snapshot is not None else await tracker.orphans(count=True)
        totals = await tracker.stats()
        now = monotonic()
        if now - self._seldom_at >= _SELDOM:
            self._window = {(row.function, row.queue): row for row in (await tracker.stats(window=WINDOW)).functions}
            self._queues, self._queues_error = await known_queues(tracker)
            self._seldom_at = now
        self._function_rates.add({(row.function, row.queue): row.started for row in totals.functions}, at=now)
        self._instance_rates.add({item.instance_id: item.jobs_started for item in instances}, at=now)
        return Reading(
            namespace=tracker.namespace,
            url=self._url,
            taken_at=datetime.now(UTC),
            instances=instances,
            jobs=snapshot.jobs if snapshot is not None else None,
            orphans=orphans,
            functions=totals.functions,
            window=self._window,
            function_rates=self._function_rates.per_minute(),
            instance_rates=self._instance_rates.per_minute(),
            queues=self._queues,
            queues_error=self._queues_error,
        )
