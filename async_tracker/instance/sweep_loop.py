"""The loop that sweeps: a step, then a wait whose length follows from what the step did."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from async_tracker.connections.calls import leads_elsewhere
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.instance.alarms import Alarm, Alarms
from async_tracker.policy import standby_interval
from async_tracker.recovery.lease import Lease, LeaseHolder
from async_tracker.recovery.sweeper import Sweeper, Swept

logger = logging.getLogger("async_tracker")

_BUDGET = 1.0
"""Seconds that one sweep may spend on recovering: well within the lease, and so that the next death is soon judged."""

_BREATH = 0.02
"""Seconds between two sweeps while there is a backlog: the worker whose loop this is has jobs of its own."""

_ALONE_SWEEPS = 10
"""An instance that is alone sweeps once in this many turns: there is no other that could die."""
_ALONE_LONGER = 2
"""How many times as long it waits for its next turn, at which it sees whether another one has registered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How one turn of the loop ended."""

    is_sweeper: bool = False
    """The lease is ours, also after the turn."""
    instances: int = 1
    """How many were registered."""
    swept: Swept | None = None
    """None where there was no sweep: the lease is another instance's, or this one is alone."""
    is_alone: bool = False
    """The last sweep found no other instance, and none has registered since."""
    turns_alone: int = 0
    """In a row."""


def pause_after(turn: Turn, *, sweep_interval: float, jitter: float) -> float:
    """Tell how many seconds to wait for the next turn; ``jitter`` is a random number in [0, 1).

    The sweeper's own interval; less while there is a backlog; and for an instance that only watches the lease, more in a large fleet.

    >>> sweeping = Turn(is_sweeper=True, instances=80, swept=Swept())
    >>> pause_after(sweeping, sweep_interval=0.5, jitter=0.0)
    0.5
    >>> pause_after(replace(sweeping, swept=Swept(ran_out=True)), sweep_interval=0.5, jitter=0.0)
    0.02
    >>> pause_after(Turn(instances=80), sweep_interval=0.5, jitter=0.0)
    2.5

    More as well for the sweeper that is alone: what it must notice is only that it is alone no longer.

    >>> pause_after(Turn(is_sweeper=True, is_alone=True), sweep_interval=0.5, jitter=0.0)
    1.0
    """
    if not turn.is_sweeper:
        return standby_interval(sweep_interval, turn.instances) * (0.5 + jitter / 2.0)
    if turn.swept is not None and turn.swept.ran_out:
        return min(sweep_interval, _BREATH)
    return sweep_interval * _ALONE_LONGER if turn.is_alone else sweep_interval


class SweepLoop:
    """Sweeps while the lease is ours. When Redis is away, or ``holder`` returns None, it tries again later."""

    def __init__(
        self,
        *,
        sweeper: Sweeper,
        lease: Lease,
        holder: Callable[[], LeaseHolder | None],
        alarms: Alarms,
        sweep_interval: float,
        keep_history: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``keep_history`` is awaited after each sweep; it may raise StorageError."""
        self._sweeper = sweeper
        self._lease = lease
        self._holder = holder
        self._keep_history = keep_history
        self._alarms = alarms
        self._sweep_interval = sweep_interval
        self._wake = asyncio.Event()
        self._alarm: Alarm | None = None
        self._planned_for = 1
        """For how many instances the next look is planned."""
        self.refusal = ""
        """Why Redis refused the last sweep, and the log says so; '' where it did not."""

    async def run(self) -> None:
        """Wait, and sweep where it is our turn."""
        turn = Turn()
        while True:
            await self._wait(turn)
            holder = self._holder()
            if holder is None:
                turn = replace(turn, swept=None)
                continue
            try:
                turn = await self.step(holder, before=turn)
                self._got_through(turn)
            except StorageError as exc:
                turn = replace(turn, is_sweeper=self._lease.is_held, swept=None, is_alone=False)
                self._put_off(exc)

    def hear(self, instances: int, is_led: bool) -> None:
        """A beat was told how many instances there are, and whether one of them holds the lease.

        A stand-by whose next look was planned for a larger fleet plans it anew, and where no instance sweeps it looks at once.
        """
        if self._lease.is_held or self._alarm is None:
            return
        if not is_led:
            self._wake.set()
        elif instances < self._planned_for:
            self._plan(Turn(instances=instances))

    async def _wait(self, turn: Turn) -> None:
        """Wait for the next turn."""
        self._wake.clear()
        self._plan(turn)
        try:
            await self._wake.wait()
        finally:
            if self._alarm is not None:
                self._alarms.cancel(self._alarm)
            self._alarm = None

    def _plan(self, turn: Turn) -> None:
        if self._alarm is not None:
            self._alarms.cancel(self._alarm)
        self._planned_for = turn.instances
        pause = pause_after(turn, sweep_interval=self._sweep_interval, jitter=random.random())
        self._alarm = self._alarms.set(pause, self._wake.set)

    async def step(self, holder: LeaseHolder, *, before: Turn) -> Turn:
        """Sweep if it is our turn. Raises StorageError.

        When Redis refuses something, the lease is given back: another instance may be allowed to do it.
        """
        election = await self._lease.elect(holder)
        if not election.is_ours:
            return Turn(instances=election.instances)
        is_alone = before.is_alone and election.instances == 1
        turns_alone = before.turns_alone + 1 if is_alone else 0
        if turns_alone % _ALONE_SWEEPS:
            return Turn(is_sweeper=True, instances=election.instances, is_alone=True, turns_alone=turns_alone)
        try:
            swept = await self._sweeper.sweep(
                holder.run_id, itself=holder.instance_id, within=_BUDGET, on_the_way=lambda: self._lease.renew(holder)
            )
            if self._keep_history is not None and not swept.ran_out:
                await self._keep_history()
        except StorageError:
            await self._lease.give_way()
            raise
        if swept.hindered:
            await self._lease.give_way()
        return Turn(
            is_sweeper=self._lease.is_held,
            instances=election.instances,
            swept=swept,
            is_alone=swept.was_alone,
            turns_alone=turns_alone,
        )

    def _got_through(self, turn: Turn) -> None:
        if self.refusal and turn.is_sweeper:  # to take the lease may be allowed where to sweep is not
            self.refusal = ""
            logger.info("sweeps succeed again")

    def _put_off(self, exc: StorageError) -> None:
        """Log a refusal once: it lasts until a person changes something. That Redis is away is logged by the heartbeat."""
        if isinstance(exc, StorageUnavailable) or leads_elsewhere(exc) or self.refusal:
            logger.debug("this sweep failed, the next one is tried in its time: %s", exc)
        else:
            self.refusal = str(exc)
            logger.warning("sweeps fail, so this worker recovers nothing: %s", exc)
