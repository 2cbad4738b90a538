"""Whether an instance takes jobs, as people order it: on duty, quiet, or stopping."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from async_tracker.control.orders import Done, Order, scope_and_end
from async_tracker.errors import UnsupportedControl
from async_tracker.instance.order_taker import Handler, OrderTaker
from async_tracker.records import OrderOutcome

logger = logging.getLogger("async_tracker")

_SHARE = 0.8
"""For which share of the time that an order is open a worker may take to be quiet: the caller is to hear it if it is not."""

_LOOK_SECONDS = 0.1
"""How far looks are apart, whether a worker has nothing in hand, while a caller waits for that."""


class Controls(Protocol):
    """What a worker library can be told. Each gives what came of it, in words for people, and raises UnsupportedControl."""

    async def quiet(self, *, cron: bool) -> str:
        """Take no more jobs, and return once no claim is under way. With ``cron=False`` queue no cron jobs either. May be called twice."""
        ...

    async def resume(self) -> str:
        """Take jobs again."""
        ...

    async def stop(self, *, group: bool) -> str:
        """Begin the library's own orderly end of this worker, and return; with ``group``, of all workers that end together."""
        ...

    def in_hand(self) -> int:
        """Tell how many jobs the worker has claimed that are not done, as far as the library knows more of them than the tracker."""
        ...


class AskedOnly:
    """The controls of a worker of one's own: its program looks at the tracker, and does it."""

    async def quiet(self, *, cron: bool) -> str:
        """Nothing is done here."""
        return "tracker.is_quiet is True: its program takes no more jobs"

    async def resume(self) -> str:
        """Nothing is done here."""
        return "tracker.is_quiet is False: its program takes jobs again"

    async def stop(self, *, group: bool) -> str:
        """Nothing is done here."""
        return "tracker.is_stopping is True: its program ends when it is done"

    def in_hand(self) -> int:
        """The tracker knows them all."""
        return 0


class Uncontrolled:
    """The controls of a worker whose integration gives none."""

    def __init__(self, library: str) -> None:
        self._library = library

    async def quiet(self, *, cron: bool) -> str:
        """Raise UnsupportedControl."""
        raise self._unsupported("take no more jobs")

    async def resume(self) -> str:
        """Raise UnsupportedControl."""
        raise self._unsupported("take jobs again")

    async def stop(self, *, group: bool) -> str:
        """Raise UnsupportedControl."""
        raise self._unsupported("end")

    def in_hand(self) -> int:
        """Raise UnsupportedControl."""
        raise self._unsupported("say what it has in hand")

    def _unsupported(self, what: str) -> UnsupportedControl:
        return UnsupportedControl(f"the integration of {self._library} cannot tell its worker to {what}")


@dataclass(frozen=True, slots=True)
class _Reason:
    """An order because of which an instance is quiet."""

    order_id: str
    until_ms: float
    """When it is over, on the server's clock: infinite for one that was given to this instance itself."""


