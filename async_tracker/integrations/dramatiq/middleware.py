"""The middleware of a dramatiq worker. Its hooks run in the worker's threads: they append to the journal and return.

The instance lives in an event loop of its own, in one thread per process. Whatever goes wrong in here stays in here: a worker
that cannot be tracked still works.
"""

import itertools
import logging
import threading
from typing import Any

from dramatiq.actor import Actor
from dramatiq.broker import Broker as DramatiqBroker
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware
from dramatiq.threading import is_gevent_active
from dramatiq.worker import Worker

from async_tracker.connections.counterparts import async_counterpart
from async_tracker.errors import ConfigError
from async_tracker.instance.runs import current
from async_tracker.integrations.dramatiq.interruption import Bracket, put_brackets
from async_tracker.integrations.dramatiq.message_run import DUE_AT, DramatiqRun
from async_tracker.integrations.dramatiq.outcomes import outcome
from async_tracker.integrations.dramatiq.tracked_worker import TrackedWorker
from async_tracker.integrations.footing import HasFooting
from async_tracker.integrations.hook_failures import HookFailures
from async_tracker.telemetry.tracing import Tracing

logger = logging.getLogger("async_tracker")


class TrackerMiddleware(Middleware):
    """Tracks every message that a worker of this broker processes, and recovers those of workers that died.

    ``broker.add_middleware(TrackerMiddleware(tracker))``, before the actors are declared or after. In processes that only enqueue
    it does nothing.

    With ``abort=True`` a message that is processed can be aborted by an order: `Aborted` is raised in its actor, a coroutine is
    cancelled, and the message goes to the dead letters. Without it such an order is answered with `UnsupportedControl`.
    """

    def __init__(self, tracker: HasFooting, *, abort: bool = False) -> None:
        if not isinstance(abort, bool):
            raise ConfigError(f"TrackerMiddleware(abort={abort!r}): write True or False")
        self._may_abort = abort
        self._tracker = tracker
        self._settings = tracker.settings
        self._local = threading.local()
        self._numbers = itertools.count()
        self._workers: tuple[TrackedWorker, ...] = ()
        """Those of this broker that are tracked: one, as a rule, but a process may have made more."""
        self._lock = threading.Lock()
        self._failed = HookFailures().note

    # the workers

    def before_worker_boot(self, broker: DramatiqBroker, worker: Worker) -> None:
        """Register the instance, before the first message is fetched."""
        try:
            self._begin(broker, worker)
        except Exception:  # the edge of a hook
            logger.exception("tracking could not start; the worker runs without it")

    def _begin(self, broker: DramatiqBroker, worker: Worker) -> None:
        if is_gevent_active():  # type: ignore[no-untyped-call]
            logger.warning("tracking needs a real thread, and gevent has replaced them all: the worker runs without it")
            return
        footing = self._tracker.footing
        if isinstance(broker, RedisBroker) and not footing.access.is_explicit:
            footing.access.default_to(lambda: async_counterpart(broker.client))
        if not isinstance(broker, RedisBroker):
            logger.info("%s gives back itself what a dead worker held: the tracker only tracks", type(broker).__name__)
        if self._may_abort:
            for actor in list(broker.actors.values()):
                put_brackets(actor, self._bracket)
        tracked = TrackedWorker(footing, broker, worker, may_abort=self._may_abort)
        with self._lock:
            self._workers = (*self._workers, tracked)

    def after_declare_actor(self, broker: DramatiqBroker, actor: Actor[..., Any]) -> None:
        """An actor that is declared while the worker runs can be aborted as well."""
        if self._may_abort and self._workers:
            put_brackets(actor, self._bracket)

    def _bracket(self) -> Bracket | None:
        """Give the bracket of the message that this thread has in hand."""
        found: DramatiqRun | None = getattr(self._local, "found", None)
        return found.bracket if found is not None else None

    def after_declare_queue(self, broker: DramatiqBroker, queue_name: str) -> None:
        """A queue that is declared while the worker runs is one more to look for claims in."""
        for tracked in self._workers:
            tracked.describe_anew()

    def after_consumer_thread_boot(self, broker: DramatiqBroker, thread: Any) -> None:
        """A consumer that begins while its worker is quiet fetches nothing either."""
        for tracked in self._workers:
            if tracked.controls.is_quiet and thread.work_queue is tracked.worker.work_queue:
                tracked.controls.pause(thread)

    def before_worker_shutdown(self, broker: DramatiqBroker, worker: Worker) -> None:
        """Say that shutdown has begun; the instance beats until its last message is processed."""
        for tracked in self._workers:
            if tracked.worker is worker:
                tracked.drain()

    def after_worker_shutdown(self, broker: DramatiqBroker, worker: Worker) -> None:
        """Deregister the instance, unless messages have outlasted the worker's shutdown timeout.

        Those still run until the process ends, in seconds or never: the end of its connection will tell, and no job is blamed.
        """
        with self._lock:
            left = [tracked for tracked in self._workers if tracked.worker is worker]
            self._workers = tuple(tracked for tracked in self._workers if tracked.worker is not worker)
        for tracked in left:
            try:
                if not tracked.runtime.journal.busy:
                    tracked.leave()
            except Exception:  # the edge of a hook
                logger.exception("tracking did not end in order; the sweep will find out")

    # messages

    def before_delay_message(self, broker: DramatiqBroker, message: MessageProxy) -> None:
        """Note in a message that this worker holds until it is due when that is: dramatiq drops it when it hands the message on."""
        message.options[DUE_AT] = message.options.get("eta")

    def before_process_message(self, broker: DramatiqBroker, message: MessageProxy) -> None:
        """Put the run in flight. With ``durable``, wait until it is written, for ``hook_timeout`` seconds at most."""
        try:
            found = self._start(broker, message)
        except Exception as exc:  # the edge of a hook
            self._failed(exc)
            return
        if found is not None and self._settings.durable:
            found.tracked.thread.call(found.tracked.runtime.wait_stored, found)

    def _start(self, broker: DramatiqBroker, message: MessageProxy) -> DramatiqRun | None:
        tracked = self._of_this_thread()
        if tracked is None or not tracked.runtime.is_running:
            return None
        run = self._local.found = DramatiqRun(tracked, message)
        if self._may_abort:
            run.bracket = Bracket(message)
        current.set(run)
        if tracked.marks is not None:
            tracked.marks.begin(self._number(), run.redis_message_id)
        tracked.runtime.journal.start(run)
        if run.retries:
            tracked.runtime.writer.hurry(run)
        if tracked.tracing is not None:
            self._trace(tracked.tracing, run)
        return run

    def _trace(self, tracing: Tracing, run: DramatiqRun) -> None:
        """Begin the span of a run, and link it to that of a lost one: dramatiq does not tell a first run from one after a death."""
        run.complete()
        run.traced = tracing.begin(run, run.message.options)
        run.traceparent = run.traced.traceparent
        if run.is_taken_in and run.sent:
            run.keeper.touch(run)
        run.traced.link(run.tracked.thread.call(run.tracked.runtime.lost_traceparent, run.ref))

    def _number(self) -> int:
        """Number this thread, from 0."""
        number: int | None = getattr(self._local, "number", None)
        if number is None:
            number = self._local.number = next(self._numbers)
        return number

    def _of_this_thread(self) -> TrackedWorker | None:
        """Tell whose thread this is: a worker's threads take their messages from one queue, which is its own."""
        queue = getattr(threading.current_thread(), "work_queue", None)
        for tracked in self._workers:
            if tracked.worker.work_queue is queue:
                return tracked
        return self._workers[0] if queue is None and len(self._workers) == 1 else None

    def after_process_message(
        self, broker: DramatiqBroker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Note how the actor ended; what becomes of the message is for other middlewares to decide."""
        found = self._found(message)
        if found is not None:
            found.ending.is_processed = True
            found.ending.error = exception
            if found.traced is not None:
                found.traced.end("failed" if exception is not None else "succeeded", exception)

    def after_skip_message(self, broker: DramatiqBroker, message: MessageProxy) -> None:
        """A middleware would not have the message processed; if it was asked before us, there is no run of it yet."""
        try:
            found = self._found(message) or self._start(broker, message)
            if found is not None:
                if found.traced is not None:
                    found.traced.end("skipped")
                found.ending.is_skipped = True
                found.complete()  # out of flight, no other thread reads it before it is counted
                found.tracked.runtime.journal.discard(found)
        except Exception as exc:  # the edge of a hook
            self._failed(exc)

    def before_ack(self, broker: DramatiqBroker, message: MessageProxy) -> None:
        """Take the run out of flight: every middleware has decided by now."""
        self._end(message)

    def before_nack(self, broker: DramatiqBroker, message: MessageProxy) -> None:
        """Take the run of a message out of flight that goes to the dead letters."""
        self._end(message)

    def _end(self, message: MessageProxy) -> None:
        found = self._found(message)
        if found is None:
            return
        self._local.found = None
        current.set(None)
        if found.bracket is not None:
            found.bracket.shut()  # where its actor was never called
            found.ending.is_abort_asked = found.bracket.is_asked
            self._local.interrupted = found if found.bracket.is_asked else None
        try:
            found.ending.is_dead = message.failed
            found.ending.is_retried = message.options.get("retries", 0) > found.retries and not message.failed
            found.tracked.runtime.finish_run(found, outcome(found.ending))
        except Exception as exc:  # the edge of a hook
            self._failed(exc)

    def after_ack(self, broker: DramatiqBroker, message: MessageProxy) -> None:
        """The broker knows that the message is done: it does not run again, also where this worker dies now."""
        self._settle(message)

    def after_nack(self, broker: DramatiqBroker, message: MessageProxy) -> None:
        """The broker has the message with the dead letters."""
        self._settle(message)

    def _settle(self, message: MessageProxy) -> None:
        if not self._may_abort:
            return
        run: DramatiqRun | None = getattr(self._local, "interrupted", None)
        if run is None or run.message is not message or run.tracked.aborts is None:
            return
        self._local.interrupted = None
        try:
            run.tracked.thread.post(run.tracked.aborts.settled, run)
        except Exception as exc:  # the edge of a hook
            self._failed(exc)

    def _found(self, message: MessageProxy) -> DramatiqRun | None:
        """Give this thread's run of a message; messages of a delay queue have none, they are only moved."""
        found: DramatiqRun | None = getattr(self._local, "found", None)
        return found if found is not None and found.message is message else None
