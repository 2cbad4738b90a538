"""The boundary to a worker library: what the tracker needs to know of arq, dramatiq or a worker of your own.

An adapter reports starts and ends through a `Reporter`, describes its instance, and knows how its library holds a job
and how such a hold is given back. Everything above the boundary speaks of runs, claims and orphans only.

Contract:

* ``release`` and ``quarantine`` act only while the claim still carries the orphan's own token, and are idempotent by that
  token: called again, by another process even, they answer as they did the first time. A sweeper may die after any of them, and
  the next may plan the other of the two: then ``release`` answers QUARANTINED, and ``quarantine`` None.
* ``retry`` is idempotent by what was kept: called again for the same quarantine, it is True and queues nothing.
* ``claims_of`` finds what dead instances hold without looking at our records, so that a job that killed its worker in its
  first statement is found too.
* What an adapter must know to find a hold stands in the instance's `Description` (``broker``, ``queues``) and in the run's
  ``hold``, both in the adapter's own words: a sweeper in another process, or a command line, has nothing else.
* None of them unpickles anything. Each works in batches that keep the server busy for a few milliseconds at most.
* They raise StorageError when Redis refuses or is away; the sweep then tries again.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from async_tracker.records import QueueDepth
from async_tracker.store.instance_record import Description
from async_tracker.store.run_record import RunRecord, job_ref


class Released(StrEnum):
    """How a release ended."""

    RELEASED = "released"
    QUARANTINED = "quarantined"
    """An earlier sweep has quarantined it, and did not live to write that down: ``quarantine`` gives what it kept."""
    ENDED = "ended"
    """The job is not queued any more: it had ended."""
    TAKEN = "taken"
    """The claim carries another token, or none: somebody else may hold the job."""
    NOTHING = "nothing"
    """This library has no claims: there is nothing to release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that an instance holds, found where the library keeps its claims."""

    job_id: str
    instance_id: str
    run: str | None = None
    """The run that holds the job; None where the library's holds do not name runs: then ``hold`` tells."""
    queue: str | None
    started: bool | None = True
    """False when the job was only fetched: such a death is not the job's doing. None when the library does not tell."""
    scope: str = ""
    hold: str | None = None

    @property
    def ref(self) -> str:
        """What keys and sets call the job."""
        return job_ref(self.scope, self.job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedPayload:
    """What must be kept to let a quarantined job run again one day; opaque to everybody but the adapter."""

    payload: bytes
    extras: Mapping[str, bytes]


class Adapter(Protocol):
    """What a worker library must provide to have its jobs recovered."""

    @property
    def library(self) -> str:
        """The library's name, as it stands in records and leases."""
        ...

    @property
    def scope(self) -> str:
        """What is put before its job ids in keys and sets; '' for the library whose ids are used as they are."""
        ...

    def claims_of(self, dead: Mapping[str, Description | None]) -> AsyncIterator[Claim]:
        """Find what these dead instances hold; what one said of itself is None when it cannot be read."""
        ...

    def shares_claims(self, one: Description, other: Description) -> bool:
        """Tell whether what these two instances hold cannot be told apart: then neither is recovered while the other lives."""
        ...

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Make jobs runnable again that were only fetched. Nothing is counted and nobody is told."""
        ...

    async def release(self, orphan: RunRecord, *, delay: float) -> Released:
        """Make the orphan runnable again, after ``delay`` seconds."""
        ...

    async def quarantine(self, orphan: RunRecord, *, error: str) -> QuarantinedPayload | None:
        """Take the job out of its queue for good and tell whoever awaits it; None when it is no longer ours to take."""
        ...

    async def holds(self, run: RunRecord) -> bool:
        """Tell whether the claim of a live run is still that run's own."""
        ...

    async def retry(self, job_id: str, queue: str | None, kept: QuarantinedPayload) -> bool:
        """Put a quarantined job back into its queue with all its tries; False when its id was enqueued anew."""
        ...

    async def claims_server(self) -> str | None:
        """Run id of the server on which the claims are; None when it cannot be known."""
        ...

    async def queues(self, described: Sequence[Description]) -> list[QueueDepth]:
        """Tell how full the queues are that these instances work on."""
        ...
