"""Orders, from the side of the person who gives them: put down, waited for, and taken back where they are not answered."""

import contextlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import anyio

from async_tracker.connections.calls import bounded
from async_tracker.control.aim import Aim
from async_tracker.control.orders import (
    BEYOND_SECONDS,
    Done,
    Order,
    decode_answer,
    encode_answer,
    encode_order,
    event_facts,
    scope_of,
    standing_arguments,
    standing_order,
)
from async_tracker.errors import StorageError, StorageUnavailable, UnsupportedControl
from async_tracker.events.encoding import encode_event
from async_tracker.records import Answer, Instance, OrderOutcome, StandingOrder
from async_tracker.store.commands import Store
from async_tracker.store.writes import OrderToPlace

T = TypeVar("T")

_FIRST_LOOK_SECONDS = 0.05
_LONGEST_LOOK_SECONDS = 0.25
"""How far looks for answers are apart; one look costs one round trip, of however many instances."""
_SWITCH_SECONDS = 15.0
"""For how long Redis may be away while answers are waited for: as long as a failover takes."""
_REPLY_SECONDS = 5.0
"""How long one reply may take then. A server that stands still, or a host that is lost, refuses nothing."""
_PLACED, _NOT_REGISTERED, _NOT_TAKEN, _TOO_MANY = 1, 0, -1, -2

_NOT_PLACED = {
    _NOT_REGISTERED: Done(OrderOutcome.NOT_FOUND, "no such instance is registered"),
    _NOT_TAKEN: Done(OrderOutcome.REFUSED, "it takes no such order: its tracker was made with control=False, or without this one"),
    _TOO_MANY: Done(OrderOutcome.REFUSED, "too many of its orders are open"),
}
_CALLER_LEFT = "its caller waits no longer"
_GONE = Done(OrderOutcome.GONE, "it has ended, or was declared dead, before it answered")


