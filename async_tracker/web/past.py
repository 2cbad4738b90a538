"""The newest events, and the event that each action of the page leaves: the only place here that knows how events are stored."""

from collections import deque
from typing import Any

from async_tracker import keys
from async_tracker.calls import call
from async_tracker.events import encode_event
from async_tracker.queries import Queries
from async_tracker.records import Event
from async_tracker.store.store import EVENTS_KEPT
from async_tracker.tracker import Tracker

KEPT = 2_000
"""As many of the newest events are looked through; older ones are for ``async-tracker events --since``."""
_AT_ONCE = 100


class Past:
    """The newest events. A second question reads only what is new, as long as that is not very much."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._known: deque[Event] = deque(maxlen=KEPT)

    async def read(self) -> tuple[Event, ...]:
        """Give the newest events, the newest first."""
        if self._known:
            newest = await self._recent(_AT_ONCE)
            ids = [event.event_id for event in newest]
            last = self._known[-1].event_id
            if last in ids:
                self._known.extend(newest[ids.index(last) + 1 :])
                return tuple(reversed(self._known))
        self._known = deque(await self._recent(KEPT), maxlen=KEPT)
        return tuple(reversed(self._known))

    async def _recent(self, count: int) -> list[Event]:
        if hasattr(self._tracker, "recent_events"):
            found: list[Event] = await self._tracker.recent_events(count)
            return found
        async with self._tracker.redis() as namespaced:
            return await Queries(namespaced).recent_events(count)


async def note_action(tracker: Tracker, action: str, *, by: str, peer: str, outcome: str, **facts: Any) -> None:
    """Write the event of an action: who did it, from where, and what came of it."""
    event = encode_event("action", action=action, by=by, peer=peer, outcome=outcome, **facts)
    async with tracker.redis() as namespaced:
        await call(namespaced, "XADD", keys.EVENTS, "MAXLEN", "~", EVENTS_KEPT, "*", "event", event)
