"""How long one piece of work keeps the event loop from the others: counted in calls, which no machine makes more of than another."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


async def most_in_a_turn(work: Coroutine[Any, Any, T], function: Callable[..., Any]) -> tuple[T, int]:
    """Do the work. Returns its result, and how often at most it called the function before another task had a turn."""
    since_a_turn, most = 0, 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal since_a_turn, most
        if event == "call" and frame.f_code is function.__code__:
            since_a_turn += 1
            most = max(most, since_a_turn)

    working = asyncio.create_task(work)
    sys.setprofile(count)
    try:
        while not working.done():
            since_a_turn = 0
            await asyncio.sleep(0)
    finally:
        sys.setprofile(None)
    return working.result(), most
