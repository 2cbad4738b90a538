"""Everything that runs for one registered instance, from registration to deregistration.

It composes the parts, starts and stops them; what each of them does is its own. It lives in the event loop it was started in, and
does not depend on being stopped in order: a process that simply ends is found by its closed connection.
"""

import asyncio
import atexit
import contextlib
import logging
import secrets
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from async_tracker.clock import ServerClock
from async_tracker.config import Settings
from async_tracker.connections.calls import bounded, let_be_left
from async_tracker.connections.link import Link
from async_tracker.control.orders import Done, Order
from async_tracker.errors import StorageError
from async_tracker.events.encoding import decode_event
from async_tracker.history.keeper import HistoryKeeper
from async_tracker.instance.alarms import Alarms
from async_tracker.instance.batches import Batches
from async_tracker.instance.duty import Controls, Duty, Uncontrolled
from async_tracker.instance.heartbeat import Heartbeat
from async_tracker.instance.host import new_instance_id
from async_tracker.instance.order_taker import Handler, OrderTaker
from async_tracker.instance.pen import Pen
from async_tracker.instance.pulse import Pulse
from async_tracker.instance.registration import Registration
from async_tracker.instance.reporter import Reporter
from async_tracker.instance.runs import Run
from async_tracker.instance.stack_orders import StackOrders
from async_tracker.instance.stacks import Observer
from async_tracker.instance.sweep_loop import SweepLoop
from async_tracker.instance.tasks import Failures, end_tasks, keep_running
from async_tracker.instance.totals import Totals
from async_tracker.instance.voice import Voice
from async_tracker.instance.watchdog import Watchdog
from async_tracker.instance.writer import Writer
from async_tracker.liveness.presence import Presence
from async_tracker.policy import absence_from
from async_tracker.records import OrderOutcome
from async_tracker.recovery.adapter import Adapter
from async_tracker.recovery.lease import lease_name, make_lease
from async_tracker.recovery.sweeper import make_sweeper
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description
from async_tracker.store.reading import Reading

logger = logging.getLogger("async_tracker")

_LEAVING_HOOK_TIMEOUTS = 4
"""Leaving in order may take this many times ``hook_timeout``: no job waits for it, and without it the sweep has to find out."""
_SORTING_SECONDS = 0.005
"""For how long a pulse may hold the loop to sort durations into buckets: some thousands of runs."""
_SLOW_START = "registration takes longer than %.2f s and goes on in the background"
_UNFINISHED_END = "not all of the shutdown reached Redis, a sweep will find out the rest: %s"

_runtimes: "weakref.WeakSet[Runtime]" = weakref.WeakSet()


