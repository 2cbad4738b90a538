"""Everything that runs for one registered instance, from registration to deregistration.

It composes the loops and holds what they share; what each of them does is theirs. It lives in the event loop it was started in,
and does not depend on being stopped in order: a process that simply ends is found by its closed connection.
"""

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Unpack

from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.config import Settings
from async_tracker.connections.calls import bounded, is_of_replica
from async_tracker.connections.link import Link
from async_tracker.errors import StorageError
from async_tracker.events.encoding import encode_event
from async_tracker.instance import runs
from async_tracker.instance.alarms import Alarms
from async_tracker.instance.heartbeat import Heartbeat
from async_tracker.instance.host import new_instance_id
from async_tracker.instance.journal import Journal
from async_tracker.instance.pen import Pen
from async_tracker.instance.pulse import Pulse
from async_tracker.instance.runs import Facts, Run, current
from async_tracker.instance.sweep_loop import SweepLoop
from async_tracker.instance.watchdog import Watchdog
from async_tracker.instance.writer import Writer
from async_tracker.recovery.adapter import Adapter
from async_tracker.recovery.lease import Seat, holder_text
from async_tracker.recovery.sweeper import make_sweeper
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections
from async_tracker.store.writes import Beat, Status

logger = logging.getLogger("async_tracker")

_RESTART_SECONDS = 1.0
_REGISTER_TRIES = 3
"""Once with a new id, when the old one was declared dead, and once with a higher number, when the watchdog wrote meanwhile."""
_BACK_SECONDS = 0.4
_CANCEL_AGAIN_SECONDS = 0.1
_LEAVING_HOOK_TIMEOUTS = 4
"""An orderly end is worth a little more than a hook's time: no job waits for it, and without it the sweep has to find out."""


def _nothing() -> None:
    """There is nothing to look after."""


