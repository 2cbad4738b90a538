"""What the writes of an instance and of a sweep carry, and how Redis answered: pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from async_tracker.connections.replies import Argument
from async_tracker.store.counters import TotalsBatch
from async_tracker.store.run_record import RunRecord


class Status(IntEnum):
    """How a write of an instance was taken."""

    WRITTEN = 1
    STALE = 0
    """A newer write was seen; nothing was changed."""
    UNKNOWN = -1
    """The instance is not registered; nothing was changed."""
    ELSEWHEN = -2
    """The server's minute is none of those that were expected; nothing was changed."""


class Settled(IntEnum):
    """How a settlement was taken; false where it changed nothing."""

    BEFORE = 0
    """It had been settled before, or its instance is not dead."""
    NOW = 1
    ANNOUNCED = 2
    """Now, and that it was orphaned had been announced before: the first event and the first counter were left out."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered to a write: how it was taken, and the server's time."""

    status: Status
    now_ms: int
    orders: str = ""
    """The open orders of the instance, one a line; '' nearly always."""
    instances: int = 0
    """How many are registered, where a beat asked."""
    is_led: bool = True
    """False where a beat found that no instance holds the lease: none sweeps."""
    newest_totals: int = 0
    """The number of the newest batch of totals that Redis has of the instance, where a beat was taken; 0 where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A run that has ended, its job by its ref: ``last_here`` when no other run of that job is in flight on the same instance.

    ``token`` is None for any run of the instance: what is found after an outage, when it is not known which it was.
    """

    job_id: str
    token: str | None
    last_here: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """What one write carries, and its number."""

    sequence: int
    started: Sequence[RunRecord] = ()
    ended: Sequence[Ended] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What one heartbeat carries, and its number; ``connections`` is '' when they have not changed."""

    sequence: int
    connections: str
    fields: Mapping[str, Argument]
    totals: TotalsBatch | None = None
    lease: str = "?"
    """The name of the lease that this instance would hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderToPlace:
    """An order for one instance, ``text`` as the instance is to read it."""

    order_id: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The evidence on which an instance was declared dead, as it was read."""

    instance_id: str
    heartbeat: str
    connections: str
    watchdog: str
    reason: str
    is_blameless: bool = False
    """The death counts against no job: the server had changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What is written down of an orphan when its release is done; the first event and the first counter say that it was orphaned."""

    record: RunRecord
    counts: bool = False
    events: tuple[str, ...] = ()
    counters: tuple[str, ...] = ()
    quarantined: Mapping[str, str | bytes | int] | None = None
