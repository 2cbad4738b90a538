"""The namespace as one question found it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from async_tracker.liveness.evidence import Findings
from async_tracker.policy import InstanceState, Verdict
from async_tracker.store.instance_record import StoredInstance
from async_tracker.store.reading import Held, Reading


@dataclass(slots=True, kw_only=True)
class Picture:
    """The namespace as one question found it."""

    findings: Findings
    instances: Mapping[str, StoredInstance]
    verdicts: Mapping[str, Verdict]
    held: dict[str, Held]
    unread: Sequence[str]
    """Instances whose jobs are not in ``held`` yet."""
    reading: Reading

    @property
    def now_ms(self) -> int:
        """The server's time when the evidence was read."""
        return self.findings.observation.now_ms


def is_live(picture: Picture, name: str) -> bool:
    verdict = picture.verdicts.get(name)
    if name in picture.findings.observation.dead:
        return False
    return verdict is None or verdict.state is not InstanceState.DEAD


def state_of(picture: Picture, name: str) -> InstanceState:
    verdict = picture.verdicts.get(name)
    return verdict.state if verdict is not None else InstanceState.DEAD