class Runtime:
    """One instance at work. Nothing here raises StorageError to its callers: when Redis is away, jobs run on."""

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
        on_pulse: Callable[[], None] = _nothing,
        on_closed: Callable[[], None] = _nothing,
    ) -> None:
        self._settings = settings
        self._description = description
        self._on_event = on_event
        self._main_task = main_task
        self._is_draining = is_draining
        self._on_pulse = on_pulse
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        nonce = secrets.token_hex(6)
        self.link = Link(client, namespace=settings.namespace, name=f"async-tracker:{nonce}")
        self.adapter = make_adapter(self.link)
        self.link.on_lost = self._connection_lost
        self.link.on_inherited = self._close
        self.store = Store(self.link.redis)
        self.clock = ServerClock()
        self.pen = Pen(new_instance_id(settings.instance_id))
        self.journal = Journal()
        self._state = "alive"
        self._is_registered = False
        self._is_stopped = False
        self._is_open = True
        self._is_behind = False
        self._has_beaten = asyncio.Event()
        self._left_replica_at = float("-inf")
        self._sent_generation = self._beating_generation = self._beating_words = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._compose(nonce)

    def _compose(self, nonce: str) -> None:
        settings = self._settings
        self.pulse = Pulse()
        self.alarms = Alarms()
        self.writer = Writer(
            journal=self.journal,
            store=self.store,
            pen=self.pen,
            clock=self.clock,
            alarms=self.alarms,
            linger=settings.linger,
            writes_at_once=settings.durable,
            listed_jobs=lambda: self.store.listed_jobs(self.pen.instance_id),
            on_unknown=self._unknown,
        )
        self.journal.wake = self.writer.wake
        self.heartbeat = Heartbeat(
            store=self.store,
            pen=self.pen,
            journal=self.journal,
            clock=self.clock,
            pulse=self.pulse,
            interval=settings.heartbeat_interval,
            new_connections=self._new_connections,
            state=lambda: self._state,
        )
        self.sweeper = make_sweeper(settings, self.store, self.adapter, library=self._description.library, on_event=self.tell)
        self.sweeper.presence.away_after = settings.heartbeat_ttl
        self.sweep_loop = SweepLoop(sweeper=self.sweeper, alarms=self.alarms, seat=self.seat)
        self.watchdog = Watchdog(
            pulse=self.pulse,
            link=self.link,
            journal=self.journal,
            pen=self.pen,
            namespace=settings.namespace,
            name=f"async-tracker-watchdog:{nonce}",
            interval=settings.heartbeat_interval,
            is_over=self._is_over,
            on_answer=self.sweeper.presence.note,
            last_word=self._last_word,
        )

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

    async def start(self, *, within: float | None = None) -> None:
        """Start the loops, and wait for the registration for at most ``within`` seconds, by default ``hook_timeout``.

        It is tried again with every beat.
        """
        seconds = self._settings.hook_timeout if within is None else within
        self._start_loops()
        self.heartbeat.hurry()
        try:
            async with asyncio.timeout(seconds):
                await self._has_beaten.wait()
        except TimeoutError:
            logger.warning("registration takes longer than %.2f s: it goes on in the background", max(seconds, 0.0))

    def _start_loops(self) -> None:
        self._spawn(lambda: self.pulse.run(self.alarms, self._at_pulse))
        self._spawn(self.writer.run)
        self._spawn(lambda: self.heartbeat.run(self.alarms, self._beat))
        self._spawn(self.sweep_loop.run)
        if self._settings.watchdog:
            self.watchdog.start()

    def _spawn(self, loop_body: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._loop.create_task(_kept_up(loop_body))
        # A worker may leave its loop without a word (SystemExit): these tasks are meant to be left behind then.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks.append(task)

    def _is_over(self) -> bool:
        return self._loop.is_closed() or (self._main_task is not None and self._main_task.done())

    def _last_word(self) -> Beat | None:
        """What the process must still say when it ends: its counts, and that it was asked to end, which no job is blamed for then.

        A worker may be gone a few turns of its loop after it was told to leave, with the beat that says so behind another one.
        """
        if not self._is_registered or self._is_stopped or self.link.is_inherited:
            return None
        self._on_pulse()
        return self.heartbeat.last_beat()

    # registration and beats

    async def _beat(self) -> None:
        try:
            await self.link.ensure()
            if not self._is_registered:
                await self._register()
            reply = await self.heartbeat.beat()
        except StorageError as exc:
            self._fell_behind(exc)
            if is_of_replica(exc):
                await self._leave_replica()
            return
        finally:
            self._has_beaten.set()
        self.sweeper.presence.note(reply.now_ms)
        if reply.status is Status.UNKNOWN:
            await self._unknown()
        elif reply.status is Status.STALE:
            self.heartbeat.hurry()
        else:
            self._got_through()

    def _fell_behind(self, exc: StorageError) -> None:
        if not self._is_behind:
            self._is_behind = True
            logger.warning("no heartbeat gets through, jobs run on: %s", exc, extra={"instance_id": self.instance_id})
        # Well within disconnect_grace: when the server comes back, so must we, before anybody takes the lost connection for our end.
        self.alarms.set(random.uniform(0.5, 1.0) * min(self._settings.heartbeat_interval, _BACK_SECONDS), self.heartbeat.hurry)

    async def _leave_replica(self) -> None:
        """A primary that was demoted keeps its connections: only a new one is led to its successor. Once per beat, not per try."""
        now = self._loop.time()
        if now - self._left_replica_at >= self._settings.heartbeat_interval:
            self._left_replica_at = now
            await self.link.aclose()

    def _got_through(self) -> None:
        if self._is_behind:
            self._is_behind = False
            logger.info("heartbeats get through again", extra={"instance_id": self.instance_id})
        if self.link.is_open:
            self._sent_generation = self._beating_generation
            if self.link.generation != self._sent_generation:  # this very beat had to connect anew
                self.heartbeat.hurry()
        self.watchdog.rest(self._beating_words)
        if self.watchdog.has_registered:  # it spoke while this beat was under way, and its connections may be what stands there now
            self.heartbeat.hurry()
        self.writer.kick()

    def _connections(self) -> Connections:
        ids = {self.link.connection_id: self.link.name} if self.link.connection_id is not None else {}
        return Connections(server=self.link.server_run_id, ids=ids)

    def _new_connections(self) -> str:
        self._beating_generation = self.link.generation
        self._beating_words = self.watchdog.words
        has_changed = self.link.generation != self._sent_generation or self.watchdog.has_registered
        return self._connections().encode() if has_changed else ""

    def _close(self) -> None:
        """No more runs: it is being stopped, or this is a forked child, and none of the instance."""
        self._is_open = False
        self._on_closed()

    def _connection_lost(self) -> None:
        """The server has closed our connection: be back with another one before anybody takes that for our end."""
        if not self._is_stopped:
            self.heartbeat.hurry()

    async def _register(self) -> None:
        for _ in range(_REGISTER_TRIES):
            fields = {**encode_description(self._description, self._settings.limits()), "state": self._state}
            async with self.pen.lock:
                sent_at_ms = monotonic_ms()
                reply = await self.store.register(self.instance_id, self.pen.next_number(), self._connections().encode(), fields)
            self.clock.correct(reply.now_ms, sent_at_ms=sent_at_ms, received_at_ms=monotonic_ms())
            if reply.status is Status.WRITTEN:
                self._is_registered = True
                self.journal.resend_counts()  # only now is it sure that they were lost, and not left to an id that was declared dead
                return
            if reply.status is Status.UNKNOWN:
                await self._declared_dead()

    async def _unknown(self) -> None:
        """Redis does not know us: either its data is gone, or we were declared dead and live."""
        self._is_registered = False
        self.heartbeat.hurry()
        self.journal.write_all_again()

    async def _declared_dead(self) -> None:
        """Never beat, end or recover under the old id again: from here on we are somebody else."""
        old = self.pen.instance_id
        lost = self.journal.disown()
        self.pen.rename(new_instance_id(self._settings.instance_id))
        facts = {"instance_id": old, "new_instance_id": self.pen.instance_id, "jobs": [run.job_id for run in lost]}
        logger.error("instance %s was declared dead and lives: it goes on as %s; its %d jobs are not its own any more",
                     old, self.pen.instance_id, len(lost), extra=facts)  # fmt: skip
        event = encode_event("ownership_lost", **facts)
        self.tell(event)
        with contextlib.suppress(StorageError):  # the callbacks have heard it; the stream is only a copy
            await self.store.publish(event)

    def tell(self, event: str) -> None:
        """Tell the callbacks of this process what happened."""
        self._on_event(event)

    def seat(self) -> Seat | None:
        """From where this instance sweeps: only while it is registered and not about to leave."""
        if not self._is_registered or self._state != "alive" or not self.link.is_open:
            return None
        return Seat(holder=holder_text(self.instance_id, self._connections()), run_id=self.link.server_run_id)

    # runs

    def start_run(self, job_id: str, *, run: str | None = None, **facts: Unpack[Facts]) -> Run:
        """Put a run in flight: appends to the journal and returns."""
        now_mono_ms = monotonic_ms()
        started = Run(
            job_id=job_id,
            run=run or runs.tokens.new(),
            instance_id=self.pen.instance_id,
            started_at_ms=self.clock.at_ms(now_mono_ms),
            started_mono_ms=now_mono_ms,
            library=self._description.library,
            **facts,
        )
        started.keeper = self
        self.journal.start(started)
        return started

    def enter_run(self, run: Run) -> None:
        """Make it the run of this context: what `current_job` gives."""
        current.set(run)

    def end_run(self, run: Run) -> None:
        """Take a run out of flight; a second time changes nothing."""
        self.journal.end(run)

    def resume_run(self, run: Run) -> None:
        """An ended run turns out to hold its claim still: in flight again, so that the end of this instance gives it back."""
        if run.owned and not run.in_flight:
            self.journal.resume(run)

    def finish_run(self, run: Run, outcome: str, *, ended_mono_ms: float = 0.0) -> None:
        """Take a run out of flight and count how it ended (by default now), each of them once.

        A run that was given to somebody else is counted where it was taken away.
        """
        if run.owned and run.outcome is None:
            run.ended_mono_ms = ended_mono_ms or monotonic_ms()
            run.outcome = outcome
        self.journal.end(run)

    def count_end(self, run: Run, outcome: str, *, ended_mono_ms: float = 0.0) -> None:
        """Count how a run that is out of flight ended (by default now), once, as `finish_run` does."""
        if run.owned and run.outcome is None:
            run.ended_mono_ms = ended_mono_ms or monotonic_ms()
            run.outcome = outcome
            self.journal.count_end(run)

    def touch(self, run: Run) -> None:
        """Something that is stored of the run has changed."""
        self.journal.touch(run)

    async def is_still_owned(self, run: Run) -> bool:
        """Ask Redis, from whichever loop the job runs in: only ours may use our connection."""
        if asyncio.get_running_loop() is self._loop:
            return await self._is_owned(run)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._is_owned(run), self._loop))

    async def _is_owned(self, run: Run) -> bool:
        if run.instance_id != self.instance_id:
            return False
        is_registered = await self.store.is_registered(run.instance_id)
        if not is_registered and await self.store.has_ended(run.instance_id):
            return False
        if self.adapter is not None:
            return await self.adapter.holds(run.record())
        if not is_registered:
            raise StorageError(f"Redis knows nothing of instance {run.instance_id}: not registered yet, or its data was lost")
        return True

    async def wait_stored(self, run: Run) -> None:
        """With ``durable``: wait until the start is written, for at most ``hook_timeout`` seconds."""
        if self._settings.durable:
            with contextlib.suppress(TimeoutError):  # the writer has said that tracking is behind
                async with asyncio.timeout(self._settings.hook_timeout):
                    await self.writer.wait_written(lambda: run.stored or not run.in_flight)

    # the end

    def describe_anew(self, description: Description) -> None:
        """What this instance says of itself has changed: said again with the next beat, which comes at once."""
        self._description = description
        self._is_registered = False
        self.heartbeat.hurry()

    def _at_pulse(self) -> None:
        self._on_pulse()
        if self._is_draining is not None and self._is_draining():
            self.drain()

    def drain(self) -> None:
        """Shutdown has begun: say so, and beat until the last job has ended."""
        if self._state == "alive" and not self._is_stopped:
            self._state = "draining"
            self.heartbeat.hurry()

    async def stop(self, *, within: float | None = None, first: Callable[[], Awaitable[None]] | None = None) -> None:
        """Await ``first``, write what is left, deregister and close, in ``within`` seconds. Runs still in flight become orphans at once.

        By default it takes a few times ``hook_timeout``, at most. A second call changes nothing.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        self._close()
        self._state = "draining"
        self.watchdog.stop()
        if self._loop is not asyncio.get_running_loop():
            self.link.forget_in_child()  # the loop that this instance lived in is gone; its connection must not outlive it
            self.alarms.close()
            return
        try:
            seconds = _LEAVING_HOOK_TIMEOUTS * self._settings.hook_timeout if within is None else within
            await bounded(self._end(first, seconds), seconds)
        except (StorageError, TimeoutError) as exc:
            facts = {"instance_id": self.instance_id}
            logger.warning("the end could not be told in full, the sweep finds out what it must: %s", str(exc) or "it takes too long",
                           extra=facts)  # fmt: skip

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
            logger.debug("the loops are ended in the middle of a command: %s", exc)
        finally:
            await _end_tasks(self._tasks)

    async def _leave(self) -> None:
        if not self._is_registered:
            return
        async with self.pen.lock:
            if self.journal.must_compare:
                await self.writer.compare()
            await self.store.leave(
                self.instance_id,
                writes=self.writer.last_writes(),
                beat=self.heartbeat.next_beat(),
                lease=self.sweeper.resign(Seat(holder=holder_text(self.instance_id, self._connections()), run_id="")),
            )


async def _end_tasks(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks until they are done: the driver has been seen to swallow a cancellation that met a timeout of its own."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)


async def _kept_up(loop_body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a loop for ever: a defect of ours must not silence an instance that works."""
    while True:
        try:
            await loop_body()
        except Exception:  # the edge of a loop: whatever it was, the next round may do better
            logger.exception("a loop of the tracker failed and starts again; please report it")
            await asyncio.sleep(_RESTART_SECONDS)
