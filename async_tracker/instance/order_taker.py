"""Orders, from the side of the instance: heard in the replies to its own writes, carried out by kind, answered after the next beat.

Nothing here waits for orders and nothing asks for them: they stand in the hash that a beat, a write and the watchdog's word touch anyway.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from async_tracker.control.orders import Done, Order, decode_orders, encode_answer, event_facts
from async_tracker.errors import StorageError, StorageUnavailable, UnsupportedControl
from async_tracker.events.encoding import encode_event
from async_tracker.instance.pen import Pen
from async_tracker.instance.tasks import end_tasks
from async_tracker.records import OrderOutcome
from async_tracker.store.commands import Store
from async_tracker.store.sync_commands import SyncStore

logger = logging.getLogger("async_tracker")

_REMEMBERED = 1_000
"""Orders that are not begun a second time, however often they are handed over."""

_WAITED_FOR_SECONDS = 60.0
"""How old an answer may be that is sent again to another server; a caller who waits longer is told that none came."""

_LATE = Done(OrderOutcome.REFUSED, "it came too late: its caller no longer waits")
_UNDONE = Done(OrderOutcome.UNANSWERED, "its caller no longer waits, so it was undone")
_OTHER = Done(OrderOutcome.REFUSED, "it is another instance now")
_UNKNOWN = Done(OrderOutcome.REFUSED, "it does not know this order")
_BROKEN = "the order %r of %s failed; the worker goes on"

_TRACE_MS = 50_000
"""For how long after its end it can be seen in Redis that an order was taken back: the lifetime of that answer, less what clocks differ.
What is carried out later than that has no caller any more."""

CarryOut = Callable[[Order], Awaitable[Done]]
"""Carries out an order in the instance's event loop. What it raises is logged, and answered as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """How one kind of order is carried out."""

    carry_out: CarryOut
    undo: CarryOut | None = None
    """Called when the order was taken back before its answer reached Redis: its caller was told that nothing came of it."""
    when_blocked: Callable[[Order], Done] | None = None
    """Carries it out in the watchdog's thread while the loop is blocked; without it such an order waits for the loop."""
    goes_over: bool = True
    """Whether it holds for the process as well when that goes by another instance id."""


@dataclass(frozen=True, slots=True)
class _Answered:
    """An answer that has not reached Redis."""

    order: Order
    asked: str
    """The instance id in whose hash the order stands."""
    done: Done


