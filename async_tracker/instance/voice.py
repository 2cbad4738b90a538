"""The watchdog's own connection to Redis, and what it says there while the event loop cannot.

It says that the process lives, with the line that blocks it, and writes the starts that the loop was about to write. The loop's
next beat takes over again.
"""

import logging
import select
import threading
from collections.abc import Sequence
from typing import Any

from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.connections.link import Link, silence
from async_tracker.connections.replies import run_id_of
from async_tracker.errors import StorageError
from async_tracker.forks import on_fork
from async_tracker.instance.journal import BATCH, Journal
from async_tracker.instance.order_taker import OrderTaker
from async_tracker.instance.pen import Pen
from async_tracker.instance.stacks import blocking_stack
from async_tracker.liveness.presence import Presence
from async_tracker.namespace import SyncNamespace
from async_tracker.store.counters import CountedBatch
from async_tracker.store.observation import Connections
from async_tracker.store.sync_commands import SyncStore
from async_tracker.store.writes import Beat, Status

logger = logging.getLogger("async_tracker")

_AT_EXIT_SECONDS = 0.25
"""For how long, connecting and each answer, the last beat may hold up the end of the process."""


class Voice:
    """Speaks for an instance from another thread than the loop's. Made in the loop's thread; one thread at a time may speak."""

    def __init__(
        self,
        *,
        link: Link,
        journal: Journal,
        pen: Pen,
        presence: Presence,
        orders: OrderTaker,
        namespace: str,
        name: str,
        young_seconds: float,
    ) -> None:
        """A run that is younger than ``young_seconds`` is not expected to be written."""
        self._orders = orders
        self._link = link
        self._journal = journal
        self._pen = pen
        self._presence = presence
        self._namespace = namespace
        self._name = name
        self._young_ms = young_seconds * 1000.0
        self._loop_thread = threading.get_ident()
        self._numbering = threading.Lock()
        self._is_ended = False
        self._store: SyncStore | None = None
        self._connection_id: int | None = None
        self._server = ""
        """Which server the connection leads to."""
        self._is_led_astray = False
        """It was not heard where the loop's connection leads to: that may be the wrong server by now."""
        self._may_hang_up = threading.Event()
        self.spoken = 0
        """How many messages it has begun to send."""
        self._overridden = 0
        """How many of them a beat of the loop has followed."""
        on_fork(self)

    # for the loop

    def end(self) -> None:
        """Say nothing more; returns at once. From here on it takes no number for a write: what the loop writes has higher ones."""
        with self._numbering:
            self._is_ended = True

    @property
    def may_have_registered(self) -> bool:
        """Whether the connections that Redis knows may be the voice's; the next beat registers the loop's own."""
        return self.spoken > self._overridden

    def give_way(self, spoken: int) -> None:
        """The loop speaks for itself again: a beat got through that was made when ``spoken`` messages had been begun."""
        if spoken > self._overridden:
            self._overridden = spoken
            if spoken == self.spoken:
                self._may_hang_up.set()

    # for the watchdog's thread

    @property
    def is_open(self) -> bool:
        """Whether it has a connection."""
        return self._store is not None

    @property
    def is_cut_off(self) -> bool:
        """Ask the operating system whether the server has closed the voice's connection, as it may do with one that is idle."""
        number = self._fileno()
        return number is not None and _is_closed_by_peer(number)

    @property
    def is_link_cut_off(self) -> bool:
        """Ask the operating system whether the server has closed the loop's connection; True as well where there is none."""
        number = self._link.socket_fileno()
        return number is None or _is_closed_by_peer(number)

    @property
    def has_unwritten(self) -> bool:
        """Whether the journal holds starts that Redis should know and does not: one of them may be the job that blocks the loop."""
        started_before_ms = monotonic_ms() - self._young_ms
        return any(not run.stored and run.started_mono_ms <= started_before_ms for run in self._journal.runs())

    def speak(self, silent_for: float) -> None:
        """Say that the process lives although its loop has not run for ``silent_for`` seconds. Raises StorageError."""
        try:
            self._speak(silent_for)
        except StorageError:
            self._is_led_astray = True
            raise

    def _speak(self, silent_for: float) -> None:
        store = self._connect()
        ids = {self._connection_id: self._name} if self._connection_id is not None else {}
        if self._link.connection_id is not None and self._link.server_run_id == self._server and not self.is_link_cut_off:
            ids[self._link.connection_id] = self._link.name
        connections = Connections(server=self._server, ids=ids).encode()
        stack = blocking_stack(self._loop_thread)
        number = self._next_number()  # before the message is counted: a beat that knows of the message has a higher number
        if number is None:
            return
        self.spoken += 1
        reply = store.speak(self._pen.instance_id, number, connections, stack=stack, silent_ms=int(silent_for * 1000))
        self._presence.note(reply.now_ms)
        if self.has_unwritten:
            self._write_starts(store)
        if reply.orders:
            self._orders.hear_blocked(reply.orders, reply.now_ms, store)

    def _write_starts(self, store: SyncStore) -> None:
        """Write every run in flight: what the loop was about to send may be stuck in it."""
        number = self._next_number()  # first: whatever the loop writes of the ends of these runs has a higher one
        if number is None:
            return
        runs = self._journal.send_runs(BATCH)
        reply = store.write(self._pen.instance_id, number, started=[run.record() for run in runs])
        if reply.status is Status.WRITTEN:
            for run in runs:
                run.stored = True

    def _next_number(self) -> int | None:
        with self._numbering:
            return None if self._is_ended else self._pen.next_number()

    @property
    def is_overridden(self) -> bool:
        """Whether the loop has spoken for itself since the last message."""
        return self._may_hang_up.is_set()

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._may_hang_up.is_set():
            self._may_hang_up.clear()
            self._is_led_astray = False
        store, self._store, self._connection_id = self._store, None, None
        if store is not None:
            store.redis.redis.close()

    def _connect(self) -> SyncStore:
        if self._store is None:
            client = self._link.sync_client(name=self._name, anew=self._is_led_astray or self.is_link_cut_off)
            self._store = SyncStore(SyncNamespace(client, self._namespace))
            self._connection_id = None
            self._server = run_id_of(self._ask(self._store, "INFO", "server")) or self._link.server_run_id
        if self._connection_id is None and self._link.is_evidence:
            identity = self._ask(self._store, "CLIENT", "ID")
            self._connection_id = identity if isinstance(identity, int) else None
        return self._store

    def _ask(self, store: SyncStore, *command: str) -> Any:
        try:
            return store.redis.redis.execute_command(*command)
        except Exception as exc:  # whatever the driver raises here, the message itself is worth trying
            logger.debug("the watchdog's connection does not tell its %s: %s", command[-1], exc)
            return None

    def _fileno(self) -> int | None:
        """The descriptor of the connection, in use or at rest in its pool; None while there is none."""
        pool = self._store.redis.redis.connection_pool if self._store is not None else None
        made = [*getattr(pool, "_in_use_connections", ()), *getattr(pool, "_available_connections", ())]
        sock = getattr(made[0], "_sock", None) if made else None  # redis-py has no public way to the socket
        number = sock.fileno() if sock is not None else -1
        return number if number >= 0 else None

    # for the end of the process

    def say_last(self, beats: Sequence[Beat], batches: Sequence[CountedBatch], clock: ServerClock) -> None:
        """Send the last beats and batches, where the loop did not live to, on a connection made for it; failing that, log and go on."""
        client = self._link.sync_client(name=self._name, patience=_AT_EXIT_SECONDS)
        try:
            store = SyncStore(SyncNamespace(client, self._namespace))
            for beat in beats:
                store.beat(self._pen.instance_id, beat)
            for batch in batches:
                store.count(self._pen.instance_id, batch, clock=clock)
        except StorageError as exc:
            logger.debug("the last heartbeat did not reach Redis: %s", exc)
        finally:
            client.close()

    def forget_in_child(self) -> None:
        """Let go of the connection that a forked child has inherited, or the child would keep its dead parent alive."""
        silence(self._fileno())


def _is_closed_by_peer(number: int) -> bool:
    poll = select.poll()
    poll.register(number, select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0))
    return any(event & ~select.POLLIN for _, event in poll.poll(0))
