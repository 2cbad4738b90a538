"""The transitions: one method each, one Lua file each. Nothing here reads first and writes then."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from async_tracker.clock import ServerClock
from async_tracker.connections.calls import ScriptCall, call, call_many, raised, refusal, refused_by_type, run_script, run_scripts
from async_tracker.connections.replies import Argument, pairs, text
from async_tracker.errors import StorageError
from async_tracker.store import keys
from async_tracker.store.counters import DEATHS, STALLS, CountedBatch
from async_tracker.store.instance_record import StoredFunctions
from async_tracker.store.observation import Observation
from async_tracker.store.run_record import ANY_MARK, RunRecord, encode_run, instance_mark, run_mark
from async_tracker.store.scripts import (
    CHANGED_SECONDS,
    DEPLOYS_KEPT,
    EVENTS_KEPT,
    EVENTS_SECONDS,
    FUNCTIONS_SECONDS,
    HOSTS_LOOKED_AT,
    HOSTS_SECONDS,
    HOURS_SECONDS,
    MINUTE_MS,
    QUEUES_SECONDS,
    SCRIPTS,
    STATS_SECONDS,
    TOMBSTONE_MS,
    VERSION_AWAY_MS,
    answer_call,
    beat_call,
    checked,
    count_call,
    deregister_call,
    flat,
    observe_call,
    read_observation,
    write_call,
)
from async_tracker.store.writes import Beat, Ended, Judged, OrderToPlace, Reply, Settled, Settlement, Status, Write

_ORDERS_AT_ONCE = 100
"""How many orders go out in one round trip."""

ORDERS_OPEN = 100
"""How many orders of one instance may be open at a time."""


class Store:
    """The namespace as the tracker keeps it. ``redis`` is a Namespace proxy; every method raises StorageError when Redis refuses."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis

    async def _run(self, name: str, names: Sequence[str], *arguments: Argument) -> Any:
        return checked(name, await run_script(self.redis, SCRIPTS[name], names, arguments))

    async def register(
        self,
        instance_id: str,
        sequence: int,
        connections: str,
        fields: Mapping[str, Argument],
        *,
        queues: str = "",
        scopes: Sequence[str] = (),
    ) -> Reply:
        """Make an instance known. UNKNOWN means that it was declared dead before: it must take a new id; STALE: try again.

        ``queues`` are those that it works on, as `instance_record.encode_queues` writes them. The orders in the reply are those that
        stand for one of these ``scopes``.
        """
        names = [keys.INSTANCES, keys.instance(instance_id), keys.CONNECTIONS, keys.GONE, keys.tombstone(instance_id), keys.QUEUES]
        names += [keys.STANDING, keys.CHANGED, keys.HOSTS]
        arguments: tuple[Argument, ...] = (
            instance_id,
            sequence,
            connections,
            queues,
            QUEUES_SECONDS,
            CHANGED_SECONDS,
            fields.get("host_id", ""),
            HOSTS_SECONDS,
            len(scopes),
            *scopes,
        )
        return _reply(await self._run("register", names, *arguments, *flat(fields)))

    async def list_functions(self, functions: StoredFunctions) -> None:
        """Keep a list of functions for another while; it is sent only where Redis has it not."""
        for names in ("", functions.whole):
            if int(await self._run("list_functions", [keys.functions(functions.digest)], FUNCTIONS_SECONDS, names)) == 1:
                return

    async def beat(self, instance_id: str, beat: Beat) -> Reply:
        """Renew the heartbeat, and what it carries."""
        names, arguments = beat_call(instance_id, beat)
        return _reply(await self._run("beat", names, *arguments))

    async def count(self, instance_id: str, batch: CountedBatch, *, clock: ServerClock) -> Reply:
        """Add a numbered batch to the minute in which it arrives."""
        names, arguments = _count_call(instance_id, batch, clock)
        return _reply(await self._run("count", names, *arguments))

    async def write(self, instance_id: str, sequence: int, *, started: Sequence[RunRecord], ended: Sequence[Ended]) -> Reply:
        """Write what the journal gathered."""
        names, arguments = write_call(instance_id, sequence, started=started, ended=ended)
        return _reply(await self._run("write", names, *arguments))

    async def write_many(self, instance_id: str, writes: Sequence[Write], *, is_last_word: bool = False) -> list[Reply]:
        """Do what `write` does several times, each a step of its own, in one round trip.

        With ``is_last_word`` it is done even if the process ends once it is sent: the scripts are sent in full, for there may be no time
        for Redis to ask for them.
        """
        if len(writes) == 1 and not is_last_word:  # nearly always, and a pipeline costs more
            return [await self.write(instance_id, writes[0].sequence, started=writes[0].started, ended=writes[0].ended)]
        calls = [(SCRIPTS["write"], *write_call(instance_id, each.sequence, started=each.started, ended=each.ended)) for each in writes]
        replies = raised(await run_scripts(self.redis, calls, by_text=is_last_word))
        return [_reply(checked("write", reply)) for reply in replies]

    async def leave(
        self,
        instance_id: str,
        *,
        writes: Sequence[Write],
        beats: Sequence[Beat],
        batches: Sequence[CountedBatch],
        clock: ServerClock,
        lease: tuple[str, str] | None,
    ) -> None:
        """Write what is left, beat, count, give the lease (library and holder) back if it is held, and deregister, in one round trip.

        It is done in order, each its own step, and to the end: Redis does what was sent even when the process ends before the answer.
        Raises StorageError where something of it was refused; the rest is done all the same.
        """
        calls: list[ScriptCall] = [
            (SCRIPTS["write"], *write_call(instance_id, each.sequence, started=each.started, ended=each.ended)) for each in writes
        ]
        calls += [(SCRIPTS["beat"], *beat_call(instance_id, beat)) for beat in beats]
        calls += [(SCRIPTS["count"], *_count_call(instance_id, batch, clock)) for batch in batches]
        if lease is not None:
            library, holder = lease
            calls.append((SCRIPTS["release_lease"], [keys.lease(library)], [holder]))
        calls.append((SCRIPTS["deregister"], *deregister_call(instance_id)))
        replies = await run_scripts(self.redis, calls, by_text=True)
        for (script, _, _), reply in zip(calls, raised(replies), strict=True):
            checked(script.name, reply)

    async def lease(self, library: str, holder: str, *, ttl_ms: int, replacing: str = "") -> tuple[bool, str, int]:
        """Take or renew the sweeper's lease. Returns whether it is ours, who holds it, and how many instances there are."""
        ours, held_by, count = await self._run("lease", [keys.lease(library), keys.INSTANCES], holder, ttl_ms, replacing)
        return int(ours) == 1, text(held_by), int(count)

    async def lease_after(self, question: Sequence[Argument], library: str, holder: str, *, ttl_ms: int) -> tuple[Any, bool, str, int]:
        """Run another command and then do what `lease` does, in one round trip. Returns the command's reply, or its refusal, first."""
        script: ScriptCall = (SCRIPTS["lease"], [keys.lease(library), keys.INSTANCES], [holder, ttl_ms, ""])
        answer, *replies = await run_scripts(self.redis, [script], beside=[question])
        ours, held_by, count = checked("lease", *raised(replies))
        return answer, int(ours) == 1, text(held_by), int(count)

    async def release_lease(self, library: str, holder: str) -> bool:
        """Give the lease back if it is still ours."""
        return int(await self._run("release_lease", [keys.lease(library)], holder)) == 1

    async def observe(self, run_id: str) -> Observation:
        """Read all the evidence at one moment, and note that the server is this one; '' when it cannot be known."""
        names, arguments = observe_call(run_id)
        return read_observation(await self._run("observe", names, *arguments), run_id)

    async def mark_gone(self, instance_id: str, connections: str, *, gone: bool) -> int:
        """Note that these connections are gone, or back. Returns since when they are gone in ms, 0 when they are not."""
        return int(await self._run("mark_gone", [keys.CONNECTIONS, keys.GONE], instance_id, connections, int(gone)))

    async def note_stall(self, instance_id: str, heartbeat: str, event: str) -> bool:
        """Announce that an instance with this heartbeat is stalled, and count it; False where another sweeper has done so."""
        names = [keys.INSTANCES, keys.instance(instance_id), keys.EVENTS, keys.STATS]
        arguments = (instance_id, heartbeat, EVENTS_KEPT, EVENTS_SECONDS, event, STALLS, STATS_SECONDS)
        return int(await self._run("note_stall", names, *arguments)) == 1

    async def declare_dead(self, judged: Judged, event: str) -> bool:
        """Declare an instance dead unless its evidence has changed since it was judged."""
        instance_id = judged.instance_id
        names = [keys.INSTANCES, keys.instance(instance_id), keys.CONNECTIONS, keys.GONE, keys.WATCHDOGS, keys.DEAD]
        names += [keys.tombstone(instance_id), keys.EVENTS, keys.STATS, keys.CHANGED, keys.HOSTS]
        evidence = (judged.heartbeat, judged.connections, judged.watchdog)
        lifetimes = (TOMBSTONE_MS, EVENTS_KEPT, EVENTS_SECONDS)
        counted = (DEATHS, STATS_SECONDS, CHANGED_SECONDS)
        arguments = (instance_id, *evidence, judged.reason, int(judged.is_blameless), *lifetimes, event, *counted)
        return int(await self._run("declare_dead", names, *arguments)) == 1

    async def adopt(self, instance_id: str, orphans: Sequence[RunRecord]) -> bool:
        """Keep the orphans of a dead instance until they are settled, also those that it did not live to record."""
        names = [keys.DEAD, keys.jobs(instance_id), keys.orphans(instance_id), keys.settled(instance_id)]
        names += [keys.job(record.ref) for record in orphans]
        arguments = [part for record in orphans for part in (record.ref, record.token, run_mark(record.token), encode_run(record))]
        return int(await self._run("adopt", names, instance_id, ANY_MARK, instance_mark(instance_id), *arguments)) == 1

    async def announce(self, record: RunRecord, event: str, *, counter: str) -> bool:
        """Announce an orphan that no sweeper recovers yet, once. Returns False when it was announced or settled before."""
        names = [keys.DEAD, keys.settled(record.instance_id), keys.told(record.instance_id), keys.EVENTS, keys.STATS]
        lifetimes = (EVENTS_KEPT, EVENTS_SECONDS, STATS_SECONDS)
        return int(await self._run("announce", names, record.instance_id, record.ref, record.token, *lifetimes, event, counter)) == 1

    async def settle(self, settlement: Settlement, *, window_ms: int) -> Settled:
        """Settle one orphan, once: forget its record, count its death, announce what became of it."""
        names, arguments = _settle_call(settlement, window_ms)
        return Settled(int(await self._run("settle", names, *arguments)))

    async def settle_many(self, settlements: Sequence[Settlement], *, window_ms: int) -> list[Settled | StorageError]:
        """Do what `settle` does for each of these, each a step of its own, in one round trip; a refusal is an answer."""
        calls: list[ScriptCall] = [(SCRIPTS["settle"], *_settle_call(each, window_ms)) for each in settlements]
        replies = await run_scripts(self.redis, calls)
        return [refusal(reply) or Settled(int(checked("settle", reply))) for reply in replies]

    async def lost_traceparent(self, ref: str) -> str | None:
        """Give the span of the run of this job that was last lost with its worker; None where there is none."""
        found = await call(self.redis, "HGET", keys.recoveries(ref), "traceparent")
        return text(found) if found is not None else None

    async def bury(self, instance_id: str) -> bool:
        """Forget a dead instance that has no orphan left."""
        names = [keys.DEAD, keys.instance(instance_id), keys.jobs(instance_id), keys.counters(instance_id)]
        names += [keys.orphans(instance_id), keys.settled(instance_id), keys.told(instance_id)]
        return int(await self._run("bury", names, instance_id)) == 1

    async def list_queues(self, queues: Collection[str], *, at_ms: int) -> int:
        """List the queues that all instances work on, as was found at this moment. Returns how many were taken off the list.

        With that, lists and events that have had their time are tidied.
        """
        names = [keys.QUEUES, keys.HOSTS, keys.INSTANCES, keys.EVENTS]
        tidied = (QUEUES_SECONDS, HOSTS_SECONDS, HOSTS_LOOKED_AT, max(0, at_ms - EVENTS_SECONDS * 1000))
        return int(await self._run("list_queues", names, at_ms, *tidied, *sorted(queues)))

    async def mark_deploy(self, version: str, event: str) -> bool:
        """Note that an instance of a version is here. Returns whether that is a deploy: the version is new, or back after another one."""
        names = [keys.VERSIONS, keys.DEPLOYS, keys.EVENTS]
        arguments = (version, VERSION_AWAY_MS, DEPLOYS_KEPT, HOURS_SECONDS, EVENTS_KEPT, EVENTS_SECONDS, event)
        return int(await self._run("mark_deploy", names, *arguments)) == 1

    async def sample(self, minute: int, library: str, sample: str, versions: Sequence[str] = ()) -> bool:
        """Note how the fleet of one library stands in a minute, and which versions are in it. Returns False when it was noted before."""
        hour = minute // 60
        names = [keys.samples(str(hour)), keys.HOURS, keys.VERSIONS]
        arguments: list[Argument] = [f"{minute % 60}:{library}", sample, HOURS_SECONDS, hour, minute * MINUTE_MS, *versions]
        return int(await self._run("sample", names, *arguments)) == 1

    async def pack_minute(self, minute: int, records: Mapping[str, bytes]) -> int:
        """Keep the packed records of a closed minute, by function and queue. Returns how many were not there already."""
        names = [keys.packed(f"{minute // 60}:{pair}") for pair in records]
        return int(await self._run("roll_up", names, minute % 60, HOURS_SECONDS, len(records), 0, *records.values()))

    async def close_minute(self, minute: int) -> bool:
        """Forget the counters of a minute that are packed."""
        hour = minute // 60
        names = [keys.MINUTES, keys.minute(minute), keys.HOURS]
        return int(await self._run("close_minute", names, minute, hour, HOURS_SECONDS)) == 1

    async def roll_up_hour(self, hour: int, records: Mapping[str, bytes], *, minutes_seconds: int) -> int:
        """Keep the packed records of a closed hour, and its minutes for so many seconds yet. Returns how many were not there already."""
        names = [keys.packed(f"d{hour // 24}:{pair}") for pair in records] + [keys.packed(f"{hour}:{pair}") for pair in records]
        return int(await self._run("roll_up", names, hour % 24, HOURS_SECONDS, len(records), minutes_seconds, *records.values()))

    async def close_hour(self, hour: int, sample: str, *, minutes_seconds: int, series_from: int) -> bool:
        """Note that an hour is rolled up, with its sample ('' for none); forget the series that last counted before a minute.

        Returns False when that was noted before.
        """
        names = [keys.HOURS, keys.samples(str(hour)), keys.samples(f"d{hour // 24}"), keys.SERIES]
        arguments = (hour, hour % 24, sample, HOURS_SECONDS, minutes_seconds, series_from)
        return int(await self._run("close_hour", names, *arguments)) == 1

    async def order(self, orders: Mapping[str, OrderToPlace], *, beyond_ms: int) -> dict[str, tuple[int, int]]:
        """Put one order into the hash of each of these instances. Returns how each was taken, and for how many ms it is open."""
        placed: dict[str, tuple[int, int]] = {}
        names = list(orders)
        for start in range(0, len(names), _ORDERS_AT_ONCE):
            part = names[start : start + _ORDERS_AT_ONCE]
            calls: list[ScriptCall] = []
            for name in part:
                order = orders[name]
                arguments: list[Argument] = [name, order.order_id, order.kind, order.text, beyond_ms, ORDERS_OPEN]
                calls.append((SCRIPTS["order"], [keys.INSTANCES, keys.instance(name)], arguments))
            replies = raised(await run_scripts(self.redis, calls))
            placed |= {name: _two(checked("order", reply)) for name, reply in zip(part, replies, strict=True)}
        return placed

    async def answer(self, instance_id: str, order_id: str, answer: str, event: str) -> str:
        """Answer an order. Returns '' when this answer stands, else the one that stood before."""
        names, arguments = answer_call(instance_id, order_id, answer, event)
        return text(await self._run("answer", names, *arguments))

    async def answers(self, asked: Mapping[str, str]) -> dict[str, tuple[str | None, bool]]:
        """Read the answers to orders, by the instance that was asked, and whether that has not ended or died, in one round trip.

        An instance that Redis does not know may be back in a moment: a server that has lost its data is no end.
        """
        names = list(asked)
        commands: list[tuple[str | int, ...]] = [("GET", keys.answer(order_id)) for order_id in asked.values()]
        commands += [("EXISTS", keys.tombstone(name)) for name in names]
        replies = raised(await call_many(self.redis, commands))
        stored, ended = replies[: len(names)], replies[len(names) :]
        return {
            name: (text(answer) if answer is not None else None, not int(has_ended))
            for name, answer, has_ended in zip(names, stored, ended, strict=True)
        }

    async def stand(self, scope: str, order_id: str, order: str, *, for_ms: int) -> int:
        """Have an order stand for a scope. Returns until when, in ms."""
        return int(await self._run("stand", [keys.STANDING], scope, order_id, order, for_ms))

    async def withdraw(self, scope: str) -> int:
        """Withdraw the standing order of a scope, or of all with ''. Returns how many stood."""
        return int(await self._run("withdraw", [keys.STANDING], scope))

    async def standing(self) -> tuple[int, dict[str, str]]:
        """Read the standing orders by their scopes, those that are over among them, and the server's time in ms."""
        now, stored = await call_many(self.redis, [("TIME",), ("HGETALL", keys.STANDING)])
        if refused_by_type(stored):  # another program's key of that name holds no order
            stored = None
        (seconds, micros), stored = raised([now, stored])
        return int(seconds) * 1000 + int(micros) // 1000, pairs(stored)

    async def open_orders(self, instance_id: str) -> str:
        """Read the open orders of an instance, one a line, whether it is registered or not."""
        return text(await call(self.redis, "HGET", keys.instance(instance_id), "orders") or "")

    async def publish(self, event: str) -> None:
        """Put one event into the stream."""
        add = ("XADD", keys.EVENTS, "MAXLEN", "~", EVENTS_KEPT, "*", "event", event)
        await call_many(self.redis, [add, ("EXPIRE", keys.EVENTS, EVENTS_SECONDS)])

    async def is_registered(self, instance_id: str) -> bool:
        """Tell whether this instance is still one: not deregistered, not declared dead."""
        return await call(self.redis, "ZSCORE", keys.INSTANCES, instance_id) is not None

    async def has_ended(self, instance_id: str) -> bool:
        """Tell whether this instance was deregistered or declared dead; an instance that is merely unknown was not."""
        return int(await call(self.redis, "EXISTS", keys.tombstone(instance_id))) == 1

    async def listed_jobs(self, instance_id: str) -> list[str]:
        """Give the ids of the jobs that Redis lists for an instance."""
        return [text(member) for member in await call(self.redis, "SMEMBERS", keys.jobs(instance_id))]

    async def unquarantine(self, job_id: str, event: str) -> bool:
        """Take a job off the quarantine list. Returns False when it was not on it."""
        names = [keys.QUARANTINE, keys.quarantined(job_id), keys.recoveries(job_id), keys.EVENTS]
        return int(await self._run("unquarantine", names, job_id, EVENTS_KEPT, EVENTS_SECONDS, event)) == 1


