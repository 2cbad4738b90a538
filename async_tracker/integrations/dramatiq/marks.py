"""Which of its fetched messages a process has begun: said before the first statement of the actor runs, and not waited for.

dramatiq's broker knows what a process has fetched, not what it runs, and our records are written a moment later. A message that
kills its process at once would look like one that was only fetched. So each start puts the message's id into a set of the
instance, and each end takes it out, over a connection of the marks' own: the command is handed to the operating system, which
delivers it even when the process ends with the next statement. Nobody waits for the answer.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from async_tracker.connections.calls import translated
from async_tracker.errors import StorageError
from async_tracker.store import keys

logger = logging.getLogger("async_tracker")

MARKS_SECONDS = 86_400
"""Lifetime of an instance's marks since its last start: a message that runs for longer has a record."""

ALL_MARKED = "*"
"""Stands in the set beside the ids: whatever is not marked has not begun."""

_REOPEN_SECONDS = 1.0


class Marks:
    """The marks of one process. Every method may be called from any thread and waits for ``timeout`` seconds at most.

    ``make_connection`` makes a synchronous connection to the broker's Redis that waits no longer than that either, and ``full_key``
    gives a key of our namespace its full name there. While Redis is away nothing is marked.
    """

    def __init__(self, make_connection: Callable[[], Any], *, full_key: Callable[[str], bytes], timeout: float) -> None:
        self._make_connection = make_connection
        self._full_key = full_key
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: Any = None
        self._is_closed = False

    def open(self) -> None:
        """Connect; where that fails, go on trying in the background."""
        if not self._connect():
            threading.Thread(target=self._reopen, name="async-tracker-marks", daemon=True).start()

    def begin(self, instance_id: str, redis_message_id: str) -> None:
        """Mark a message as begun."""
        key = self._full_key(keys.begun(instance_id))
        self._send(("SADD", key, ALL_MARKED, redis_message_id), ("EXPIRE", key, MARKS_SECONDS))

    def end(self, instance_id: str, redis_message_id: str) -> None:
        """Take the mark back."""
        self._send(("SREM", self._full_key(keys.begun(instance_id)), redis_message_id))

    def close(self, instance_id: str) -> None:
        """Forget all marks of an instance that leaves in order, and hang up."""
        self._send(("DEL", self._full_key(keys.begun(instance_id))))
        self._is_closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _send(self, *commands: tuple[str | bytes | int, ...]) -> None:
        if self._connection is None or not self._lock.acquire(timeout=self._timeout):
            return
        try:
            connection = self._connection
            if connection is None:
                return
            with translated():
                while connection.can_read(0):  # answers to what was sent before
                    connection.read_response()
                connection.send_packed_command(connection.pack_commands(commands))
        except StorageError as exc:
            logger.debug("starts are not marked: %s", exc)
            self._lost()
        finally:
            self._lock.release()

    def _lost(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            threading.Thread(target=self._reopen, name="async-tracker-marks", daemon=True).start()

    def _reopen(self) -> None:
        while not self._is_closed:
            time.sleep(_REOPEN_SECONDS)
            if self._connect():
                return

    def _connect(self) -> bool:
        connection = self._make_connection()
        try:
            with translated():
                connection.connect()
        except StorageError as exc:
            logger.debug("starts are not marked: %s", exc)
            return False
        if self._is_closed:  # it was closed meanwhile
            connection.disconnect()
        else:
            self._connection = connection
        return True
