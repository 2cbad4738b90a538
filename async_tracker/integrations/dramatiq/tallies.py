"""Counting the messages that end before anything has read their runs, as most do: in the thread that ran them, and without a lock."""

from time import monotonic

from dramatiq.broker import MessageProxy

from async_tracker.clock import ServerClock
from async_tracker.instance.counts import Tally
from async_tracker.instance.journal import Journal
from async_tracker.instance.runs import Run
from async_tracker.integrations.dramatiq.names import DUE_AT

_LATEST_MS = 1e15
"""Beyond it a time stamp is no time."""


class Tallies:
    """The tallies of one worker, which all its threads fill."""

    def __init__(self, journal: Journal, clock: ServerClock) -> None:
        self._new = journal.new
        self._counts = journal.counts
        self._clock = clock
        self._of: dict[tuple[str, str], Tally] = {}

    def count(self, run: Run, message: MessageProxy) -> bool:
        """Count a run of this message that has ended well. Returns False where that is for the journal.

        That is where the journal has taken the run in, and where the message has not come straight from its queue, or tells no time.
        """
        sent_at_ms = message.message_timestamp
        if DUE_AT in message.options or type(sent_at_ms) is not int or not 0 <= sent_at_ms <= _LATEST_MS:
            return False
        key = (message.actor_name, message.queue_name)
        tally = self._of.get(key)
        if tally is None:
            tally = self._of[key] = self._counts.tally(*key)
        if self._new.pop(run, None) is None:
            return False
        run.in_flight = False
        started_mono_ms = run.started_mono_ms
        tally += (monotonic() * 1000.0 - started_mono_ms, started_mono_ms + self._clock.offset_ms - sent_at_ms)  # both or none
        return True