class Runtime:
    """One instance at work. Nothing here raises StorageError to its callers: when Redis is away, jobs run on.

    What hooks report of runs (`start_run`, `enter_run`, `end_run`, `resume_run`, `finish_run`, `count_end`, `touch`, `wait_stored`)
    and what jobs ask (`is_still_owned`) are the methods of its `Reporter`.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        client: Any,
        description: Description,
        make_adapter: Callable[[Link], Adapter | None],
        on_event: Callable[[str], None],
        main_task: asyncio.Task[Any] | None = None,
        is_draining: Callable[[], bool] | None = None,
        on_pulse: Callable[[], None] | None = None,
        on_closed: Callable[[], None] | None = None,
        on_renamed: Callable[[], None] | None = None,
        controls: Controls | None = None,
    ) -> None:
        """Compose the instance in the event loop that it will live in; `start` registers it.

        ``client`` is a redis.asyncio client: the instance's own connection is made like those of its pool, and ``make_adapter`` is
        given that connection. When ``main_task`` is done the worker counts as over. ``is_draining`` is asked, and ``on_pulse``
        called, a few times a second; ``on_closed`` is called when the instance takes no more runs, and ``on_renamed`` when it has
        taken another id, since it was declared dead. ``controls`` carries out what people order of the worker; without them it
        cannot be told anything.
        """
        self._settings = settings
        self._library = description.library
        self._main_task = main_task
        self._is_draining = is_draining
        self._on_pulse = on_pulse
        self._on_closed = on_closed
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._is_stopped = False
        self._is_open = True
        self._tasks: list[asyncio.Task[None]] = []
        nonce = secrets.token_hex(6)
        self.link = Link(
            client,
            namespace=settings.namespace,
            name=f"async-tracker:{nonce}",
            on_lost=self._connection_lost,
            on_inherited=self._close,
        )
        self.adapter = make_adapter(self.link)
        self.store = Store(self.link.redis)
        self.clock = ServerClock()
        self.pen = Pen(new_instance_id(settings.instance_id), on_renamed=on_renamed)
        self.pulse = Pulse()
        self.alarms = Alarms()
        self.writer = Writer(
            store=self.store,
            pen=self.pen,
            clock=self.clock,
            alarms=self.alarms,
            ration=settings.ration(),
            on_unknown=self._unknown,
            on_orders=lambda lines, now_ms: self.orders.hear(lines, now_ms),
        )
        self.journal = self.writer.journal
        self.observer = Observer(runs=self.journal.runs, instance_id=lambda: self.pen.instance_id, clock=self.clock)
        self.failures = Failures()
        self.totals = Totals(journal=self.journal)
        self.heartbeat = Heartbeat(
            pen=self.pen,
            journal=self.journal,
            totals=self.totals,
            clock=self.clock,
            pulse=self.pulse,
            failing=self._failing,
            interval=settings.heartbeat_interval,
            lease=lease_name(description.library, recovers=self.adapter is not None and settings.recover),
        )
        self.orders = OrderTaker(
            store=self.store,
            pen=self.pen,
            takes=settings.takes,
            on_first=self.heartbeat.attend,
            hurry=self.heartbeat.hurry,
            on_event=on_event,
            now_ms=self.clock.now_ms,
        )
        """What people ask of this instance; ``orders.handle(kind, Handler(...))`` before `start`."""
        self.batches = Batches(journal=self.journal, clock=self.clock)
        presence = Presence(away_after=absence_from(settings.heartbeat_ttl, settings.heartbeat_interval))
        self.voice = Voice(
            link=self.link,
            journal=self.journal,
            pen=self.pen,
            presence=presence,
            orders=self.orders,
            namespace=settings.namespace,
            name=f"async-tracker-watchdog:{nonce}",
            young_seconds=settings.gather,
        )
        self.watchdog = Watchdog(pulse=self.pulse, voice=self.voice, interval=settings.heartbeat_interval, is_over=self._is_over)
        self.registration = Registration(
            settings=settings,
            description=description,
            link=self.link,
            store=self.store,
            clock=self.clock,
            pen=self.pen,
            writer=self.writer,
            heartbeat=self.heartbeat,
            totals=self.totals,
            batches=self.batches,
            orders=self.orders,
            voice=self.voice,
            presence=presence,
            alarms=self.alarms,
            on_event=on_event,
            on_fleet=lambda instances, is_led: self.sweep_loop.hear(instances, is_led),
        )
        self.duty = Duty(
            controls or Uncontrolled(description.library),
            busy=lambda: self.journal.busy,
            on_quiet=self.registration.set_quiet,
            is_leaving=lambda: self._is_stopped or self.registration.is_draining or (is_draining is not None and is_draining()),
            now_ms=self.clock.now_ms,
            spawn=self.orders.spawn,
        )
        self.duty.take_orders(self.orders)
        StackOrders(self.observer).take_orders(self.orders)
        self.orders.handle("abort", Handler(carry_out=self._refuse_abort))
        library = description.library
        depths = self.adapter.queues if self.adapter is not None else None
        history = HistoryKeeper(store=self.store, reading=Reading(self.store.redis), library=library, depths=depths)
        self.sweeper = make_sweeper(settings, self.store, self.adapter, library=library, on_event=self._swept, presence=presence)
        self.lease = make_lease(self.store, library=library, recovers=self.sweeper.recovers, sweep_interval=settings.sweep_interval)
        self.sweep_loop = SweepLoop(
            sweeper=self.sweeper,
            lease=self.lease,
            holder=self.registration.holder,
            keep_history=lambda: history.keep(self.clock.now_ms()),
            alarms=self.alarms,
            sweep_interval=settings.sweep_interval,
        )
        self._reporter = Reporter(
            store=self.store,
            writer=self.writer,
            pen=self.pen,
            clock=self.clock,
            adapter=self.adapter,
            library=description.library,
            hook_timeout=settings.hook_timeout,
            is_durable=settings.durable,
        )
        self._report_by(self._reporter)
        self.describe_anew = self.registration.describe_anew
        _runtimes.add(self)

    async def _refuse_abort(self, order: Order) -> Done:
        """Refuse, where the integration has not said how a run is aborted."""
        return Done(OrderOutcome.UNSUPPORTED, f"a run of {self._library} cannot be aborted: its library has no safe way to end one alone")

    def _report_by(self, reporter: Reporter) -> None:
        """Bind what hooks call once, so that no job pays for a call that is only handed on."""
        self.start_run, self.enter_run, self.end_run = reporter.start_run, reporter.enter_run, reporter.end_run
        self.resume_run, self.finish_run, self.count_end = reporter.resume_run, reporter.finish_run, reporter.count_end
        self.touch, self.is_still_owned, self.wait_stored = reporter.touch, reporter.is_still_owned, reporter.wait_stored

    @property
    def instance_id(self) -> str:
        """The id that this instance goes by at present; another one once it was declared dead."""
        return self.pen.instance_id

    @property
    def is_running(self) -> bool:
        """Whether it was not stopped, its loop not closed, and this is no forked child of its process."""
        return self._is_open and not self._loop.is_closed()

    @property
    def is_here(self) -> bool:
        """Whether it is running in the event loop that asks; from any other it must not be awaited."""
        return self.is_running and self.lives_here

    @property
    def lives_here(self) -> bool:
        """Whether its event loop is the one that asks, if any does."""
        return self._loop is asyncio._get_running_loop()

    def keeps(self, run: Run) -> bool:
        """Whether this instance started the run."""
        return run.keeper is self._reporter or run.keeper is self

    @property
    def is_behind(self) -> bool:
        """Whether Redis did not take the last heartbeat or the last write of this instance; jobs run on."""
        return self.registration.is_behind or self.writer.is_behind

    # the beginning

    async def start(self, *, within: float | None = None) -> None:
        """Start the loops, and wait for the registration for at most ``within`` seconds, by default ``hook_timeout``.

        It is tried again with every beat.
        """
        seconds = self._settings.hook_timeout if within is None else within
        self._start_loops()
        self.heartbeat.hurry()
        try:
            async with asyncio.timeout(seconds):
                await self.registration.has_tried.wait()
        except TimeoutError:
            logger.warning(_SLOW_START, max(seconds, 0.0))

    def _start_loops(self) -> None:
        self._spawn("pulse", lambda: self.pulse.run(self.alarms, self._at_pulse))
        self._spawn("writer", self.writer.run)
        self._spawn("heartbeat", lambda: self.heartbeat.run(self.alarms, self.registration.beat))
        self._spawn("sweep", self.sweep_loop.run)
        if self._settings.watchdog:
            self.watchdog.start()

    def _failing(self) -> str:
        refused = {"writer": self.writer.refusal, "sweep": self.sweep_loop.refusal}
        return "; ".join(part for part in (self.failures.text(), *(f"{name}: {why}" for name, why in refused.items() if why)) if part)

    def _spawn(self, name: str, loop_body: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._loop.create_task(keep_running(loop_body, name=name, failures=self.failures))
        let_be_left(task)
        self._tasks.append(task)

    def _at_pulse(self) -> None:
        self.journal.sort_counts(within=_SORTING_SECONDS)
        self.duty.end_what_is_over()
        if self._on_pulse is not None:
            self._on_pulse()
        if self._is_draining is not None and self._is_draining():
            self.drain()

    # what its parts hear from each other

    def _connection_lost(self) -> None:
        """The server has closed our connection: be back with another one before that is taken for our end."""
        if not self._is_stopped:
            self.heartbeat.hurry()

    async def announce(self, event: str) -> None:
        """Put an event into the stream of which this instance is the cause, and tell the callbacks. Raises StorageError."""
        self._on_event(event)
        await self.store.publish(event)

    def _swept(self, event: str) -> None:
        """A sweep of ours has done something: what became of a run belongs into the history of its function."""
        told = decode_event("0-0", event)
        if told.type in ("orphaned", "recovered"):
            self.journal.count_left(told.function, told.queue, told.type)
        self._on_event(event)

    def _unknown(self) -> None:
        self.registration.lost()

    def _is_over(self) -> bool:
        return self._loop.is_closed() or (self._main_task is not None and self._main_task.done())

    # the end

    def drain(self) -> None:
        """Shutdown has begun: say so, and beat until the last job has ended."""
        if self.registration.drain():
            self.heartbeat.hurry()

    def _close(self) -> None:
        """Take no more runs: it is being stopped, or this is a forked child, and none of the instance."""
        self._is_open = False
        if self._on_closed is not None:
            self._on_closed()

    async def lost_traceparent(self, ref: str) -> str | None:
        """Give the span of that run of a job which was last lost with its worker, if any. Waits for Redis for ``hook_timeout`` at most."""
        try:
            return await bounded(self.store.lost_traceparent(ref), self._settings.hook_timeout)
        except (StorageError, TimeoutError) as exc:
            logger.debug("it is not known whether job %s was lost before: %s", ref, exc)
            return None

    async def stop(self, *, within: float | None = None, first: Callable[[], Awaitable[None]] | None = None) -> None:
        """Await ``first``, write what is left, deregister and close, in ``within`` seconds. Runs still in flight become orphans at once.

        By default it takes a few times ``hook_timeout``, at most. A second call changes nothing.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        self._close()
        self.registration.drain()
        self.watchdog.stop()
        if self._loop is not asyncio.get_running_loop():
            self.link.forget_in_child()  # the loop that this instance lived in is gone; its connection must not outlive it
            self.alarms.close()
            return
        try:
            seconds = _LEAVING_HOOK_TIMEOUTS * self._settings.hook_timeout if within is None else within
            await bounded(self._end(first, seconds), seconds)
        except (StorageError, TimeoutError) as exc:
            logger.warning(_UNFINISHED_END, str(exc) or "it takes too long", extra={"instance_id": self.instance_id})

    async def _end(self, first: Callable[[], Awaitable[None]] | None, seconds: float) -> None:
        try:
            await self._end_loops(seconds / 2)
            if first is not None:
                await first()
            await self._leave()
        finally:
            self.alarms.close()
            with contextlib.suppress(OSError):  # it is closed either way
                await self.link.aclose()

    async def _end_loops(self, seconds: float) -> None:
        """End them between two commands, if that comes within ``seconds``.

        A task that is cancelled in the middle of one takes the connection with it, and another one costs several round trips.
        """
        try:
            async with asyncio.timeout(seconds if self.link.is_open else 0), self.link.held():
                for task in self._tasks:
                    task.cancel()
        except (StorageError, TimeoutError) as exc:
            logger.debug("the tracker's loops are ended in the middle of a command: %s", exc)
        finally:
            await self.orders.end()
            await end_tasks(self._tasks)

    async def _leave(self) -> None:
        if not self.registration.is_registered:
            return
        await self.orders.send_answers(self.orders.ready())
        async with self.pen.lock:
            if self.journal.must_compare:
                await self.writer.compare()
            await self.store.leave(
                self.instance_id,
                writes=self.writer.last_writes(),
                beats=self.registration.leaving_beats(),
                batches=self.batches.take(at_the_end=True),
                clock=self.clock,
                lease=self.lease.resign(),
            )

    def speak_last(self) -> None:
        """At the end of a process that has not stopped this instance, beat once more if there is something left to say.

        That is what its runs counted, and that it was asked to end, which no job is blamed for then: a worker may be gone a few turns
        of its loop after it was told to leave, with the beat that says so behind another one.
        """
        if self._is_stopped or self.link.is_inherited or not self.registration.is_registered:
            return
        if self._on_pulse is not None:
            self._on_pulse()
        beats = self.registration.last_beats()
        if beats:
            self.voice.say_last(beats, self.batches.take(at_the_end=True), self.clock)


def _at_exit() -> None:
    for runtime in list(_runtimes):
        runtime.speak_last()


atexit.register(_at_exit)
