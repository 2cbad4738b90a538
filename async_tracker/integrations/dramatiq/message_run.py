"""A run as the middleware of dramatiq knows it."""

import threading

from dramatiq.broker import MessageProxy

from async_tracker.clock import monotonic_ms
from async_tracker.instance.runs import shown_args, tokens
from async_tracker.integrations.dramatiq.aborts import AbortableRun
from async_tracker.integrations.dramatiq.description import time_limit
from async_tracker.integrations.dramatiq.names import LIBRARY
from async_tracker.integrations.dramatiq.outcomes import Ending
from async_tracker.integrations.dramatiq.tracked_worker import TrackedWorker
from async_tracker.store.fitting import fit_whole
from async_tracker.store.run_record import job_ref
from async_tracker.telemetry.tracing import Traced

DUE_AT = "async_tracker_due_at"
"""The option of a message that was delayed: when it was due, in ms."""


class DramatiqRun(AbortableRun):
    """One run between its hooks, all of which run in the same thread.

    Made for every message, and most are gone before the journal reads them: what only a record needs is read off the message then.
    """

    library: str = LIBRARY
    scope: str = LIBRARY
    library_files: tuple[str, ...] = (
        "threading.py",
        "dramatiq/worker.py",
        "dramatiq/actor.py",
        "dramatiq/asyncio.py",
        "dramatiq/interruption.py",
    )
    traced: Traced | None = None
    """Its span, with ``telemetry=True``."""

    def __init__(self, tracked: TrackedWorker, message: MessageProxy) -> None:
        self.tracked = tracked
        self.message = message
        self.job_id: str = message.message_id
        self.token = tokens.new()
        self.instance_id = tracked.runtime.instance_id
        self.started_mono_ms = monotonic_ms()
        self.ending = Ending()
        self.placed = threading.get_ident()
        self.retries: int = message.options.get("retries", 0)
        """How often the message had been retried when it started."""
        if self.retries:
            self.job_try = self.retries + 1
        if tracked.settings.record_args:  # now: the actor may change them
            self.args = shown_args(message.args, message.kwargs, tracked.settings.redact)

    @property
    def redis_message_id(self) -> str:
        """The id by which a Redis broker has the message."""
        return str(self.message.options["redis_message_id"])

    def complete(self) -> None:
        """Learn what is only needed where the run is read. Any thread may, also several at once: each learns the same."""
        message, tracked = self.message, self.tracked
        self.keeper = tracked.runtime
        self.ref = job_ref(LIBRARY, self.job_id)
        self.started_at_ms = tracked.runtime.clock.at_ms(self.started_mono_ms)
        self.function = message.actor_name
        self.queue = message.queue_name
        self.enqueued_at_ms = message.message_timestamp
        self.due_at_ms = fit_whole(message.options.get(DUE_AT, message.message_timestamp))
        self.timeout = time_limit(tracked.worker.broker, message)
        if tracked.broker is not None:
            self.hold = tracked.broker.hold(message.queue_name, self.redis_message_id).encode()
