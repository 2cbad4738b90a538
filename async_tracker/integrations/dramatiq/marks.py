"""Which of its fetched messages a process has begun: said before the first statement of the actor runs, and not waited for.

dramatiq's broker knows what a process has fetched, not what it runs, and our records are written later, if at all. A message that
kills its process at once would look like one that was only fetched. So each thread of the worker has a field in a hash of the
instance, and each start writes the message's id into its thread's field: one command in one system call, which takes back the mark
of the message before. The operating system delivers it even when the process ends with the next statement. No thread waits for the
answer; what was answered is read a few times a second.

Where a mark was refused, or may not have arrived, the hash is made anew from what this process has in hand. Until that has been
done it is deleted, or its server is away, and nothing is concluded from it.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from async_tracker.connections.one_way import OneWay, packed
from async_tracker.errors import StorageError
from async_tracker.store import keys

logger = logging.getLogger("async_tracker")

MARKS_SECONDS = 86_400
"""Lifetime of an instance's marks since they were last renewed."""
RENEWED_EVERY_SECONDS = 60.0

ALL_MARKED = "*"
"""Stands in the hash beside the ids: whatever is not marked has not begun."""

_REOPEN_SECONDS = 1.0


class Marks:
    """The marks of one process. `begin` may be called from any thread and waits for nothing.

    ``make_connection`` makes a synchronous connection to the broker's Redis that does not wait for ever, and ``full_key`` gives a key
    of our namespace its full name there. While Redis is away nothing is marked.
    """

    def __init__(self, make_connection: Callable[[], Any], *, full_key: Callable[[str], bytes], instance_id: str) -> None:
        self._make_connection = make_connection
        self._full_key = full_key
        self._key = full_key(keys.marks(instance_id))
        self._in_hand: dict[int, str] = {}
        """thread -> the message that it has begun last."""
        self._heads: dict[int, bytes] = {}
        """thread -> the command that marks a message, without the message."""
        self._line: OneWay | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._renewed_at = 0.0
        self._ones = 0
        """How many answers will be the number 1 that have not come yet: a thread's first mark, and a renewal."""

    def open(self) -> None:
        """Connect; where that fails, go on trying in the background."""
        if not self._connect():
            self._reopen_soon()

    def begin(self, thread: int, redis_message_id: str) -> None:
        """Mark a message as begun in this thread, which has one in hand at a time."""
        self._in_hand[thread] = redis_message_id
        line = self._line
        if line is not None:
            self._mark(line, thread, redis_message_id)

    def _mark(self, line: OneWay, thread: int, redis_message_id: str) -> None:
        head = self._heads.get(thread)
        if head is None:
            head = self._heads[thread] = b"*4\r\n" + packed(b"HSET", self._key, b"%d" % thread)
            with self._lock:
                self._ones += 1
        message = redis_message_id.encode()
        try:
            line.send(b"%b$%d\r\n%b\r\n" % (head, len(message), message))
        except StorageError as exc:
            self._lost(line, exc)

    def look(self) -> None:
        """Read what was answered since the last look, and renew the lifetime when it is time. Does not wait."""
        line = self._line
        if line is None:
            return
        try:
            answers = line.answers()
            if answers.is_refused:
                raise StorageError("Redis has refused a mark")
            with self._lock:
                self._ones -= answers.ones
                if self._ones < 0:
                    raise StorageError("Redis has lost the marks")
            if time.monotonic() - self._renewed_at >= RENEWED_EVERY_SECONDS:
                self._renewed_at = time.monotonic()
                with self._lock:
                    self._ones += 1
                line.send(b"*3\r\n" + packed(b"EXPIRE", self._key, b"%d" % MARKS_SECONDS))
        except StorageError as exc:
            self._lost(line, exc)

    def rename(self, instance_id: str) -> None:
        """The instance goes by another id: mark what is in hand for that one, from here on."""
        self._key = self._full_key(keys.marks(instance_id))
        line = self._line
        if line is not None:
            self._lost(line, None)

    def close(self) -> None:
        """Forget all marks, for the instance leaves in order, and hang up."""
        with self._lock:
            self._is_closed = True
            line, self._line = self._line, None
        if line is not None:
            line.close(b"*2\r\n" + packed(b"DEL", self._key))

    def _lost(self, line: OneWay, why: StorageError | None) -> None:
        with self._lock:
            if self._line is not line:
                return  # another thread has seen it too
            self._line = None
        if why is not None:
            logger.debug("starts are not marked: %s", why)
        line.close()
        self._reopen_soon()

    def _reopen_soon(self) -> None:
        threading.Thread(target=self._reopen, name="async-tracker-marks", daemon=True).start()

    def _reopen(self) -> None:
        while not self._is_closed and not self._connect():
            time.sleep(_REOPEN_SECONDS)

    def _connect(self) -> bool:
        """Make the hash anew from what is in hand, by a connection made anew. Returns False where that failed."""
        key, marked = self._key, dict(self._in_hand)
        fields = [part for thread, message in marked.items() for part in (b"%d" % thread, message)]
        first = [("DEL", key), ("HSET", key, ALL_MARKED, ALL_MARKED, *fields), ("EXPIRE", key, MARKS_SECONDS)]
        try:
            line = OneWay(self._make_connection(), first)
        except StorageError as exc:
            logger.debug("starts are not marked: %s", exc)
            return False
        with self._lock:
            self._heads = {thread: b"*4\r\n" + packed(b"HSET", key, b"%d" % thread) for thread in marked}
            self._ones, self._renewed_at = 0, time.monotonic()
            if not self._is_closed:
                self._line = line
        if self._line is not line:  # it was closed meanwhile
            line.close(b"*2\r\n" + packed(b"DEL", key))
        else:
            self._catch_up(line, marked)
        return True

    def _catch_up(self, line: OneWay, marked: dict[int, str]) -> None:
        """Mark what was begun while the hash was made; again where a thread has begun another message meanwhile."""
        while late := {thread: message for thread, message in list(self._in_hand.items()) if marked.get(thread) != message}:
            for thread, message in late.items():
                self._mark(line, thread, message)
            marked |= late
