"""The middleware of a dramatiq worker. Its hooks run in the worker's threads: they append to the journal and return.

The instance lives in an event loop of its own, in one thread per process. Whatever goes wrong in here stays in here: a worker
that cannot be tracked still works.
"""

import asyncio
import logging
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from dramatiq.broker import Broker as DramatiqBroker
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware
from dramatiq.threading import is_gevent_active
from dramatiq.worker import Worker

from async_tracker.connections.access import describe
from async_tracker.connections.counterparts import async_counterpart, lone_connection
from async_tracker.connections.link import Link
from async_tracker.errors import StorageError
from async_tracker.instance.runs import Run, current, shown_args
from async_tracker.instance.runtime import Runtime
from async_tracker.integrations.dramatiq.adapter import DramatiqAdapter
from async_tracker.integrations.dramatiq.description import broker_of, describe_worker, time_limit
from async_tracker.integrations.dramatiq.holds import Broker
from async_tracker.integrations.dramatiq.loop_thread import LoopThread
from async_tracker.integrations.dramatiq.marks import Marks
from async_tracker.integrations.dramatiq.names import LIBRARY
from async_tracker.integrations.dramatiq.outcomes import Ending, outcome
from async_tracker.integrations.footing import Footing
from async_tracker.store.instance_record import Description

logger = logging.getLogger("async_tracker")


