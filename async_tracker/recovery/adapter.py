"""The boundary to a worker library: what the tracker needs to know of arq, dramatiq or a worker of your own.

An adapter knows how its library holds a job, and how such a hold is given back. Everything above the boundary speaks of runs,
claims and orphans only.

Contract:

* ``release`` and ``quarantine`` act only while the claim still carries the orphan's own token.
* Both are idempotent per token, also across processes: a second call returns the first answer. If ``quarantine`` came first,
  ``release`` returns QUARANTINED; if ``release`` came first, ``quarantine`` returns None. (The sweeper may die in between, and the
  next sweeper may decide differently.)
* ``retry`` is idempotent per quarantine: a second call with the same payload returns True and queues nothing.
* ``claims_of`` finds what dead instances hold without reading our records, so that a job that killed its worker in its first
  statement is found too.
* What an adapter must know to find a hold is in the instance's `Description` (``broker``, ``queues``) and in the run's ``hold``,
  in the adapter's own words: a sweeper in another process, or the command line, has nothing else.
* No method unpickles anything. Each works in batches that keep the server busy for a few milliseconds at most.
* They raise StorageError when Redis refuses or is away; the sweep then tries again.
* ``claims_of`` may give None between two parts of a long search: there its caller may stop, and go on later.
* An adapter may have ``release_many`` as well (`ReleasesMany`): then the orphans of a mass death take a round trip for fifty and not
  for one.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from async_tracker.errors import StorageError
from async_tracker.records import QueueDepth
from async_tracker.store.instance_record import Description
from async_tracker.store.run_record import RunRecord, job_ref


class Released(StrEnum):
    """How a release ended."""

    RELEASED = "released"
    COUNTED = "counted"
    """Released, and the library counts the try that died: its worker keeps tries, and too many of this job were kept."""
    QUARANTINED = "quarantined"
    """An earlier sweep quarantined it and died before it recorded that: ``quarantine`` returns what it kept."""
    ABORTED = "aborted"
    """It was being aborted: it was finished as the library's own abort does, and does not run again."""
    ENDED = "ended"
    """The job is no longer queued: it had ended."""
    TAKEN = "taken"
    """The claim carries another token, or none: another worker may hold the job."""
    NOTHING = "nothing"
    """This library has no claims: there is nothing to release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that an instance holds, found where the library keeps its claims."""

    job_id: str
    instance_id: str
    run: str | None = None
    """The run that holds the job; None where the library's holds do not name runs: then ``hold`` says it."""
    queue: str | None
    started: bool | None = True
    """False when the job was only fetched: it cannot have killed its worker. None when the library does not tell."""
    scope: str = ""
    hold: str | None = None
    function: str | None = None
    """The function of the job, where the library's own keys tell it."""

    @property
    def ref(self) -> str:
        """What keys and sets call the job."""
        return job_ref(self.scope, self.job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedPayload:
    """What must be kept so that a quarantined job can run again one day; opaque to all code except the adapter."""

    payload: bytes
    extras: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a job is that is not listed as in flight: with a run that is too young for that, or elsewhere."""

    claimed: tuple[str, str] | None = None
    """The instance that has claimed it, and its run; None where the library's claims do not name runs, or none has claimed it."""
    says: str = ""
    """Where else it is, and what can be done about it there, for people."""


@runtime_checkable
class LocatesJobs(Protocol):
    """What an adapter may have in addition: finding a job that is not listed as in flight."""

    async def locate(self, job_id: str, described: Mapping[str, Description]) -> Located | None:
        """Find a job with these instances, or in their queues; None where it is not there."""
        ...


class Adapter(Protocol):
    """What a worker library must provide to have its jobs recovered."""

    @property
    def library(self) -> str:
        """The library's name, as it is written in records and leases."""
        ...

    @property
    def scope(self) -> str:
        """What is put before its job ids in keys and sets; '' for the library whose ids are used as they are."""
        ...

    def claims_of(self, dead: Mapping[str, Description | None]) -> AsyncIterator[Claim | None]:
        """Find what these dead instances hold; the description of an instance is None when it cannot be read."""
        ...

    def shares_claims(self, one: Description, other: Description) -> bool:
        """Tell whether the claims of these two instances cannot be distinguished: then neither is recovered while the other lives."""
        ...

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Make jobs runnable again that were only fetched. Nothing is counted and no event is written."""
        ...

    async def release(self, orphan: RunRecord, *, delay: float) -> Released:
        """Make the orphan runnable again, after ``delay`` seconds."""
        ...

    async def quarantine(self, orphan: RunRecord, *, error: str) -> QuarantinedPayload | None:
        """Take the job out of its queue for good, with ``error`` as its result; None when it is no longer ours to take."""
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


@runtime_checkable
class ReleasesMany(Protocol):
    """What an adapter may have in addition: many releases in one round trip."""

    async def release_many(self, orphans: Sequence[tuple[RunRecord, float]]) -> list[Released | StorageError]:
        """Do what ``release`` does for each of these orphans, with its delay, each in a step of its own; a refusal is an answer."""
        ...
