"""Waiting for a time with a timer of the kernel instead of one of the event loop, which would cost every job of the worker.

While a loop has a timer ahead, however far, it computes a limit for each wait for a reply, and the timers that arq makes and
cancels for every job pile up behind it: 2.5 to 5 µs of a job's three hundred. The kernel's timer has neither effect.
"""

import asyncio
import os
import struct
import sys
import time
import weakref
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from async_tracker.forks import on_fork

try:
    import ctypes
except ImportError:  # a Python that was built without libffi
    ctypes = None  # type: ignore[assignment]

_SHORTEST_NANOSECONDS = 1_000
"""For a time that is over already: zero would switch the timer off."""


@dataclass(frozen=True, slots=True, eq=False)
class Alarm:
    """Rings once, at a time of the monotonic clock in seconds."""

    at: float
    ring: Callable[[], object]


class Timerfd(Protocol):
    """How this process reaches the kernel's timers."""

    def create(self) -> int:
        """Make a timer. Returns its descriptor; raises OSError."""
        ...

    def arm(self, fileno: int, nanoseconds: int) -> None:
        """Have it expire once, in ``nanoseconds`` (more than 0). Raises OSError."""


class OfPython:
    """By ``os``, on Linux from Python 3.13 on."""

    def create(self) -> int:
        """Make a timer, which a program that this one starts does not inherit."""
        fileno: int = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]
        return fileno

    def arm(self, fileno: int, nanoseconds: int) -> None:
        """Have it expire once."""
        os.timerfd_settime_ns(fileno, initial=nanoseconds)  # type: ignore[attr-defined,unused-ignore]


class OfLibc:
    """By the C library, where Python does not offer them."""

    def __init__(self, libc: Any) -> None:
        self._libc = libc

    def create(self) -> int:
        """Make a timer, which a program that this one starts does not inherit."""
        return _checked(self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))

    def arm(self, fileno: int, nanoseconds: int) -> None:
        """Have it expire once."""
        _checked(self._libc.timerfd_settime(fileno, 0, _once_in(nanoseconds), None))


def _once_in(nanoseconds: int) -> bytes:
    """Write a ``struct itimerspec``: the interval, which is zero for a timer that rings once, then the time; seconds and nanoseconds each.

    >>> struct.unpack("4l", _once_in(1_500_000_000))
    (0, 0, 1, 500000000)
    """
    return struct.pack("4l", 0, 0, *divmod(nanoseconds, 1_000_000_000))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def timerfd_of_python() -> Timerfd | None:
    """Give the timers of ``os``; None where this Python or this system has none."""
    return OfPython() if hasattr(os, "timerfd_create") else None


def timerfd_of_libc() -> Timerfd | None:
    """Give the timers of the C library; None where it has none."""
    if ctypes is None or sys.platform != "linux" or sys.maxsize <= 2**32:  # with 32 bits a time may have 64 all the same
        return None
    libc = ctypes.PyDLL(None, use_errno=True)  # it keeps the interpreter's lock: neither call waits for anything
    return OfLibc(libc) if hasattr(libc, "timerfd_create") else None


TIMERFD = timerfd_of_python() or timerfd_of_libc()
"""The kernel's timers, by the best way that there is; None where there is none."""


class _Timer(Protocol):
    def set(self, seconds: float) -> None: ...

    def close(self) -> None: ...


