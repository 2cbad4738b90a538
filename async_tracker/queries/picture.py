"""The namespace as one question found it: pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from async_tracker.liveness.evidence import FleetEvidence
from async_tracker.policy import InstanceState, Verdict
from async_tracker.store import keys
from async_tracker.store.instance_record import StoredInstance
from async_tracker.store.run_record import StoredRun, read_run

Held = Mapping[str, bytes | None]
"""The refs of the jobs in flight on one instance, each with its record as it stands; None where there is none."""


@dataclass(slots=True, kw_only=True)
class Picture:
    """What one question has read so far: who is there and how each was judged, then the jobs that they hold.

    A record that this version cannot read is left out, and its key is in ``corrupt``.
    """

    evidence: FleetEvidence
    instances: Mapping[str, StoredInstance]
    verdicts: dict[str, Verdict]
    """Of the registered instances; one that was declared dead has none."""
    held: dict[str, Held] = field(default_factory=dict)
    listed: Mapping[str, int] = field(default_factory=dict)
    """How many jobs are in flight on each instance, where they were counted and not read."""
    functions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The long lists of functions, by their digests, where they were asked for."""
    corrupt: list[str] = field(default_factory=list)

    @property
    def now_ms(self) -> int:
        """The server's time when the evidence was read."""
        return self.evidence.observation.now_ms

    def add(self, held: Mapping[str, Held], *, corrupt: Iterable[str]) -> None:
        """Take in the jobs of some more instances, and the keys that could not be read."""
        self.held.update(held)
        self.corrupt += corrupt

    def listed_on(self, instance_id: str) -> int | None:
        """Tell how many jobs are listed as in flight on an instance; None where they were neither read nor counted."""
        if self.listed:
            return self.listed.get(instance_id, 0)
        return len(self.held.get(instance_id, ())) if self.held else None

    @property
    def dead(self) -> list[str]:
        """The instances whose jobs are orphans."""
        observation = self.evidence.observation
        return [name for name in [*observation.instances, *observation.dead] if not self.is_live(name)]

    def is_live(self, instance_id: str) -> bool:
        """Tell whether the jobs of an instance are in flight; those of a dead one are orphans."""
        verdict = self.verdicts.get(instance_id)
        if instance_id in self.evidence.observation.dead:
            return False
        return verdict is None or verdict.state is not InstanceState.DEAD

    def state_of(self, instance_id: str) -> InstanceState:
        """Give the state of an instance; DEAD for one that is not registered."""
        verdict = self.verdicts.get(instance_id)
        return verdict.state if verdict is not None else InstanceState.DEAD

    def read(self, ref: str, raw: bytes | None) -> StoredRun | None:
        """Read the record of a job; None where there is none, and where it cannot be read: then its key is noted."""
        if raw is None:
            return None
        try:
            return read_run(raw)
        except ValueError:
            self.corrupt.append(keys.job(ref))
            return None
