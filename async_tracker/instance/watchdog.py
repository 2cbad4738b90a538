"""The thread that speaks for a process whose event loop cannot.

It looks at the pulse twice a second; each look takes the interpreter from the loop, and twice as many could be measured. When
the loop has not run for longer than a beat, or has been cut off and does not answer, it opens a connection of its own and says:
the process lives, and here is the line that blocks.
"""

import atexit
import json
import logging
import os
import select
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from async_tracker.connections.calls import run_script_sync
from async_tracker.connections.link import Link, silence
from async_tracker.errors import StorageError
from async_tracker.instance.journal import BATCH, Journal
from async_tracker.instance.pen import Pen
from async_tracker.instance.pulse import TICK_SECONDS, Pulse
from async_tracker.namespace import SyncNamespace
from async_tracker.store import keys
from async_tracker.store.observation import Connections
from async_tracker.store.scripts import SCRIPTS, beat_call, write_call
from async_tracker.store.writes import Beat

logger = logging.getLogger("async_tracker")

_SILENT_SECONDS = 2 * TICK_SECONDS
"""From then on the loop is not merely late: a cut connection is looked for."""
_MARGIN_SECONDS = 0.02
"""By how much a pulse may be late on a machine that is busy but well."""
_UNWRITTEN_SECONDS = 1.0
"""From then on starts that the journal still holds are written for it: one of them may be the job that blocks."""
_FRAMES = 12
_LAST_WORD_SECONDS = 0.25
"""For how long, connecting and speaking each, the end of the process may be held up for its last word."""

_watchdogs: "weakref.WeakSet[Watchdog]" = weakref.WeakSet()


