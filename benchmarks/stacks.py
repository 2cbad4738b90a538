"""What it costs a worker to tell where each of its jobs waits: its own event loop looks, and has a turn for the jobs in between.

Measured as processor time of the loop's thread, which a busy machine makes no longer: what is asked for is how long the jobs are held up.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from async_tracker.clock import ServerClock
from async_tracker.control.orders import Order
from async_tracker.instance.order_taker import Handler, OrderTaker
from async_tracker.instance.runs import Run
from async_tracker.instance.stack_orders import StackOrders
from async_tracker.instance.stacks import Observer
from benchmarks.medians import Estimate, estimate
from benchmarks.report import Table

GOAL_MS, GOAL_TURN_MS = 30.0, 5.0
_FUNCTIONS = ("send_email", "resize_image", "charge_card", "sync_account", "build_report")
_NEVER = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one answer costs, and the longest turn of it, in ms of the loop's thread."""

    spent: Estimate
    turn: Estimate

    @property
    def reaches_its_goal(self) -> bool:
        """Whether it takes no longer than was asked for."""
        return self.spent.median <= GOAL_MS and self.turn.median <= GOAL_TURN_MS


async def fetch(over: asyncio.Event) -> None:
    """Wait, as for a database."""
    await over.wait()


async def plain(over: asyncio.Event) -> None:
    """Wait in a coroutine of one's own."""
    await fetch(over)


async def branched(over: asyncio.Event) -> None:
    """Wait for a task, which waits for two at once, with a limit."""
    async with asyncio.timeout(_NEVER):
        await asyncio.create_task(_both(over))


async def _both(over: asyncio.Event) -> None:
    await asyncio.gather(plain(over), fetch(over))


WAYS: dict[str, Callable[[asyncio.Event], Awaitable[None]]] = {
    "in a coroutine that it awaits": plain,
    "in a task that gathers two, with a limit": branched,
}
"""How the jobs wait."""


class _Order(OrderTaker):
    """Takes the handler of one order, to have it carried out without a worker around it."""

    def __init__(self) -> None:
        self.handler: Handler | None = None

    def handle(self, kind: str, handler: Handler) -> None:
        self.handler = handler


async def measure(jobs: int, *, rounds: int) -> dict[str, Cost]:
    """Have so many jobs in flight, and ask where they wait."""
    return {name: await _measure(way, jobs, rounds=rounds) for name, way in WAYS.items()}


async def _measure(way: Callable[[asyncio.Event], Awaitable[None]], jobs: int, *, rounds: int) -> Cost:
    over = asyncio.Event()
    nobody = cast(Any, None)  # what keeps a run is not asked by a look
    runs = [Run(f"job-{number}", f"{number:x}", "w", 0, 0.0, nobody, function=_FUNCTIONS[number % 5]) for number in range(jobs)]
    for run in runs:
        run.placed = asyncio.ensure_future(way(over))
    for _ in range(5):  # until each waits where it will
        await asyncio.sleep(0)
    taken = _Order()
    StackOrders(Observer(runs=lambda: runs, instance_id=lambda: "w", clock=ServerClock())).take_orders(taken)
    assert taken.handler is not None
    order = Order(order_id="1", kind="stacks", by="benchmark", arguments={})
    spent, turns = [], []
    for _ in range(rounds + 1):  # in the first one, texts are made that are kept
        began = time.thread_time()
        await taken.handler.carry_out(order)
        spent.append((time.thread_time() - began) * 1000)
        turns.append(await longest_turn(taken.handler.carry_out(order), clock=time.thread_time))
    over.set()
    await asyncio.gather(*(run.placed for run in runs))
    return Cost(spent=estimate(spent[1:]), turn=estimate(turns[1:]))


async def longest_turn(work: Awaitable[Any], *, clock: Callable[[], float]) -> float:
    """Do it, and tell for how many ms by this clock at most it kept the others on the event loop from a turn."""
    working = asyncio.ensure_future(work)
    longest, before = 0.0, clock()
    while not working.done():
        await asyncio.sleep(0)
        now = clock()
        longest, before = max(longest, now - before), now
    await working
    return longest * 1000


def table(measured: dict[str, Cost], jobs: int) -> Table:
    """Lay them out."""
    return Table(
        title=f"`stacks` of {jobs:,} jobs in flight, in the worker that is asked; processor time of its event loop",
        columns=["each job waits", "ms in all", "interval", "longest turn, ms"],
        rows=[
            [name, f"{cost.spent.median:,.1f}", f"{cost.spent.low:,.1f} to {cost.spent.high:,.1f}", f"{cost.turn.median:,.2f}"]
            for name, cost in measured.items()
        ],
    )


def meaning(measured: dict[str, Cost], jobs: int) -> str:
    """Say it in a sentence."""
    found = "; ".join(f"{name}: {cost.spent.median:.1f} and {cost.turn.median:.1f} ms" for name, cost in measured.items())
    reached = all(cost.reaches_its_goal for cost in measured.values())
    return (
        f"To tell where {jobs:,} jobs wait takes the event loop of their worker so long in all and in its longest turn: {found} "
        f"(goal for 1,000: {GOAL_MS:.0f} and {GOAL_TURN_MS:.0f} ms: {'reached' if reached else 'missed'})."
    )
