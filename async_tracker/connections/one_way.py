"""A connection over which commands are sent in one system call each, and not waited for. What was answered is read later, all at once."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from async_tracker.connections.calls import translated
from async_tracker.connections.replies import Argument
from async_tracker.errors import StorageUnavailable

_READ_BYTES = 65_536


def packed(*words: bytes) -> bytes:
    r"""Write a command, or the beginning of one, as Redis reads it; its number of words stands before it.

    >>> b"*3\r\n" + packed(b"HSET", b"k")
    b'*3\r\n$4\r\nHSET\r\n$1\r\nk\r\n'
    """
    return b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What was answered since it was last asked for."""

    is_refused: bool
    ones: int
    """How many answers were the number 1."""


class OneWay:
    """Takes over a synchronous redis-py connection. Only for commands that are answered by a number. Every method raises StorageError."""

    def __init__(self, connection: Any, first: Sequence[tuple[Argument, ...]]) -> None:
        """Connect, send the ``first`` commands and read their answers. Waits as long as the connection does."""
        self._connection = connection
        try:
            with translated():
                connection.connect()
                connection.send_packed_command(connection.pack_commands(first))
                for _ in first:
                    connection.read_response()
        except BaseException:  # whatever ends it half-way, a thread's end too: the connection must not stay open
            connection.disconnect()
            raise
        self._socket: socket.socket = connection._sock  # redis-py has no public way to the socket
        self._patience = self._socket.gettimeout()
        self._socket.setblocking(False)  # with a time limit, Python asks the system before each sending whether it may send
        # OpenSSL must not be entered by two threads at once; the kernel may.
        self._turn = threading.Lock() if isinstance(self._socket, ssl.SSLSocket) else contextlib.nullcontext()
        self._rest = b""

    def send(self, commands: bytes) -> None:
        """Hand commands, few and short, to the operating system. It delivers them even if the process ends with the next statement."""
        try:
            with self._turn:
                sent = self._socket.send(commands)
        except OSError as exc:  # the server has gone, or reads nothing any more
            raise StorageUnavailable(f"the connection takes nothing more: {exc}") from exc
        if sent < len(commands):
            raise StorageUnavailable("the connection takes nothing more")

    def answers(self) -> Answers:
        """Read what was answered meanwhile; does not wait."""
        data = self._rest
        try:
            with self._turn:
                while part := self._socket.recv(_READ_BYTES):
                    data += part
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError as exc:
            raise StorageUnavailable(f"the connection is lost: {exc}") from exc
        else:
            raise StorageUnavailable("the server has closed the connection")
        *lines, self._rest = data.split(b"\r\n")
        return Answers(is_refused=any(line.startswith(b"-") for line in lines), ones=lines.count(b":1"))

    def close(self, last: bytes = b"") -> None:
        """Send the ``last`` commands, wait until they are done, for no longer than the connection waits, and close."""
        with contextlib.suppress(OSError, StorageUnavailable):
            if last:
                self.send(last)
                self._socket.settimeout(self._patience)
                if not isinstance(self._socket, ssl.SSLSocket):
                    self._socket.shutdown(socket.SHUT_WR)
                while self._socket.recv(_READ_BYTES):
                    pass
        self._connection.disconnect()
