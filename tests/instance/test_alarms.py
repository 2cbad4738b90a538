"""Alarms ring in their order, once, and stand in nobody's way: neither the event loop's nor that of a forked child's parent."""

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from async_tracker.instance.alarms import TIMERFD, Alarms, Timerfd, timerfd_of_libc, timerfd_of_python
from tests.harness.wait import PATIENCE, wait_until

SOON, LATER, NEVER = 0.02, 0.05, 3600.0


TIMERS = {"os": timerfd_of_python, "libc": timerfd_of_libc, "loop": lambda: None}
HERE = [name for name, find in TIMERS.items() if name == "loop" or find() is not None]


@pytest.fixture(params=HERE)
async def alarms(request: pytest.FixtureRequest) -> AsyncIterator[Alarms]:
    """By each timer of the kernel that this Python can reach, and by the loop's own, which is used where there is none."""
    made = Alarms(TIMERS[request.param]())
    yield made
    made.close()


def timers_of_kernel() -> int:
    """Number of timers of the kernel that this process has open."""
    return sum("timerfd" in os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name))


def _is_open(name: str) -> bool:
    return Path(f"/proc/self/fd/{name}").is_symlink()


async def test_they_ring_in_the_order_of_their_times_and_once(alarms: Alarms):
    rung: list[str] = []
    alarms.set(SOON, lambda: rung.append("soon"))  # before the later one: a machine that stalls between the two does not change their order
    alarms.set(LATER, lambda: rung.append("later"))
    alarms.cancel(alarms.set(SOON / 2, lambda: rung.append("cancelled")))
    alarms.set(-1.0, lambda: rung.append("at once"))
    alarms.set(NEVER, lambda: rung.append("never"))
    await wait_until(lambda: "later" in rung, description="the last of them has rung")
    assert rung == ["at once", "soon", "later"]


class CountedTimer:
    """A timer of the kernel that knows how often it was set."""

    def __init__(self, timerfd: Timerfd) -> None:
        self._timerfd = timerfd
        self.times_set = 0

    def create(self) -> int:
        return self._timerfd.create()

    def arm(self, fileno: int, nanoseconds: int) -> None:
        self.times_set += 1
        self._timerfd.arm(fileno, nanoseconds)


@pytest.mark.skipif(TIMERFD is None, reason="needs timers of the kernel: Linux")
async def test_what_is_due_at_one_moment_rings_in_one_turn_and_the_timer_is_set_once_for_what_is_set_then():
    assert TIMERFD is not None
    timer, rung = CountedTimer(TIMERFD), list[str]()
    alarms = Alarms(timer)

    def ring(name: str) -> None:
        rung.append(name)
        alarms.set(-1.0 if name == "last" else NEVER, lambda: rung.append("set by a ring"))

    for name in ("first", "second", "last"):
        alarms.set(-1.0, partial(ring, name))
    assert timer.times_set <= 3  # for the first of them, and for each that is to ring before it
    before = timer.times_set
    await wait_until(lambda: len(rung) == 4, description="all have rung, also what was set for a time that is over")
    assert sorted(rung[:3]) == ["first", "last", "second"]
    assert timer.times_set == before + 2, "after the first turn, and after that of what was set in it"
    alarms.close()


async def test_an_alarm_that_fails_is_told_to_the_loop_and_the_others_ring(alarms: Alarms):
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    rung: list[str] = []
    alarms.set(-2.0, lambda: 1 / 0)
    alarms.set(-1.0, lambda: rung.append("rings all the same"))
    await wait_until(lambda: rung, description="the other one has rung")
    assert [type(context["exception"]) for context in told] == [ZeroDivisionError]
    alarms.set(SOON, lambda: rung.append("and so does a later one"))
    await wait_until(lambda: len(rung) == 2, description="it goes on")


async def test_a_sleep_ends_in_time_and_not_before(alarms: Alarms):
    began = time.monotonic()
    await asyncio.wait_for(asyncio.gather(alarms.sleep(LATER), alarms.sleep(SOON), alarms.sleep(0.0)), PATIENCE)
    assert time.monotonic() - began >= LATER


async def test_a_sleep_that_is_cancelled_leaves_no_alarm_behind(alarms: Alarms):
    sleeping = asyncio.create_task(alarms.sleep(NEVER))
    await asyncio.sleep(0)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert alarms.waiting == 0


async def test_an_alarm_that_fails_keeps_no_other_from_ringing(alarms: Alarms):
    told: list[str] = []
    rung = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(str(context["exception"])))

    def fail() -> None:
        raise ValueError("it broke")

    alarms.set(SOON, fail)
    alarms.set(SOON, rung.set)
    await asyncio.wait_for(rung.wait(), PATIENCE)
    assert told == ["it broke"]


async def test_a_loop_that_was_blocked_rings_what_it_has_missed(alarms: Alarms):
    rung: list[int] = []
    missed = {number: alarms.set(SOON * (1 + number / 20), partial(rung.append, number)) for number in reversed(range(20))}
    time.sleep(LATER)
    await alarms.sleep(0.0)
    assert rung == sorted(missed, key=lambda number: missed[number].at), "in the order of their times, though all are late"


async def test_closed_they_ring_no_more_and_give_their_timer_back(alarms: Alarms):
    rung: list[str] = []
    before = timers_of_kernel()
    more = Alarms()
    more.set(SOON, lambda: rung.append("set before the end"))
    more.close()
    more.close()
    more.set(SOON, lambda: rung.append("set after the end"))
    await asyncio.sleep(2 * SOON)
    assert rung == []
    assert timers_of_kernel() == before


def test_a_loop_that_ends_without_closing_them_leaves_no_timer_open():
    before = timers_of_kernel()

    async def forget() -> None:
        Alarms().set(NEVER, print)
        assert timers_of_kernel() == before + 1

    asyncio.run(forget())
    gc.collect()
    assert timers_of_kernel() == before


async def test_they_are_no_timers_of_the_loop():
    """What this module is for: asyncio counts its own in ``_scheduled``."""
    loop = asyncio.get_running_loop()
    before = list(loop._scheduled)  # type: ignore[attr-defined]
    made = Alarms()
    made.set(NEVER, print)
    sleeping = asyncio.create_task(made.sleep(NEVER))
    await asyncio.sleep(0)
    assert list(loop._scheduled) == before  # type: ignore[attr-defined]
    sleeping.cancel()
    made.close()


async def test_a_forked_child_does_not_touch_its_parents_alarms(alarms: Alarms):
    rung = asyncio.Event()
    alarms.set(LATER, rung.set)
    child = os.fork()
    if child == 0:
        alarms._timer.set(NEVER)  # as its loop would, if it went on
        alarms.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    await asyncio.wait_for(rung.wait(), PATIENCE)
