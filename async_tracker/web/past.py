"""The newest events, and the event that each action of the page leaves: the only place here that knows how events are stored."""

from collections import deque
from typing import Any

from async_tracker.events.encoding import encode_event
from async_tracker.records import Event
from async_tracker.store.commands import Store
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
            newest = await self._tracker.recent_events(_AT_ONCE)
            ids = [event.event_id for event in newest]
            last = self._known[-1].event_id
            if last in ids:
                self._known.extend(newest[ids.index(last) + 1 :])
                return tuple(reversed(self._known))
        self._known = deque(await self._tracker.recent_events(KEPT), maxlen=KEPT)
        return tuple(reversed(self._known))


async def note_action(tracker: Tracker, action: str, *, by: str, peer: str, outcome: str, **facts: Any) -> None:
    """Write the event of an action: who did it, from where, and what came of it."""
    event = encode_event("action", action=action, by=by, peer=peer, outcome=outcome, **facts)
    async with tracker.redis() as namespaced:
        await Store(namespaced).publish(event)