class Watchdog:
    """One thread for one instance. `start` and `stop` belong to the loop; everything else happens in the thread."""

    def __init__(
        self,
        *,
        pulse: Pulse,
        link: Link,
        journal: Journal,
        pen: Pen,
        namespace: str,
        name: str,
        interval: float,
        is_over: Callable[[], bool],
        on_answer: Callable[[int], None],
        last_word: Callable[[], Beat | None],
    ) -> None:
        self._pulse = pulse
        self._link = link
        self._journal = journal
        self._pen = pen
        self._namespace = namespace
        self._name = name
        self._interval = interval
        self._is_over = is_over
        self._on_answer = on_answer
        self._last_word = last_word
        self._loop_thread = threading.get_ident()
        self._stop = threading.Event()
        self._numbering = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="async-tracker-watchdog", daemon=True)
        self._twin: Any = None
        self._twin_id: int | None = None
        self._spoke_at = float("-inf")
        self._may_rest = threading.Event()
        self.words = 0
        """How many words it has set out to say."""
        self._answered = 0
        _watchdogs.add(self)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns at once. From here on it takes no number for a write: what the loop writes has higher ones."""
        with self._numbering:
            self._stop.set()

    def _next_number(self) -> int | None:
        with self._numbering:
            return None if self._stop.is_set() else self._pen.next_number()

    @property
    def has_registered(self) -> bool:
        """Whether the registered connections may be the watchdog's; the next beat registers the loop's own."""
        return self.words > self._answered

    def rest(self, words: int) -> None:
        """A beat got through that was made when so many words had been set out on: the loop speaks for itself again."""
        if words > self._answered:
            self._answered = words
            if words == self.words:
                self._may_rest.set()

    def _run(self) -> None:
        while not self._stop.wait(self._pause()):
            try:
                self._look()
            except StorageError as exc:
                logger.debug("the watchdog cannot speak: %s", exc)
                self._hang_up()
            except Exception:  # the edge of a thread: without it a blocked loop would be silent from here on
                logger.exception("the watchdog failed and goes on; please report it")
                self._hang_up()
        self._hang_up()

    def _pause(self) -> float:
        """Give the seconds until the next look: while all is well, until just after the pulse that would be the second one missed.

        Each look takes the interpreter from the loop, so the fewer of them the better.
        """
        if self._twin is not None:
            return TICK_SECONDS
        return max(self._pulse.ticked_at + _SILENT_SECONDS + _MARGIN_SECONDS - time.monotonic(), TICK_SECONDS)

    def _look(self) -> None:
        silent_for = time.monotonic() - self._pulse.ticked_at
        is_over = self._is_over()
        if silent_for < _SILENT_SECONDS or is_over:
            if self._may_rest.is_set() or (is_over and self._twin is not None):
                self._may_rest.clear()
                self._hang_up()
            return
        since_word = time.monotonic() - self._spoke_at
        is_due = silent_for >= self._interval and since_word >= self._interval
        is_cut = since_word >= min(self._interval, silent_for) and self._is_cut_off()
        if self._twin is not None and self._is_twin_cut_off():
            self._hang_up()  # what it registered is gone from the server: it must be back within the grace
            is_due = True
        if is_due or is_cut or (silent_for >= _UNWRITTEN_SECONDS and self._unwritten()):
            self._speak(silent_for)

    def _unwritten(self) -> bool:
        return any(not run.stored for run in self._journal.runs())

    def _is_cut_off(self) -> bool:
        """Ask the operating system whether the other side has closed the loop's connection."""
        return _is_closed_by_peer(self._link.socket_fileno())

    def _is_twin_cut_off(self) -> bool:
        """Ask the same of the connection that the watchdog speaks on; its server may close what is idle."""
        number = self._twin_fileno()
        return number is not None and _is_closed_by_peer(number)

    def _twin_fileno(self) -> int | None:
        """The descriptor of the watchdog's connection, in use or at rest in its pool; None while there is none."""
        pool = self._twin.redis.connection_pool if self._twin is not None else None
        made = [*getattr(pool, "_in_use_connections", ()), *getattr(pool, "_available_connections", ())]
        sock = getattr(made[0], "_sock", None) if made else None  # redis-py has no public way to the socket
        number = sock.fileno() if sock is not None else -1
        return number if number >= 0 else None

    def forget_in_child(self) -> None:
        """Let go of the connection that a forked child has inherited, or the child would keep its dead parent alive."""
        silence(self._twin_fileno())

    def _speak(self, silent_for: float) -> None:
        redis = self._connect()
        ids = {self._twin_id: self._name} if self._twin_id is not None else {}
        if self._link.connection_id is not None and not self._is_cut_off():
            ids[self._link.connection_id] = self._link.name
        instance_id = self._pen.instance_id
        names = [keys.INSTANCES, keys.instance(instance_id), keys.CONNECTIONS, keys.GONE, keys.WATCHDOGS]
        connections = Connections(server=self._link.server_run_id, ids=ids).encode()
        stack = json.dumps(blocking_stack(self._loop_thread))
        number = self._next_number()  # before the word is counted: a beat that has heard of the word has a higher number than it
        if number is None:
            return
        self.words += 1
        arguments = (instance_id, number, connections, stack, int(silent_for * 1000))
        _, now_ms = run_script_sync(redis, SCRIPTS["speak"], names, arguments)
        self._on_answer(int(now_ms))
        self._spoke_at = time.monotonic()
        if self._unwritten():
            self._write_starts(redis)

    def _write_starts(self, redis: Any) -> None:
        """Write every run in flight: what the loop was about to send may be stuck in it."""
        number = self._next_number()  # first: whatever the loop writes of the ends of these runs has a higher one
        if number is None:
            return
        runs = self._journal.send_runs(BATCH)
        records = [run.record() for run in runs]
        names, arguments = write_call(self._pen.instance_id, number, started=records, ended=[])
        status, _ = run_script_sync(redis, SCRIPTS["write"], names, arguments)
        if int(status) == 1:
            for run in runs:
                run.stored = True

    def speak_last(self) -> None:
        """At the end of the process, beat once more if there is something that its loop did not live to say."""
        beat = self._last_word()
        if beat is None:
            return
        names, arguments = beat_call(self._pen.instance_id, beat)
        twin = self._link.twin(name=self._name, patience=_LAST_WORD_SECONDS)
        try:
            run_script_sync(SyncNamespace(twin, self._namespace), SCRIPTS["beat"], names, arguments)
        except StorageError as exc:
            logger.debug("the last word was not heard: %s", exc)
        finally:
            twin.close()

    def _connect(self) -> Any:
        if self._twin is None:
            self._twin = SyncNamespace(self._link.twin(name=self._name), self._namespace)
            self._twin_id = None
        if self._twin_id is None and self._link.is_evidence:
            self._twin_id = self._ask_id()
        return self._twin

    def _ask_id(self) -> int | None:
        try:
            return int(self._twin.redis.execute_command("CLIENT", "ID"))
        except Exception as exc:  # whatever the driver raises here, the word itself is worth trying
            logger.debug("the watchdog's connection has no id: %s", exc)
            return None

    def _hang_up(self) -> None:
        twin, self._twin, self._twin_id = self._twin, None, None
        if twin is not None:
            twin.redis.close()


def _is_closed_by_peer(number: int | None) -> bool:
    if number is None:
        return True
    poll = select.poll()
    poll.register(number, select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0))
    return any(event & ~select.POLLIN for _, event in poll.poll(0))


def _after_fork_in_child() -> None:
    for watchdog in list(_watchdogs):
        watchdog.forget_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _at_exit() -> None:
    for watchdog in list(_watchdogs):
        watchdog.speak_last()


atexit.register(_at_exit)


def blocking_stack(thread_id: int) -> list[str]:
    """Tell what a thread is doing: ``file:line function``, innermost first; no values."""
    frame = sys._current_frames().get(thread_id)
    frames: list[str] = []
    while frame is not None and len(frames) < _FRAMES:
        frames.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return frames
