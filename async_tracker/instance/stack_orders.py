"""The order `stacks`: what the threads of this process do and where its jobs wait, told from the loop, or for it while it is blocked."""

import asyncio
import json
from typing import Any

from async_tracker.control.orders import Done, Order
from async_tracker.instance.order_taker import Handler, OrderTaker
from async_tracker.instance.stacks import Observer
from async_tracker.records import Stacks
from async_tracker.store.stacks_record import encode_stacks, encoding


class StackOrders:
    """Answers orders for stacks by an `Observer`."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def take_orders(self, orders: OrderTaker) -> None:
        """Answer them from here on. They are about this instance alone, and not about the one that it may go on as."""
        orders.handle("stacks", Handler(carry_out=self._from_loop, when_blocked=self._from_outside, goes_over=False))

    async def _from_loop(self, order: Order) -> Done:
        stacks = await self._observer.look(_job_of(order))
        text = await _encoded(stacks)
        return _told(stacks, json.loads(text))

    def _from_outside(self, order: Order) -> Done:
        stacks = self._observer.look_from_outside(_job_of(order))
        return _told(stacks, json.loads(encode_stacks(stacks)))


def _job_of(order: Order) -> str | None:
    job_id = order.arguments.get("job_id")
    return job_id if isinstance(job_id, str) else None


async def _encoded(stacks: Stacks) -> str:
    """Write them with a turn of the loop after each part."""
    steps = encoding(stacks)
    while True:
        try:
            next(steps)
        except StopIteration as over:
            return str(over.value)
        await asyncio.sleep(0)


def _told(stacks: Stacks, details: dict[str, Any]) -> Done:
    """Say how many jobs were seen, for the event that every order is, and give the rest as details.

    >>> from datetime import UTC, datetime
    >>> seen = Stacks(instance_id="w", taken_at=datetime(2026, 1, 1, tzinfo=UTC), took=0.01, is_blocked=True, threads=(), jobs=())
    >>> _told(seen, {}).says
    '0 jobs in flight, 0 threads; its event loop is blocked'
    """
    count = sum(group.count for group in stacks.jobs)
    blocked = "; its event loop is blocked" if stacks.is_blocked else ""
    return Done(says=f"{count} jobs in flight, {len(stacks.threads)} threads{blocked}", details=details)