class Alarms:
    """The times for which the loops of one instance wait. Used only in the event loop in which it was made."""

    def __init__(self, timerfd: Timerfd | None = TIMERFD) -> None:
        """With ``timerfd=None`` the event loop's own timer is used, as it is where the kernel refuses one."""
        self._loop = asyncio.get_running_loop()
        self._timer = _make_timer(timerfd, self._loop, self._ring)
        self._context = Context()
        """An alarm is mostly set by a job: the job's context must not be kept until the alarm rings."""
        self._waiting: set[Alarm] = set()
        self._armed_for = float("inf")
        """When the timer rings next. It is before every other time, so that nothing is armed, while alarms ring and when it is closed."""
        self._is_closed = False
        on_fork(self)

    @property
    def waiting(self) -> int:
        """Number of alarms that have not rung."""
        return len(self._waiting)

    def set(self, seconds: float, ring: Callable[[], object]) -> Alarm:
        """Have the loop call ``ring`` in this many seconds; `cancel` takes it back."""
        alarm = Alarm(time.monotonic() + seconds, ring)
        self._waiting.add(alarm)
        if alarm.at < self._armed_for:
            self._armed_for = alarm.at
            self._timer.set(seconds)
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Keep it from ringing; if it has rung already, nothing changes."""
        self._waiting.discard(alarm)

    async def sleep(self, seconds: float) -> None:
        """Wait for this many seconds."""
        woken = self._loop.create_future()
        alarm = self.set(seconds, partial(_wake, woken))
        try:
            await woken
        finally:
            self.cancel(alarm)

    def close(self) -> None:
        """Ring no more, whatever is set from here on."""
        self._is_closed = True
        self._waiting.clear()
        self._armed_for = float("-inf")
        self._timer.close()

    def _ring(self) -> None:
        """Ring all that are due, in the order of their times, in this turn of the loop. The timer is set once, after what they set."""
        now = time.monotonic()
        due = sorted((alarm for alarm in self._waiting if alarm.at <= now), key=_at)
        self._waiting.difference_update(due)
        self._armed_for = float("-inf")
        try:
            for alarm in due:
                self._context.run(self._ring_one, alarm)
        finally:
            if not self._is_closed:
                self._armed_for = min(map(_at, self._waiting), default=float("inf"))
                if self._waiting:
                    self._timer.set(self._armed_for - time.monotonic())

    def _ring_one(self, alarm: Alarm) -> None:
        try:
            alarm.ring()
        except Exception as exc:  # the edge of a callback, as the loop's own: the others ring all the same
            self._loop.call_exception_handler({"message": f"an alarm of the tracker failed: {alarm.ring!r}", "exception": exc})

    def forget_in_child(self) -> None:
        """Let go of the timer that a forked child shares with its parent: set in one, it would ring in the other."""
        self._timer.close()
        self._timer = _LoopTimer(self._loop, self._ring)


def _at(alarm: Alarm) -> float:
    return alarm.at


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():  # cancelled in the same turn
        woken.set_result(None)


class _LoopTimer:
    """The event loop's own timer, where the kernel gives none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], object]) -> None:
        self._loop = loop
        self._ring = ring
        self._context = Context()  # as for the alarms themselves
        self._handle: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        self.close()
        self._handle = self._loop.call_later(seconds, self._ring, context=self._context)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class _KernelTimer:
    """A timerfd, among the descriptors that the loop waits for anyway."""

    def __init__(self, timerfd: Timerfd, loop: asyncio.AbstractEventLoop, ring: Callable[[], object]) -> None:
        self._timerfd = timerfd
        self._loop = loop
        self._ring = ring
        self._pid = os.getpid()
        self._fileno = timerfd.create()
        self._end = weakref.finalize(self, os.close, self._fileno)
        self._end.atexit = False
        loop.add_reader(self._fileno, self._readable)

    def set(self, seconds: float) -> None:
        if self._end.alive:
            self._timerfd.arm(self._fileno, max(int(seconds * 1e9), _SHORTEST_NANOSECONDS))

    def _readable(self) -> None:
        try:
            os.read(self._fileno, 8)
        except BlockingIOError:  # it was set anew after the loop had seen it ring
            return
        self._ring()

    def close(self) -> None:
        # In a forked child the loop's list of what it waits for is the parent's as well, and must stay as it is.
        if self._end.alive and not self._loop.is_closed() and os.getpid() == self._pid:
            self._loop.remove_reader(self._fileno)
        self._end()


def _make_timer(timerfd: Timerfd | None, loop: asyncio.AbstractEventLoop, ring: Callable[[], object]) -> _Timer:
    if timerfd is not None:
        try:
            return _KernelTimer(timerfd, loop, ring)
        except (OSError, NotImplementedError):  # no descriptor is left, or a sandbox or a loop that knows no such thing
            pass
    return _LoopTimer(loop, ring)