class OrderTaker:
    """Hears, carries out and answers the orders of one instance. Lives in its event loop; `hear_blocked` is the watchdog's."""

    def __init__(
        self,
        *,
        store: Store,
        pen: Pen,
        takes: Callable[[str], bool],
        on_first: Callable[[], None],
        hurry: Callable[[], None],
        on_event: Callable[[str], None],
        now_ms: Callable[[], int],
    ) -> None:
        """``takes`` tells whether the settings allow a kind of orders. ``on_first`` is called with each order that is new: more may
        follow. ``hurry`` calls for a beat, with which answers go out. ``now_ms`` tells the server's time.
        """
        self._store = store
        self._pen = pen
        self._takes = takes
        self._on_first = on_first
        self._hurry = hurry
        self._on_event = on_event
        self._now_ms = now_ms
        self._handlers: dict[str, Handler] = {}
        self._begun: OrderedDict[str, None] = OrderedDict()
        self._beginning = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answered: list[_Answered] = []
        self._newest: deque[tuple[float, _Answered]] = deque(maxlen=_REMEMBERED)
        """What was answered last, and when: a failover may lose it."""
        self._sending = asyncio.Lock()

    def handle(self, kind: str, handler: Handler) -> None:
        """Carry out orders of this kind like that, if the settings have the instance take them.

        To be called before the instance registers: it says then what it takes.
        """
        if self._takes(kind):
            self._handlers[kind] = handler

    @property
    def kinds(self) -> Collection[str]:
        """The kinds of orders that this instance takes."""
        return self._handlers

    # hearing

    def hear(self, lines: str, now_ms: int, *, was_for: str | None = None) -> None:
        """Begin the orders in the reply to a write, at that moment of the server, which was not begun before.

        ``was_for`` is the id that the instance went by before it was declared dead, where the orders stand in that one's hash.
        """
        for order in decode_orders(lines):
            if self._begin(order):
                self._on_first()
                self.spawn(self._carry_out(order, now_ms, was_for))

    def hear_standing(self, lines: str) -> None:
        """Begin the orders that stand for instances like this one, and were not begun before. No caller waits for an answer."""
        for order in decode_orders(lines):
            handler = self._handlers.get(order.kind)
            if handler is not None and self._begin(order):
                logger.info("the order %r of %s stands, and is obeyed from the start", order.kind, order.by)
                until = replace(order, arguments={**order.arguments, "until_ms": order.until_ms})
                self.spawn(self._obey(handler, until))

    async def _obey(self, handler: Handler, order: Order) -> None:
        await self._done(handler.carry_out, order)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have something done in the loop, as an order is carried out: it ends with the orders."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def hear_blocked(self, lines: str, now_ms: int, store: SyncStore) -> None:
        """Carry out, in the watchdog's thread, the orders that can be while the loop is blocked. Raises StorageError."""
        for order in decode_orders(lines):
            handler = self._handlers.get(order.kind)
            if handler is None or handler.when_blocked is None or order.until_ms < now_ms or not self._begin(order):
                continue
            try:
                done = handler.when_blocked(order)
            except Exception as exc:  # the edge of a handler: the watchdog goes on
                logger.exception(_BROKEN, order.kind, order.by)
                done = _failed(exc)
            asked = self._pen.instance_id
            store.answer(asked, order.order_id, encode_answer(asked, done), _event(order, asked, done))

    def _begin(self, order: Order) -> bool:
        with self._beginning:
            if order.order_id in self._begun:
                return False
            self._begun[order.order_id] = None
            if len(self._begun) > _REMEMBERED:
                self._begun.popitem(last=False)
            return True

    async def _carry_out(self, order: Order, now_ms: int, was_for: str | None) -> None:
        asked = was_for or self._pen.instance_id
        handler = self._handlers.get(order.kind)
        if handler is None:
            done = _UNKNOWN
        elif order.until_ms < now_ms:
            done = _LATE
        elif was_for is not None and not handler.goes_over:
            done = _OTHER
        else:
            done = await self._done(handler.carry_out, order)
        self._answered.append(_Answered(order, asked, done))
        self._hurry()

    async def _done(self, carry_out: CarryOut, order: Order) -> Done:
        try:
            return await carry_out(order)
        except UnsupportedControl as exc:
            return Done(OrderOutcome.UNSUPPORTED, str(exc))
        except Exception as exc:  # the edge of a handler: an order must not hurt the worker
            logger.exception(_BROKEN, order.kind, order.by)
            return _failed(exc)

    # answering

    def ready(self) -> list[_Answered]:
        """Give the answers that have not reached Redis. To be asked before a beat is made: what they say shows in that beat."""
        return list(self._answered)

    def answer_again(self) -> None:
        """Redis is another server, which may have lost the newest answers: callers who wait for them must not hear that none came."""
        since = time.monotonic() - _WAITED_FOR_SECONDS
        self._answered += [answered for at, answered in self._newest if at >= since and answered not in self._answered]
        self._newest.clear()

    async def send_answers(self, ready: Sequence[_Answered]) -> None:
        """Send these answers. Raises StorageUnavailable; then those that have not reached Redis are sent with the next beat."""
        async with self._sending:
            for answered in ready:
                if answered in self._answered:
                    await self._send(answered)

    async def _send(self, answered: _Answered) -> None:
        if self._now_ms() > answered.order.until_ms + _TRACE_MS and await self._undo_if_done(answered):
            self._answered.remove(answered)
            answered = replace(answered, done=_UNDONE)
            self._answered.append(answered)
        order, done = answered.order, answered.done
        event = _event(order, self._pen.instance_id, done)
        answer = encode_answer(self._pen.instance_id, done)
        try:
            stood = await self._store.answer(answered.asked, order.order_id, answer, event)
        except StorageUnavailable:
            raise
        except StorageError as exc:  # refused, and so would the next one be: heartbeats must not end with it
            logger.warning("the answer to the order %r of %s is refused: %s", order.kind, order.by, exc)
            self._answered.remove(answered)
            await self._undo_if_done(answered)  # its caller hears that none came
            return
        self._answered.remove(answered)
        self._newest.append((time.monotonic(), answered))
        if stood == answer:  # it was sent again, and had not been lost
            return
        if not stood:
            self._on_event(event)
        else:
            await self._undo_if_done(answered)

    async def _undo_if_done(self, answered: _Answered) -> bool:
        """The caller was told, or will be, that the order was taken back. Returns whether there was something to undo."""
        if answered.done.outcome is not OrderOutcome.DONE:
            return False
        order, handler = answered.order, self._handlers[answered.order.kind]
        if handler.undo is None:
            return False
        logger.info("the order %r of %s was taken back before it was answered", order.kind, order.by)
        await self._done(handler.undo, order)
        return True

    async def end(self) -> None:
        """Begin nothing more, and end what is being carried out."""
        await end_tasks(self._tasks)


def _failed(exc: Exception) -> Done:
    return Done(OrderOutcome.FAILED, f"{type(exc).__name__}: {exc}"[:300])


def _event(order: Order, instance_id: str, done: Done) -> str:
    return encode_event("control", **event_facts(order.kind, order.by, instance_id, done))