class Duty:
    """What people have ordered of one instance, and the events that its program can await. Lives in the instance's event loop."""

    def __init__(
        self,
        controls: Controls,
        *,
        busy: Callable[[], int],
        on_quiet: Callable[[bool], None],
        is_leaving: Callable[[], bool],
        now_ms: Callable[[], int],
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
    ) -> None:
        """``busy`` tells how many runs are in flight, ``is_leaving`` whether shutdown has begun, and ``now_ms`` the server's time.
        ``on_quiet`` is told whenever the instance becomes quiet, or is that no longer. ``spawn`` has something done in the loop.
        """
        self._controls = controls
        self._busy = busy
        self._on_quiet = on_quiet
        self._is_leaving = is_leaving
        self._now_ms = now_ms
        self._spawn = spawn
        self._turn = asyncio.Lock()
        self._reasons: dict[str, _Reason] = {}
        """Why it is quiet, by scope: of each order that stands, and '' for an order of its own, which is over when it is resumed."""
        self._resumed: tuple[str, dict[str, _Reason]] = ("", {})
        """Id of the order that has resumed it last, and why it was quiet before."""
        self._ending: asyncio.Task[None] | None = None
        self.is_quiet = False
        """It takes no more jobs: it was ordered to be quiet, or to stop."""
        self.is_stopping = False
        self.quieted, self.resumed, self.stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.resumed.set()

    def take_orders(self, orders: OrderTaker) -> None:
        """Have the orders carried out that this is about."""
        orders.handle("quiet", Handler(carry_out=self._quiet, undo=self._undo_quiet))
        orders.handle("resume", Handler(carry_out=self._resume, undo=self._undo_resume))
        orders.handle("idle", Handler(carry_out=self._idle))
        orders.handle("stop", Handler(carry_out=self._stop, goes_over=False))

    def _set_quiet(self, is_quiet: bool) -> None:
        self.is_quiet = is_quiet
        (self.quieted if is_quiet else self.resumed).set()
        (self.resumed if is_quiet else self.quieted).clear()
        self._on_quiet(is_quiet)

    async def _quiet(self, order: Order) -> Done:
        async with self._turn:
            if self._is_leaving():
                return Done(says="it is shutting down, and takes no more jobs anyway")
            try:
                async with asyncio.timeout(_SHARE * max(order.until_ms - self._now_ms(), 0) / 1000.0):
                    says = await self._controls.quiet(cron=bool(order.arguments.get("cron", True)))
            except TimeoutError:
                return await self._not_quiet()
            scope, until_ms = scope_and_end(order)
            if scope or scope not in self._reasons:  # an order that stands takes the place of one with its scope, there as here
                self._reasons[scope] = _Reason(order.order_id, until_ms)
            if self.is_quiet:
                return Done(says=f"it was quiet before; {says}")
            self._set_quiet(True)
            return Done(says=says)

    async def _not_quiet(self) -> Done:
        """Give up in time for the caller to hear it, and leave the worker as it was: it must not take no jobs and say otherwise."""
        if not self.is_quiet:
            await self._controls.resume()
        return Done(OrderOutcome.FAILED, f"a claim of its worker is under way still: it {'stays quiet' if self.is_quiet else 'takes jobs'}")

    async def _resume(self, order: Order) -> Done:
        async with self._turn:
            return await self._resume_now(order.order_id)

    async def _resume_now(self, order_id: str) -> Done:
        if self._is_leaving() or self.is_stopping:
            return Done(OrderOutcome.REFUSED, "it is shutting down, and takes no more jobs")
        says = await self._controls.resume()
        self._resumed = (order_id, self._reasons)
        self._reasons = {}
        if not self.is_quiet:
            return Done(says=f"it was not quiet; {says}")
        self._set_quiet(False)
        return Done(says=says)

    async def _undo_quiet(self, order: Order) -> Done:
        async with self._turn:
            left = {scope: reason for scope, reason in self._reasons.items() if reason.order_id != order.order_id}
            return await self._keep_only(left) if left != self._reasons else Done()

    async def _undo_resume(self, order: Order) -> Done:
        async with self._turn:
            order_id, reasons = self._resumed
            if order_id != order.order_id or self.is_quiet or not reasons or self._is_leaving():
                return Done()
            says = await self._controls.quiet(cron=True)
            self._reasons = reasons
            self._set_quiet(True)
            return Done(says=says)

    def end_what_is_over(self) -> None:
        """Begin to take jobs again when the orders that stand are over and nothing else keeps the instance quiet. Called often."""
        if self._reasons and self._ending is None and any(reason.until_ms <= self._now_ms() for reason in self._reasons.values()):
            self._ending = self._spawn(self._drop_what_is_over())
            self._ending.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending = None

    async def _drop_what_is_over(self) -> None:
        async with self._turn:
            now_ms = self._now_ms()
            try:
                await self._keep_only({scope: reason for scope, reason in self._reasons.items() if reason.until_ms > now_ms})
            except Exception:  # the edge of the pulse: an integration of the user's own
                logger.exception("an order that stood is over, and the worker cannot be told to take jobs again")
                self._reasons = {}

    async def _keep_only(self, reasons: dict[str, _Reason]) -> Done:
        """Be quiet for these reasons alone; without any, take jobs again, unless the worker ends."""
        if not reasons and self.is_quiet and not self.is_stopping and not self._is_leaving():
            logger.info("no order keeps this instance quiet any more: it takes jobs again")
            return await self._resume_now("")
        self._reasons = reasons
        return Done()

    async def _idle(self, order: Order) -> Done:
        """Answer when nothing is in hand, or after the seconds that the order gives."""
        until = time.monotonic() + float(order.arguments.get("seconds", 0.0))
        while in_hand := max(self._busy(), self._controls.in_hand()):
            if time.monotonic() >= until:
                return Done(OrderOutcome.FAILED, f"{in_hand} in hand still", {"in_hand": in_hand})
            await asyncio.sleep(_LOOK_SECONDS)
        return Done(says="nothing is in hand")

    async def _stop(self, order: Order) -> Done:
        async with self._turn:
            if self.is_stopping:
                return Done(says="it was told to stop before")
            if self._is_leaving():  # the library's end is under way, and must not be begun a second time
                return Done(says="it is shutting down already")
            says = await self._controls.stop(group=bool(order.arguments.get("group", False)))
            self.is_stopping = True
            self.stopping.set()
            self._set_quiet(True)  # and not draining before it really shuts down: until then its death counts, and it sweeps
            return Done(says=says)
