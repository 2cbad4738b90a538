"""``@tracker.on(...)``: callbacks in the process that acts."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from async_tracker.clock import ServerClock
from async_tracker.config import unknown_names
from async_tracker.events.encoding import EVENT_TYPES, decode_event
from async_tracker.records import Event

logger = logging.getLogger("async_tracker")

Listener = Callable[[Event], Awaitable[None] | None]


class Listeners:
    """The callbacks of one process, by type of event. What a callback raises is logged and goes no further."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def add(self, event_types: tuple[str, ...], listener: Listener) -> None:
        """Call ``listener`` for these events. Raises ConfigError for an event that does not exist."""
        unknown_names(dict.fromkeys(event_types), EVENT_TYPES, what="event")
        for event_type in event_types:
            self._listeners.setdefault(event_type, []).append(listener)

    def announce(self, raw: str) -> None:
        """Call each listener of this event, which is given as JSON; coroutines run as tasks of the running loop."""
        if not self._listeners:
            return
        event = decode_event(f"{ServerClock().now_ms()}-0", raw)
        for listener in self._listeners.get(event.type, []):
            try:
                waited = listener(event)
            except Exception:  # the edge of a user's callback
                logger.exception("a listener of %s failed", event.type)
                continue
            if inspect.isawaitable(waited):
                task = asyncio.ensure_future(_guarded(waited, event.type))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)


async def _guarded(waited: Awaitable[None], event_type: str) -> None:
    try:
        await waited
    except Exception:  # the edge of a user's callback
        logger.exception("a listener of %s failed", event_type)
