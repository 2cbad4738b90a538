"""Whether a connection may have been closed since the last look, by counters that the server keeps: pure.

A hint at when it is worth asking for every connection, and never evidence: a death can hide behind whatever else moves the counters.
"""

from dataclasses import dataclass
from typing import Any

from async_tracker.connections.replies import info_of


@dataclass(frozen=True, slots=True)
class Disconnects:
    """The server's counters of connections at one moment."""

    received: int
    connected: int

    @property
    def closed(self) -> int:
        """How many connections were closed since the server started, or since its statistics were reset."""
        return self.received - self.connected


def read_disconnects(clients: Any, stats: Any) -> Disconnects | None:
    r"""Read the replies of ``INFO clients`` and ``INFO stats``; None where the server does not tell.

    >>> read_disconnects(b"# Clients\r\nconnected_clients:3\r\n", b"# Stats\r\ntotal_connections_received:10\r\n").closed
    7
    """
    connected, received = info_of(clients).get("connected_clients", ""), info_of(stats).get("total_connections_received", "")
    return Disconnects(int(received), int(connected)) if connected.isdigit() and received.isdigit() else None


def may_have_closed(before: Disconnects | None, now: Disconnects | None) -> bool:
    """Tell whether a connection may have been closed between two looks.

    The number of those closed so far need not have grown: where it fell, statistics were reset, or a connection was counted that is
    no client, and a death may be hidden in that.

    >>> same, one_closed, reset = Disconnects(10, 3), Disconnects(11, 3), Disconnects(1, 3)
    >>> may_have_closed(same, same), may_have_closed(same, one_closed), may_have_closed(one_closed, reset), may_have_closed(None, same)
    (False, True, True, True)
    """
    if before is None or now is None or now.received < before.received:
        return True
    return now.closed != before.closed
