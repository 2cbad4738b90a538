"""Ports for servers that must be told theirs: taken until the test is over, so that no other process is given one meanwhile."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

BUS = 10_000
"""How far above its own port a node of a cluster has that of its bus."""


class TakePort(Protocol):
    """What ``ports()`` gives."""

    def __call__(self, *, bus: bool = False) -> int:
        """Take a port, with ``bus`` the one of the bus that belongs to it as well."""


@contextmanager
def ports() -> Iterator[TakePort]:
    """``take()``: give a port of 127.0.0.1 on which a server of the block can listen, be ended, and listen again.

    A port that was merely found to be free may be given to another program before the server has it. This one is bound, which the
    kernel remembers, and nothing listens on it: a server that sets SO_REUSEADDR, as all do, may listen there, and no other program
    is given it. Until then who connects to it is refused.
    """
    with ExitStack() as stack:

        def take(*, bus: bool = False) -> int:
            while True:
                port = _bound(0, stack)
                assert port is not None
                if not bus or (port + BUS < 65_536 and _bound(port + BUS, stack) is not None):
                    return port

        yield take


def _bound(port: int, stack: ExitStack) -> int | None:
    """Bind a port, 0 for any, until the stack is closed. Returns which; None where another has it."""
    held = stack.enter_context(socket.socket())
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind(("127.0.0.1", port))
    except OSError:
        return None
    taken: int = held.getsockname()[1]
    return taken
