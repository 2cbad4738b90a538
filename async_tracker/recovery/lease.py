"""Who sweeps: the holder of the lease, and how its connections are known from its name."""

from dataclasses import dataclass

from async_tracker.store.observation import Connections


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """From where a sweep is made: the lease's holder as a text, and the server that is swept."""

    holder: str
    run_id: str


def holder_text(instance_id: str, connections: Connections) -> str:
    """Write who holds the lease, with the connections that prove it to be there."""
    return f"{instance_id} {connections.encode()}"


def holder_connections(holder: str) -> Connections:
    return Connections.decode(holder.rsplit(" ", 1)[-1])
