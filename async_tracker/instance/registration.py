"""What Redis knows of an instance: that it is registered, on which connections, in which state; and what its answers mean for it."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.config import Settings
from async_tracker.connections.calls import leads_elsewhere
from async_tracker.connections.link import Link
from async_tracker.control.orders import scopes_of
from async_tracker.errors import StorageError
from async_tracker.events.encoding import encode_event
from async_tracker.instance.alarms import Alarms
from async_tracker.instance.batches import Batches
from async_tracker.instance.deploy_mark import DeployMark
from async_tracker.instance.function_list import FunctionList
from async_tracker.instance.heartbeat import Heartbeat
from async_tracker.instance.host import new_instance_id
from async_tracker.instance.order_taker import OrderTaker
from async_tracker.instance.pen import Pen
from async_tracker.instance.totals import Totals
from async_tracker.instance.voice import Voice
from async_tracker.instance.writer import Writer
from async_tracker.liveness.presence import Presence
from async_tracker.policy import InstanceState
from async_tracker.recovery.lease import LeaseHolder, lease_holder
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description, encode_queues
from async_tracker.store.observation import Connections
from async_tracker.store.writes import Beat, Reply, Status

logger = logging.getLogger("async_tracker")

_REGISTER_TRIES = 3
"""Once with a new id, when the old one was declared dead, and once with a higher number, when the watchdog wrote meanwhile."""
_BACK_SECONDS = 0.4
_LEAVE_SECONDS = 1.0
_BEHIND = "no heartbeat reaches Redis, jobs keep running: %s"
_CAUGHT_UP = "heartbeats reach Redis again"
_DECLARED_DEAD = "instance %s was declared dead although it runs: it goes on as %s, and its %d jobs belong to other workers now"


class Registration:
    """The standing of one instance in Redis, which every beat renews. `beat` never raises StorageError: jobs run on without Redis."""

    def __init__(
        self,
        *,
        settings: Settings,
        description: Description,
        link: Link,
        store: Store,
        clock: ServerClock,
        pen: Pen,
        writer: Writer,
        heartbeat: Heartbeat,
        totals: Totals,
        batches: Batches,
        orders: OrderTaker,
        voice: Voice,
        presence: Presence,
        alarms: Alarms,
        on_event: Callable[[str], None],
        on_fleet: Callable[[int, bool], None],
    ) -> None:
        """``on_event`` is given each event, encoded, of which this instance is the cause. ``on_fleet`` is told with every beat how many
        instances there are, and whether one of them holds the lease."""
        self._settings = settings
        self._description = description
        self._link = link
        self._store = store
        self._clock = clock
        self._pen = pen
        self._writer = writer
        self._journal = writer.journal
        self._heartbeat = heartbeat
        self._totals = totals
        self._batches = batches
        self._orders = orders
        self._voice = voice
        self._presence = presence
        self._alarms = alarms
        self._on_event = on_event
        self._on_fleet = on_fleet
        self._deploy_mark = DeployMark(version=description.version, queue=description.queue, on_event=on_event)
        self._function_list = FunctionList()
        self._loop = asyncio.get_running_loop()
        self._is_draining = False
        self.is_quiet = False
        """It was told to take no more jobs, and says so."""
        self.is_registered = False
        """Redis knows the instance, as far as is known."""
        self.is_behind = False
        """The last beat did not reach Redis, or was refused."""
        self.has_tried = asyncio.Event()
        """Set when the first beat has been answered, or has failed."""
        self._left_at = float("-inf")
        self._server = ""
        """Which server Redis was at the last beat; '' before the first one."""
        self._sent_generation = self._beating_generation = self._beating_spoken = 0

    def describe_anew(self, description: Description) -> None:
        """Register with another description: with the next beat, which comes at once."""
        self._description = description
        self._function_list.keep_again()
        self.is_registered = False
        self._heartbeat.hurry()

    def drain(self) -> bool:
        """Say from the next beat on that shutdown has begun. Returns False when it was said before."""
        was_draining, self._is_draining = self._is_draining, True
        return not was_draining

    @property
    def is_draining(self) -> bool:
        """Whether shutdown has begun."""
        return self._is_draining

    def set_quiet(self, is_quiet: bool) -> None:
        """Say with a beat that comes at once, and from then on, that the instance takes no more jobs, or that it does."""
        self.is_quiet = is_quiet
        self._heartbeat.hurry()

    @property
    def _state(self) -> InstanceState:
        if self._is_draining:
            return InstanceState.DRAINING
        return InstanceState.QUIET if self.is_quiet else InstanceState.ALIVE

    def lost(self) -> None:
        """Redis does not know the instance: its data is gone, or the instance was declared dead and lives."""
        self.is_registered = False
        self._deploy_mark.say_again()
        self._function_list.keep_again()
        self._heartbeat.hurry()
        self._journal.write_all_again()

    # one beat, and what follows from its answer

    async def beat(self) -> None:
        """Connect and register if need be, and beat once."""
        try:
            await self._link.ensure()
            self._note_server()
            await self._function_list.keep(self._store, self._description, self._pen.instance_id)
            if not self.is_registered:
                await self._register()
            ready = self._orders.ready()  # those that come meanwhile wait for the beat that shows what they say
            reply = await self._send()
            if reply.status is Status.WRITTEN:
                if reply.orders:
                    self._orders.hear(reply.orders, reply.now_ms)
                await self._orders.send_answers(ready)
                await self._deploy_mark.say(self._store, self._pen.instance_id)
                await self._batches.send(self._store, self._pen.instance_id)
        except StorageError as exc:
            self._failed(exc)
            if leads_elsewhere(exc):
                await self._leave_server()
            return
        finally:
            self.has_tried.set()
        self._presence.note(reply.now_ms)
        if reply.status is Status.UNKNOWN:
            self.lost()
        elif reply.status is Status.STALE:
            self._heartbeat.hurry()
        else:
            self._succeeded()

    def _note_server(self) -> None:
        """Have all written again where Redis is another server by now: a failover loses the newest writes, though they were answered.

        That is what has started and what has ended; which totals it has, its answer to the beat tells. A server that does not tell which
        one it is may be another one with every connection.
        """
        before, self._server = self._server, self._link.server_run_id or f"unknown, connection {self._link.generation}"
        if before not in ("", self._server):
            self._heartbeat.tell_all_again()
            self._function_list.keep_again()
            self._journal.write_all_again()
            self._orders.answer_again()

    async def _send(self) -> Reply:
        rounds = 2 if self._totals.pending else 1  # where the last beat was not answered, what is new follows what it carried
        async with self._pen.lock:
            sent_at_ms = monotonic_ms()
            beat = self._heartbeat.beat(state=self._state, connections=self._changed_connections())
            reply = await self._send_beat(beat)
        if reply.status is Status.WRITTEN:
            self._clock.correct(reply.now_ms, sent_at_ms=sent_at_ms, received_at_ms=monotonic_ms())
            self._heartbeat.was_taken(beat)
            self._on_fleet(reply.instances, reply.is_led)
            await self._send_totals(rounds)
        return reply

    async def _send_beat(self, beat: Beat) -> Reply:
        """Send a beat, and take its answer to what is counted. Only the holder of the pen's lock may call it."""
        self._totals.is_sent(beat.totals)
        reply = await self._store.beat(self._pen.instance_id, beat)
        if reply.status is Status.WRITTEN:
            self._totals.heard(reply.newest_totals)
        return reply

    async def _send_totals(self, rounds: int) -> None:
        """Send what the heartbeat had no room for, one message each: the server has a turn for others between two, and so has the writer.

        What is not taken goes with the next heartbeat.
        """
        for number in range(rounds):
            left = self._totals.pending if number == 0 else self._totals.take()
            while left:
                first = left[0]
                async with self._pen.lock:
                    if (await self._send_beat(self._heartbeat.further_beat(first))).status is not Status.WRITTEN:
                        return
                left = self._totals.pending
                if left[:1] == [first]:
                    return

    def leaving_beats(self) -> list[Beat]:
        """Make the beats for the message with which the instance leaves; only the holder of the pen's lock may send them."""
        return self._heartbeat.beats_at_the_end(state=self._state, connections=self._changed_connections())

    def last_beats(self) -> list[Beat]:
        """Make the beats for the end of the process; none where Redis has all that they would say, or never knew the instance."""
        return self._heartbeat.last_beats(state=self._state) if self.is_registered else []

    def _failed(self, exc: StorageError) -> None:
        self._heartbeat.tell_all_again()  # what it had may be lost with the server that does not answer
        if not self.is_behind:
            self.is_behind = True
            logger.warning(_BEHIND, exc, extra={"instance_id": self._pen.instance_id})
        # Well within disconnect_grace: when the server comes back, so must we, before the lost connection is taken for our end.
        self._alarms.set(random.uniform(0.5, 1.0) * min(self._settings.heartbeat_interval, _BACK_SECONDS), self._heartbeat.hurry)

    async def _leave_server(self) -> None:
        """A primary that was demoted keeps its connections, and so does a node whose slot moved: only a new one is led to the successor.

        Once per beat, or in a second, and not per try.
        """
        now = self._loop.time()
        if now - self._left_at >= min(self._settings.heartbeat_interval, _LEAVE_SECONDS):
            self._left_at = now
            await self._link.aclose()

    def _succeeded(self) -> None:
        if self.is_behind:
            self.is_behind = False
            logger.info(_CAUGHT_UP, extra={"instance_id": self._pen.instance_id})
        if self._link.is_open:
            self._sent_generation = self._beating_generation
            if self._link.generation != self._sent_generation:  # this very beat had to connect anew
                self._heartbeat.hurry()
        self._voice.give_way(self._beating_spoken)
        if self._voice.may_have_registered:  # it spoke while this beat was under way, and Redis may know its connections now
            self._heartbeat.hurry()
        self._writer.kick()

    # connections

    def _connections(self) -> Connections:
        ids = {self._link.connection_id: self._link.name} if self._link.connection_id is not None else {}
        return Connections(server=self._link.server_run_id, ids=ids)

    def _changed_connections(self) -> str:
        """Give the connections for a beat that is about to be sent; '' where Redis knows them."""
        self._beating_generation = self._link.generation
        self._beating_spoken = self._voice.spoken
        has_changed = self._link.generation != self._sent_generation or self._voice.may_have_registered
        return self._connections().encode() if has_changed else ""

    def holder(self) -> LeaseHolder | None:
        """Give what this instance is called as the holder of the sweeper's lease; None unless it is registered and not about to leave."""
        if not self.is_registered or self._is_draining or not self._link.is_open:
            return None
        return lease_holder(self._pen.instance_id, self._connections())

    # its id

    async def _register(self) -> None:
        for _ in range(_REGISTER_TRIES):
            fields = {
                **({"function_list": ""} if self._function_list.has_listed else {}),
                **encode_description(self._description, self._settings.limits()),
                "state": self._state.value,
                "beats_every_ms": int(self._settings.heartbeat_interval * 1000),
                "takes": " ".join(sorted(self._orders.kinds)),
            }
            async with self._pen.lock:
                sent_at_ms = monotonic_ms()
                connections, queues = self._connections().encode(), encode_queues(self._description)
                reply = await self._store.register(
                    self._pen.instance_id,
                    self._pen.next_number(),
                    connections,
                    fields,
                    queues=queues,
                    scopes=scopes_of(self._description),
                )
            self._clock.correct(reply.now_ms, sent_at_ms=sent_at_ms, received_at_ms=monotonic_ms())
            if reply.status is Status.WRITTEN:
                self.is_registered = True
                self._heartbeat.tell_all_again()
                self._orders.hear_standing(reply.orders)
                return
            if reply.status is Status.UNKNOWN:
                await self._declared_dead()

    async def _declared_dead(self) -> None:
        """Go on under another id: the old one must never beat, end or recover anything again."""
        old = self._pen.instance_id
        self._totals.leave_behind()
        self._batches.leave_behind()
        lost = self._journal.disown()
        self._pen.rename(new_instance_id(self._settings.instance_id))
        new = self._pen.instance_id
        facts = {"instance_id": old, "new_instance_id": new, "jobs": [run.job_id for run in lost]}
        logger.error(_DECLARED_DEAD, old, new, len(lost), extra=facts)
        event = encode_event("ownership_lost", **facts)
        self._on_event(event)
        with contextlib.suppress(StorageError):  # the callbacks have it; the stream is only a copy
            await self._store.publish(event)
        with contextlib.suppress(StorageError):  # then their callers are told that they were not answered
            self._orders.hear(await self._store.open_orders(old), int(self._clock.now_ms()), was_for=old)
