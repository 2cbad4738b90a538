"""The thread that watches the event loop, and has the voice speak while the loop cannot.

It checks the pulse twice a second at most; each check takes the interpreter from the loop, and twice as many could be measured.
"""

import logging
import threading
import time
from collections.abc import Callable

from async_tracker.errors import StorageError
from async_tracker.instance.pulse import TICK_SECONDS, Pulse
from async_tracker.instance.voice import Voice

logger = logging.getLogger("async_tracker")

_SILENT_SECONDS = 2 * TICK_SECONDS
"""From then on the loop is not merely late: a connection that was cut is looked for."""
_MARGIN_SECONDS = 0.02
"""By how much a pulse may be late on a machine that is busy but well."""
_UNWRITTEN_SECONDS = 1.0
"""From then on starts that the journal still holds are written for the loop: one of them may be the job that blocks."""


def must_speak(
    *, silent_for: float, since_spoken: float, interval: float, is_cut_off: bool, is_voice_lost: bool, has_unwritten: bool
) -> bool:
    """Tell whether the watchdog must speak for a loop that has not run for ``silent_for`` seconds.

    ``since_spoken`` is how long ago it last spoke, ``interval`` the time between two heartbeats, both in seconds.

    A loop that is late says so itself. One that is blocked for longer than a beat is spoken for, once in each interval:

    >>> calm = {"interval": 5.0, "is_cut_off": False, "is_voice_lost": False, "has_unwritten": False}
    >>> [must_speak(silent_for=seconds, since_spoken=99.0, **calm) for seconds in (0.4, 4.9, 5.0)]
    [False, False, True]
    >>> must_speak(silent_for=7.0, since_spoken=2.0, **calm)
    False

    Earlier, where the server has closed the loop's connection, once in each time that the loop is blocked, and where it has closed
    the voice's own: what that one had registered must be back within the grace.

    >>> must_speak(silent_for=0.5, since_spoken=99.0, **{**calm, "is_cut_off": True})
    True
    >>> must_speak(silent_for=0.7, since_spoken=0.2, **{**calm, "is_cut_off": True})
    False
    >>> must_speak(silent_for=7.0, since_spoken=0.2, **{**calm, "is_voice_lost": True})
    True

    And earlier, where a start is not written that may be the one of the job that blocks:

    >>> [must_speak(silent_for=seconds, since_spoken=99.0, **{**calm, "has_unwritten": True}) for seconds in (0.9, 1.0)]
    [False, True]
    """
    if silent_for < _SILENT_SECONDS:
        return False
    is_due = silent_for >= interval and since_spoken >= interval
    is_cut = is_cut_off and since_spoken >= min(interval, silent_for)
    return is_due or is_cut or is_voice_lost or (has_unwritten and silent_for >= _UNWRITTEN_SECONDS)


def pause(since_tick: float, *, is_speaking: bool) -> float:
    """Give the seconds until the next check, when the loop last showed ``since_tick`` seconds ago that it runs.

    While all is well it is just after the pulse that would be the second one missed: the fewer checks the better.

    >>> [round(pause(since_tick, is_speaking=False), 2) for since_tick in (0.0, 0.2, 9.0)]
    [0.52, 0.32, 0.25]
    >>> pause(0.0, is_speaking=True)
    0.25
    """
    return TICK_SECONDS if is_speaking else max(_SILENT_SECONDS + _MARGIN_SECONDS - since_tick, TICK_SECONDS)


class Watchdog:
    """One thread for one instance. `start` and `stop` belong to the loop; everything else happens in the thread."""

    def __init__(self, *, pulse: Pulse, voice: Voice, interval: float, is_over: Callable[[], bool]) -> None:
        """``interval`` is that of the heartbeat, in seconds; ``is_over()`` tells whether the loop is not expected to run any more; it is
        asked at each check."""
        self._pulse = pulse
        self._voice = voice
        self._interval = interval
        self._is_over = is_over
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="async-tracker-watchdog", daemon=True)
        self._spoke_at = float("-inf")

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns at once, and the voice says nothing more."""
        self._voice.end()
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(pause(time.monotonic() - self._pulse.ticked_at, is_speaking=self._voice.is_open)):
            try:
                self._check()
            except StorageError as exc:
                logger.debug("the watchdog cannot reach Redis: %s", exc)
                self._voice.hang_up()
            except Exception:  # the edge of a thread: without it a blocked loop would be silent from here on
                logger.exception("the watchdog failed and goes on; please report it")
                self._voice.hang_up()
        self._voice.hang_up()

    def _check(self) -> None:
        silent_for = time.monotonic() - self._pulse.ticked_at
        is_over = self._is_over()
        if silent_for < _SILENT_SECONDS or is_over:
            if is_over or self._voice.is_overridden:
                self._voice.hang_up()
            return
        is_voice_lost = self._voice.is_cut_off
        if is_voice_lost:
            self._voice.hang_up()
        if must_speak(
            silent_for=silent_for,
            since_spoken=time.monotonic() - self._spoke_at,
            interval=self._interval,
            is_cut_off=self._voice.is_link_cut_off,
            is_voice_lost=is_voice_lost,
            has_unwritten=self._voice.has_unwritten,
        ):
            self._speak(silent_for)

    def _speak(self, silent_for: float) -> None:
        self._voice.speak(silent_for)
        self._spoke_at = time.monotonic()