def _count_call(instance_id: str, batch: CountedBatch, clock: ServerClock) -> tuple[list[str], list[Argument]]:
    return count_call(instance_id, batch, now_ms=clock.now_ms(), since_ms=clock.at_ms(batch.since_ms))


def _reply(reply: Any) -> Reply:
    orders = text(reply[2]) if len(reply) > 2 else ""
    instances, is_led, totals = (int(reply[3]), int(reply[4]) == 1, text(reply[5])) if len(reply) > 5 else (0, True, "")
    return Reply(Status(int(reply[0])), int(reply[1]), orders, instances, is_led, int(totals) if totals.isdecimal() else 0)


def _two(reply: Any) -> tuple[int, int]:
    return int(reply[0]), int(reply[1])


def _settle_call(settlement: Settlement, window_ms: int) -> tuple[list[str], list[Argument]]:
    record = settlement.record
    names = [keys.DEAD, keys.jobs(record.instance_id), keys.job(record.ref), keys.recoveries(record.ref), keys.EVENTS]
    names += [keys.STATS, keys.QUARANTINE, keys.quarantined(record.ref)]
    names += [keys.orphans(record.instance_id), keys.settled(record.instance_id), keys.told(record.instance_id)]
    arguments: list[Argument] = [
        record.instance_id,
        record.ref,
        record.token,
        run_mark(record.token),
        int(settlement.counts),
        window_ms,
    ]
    arguments += [EVENTS_KEPT, EVENTS_SECONDS, STATS_SECONDS, record.traceparent or ""]
    arguments += [len(settlement.events), len(settlement.counters)]
    arguments += [*settlement.events, *settlement.counters, *flat(settlement.quarantined or {})]
    return names, arguments
