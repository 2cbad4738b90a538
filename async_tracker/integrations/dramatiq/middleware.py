"""The middleware of a dramatiq worker. Its hooks run in the worker's threads: they append to the journal and return.

The instance lives in an event loop of its own, in one thread per process. Whatever goes wrong in here stays in here: a worker
that cannot be tracked still works.
"""

import itertools
import logging
import threading
from time import monotonic
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
from async_tracker.instance.runs import current, shown_args
from async_tracker.integrations.dramatiq.interruption import Bracket, put_brackets
from async_tracker.integrations.dramatiq.message_run import DramatiqRun
from async_tracker.integrations.dramatiq.names import DUE_AT
from async_tracker.integrations.dramatiq.outcomes import Ending, outcome
from async_tracker.integrations.dramatiq.tracked_worker import TrackedWorker
from async_tracker.integrations.footing import HasFooting
from async_tracker.integrations.hook_failures import HookFailures
from async_tracker.telemetry.tracing import Tracing

logger = logging.getLogger("async_tracker")


class _Seat:
    """One thread of a worker, as it passes through the hooks: whose it is, and the run that it has in hand."""

    __slots__ = ("number", "run", "thread", "tracked", "workers")

    def __init__(self, number: int) -> None:
        self.number = number
        self.thread = threading.get_ident()
        self.run: DramatiqRun | None = None
        self.tracked: TrackedWorker | None = None
        self.workers: tuple[TrackedWorker, ...] = ()
        """Among which its own was looked for."""


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
        seat: _Seat | None = getattr(self._local, "seat", None)
        return seat.run.bracket if seat is not None and seat.run is not None else None

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
            run = self._start(message)
        except Exception as exc:  # the edge of a hook
            self._failed(exc)
            return
        if run is not None and self._settings.durable:
            run.tracked.thread.call(run.tracked.runtime.wait_stored, run)

    def _start(self, message: MessageProxy) -> DramatiqRun | None:
        """Put the run in flight. Every message passes here: what only few need is not looked at."""
        try:
            seat: _Seat = self._local.seat
        except AttributeError:
            seat = self._local.seat = _Seat(next(self._numbers))
        if seat.workers is not self._workers:
            self._assign(seat)
        tracked = seat.tracked
        if tracked is None or not tracked.runtime.is_running:
            return None
        options = message.options
        run: DramatiqRun = DramatiqRun()
        run.tracked = tracked
        run.message = message
        run.thread = seat.thread
        run.started_mono_ms = monotonic() * 1000.0
        if retries := options.get("retries"):
            run.retries = retries
        if self._settings.record_args:  # now: the actor may change them
            run.args = shown_args(message.args, message.kwargs, self._settings.redact)
        if self._may_abort:
            run.bracket = Bracket(message)
        seat.run = run
        current.set(run)
        if tracked.marks is not None:
            tracked.marks.begin(seat.number, options["redis_message_id"])
        tracked.runtime.journal.start(run)
        if retries:
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

    def _assign(self, seat: _Seat) -> None:
        """Find out whose thread this is: a worker's threads take their messages from one queue, which is its own."""
        workers, queue = self._workers, getattr(threading.current_thread(), "work_queue", None)
        own = next((tracked for tracked in workers if tracked.worker.work_queue is queue), None)
        if own is None and queue is None and len(workers) == 1:
            own = workers[0]
        seat.tracked, seat.workers = own, workers

    def after_process_message(
        self, broker: DramatiqBroker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Note how the actor ended; what becomes of the message is for other middlewares to decide."""
        run = self._run_of(message)
        if run is not None:
            run.is_processed = True
            if exception is not None:
                run.error = exception
            if run.traced is not None:
                run.traced.end("failed" if exception is not None else "succeeded", exception)

    def after_skip_message(self, broker: DramatiqBroker, message: MessageProxy) -> None:
        """A middleware would not have the message processed; if it was asked before us, there is no run of it yet."""
        try:
            run = self._run_of(message) or self._start(message)
            if run is not None:
                if run.traced is not None:
                    run.traced.end("skipped")
                run.is_skipped = True
                run.complete()  # out of flight, no other thread reads it before it is counted
                run.tracked.runtime.journal.discard(run)
        except Exception as exc:  # the edge of a hook
            self._failed(exc)

    def before_ack(self, broker: DramatiqBroker, message: MessageProxy) -> None:
        """Take the run out of flight: every middleware has decided by now."""
        run = self._run_of(message)
        if run is not None:
            self._end(run, message)

    def before_nack(self, broker: DramatiqBroker, message: MessageProxy) -> None:
        """Take the run of a message out of flight that goes to the dead letters."""
        run = self._run_of(message)
        if run is not None:
            self._end(run, message)

    def _end(self, run: DramatiqRun, message: MessageProxy) -> None:
        self._local.seat.run = None
        current.set(None)
        if run.bracket is not None:
            run.bracket.shut()  # where its actor was never called
            self._local.interrupted = run if run.bracket.is_asked else None
        try:
            went_well = run.is_processed and run.error is None and not run.is_skipped and not message.failed
            if not (went_well and run.tracked.tallies.count(run, message)):
                run.tracked.runtime.finish_run(run, outcome(self._ending(run, message)))
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

    @staticmethod
    def _ending(run: DramatiqRun, message: MessageProxy) -> Ending:
        return Ending(
            error=run.error,
            is_processed=run.is_processed,
            is_skipped=run.is_skipped,
            is_dead=message.failed,
            is_retried=message.options.get("retries", 0) > run.retries and not message.failed,
            is_abort_asked=run.bracket is not None and run.bracket.is_asked,
        )

    def _run_of(self, message: MessageProxy) -> DramatiqRun | None:
        """Give this thread's run of a message; messages of a delay queue have none, they are only moved."""
        seat: _Seat | None = getattr(self._local, "seat", None)
        run = seat.run if seat is not None else None
        return run if run is not None and run.message is message else None