class Control:
    """Gives orders to instances. ``by`` is who gives them; ``on_event`` is given each event, encoded, of which the caller is the cause."""

    def __init__(self, store: Store, *, by: str, on_event: Callable[[str], None]) -> None:
        self._store = store
        self._by = by
        self._on_event = on_event

    async def ask(
        self,
        instance_ids: Sequence[str],
        kind: str,
        *,
        arguments: Mapping[str, Any] | None = None,
        beyond: float = BEYOND_SECONDS,
    ) -> list[Answer]:
        """Give one order to each of these instances and wait for the answers, which come back in the order of the ids.

        Each is given its own heartbeat interval and ``beyond`` seconds; what is not answered by then is taken back. Raises
        StorageError, and TrackerError for nothing else: whatever a worker does with an order is in its answer.
        """
        orders = {name: Order(order_id=secrets.token_hex(8), kind=kind, by=self._by, arguments=arguments or {}) for name in instance_ids}
        to_place = {name: OrderToPlace(order_id=order.order_id, kind=kind, text=encode_order(order)) for name, order in orders.items()}
        try:
            placed = await _within(_SWITCH_SECONDS, self._store.order(to_place, beyond_ms=int(beyond * 1000)))
        except (anyio.get_cancelled_exc_class(), StorageUnavailable):  # it may stand, although its caller has not been told
            with anyio.CancelScope(shield=True), contextlib.suppress(StorageError):
                await self._take_back(orders, list(orders), {}, _CALLER_LEFT)
            raise
        answers: dict[str, Answer] = {}
        ends: dict[str, float] = {}
        began = anyio.current_time()
        for name, (status, open_ms) in placed.items():
            if status == _PLACED:
                ends[name] = began + open_ms / 1000.0
            else:
                done = _NOT_PLACED[status]
                await self._tell(orders[name], name, done)
                answers[name] = _answer(kind, name, done)
        try:
            await self._wait(orders, ends, answers)
        finally:
            if ends:  # the caller was cancelled, or is told that Redis is away: what is not answered must not be done behind its back
                with anyio.CancelScope(shield=True), contextlib.suppress(StorageError):
                    await self._take_back(orders, list(ends), answers, _CALLER_LEFT)
        return [answers[name] for name in instance_ids]

    async def give(
        self,
        aim: Aim,
        arguments: Mapping[str, Any],
        *,
        instances: Callable[[], Awaitable[Iterable[Instance]]],
        beyond: float = BEYOND_SECONDS,
    ) -> Answer | list[Answer]:
        """Give an order to those whom it is for; ``instances`` is asked who is there where no ids were given.

        Returns one answer where one id was given, and raises UnsupportedControl where its library cannot do it; otherwise all answers.
        """
        names = aim.names if aim.names is not None else aim.among(await instances())
        answers = await self.ask(names, aim.order, arguments=arguments, beyond=beyond)
        if not aim.is_one:
            return answers
        (answer,) = answers
        if answer.outcome is OrderOutcome.UNSUPPORTED:
            raise UnsupportedControl(f"{answer.instance_id}: {answer.says}")
        return answer

    async def stand(self, kind: str, *, queue: str | None, seconds: float, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Have an order stand for so many seconds, for the workers of a queue or for all: what registers meanwhile begins with it.

        Returns the arguments with which it goes to those that are there, who are to know when it is over.
        """
        scope = scope_of(queue)
        order = Order(order_id=secrets.token_hex(8), kind=kind, by=self._by, arguments=standing_arguments(arguments, scope=scope))
        until_ms = await self._store.stand(scope, order.order_id, encode_order(order), for_ms=int(seconds * 1000))
        whose = "all instances" if queue is None else f"the instances of {queue}"
        await self._tell(order, None, Done(says=f"stands for {whose} that register in the next {seconds:g} s"))
        return standing_arguments(arguments, scope=scope, until_ms=until_ms)

    async def withdraw(self, *, queue: str | None) -> int:
        """Withdraw the standing order of a queue, or with None all of them. Returns how many there were."""
        return await self._store.withdraw("" if queue is None else scope_of(queue))

    async def standing(self) -> list[StandingOrder]:
        """Give the orders that stand."""
        now_ms, lines = await self._store.standing()
        found = [standing_order(scope, line, now_ms=now_ms) for scope, line in sorted(lines.items())]
        return [order for order in found if order is not None]

    async def _wait(self, orders: Mapping[str, Order], ends: dict[str, float], answers: dict[str, Answer]) -> None:
        """Move instances from ``ends`` to ``answers`` until none is left. The time for which Redis is away in between is not counted."""
        pause, looked_at, gives_up_at = _FIRST_LOOK_SECONDS, anyio.current_time(), None
        while ends:
            await anyio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_LOOK_SECONDS)
            now = anyio.current_time()
            try:
                await self._look(orders, ends, answers)
            except StorageUnavailable as exc:
                gives_up_at = gives_up_at or max(now + _SWITCH_SECONDS, *ends.values())
                if now >= gives_up_at:
                    raise StorageUnavailable(f"{exc}; what came of the order is not known, and it is not begun any more") from exc
            else:
                if gives_up_at is not None:
                    gives_up_at = None
                    for name in ends:
                        ends[name] += now - looked_at
                looked_at = now

    async def _look(self, orders: Mapping[str, Order], ends: dict[str, float], answers: dict[str, Answer]) -> None:
        """Look once for answers, and take back what is not answered in time."""
        found = await _within(_REPLY_SECONDS, self._store.answers({name: orders[name].order_id for name in ends}))
        now = anyio.current_time()
        over: list[str] = []
        gone: list[str] = []
        for name, (stored, may_answer) in found.items():
            if stored is not None:
                del ends[name]
                answers[name] = _of(orders[name], name, stored)
            elif not may_answer:
                gone.append(name)
            elif now >= ends[name]:
                over.append(name)
        for left, says in ((gone, ""), (over, "no answer in time, so it was taken back")):
            for name in left:  # one by one: where Redis goes away meanwhile, those that were taken back are settled
                await self._take_back(orders, [name], answers, says)
                del ends[name]

    async def _take_back(self, orders: Mapping[str, Order], names: Sequence[str], answers: dict[str, Answer], says: str) -> None:
        """Answer orders in the place of their instances, ``says`` why; '' where they are gone. An answer that came first stands."""
        done = Done(OrderOutcome.UNANSWERED, says) if says else _GONE
        for name in names:
            order = orders[name]
            event = encode_event("control", **event_facts(order.kind, order.by, name, done))
            stood = await _within(_REPLY_SECONDS, self._store.answer(name, order.order_id, encode_answer(name, done), event))
            if stood:
                answers[name] = _of(order, name, stood)
            else:
                self._on_event(event)
                answers[name] = _answer(order.kind, name, done)

    async def _tell(self, order: Order, name: str | None, done: Done) -> None:
        event = encode_event("control", **event_facts(order.kind, order.by, name, done))
        await self._store.publish(event)
        self._on_event(event)


async def _within(seconds: float, asked: Coroutine[Any, Any, T]) -> T:
    """Wait so long for Redis. Raises StorageUnavailable where it does not answer by then: a client need not have a limit of its own."""
    try:
        return await bounded(asked, seconds)
    except TimeoutError as exc:
        raise StorageUnavailable(f"Redis did not answer within {seconds:g} s") from exc


def _answer(kind: str, name: str, done: Done) -> Answer:
    return Answer(order=kind, instance_id=name, outcome=done.outcome, says=done.says, details=done.details)


def _of(order: Order, name: str, stored: str) -> Answer:
    """Read an answer, and say it where the instance that answers goes by another id than the one that was asked."""
    answer = decode_answer(stored, kind=order.kind)
    if answer.instance_id in (name, "?"):
        return replace(answer, instance_id=name)
    return replace(answer, details={**answer.details, "asked": name})
