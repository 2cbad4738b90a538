"""A run as the middleware of dramatiq knows it."""

from typing import Any

from dramatiq.broker import MessageProxy

from async_tracker.instance.runs import tokens
from async_tracker.integrations.dramatiq.aborts import AbortableRun
from async_tracker.integrations.dramatiq.description import time_limit
from async_tracker.integrations.dramatiq.names import DUE_AT, LIBRARY
from async_tracker.integrations.dramatiq.tracked_worker import TrackedWorker
from async_tracker.store.fitting import fit_whole
from async_tracker.store.run_record import job_ref
from async_tracker.telemetry.tracing import Traced


class DramatiqRun(AbortableRun):
    """One run between its hooks, all of which run in the same thread.

    Made for every message, and most are gone before anything reads them. So it starts with what the hook has at hand, and what only a
    record needs is read off the message when it is asked to be complete.
    """

    tracked: TrackedWorker
    message: MessageProxy
    thread: int
    """The number that Python gives the thread in which it runs."""
    retries: int = 0
    """How often the message had been retried when it started."""
    error: BaseException | None = None
    """What the actor raised."""
    is_processed: bool = False
    is_skipped: bool = False

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

    __init__ = object.__init__

    @property
    def redis_message_id(self) -> str:
        """The id by which a Redis broker has the message."""
        return str(self.message.options["redis_message_id"])

    def place(self) -> Any:
        """Give the number of the thread that runs it; None once it has ended."""
        return self.thread if self.in_flight else None

    def complete(self) -> None:
        """Learn what is only needed where the run is read. Any thread may, also several at once: each learns the same."""
        message, tracked = self.message, self.tracked
        facts = self.__dict__
        facts.setdefault("token", tokens.new())
        facts.setdefault("instance_id", tracked.runtime.instance_id)
        self.keeper = tracked.runtime
        self.job_id = message.message_id
        if self.retries:
            self.job_try = self.retries + 1
        self.ref = job_ref(LIBRARY, self.job_id)
        self.started_at_ms = tracked.runtime.clock.at_ms(self.started_mono_ms)
        self.function = message.actor_name
        self.queue = message.queue_name
        self.enqueued_at_ms = message.message_timestamp
        self.due_at_ms = fit_whole(message.options.get(DUE_AT, message.message_timestamp))
        self.timeout = time_limit(tracked.worker.broker, message)
        if tracked.broker is not None:
            self.hold = tracked.broker.hold(message.queue_name, self.redis_message_id).encode()
