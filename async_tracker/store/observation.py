"""The evidence at one moment, as it was read from Redis: pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """The connections that an instance has registered, and on which server they were.

    >>> Connections.decode(Connections(server="5f", ids={7: "async-tracker:ab"}).encode()).ids
    {7: 'async-tracker:ab'}
    """

    server: str = ""
    ids: Mapping[int, str] = field(default_factory=dict)

    def encode(self) -> str:
        """Write it as the JSON that is compared, byte by byte, when an instance is declared dead."""
        return json.dumps({"server": self.server, "ids": {str(key): self.ids[key] for key in sorted(self.ids)}}, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> "Connections":
        """Read it; what cannot be read is no evidence, so it comes back empty."""
        try:
            stored = json.loads(text)
            return cls(server=stored["server"], ids={int(key): str(name) for key, name in stored["ids"].items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The evidence of a namespace at one moment, as it is stored; scores and JSON are kept as they were read."""

    now_ms: int
    server_since_ms: int | None
    run_id: str
    instances: Mapping[str, str]
    connections: Mapping[str, str]
    gone: Mapping[str, int]
    watchdogs: Mapping[str, str]
    dead: Mapping[str, int]
    role: str = ""
    """``primary``, or ``replica``: that one may be behind, and knows no connection of an instance; '' where it was not asked or told."""

    back_at_ms: int | None = None
    """When the process that judges was back after an absence of its own; None where it was not away."""

    def knows(self, instance_id: str) -> bool:
        """Tell whether an instance is registered, or dead and not yet forgotten."""
        return instance_id in self.instances or instance_id in self.dead


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What has changed since a sweeper last looked."""

    now_ms: int
    server_since_ms: int | None
    instances: int
    """How many are registered."""
    are_known: bool
    """False where changes may be missing: the sweeper must begin with everything."""
    changed: frozenset[str]
    """The instances that have registered, changed their connections or left."""
    doubtful: frozenset[str]
    """Those that are late, marked as gone, or whose watchdog has spoken."""
    dead: Mapping[str, int]


def together(parts: Sequence[Observation]) -> Observation:
    """Put observations of different instances together. The moment is that of the first, so that nothing is taken to be older than it was.

    >>> parts = [Observation(now_ms=now, server_since_ms=None, run_id="5f", instances={name: str(now)}, connections={}, gone={},
    ...     watchdogs={}, dead={}) for name, now in (("a", 7), ("b", 9))]
    >>> together(parts).now_ms, together(parts).instances
    (7, {'a': '7', 'b': '9'})
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    whole = replace(first, instances={}, connections={}, gone={}, watchdogs={}, dead={})
    for name in ("instances", "connections", "gone", "watchdogs", "dead"):
        joined = getattr(whole, name)
        for part in parts:
            joined.update(getattr(part, name))
    return whole
