"""The events that are kept, and the event that each action of the page leaves: the only place here that knows how they are stored."""

from collections import deque
from typing import Any

from async_tracker.events.encoding import encode_event
from async_tracker.records import Event
from async_tracker.store.commands import Store
from async_tracker.tracker import Tracker

KEPT = 12_000
"""Events that are looked through: the newest that the stream keeps."""
_AT_ONCE = 100
_PARTS, _PART = 5, 200
"""So many parts of so many are read at first, and as many older ones with each further reading, until all are known: no reading takes
long, and others on the loop have a turn after each part."""


class Past:
    """The events, as far as they were read. A second question reads only what is new, as long as that is not very much, and some older."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._known: deque[Event] = deque(maxlen=KEPT)
        self._is_whole = False

    async def read(self) -> tuple[Event, ...]:
        """Give the events, the newest first."""
        if not await self._go_on():
            self._known.clear()
            self._known.extend(await self._tracker.recent_events(_PART, unread=True))
            self._is_whole = not self._known
            await self._go_back(_PARTS - 1)
        return tuple(reversed(self._known))

    async def _go_on(self) -> bool:
        """Read what is new, and some of what is older. False where the last that is known is not among the newest."""
        if not self._known:
            return False
        newest = await self._tracker.recent_events(_AT_ONCE, unread=True)
        ids = [event.event_id for event in newest]
        last = self._known[-1].event_id
        if last not in ids:
            return False
        self._known.extend(newest[ids.index(last) + 1 :])
        await self._go_back(_PARTS)
        return True

    async def _go_back(self, parts: int) -> None:
        """Read some of what is older, in so many parts."""
        for _ in range(parts):
            room = KEPT - len(self._known)
            if self._is_whole or not room:
                return
            older = await self._tracker.recent_events(min(_PART, room), before=self._known[0].event_id, unread=True)
            self._known.extendleft(reversed(older))
            self._is_whole = not older


async def note_action(tracker: Tracker, action: str, *, by: str, peer: str, outcome: str, **facts: Any) -> None:
    """Write the event of an action: who did it, from where, and what came of it."""
    event = encode_event("action", action=action, by=by, peer=peer, outcome=outcome, **facts)
    async with tracker.redis() as namespaced:
        await Store(namespaced).publish(event)