class HasFooting(Protocol):
    """A `Tracker`, as far as an integration knows it."""

    @property
    def footing(self) -> Footing:
        """What an integration stands on."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class DramatiqRun:
    """One run between its hooks, all of which run in the same thread."""

    run: Run
    runtime: Runtime
    marks: Marks | None
    message: MessageProxy
    retries: int
    """How often the message had been retried when it started."""
    ending: Ending

    @property
    def redis_message_id(self) -> str:
        """The id by which a Redis broker has the message."""
        return str(self.message.options["redis_message_id"])


class TrackerMiddleware(Middleware):
    """Tracks every message that a worker of this broker processes, and recovers those of workers that died.

    ``broker.add_middleware(TrackerMiddleware(tracker))``, before the actors are declared or after. In processes that only enqueue
    it does nothing.
    """

    def __init__(self, tracker: HasFooting) -> None:
        self._footing = tracker.footing
        self._settings = self._footing.settings
        self._local = threading.local()
        self._thread: LoopThread | None = None
        self._runtime: Runtime | None = None
        self._worker: Worker | None = None
        self._broker: Broker | None = None
        self._marks: Marks | None = None
        self._claims_server: str | None = None
        self._has_failed = False

    # the worker

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
        if isinstance(broker, RedisBroker) and not self._footing.access.is_explicit:
            self._footing.access.default_to(lambda: async_counterpart(broker.client))
        if not isinstance(broker, RedisBroker):
            logger.info("%s gives back itself what a dead worker held: the tracker only tracks", type(broker).__name__)
        self._worker = worker
        self._broker = broker_of(broker)
        self._thread = LoopThread()
        self._thread.start()
        self._runtime = self._thread.call(self._register, broker, worker)
        if isinstance(broker, RedisBroker):
            timeout = self._settings.hook_timeout
            make_connection = partial(lone_connection, broker.client, timeout=timeout)
            self._marks = Marks(make_connection, full_key=self._runtime.link.redis.full_key, timeout=timeout)
            self._marks.open()

    async def _register(self, broker: DramatiqBroker, worker: Worker) -> Runtime:
        apart = self._broker_apart(broker)
        self._claims_server = await self._server_of(apart) if apart is not None else None
        runtime = self._footing.runtime(self._describe(worker), make_adapter=lambda link: self._adapter(link, apart))
        await runtime.start()
        return runtime

    def _broker_apart(self, broker: DramatiqBroker) -> Any:
        """Give a client of the broker's Redis where that is not the tracker's, else None."""
        if not isinstance(broker, RedisBroker):
            return None
        client = async_counterpart(broker.client)
        return client if describe(client) != describe(self._footing.access.client()) else None

    async def _server_of(self, client: Any) -> str | None:
        try:
            async with asyncio.timeout(self._settings.hook_timeout):
                return await DramatiqAdapter(client, full_key=str.encode).claims_server()
        except (StorageError, TimeoutError) as exc:
            logger.warning("dramatiq's Redis does not tell its run id: %s", exc)
            return None
        finally:
            await client.connection_pool.disconnect()

    def _adapter(self, link: Link, apart: Any) -> DramatiqAdapter:
        client = link.client
        if apart is not None:
            client = Link(apart, namespace=self._settings.namespace, name=f"{link.name}:claims").client
        return DramatiqAdapter(client, full_key=link.redis.full_key)

    def _describe(self, worker: Worker) -> Description:
        return describe_worker(
            worker,
            self._settings,
            broker=self._broker,
            redis=describe(self._footing.access.client()),
            claims_server=self._claims_server,
        )

    def after_declare_queue(self, broker: DramatiqBroker, queue_name: str) -> None:
        """A queue that is declared while the worker runs is one more to look for claims in."""
        if self._thread is not None and self._worker is not None:
            self._thread.post(self._describe_anew, self._worker)

    async def _describe_anew(self, worker: Worker) -> None:
        if self._runtime is not None:
            self._runtime.describe_anew(self._describe(worker))

    def before_worker_shutdown(self, broker: DramatiqBroker, worker: Worker) -> None:
        """Say that shutdown has begun; the instance beats until its last message is processed."""
        if self._thread is not None and self._runtime is not None:
            self._thread.post(self._runtime.drain)

    def after_worker_shutdown(self, broker: DramatiqBroker, worker: Worker) -> None:
        """Deregister the instance, unless messages have outlasted the worker's shutdown timeout.

        Those still run until the process ends, in seconds or never: the end of its connection will tell, and nobody is blamed.
        """
        thread, runtime, marks = self._thread, self._runtime, self._marks
        self._thread = self._runtime = self._worker = self._marks = None
        try:
            if thread is not None and runtime is not None and not runtime.journal.busy:
                if marks is not None:
                    marks.close(runtime.instance_id)
                thread.call(self._footing.leave, runtime)
                thread.stop()
        except Exception:  # the edge of a hook
            logger.exception("tracking did not end in order; the sweep will find out")

    # messages

    def before_process_message(self, broker: DramatiqBroker, message: MessageProxy) -> None:
        """Put the run in flight. With ``durable``, wait until it is written, for ``hook_timeout`` seconds at most."""
        try:
            found = self._start(broker, message)
        except Exception as exc:  # the edge of a hook
            self._failed(exc)
            return
        thread = self._thread
        if found is not None and thread is not None and self._settings.durable:
            thread.call(found.runtime.wait_stored, found.run)

    def _start(self, broker: DramatiqBroker, message: MessageProxy) -> DramatiqRun | None:
        runtime = self._runtime
        if runtime is None or not runtime.is_running:
            return None
        retries = message.options.get("retries", 0)
        run = runtime.start_run(
            message.message_id,
            job_try=retries + 1,
            function=message.actor_name,
            queue=message.queue_name,
            enqueued_at_ms=message.message_timestamp,
            timeout=time_limit(broker, message),
            args=shown_args(message.args, message.kwargs, self._settings.redact) if self._settings.record_args else None,
            scope=LIBRARY,
            hold=self._hold(message),
        )
        runtime.enter_run(run)
        found = DramatiqRun(run=run, runtime=runtime, marks=self._marks, message=message, retries=retries, ending=Ending())
        if found.marks is not None:
            found.marks.begin(run.instance_id, found.redis_message_id)
        self._local.found = found
        return found

    def _hold(self, message: MessageProxy) -> str | None:
        """Tell where the broker notes that this process has the message; None for a broker that is not Redis."""
        if self._broker is None:
            return None
        return self._broker.hold(message.queue_name, message.options["redis_message_id"]).encode()

    def after_process_message(
        self, broker: DramatiqBroker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Note how the actor ended; what becomes of the message is for other middlewares to decide."""
        found = self._found(message)
        if found is not None:
            found.ending.is_processed = True
            found.ending.error = exception

    def after_skip_message(self, broker: DramatiqBroker, message: MessageProxy) -> None:
        """A middleware would not have the message processed; if it was asked before us, there is no run of it yet."""
        try:
            found = self._found(message) or self._start(broker, message)
            if found is not None:
                found.ending.is_skipped = True
                found.runtime.journal.discard(found.run)
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
        try:
            found.ending.is_dead = message.failed
            found.ending.is_retried = message.options.get("retries", 0) > found.retries and not message.failed
            found.runtime.finish_run(found.run, outcome(found.ending))
            if found.marks is not None:
                found.marks.end(found.run.instance_id, found.redis_message_id)
        except Exception as exc:  # the edge of a hook
            self._failed(exc)

    def _found(self, message: MessageProxy) -> DramatiqRun | None:
        """Give this thread's run of a message; messages of a delay queue have none, they are only moved."""
        found: DramatiqRun | None = getattr(self._local, "found", None)
        return found if found is not None and found.message is message else None

    def _failed(self, exc: Exception) -> None:
        """Say once that a hook failed: a defect of ours must not fill the log of a busy worker."""
        if not self._has_failed:
            self._has_failed = True
            logger.error("a hook of the tracker failed, its job runs on; further failures are not logged", exc_info=exc)
