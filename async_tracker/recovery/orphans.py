"""What dead instances left: orphans, to be recovered one by one, and jobs that were only fetched, to be given back. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from async_tracker.policy import InstanceState
from async_tracker.recovery.adapter import Claim
from async_tracker.store.instance_record import StoredInstance
from async_tracker.store.run_record import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundOrphan:
    """An orphan as it was found: its record, its dead instance, and whether this death counts against its job."""

    record: RunRecord
    instance: StoredInstance | None
    counts: bool
    stands: bool = True
    """False when the record in Redis is another run's: then there is nothing to release."""

    @property
    def reason(self) -> str:
        """Why its instance is dead."""
        return self.instance.death_reason if self.instance is not None else "its instance is no longer in Redis"


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What some dead instances left."""

    orphans: tuple[FoundOrphan, ...]
    fetched: tuple[Claim, ...]
    unread: frozenset[str] = frozenset()
    """The instances among them of which it cannot be known, or not be kept, what they left: bad data of theirs is in the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """One dead instance: what it said of itself, the refs of the jobs that Redis lists for it, and the claims that it holds.

    ``adopted``: the orphans that an earlier sweep found and kept; it may have released them, so that they run again already.
    """

    instance_id: str
    instance: StoredInstance | None
    refs: Sequence[str]
    claims: Sequence[Claim]
    adopted: Mapping[str, RunRecord] = field(default_factory=dict)
    had_run: bool = False
    """An earlier sweep has settled runs of it."""


def sort_out(dead: Sequence[Dead], runs: Mapping[str, RunRecord], *, library: str, now_ms: int, is_whole: bool = True) -> Left:
    """Give the orphans, the oldest first, and what was only fetched. ``runs``: the record that stands in Redis for each ref.

    While not all claims are found, it is not ``is_whole``: then what rests on there being no other claim is left out.

    Where the library does not say which of its claims were started, our records do. If an instance held claims but never recorded a
    run, it died right after fetching. Any of these jobs may have killed it, so all count as orphans.

    >>> claims = [Claim(job_id=name, instance_id="w", queue="q", started=None, hold=name) for name in ("1", "2")]
    >>> running = RunRecord(job_id="1", instance_id="w", token="r", started_at_ms=5, hold="1")
    >>> left = sort_out([Dead(instance_id="w", instance=None, refs=["1"], claims=claims)], {"1": running}, library="x", now_ms=9)
    >>> [orphan.record.job_id for orphan in left.orphans], [claim.job_id for claim in left.fetched]
    (['1'], ['2'])
    >>> left = sort_out([Dead(instance_id="w", instance=None, refs=[], claims=claims)], {}, library="x", now_ms=9)
    >>> [orphan.record.job_id for orphan in left.orphans], left.fetched
    (['1', '2'], ())
    """
    orphans: list[FoundOrphan] = []
    fetched: list[Claim] = []
    for one in dead:
        sorter = _Sorter(one, runs, library=library, now_ms=now_ms, is_whole=is_whole)
        orphans += sorter.listed()
        more, rest = sorter.unlisted()
        orphans += more
        fetched += rest
    return Left(orphans=tuple(sorted(orphans, key=lambda orphan: orphan.record.started_at_ms)), fetched=tuple(fetched))


class _Sorter:
    """Sorts out what one instance left."""

    def __init__(self, dead: Dead, runs: Mapping[str, RunRecord], *, library: str, now_ms: int, is_whole: bool) -> None:
        self._is_whole = is_whole
        self._dead = dead
        self._library = library
        self._now_ms = now_ms
        self._own = {ref: runs[ref] for ref in dead.refs if ref in runs and runs[ref].instance_id == dead.instance_id}
        self._own.update({ref: record for ref, record in dead.adopted.items() if ref in dead.refs})
        self._is_draining = dead.instance is not None and dead.instance.state == InstanceState.DRAINING
        self._claims: dict[str, list[Claim]] = {}
        for claim in dead.claims:
            self._claims.setdefault(claim.ref, []).append(claim)

    def listed(self) -> list[FoundOrphan]:
        """Give the orphans that our records list, each with the claim that belongs to it: a run with a record has started."""
        found = [(ref, self._own.get(ref), self._take_claim(ref, self._own.get(ref))) for ref in self._dead.refs]
        return [self._found(*one) for one in found if self._is_whole or one[1] is not None]

    def unlisted(self) -> tuple[list[FoundOrphan], list[Claim]]:
        """Give what is known by the library's claims alone: orphans, and what was only fetched."""
        is_known = self._dead.had_run or bool(self._own) or any(claim.started for claim in self._dead.claims)
        any_may_have_started = not is_known and not self._is_draining
        orphans, fetched = [], []
        for claim in [claim for claims in self._claims.values() for claim in claims if self._is_whole or claim.started is not None]:
            if claim.started or (claim.started is None and any_may_have_started):
                orphans.append(self._found(claim.ref, None, claim))
            else:
                fetched.append(claim)
        return orphans, fetched

    def _take_claim(self, ref: str, record: RunRecord | None) -> Claim | None:
        claims = self._claims.get(ref, ())
        candidates = [claim for claim in claims if claim.started is not False or (record is not None and claim.run == record.token)]
        if record is not None:
            candidates = [claim for claim in candidates if claim.run is not None or claim.hold == record.hold]
            candidates.sort(key=lambda claim: claim.run != record.token)
        if not candidates:
            return None
        self._claims[ref].remove(candidates[0])
        return candidates[0]

    def _found(self, ref: str, record: RunRecord | None, claim: Claim | None) -> FoundOrphan:
        counts = not self._is_draining and not (self._dead.instance is not None and self._dead.instance.is_blameless)
        if record is not None and (claim is None or claim.run in (None, record.token)):
            return FoundOrphan(record=record, instance=self._dead.instance, counts=counts)
        died_at_ms = self._dead.instance.died_at_ms if self._dead.instance is not None else None
        stub = RunRecord(
            job_id=claim.job_id if claim is not None else ref,
            instance_id=self._dead.instance_id,
            token=_run_of(claim) if claim is not None else "-",
            function=claim.function if claim is not None else None,
            queue=claim.queue if claim is not None else None,
            library=self._library,
            started_at_ms=died_at_ms or self._now_ms,
            scope=claim.scope if claim is not None else "",
            hold=claim.hold if claim is not None else None,
        )
        return FoundOrphan(record=stub, instance=self._dead.instance, counts=counts, stands=claim is not None)


def _run_of(claim: Claim) -> str:
    """Name the run of a claim. A claim that names none gets the same name from every sweeper, and another name at another death."""
    if claim.run is not None:
        return claim.run
    return hashlib.sha256(f"{claim.instance_id} {claim.hold or claim.ref}".encode()).hexdigest()[:16]
