"""How dramatiq's Redis broker holds a message, and how what a dead worker held is given back.

Needs a client of the broker's Redis and names; nothing of dramatiq is imported. A broker that is not Redis looks after its
messages itself: then there is nothing to recover.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from async_tracker.connections.calls import ScriptCall, call, call_many, load_script, refusal, run_script, run_scripts
from async_tracker.connections.replies import run_id_of, text
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.integrations.dramatiq.holds import Broker, Hold, queues_of
from async_tracker.integrations.dramatiq.marks import ALL_MARKED
from async_tracker.integrations.dramatiq.messages import put_off, read_message, with_all_tries
from async_tracker.integrations.dramatiq.names import DELAYED, LIBRARY, dead_letters_key, messages_key, queue_key
from async_tracker.records import QueueDepth
from async_tracker.recovery.adapter import Claim, Located, QuarantinedPayload, Released
from async_tracker.store import keys
from async_tracker.store.instance_record import Description
from async_tracker.store.run_record import RunRecord

_RELEASE = load_script(__package__, "release")
_GIVE_BACK = load_script(__package__, "give_back")
_QUARANTINE = load_script(__package__, "quarantine")
_RETRY = load_script(__package__, "retry")
_FIND = load_script(__package__, "find")

_AT_ONCE = 500
"""Messages that are looked at, or given back, in one round trip."""

_WAITS = "it does not run: it waits in {queue!r}, and dramatiq cannot take one message out of a queue. Abort it once it runs"
_PUT_OFF = "it does not run: it is put off, and comes to {queue!r} when it is due. Abort it once it runs"
_FETCHED = "it does not run, or has only just begun: {instance_id} has fetched it from {queue!r}. Abort it once async-tracker jobs lists it"

RECEIPT_MS = 86_400_000
"""For how long a release is remembered, so that a sweeper that died after it is not asked to do it twice."""

KEPT_MS = 604_800_000
"""For how long it is remembered that a message was quarantined, or retried after that. Until the quarantine is recorded, this receipt is
the only copy of the message. Seven days, so that it survives a weekend without workers."""


class DramatiqAdapter:
    """dramatiq's side of the boundary.

    ``client`` is a client of the broker's Redis, and ``full_key`` gives a key of our namespace its full name there.
    """

    library = LIBRARY
    scope = LIBRARY

    def __init__(self, client: Any, *, full_key: Callable[[str], bytes]) -> None:
        self._client = client
        self._full_key = full_key

    async def claims_of(self, dead: Mapping[str, Description | None]) -> AsyncIterator[Claim]:
        """Find what the brokers of these instances have fetched and not acknowledged, delay queues included.

        Of several workers of one broker, a message is found with the one that has begun it, else with one that works on its queue.
        """
        groups: dict[tuple[str, str], tuple[Broker, dict[str, Description]]] = {}
        for instance_id, description in dead.items():
            broker = Broker.of(description.broker) if description is not None else None
            if description is not None and broker is not None:
                groups.setdefault((broker.namespace, broker.broker_id), (broker, {}))[1][instance_id] = description
        for broker, described in groups.values():
            marked = {name: await self._marked(name) for name in described}
            for queue in dict.fromkeys(queue for description in described.values() for queue in queues_of(description)):
                fetching = {name: marked[name] for name, description in described.items() if queue in queues_of(description)}
                async for claim in self._held(broker, queue, marked, fetching):
                    yield claim

    async def _marked(self, instance_id: str) -> set[str]:
        """Give the marks of an instance: what it has begun."""
        return set(map(text, await call(self._client, "HVALS", self._full_key(keys.marks(instance_id)))))

    async def _held(
        self, broker: Broker, queue: str, marked: Mapping[str, set[str]], fetching: Mapping[str, set[str]]
    ) -> AsyncIterator[Claim]:
        """Give what a broker holds of a queue. ``marked``: the marks of its instances; ``fetching``: of those that work on this queue."""
        ids = [text(member) for member in await call(self._client, "SMEMBERS", broker.hold(queue, "").acks)]
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            for name, raw in zip(part, await call(self._client, "HMGET", messages_key(broker.namespace, queue), *part), strict=True):
                facts = read_message(raw)
                yield Claim(
                    job_id=facts.message_id if facts is not None else name,
                    instance_id=next((one for one, marks in marked.items() if name in marks), next(iter(fetching))),
                    queue=queue,
                    started=_has_started(name, marked, fetching) if raw is not None and not queue.endswith(DELAYED) else False,
                    scope=LIBRARY,
                    hold=broker.hold(queue, name).encode(),
                    function=facts.actor if facts is not None else None,
                )

    def shares_claims(self, one: Description, other: Description) -> bool:
        """Two processes with one broker id fetch into the same sets: a broker that was made before a fork."""
        mine, theirs = Broker.of(one.broker), Broker.of(other.broker)
        return mine is not None and theirs is not None and (mine.broker_id, mine.namespace) == (theirs.broker_id, theirs.namespace)

    async def release(self, orphan: RunRecord, *, delay: float) -> Released:
        """Queue the message again, or put it off as dramatiq itself does; one in a foreign encoding is never put off.

        One that was being aborted goes to the dead letters instead.
        """
        if orphan.hold is None or orphan.queue is None:
            return Released.NOTHING
        hold, queue = Hold.of(orphan.hold), orphan.queue
        later = await self._put_off(hold, queue, delay) if delay else None
        names = self._release_names(orphan, hold, queue)
        return Released(text(await run_script(self._client, _RELEASE, names, (hold.redis_message_id, later or b"", RECEIPT_MS))))

    async def release_many(self, orphans: Sequence[tuple[RunRecord, float]]) -> list[Released | StorageError]:
        """Do what `release` does for each of these; those that are not put off are released in one round trip, each in its own script."""
        found: list[Released | StorageError] = [Released.NOTHING] * len(orphans)
        at_once: list[int] = []
        calls: list[ScriptCall] = []
        for number, (orphan, delay) in enumerate(orphans):
            if orphan.hold is None or orphan.queue is None:
                continue
            if delay:
                try:
                    found[number] = await self.release(orphan, delay=delay)
                except StorageUnavailable:
                    raise
                except StorageError as exc:
                    found[number] = exc
                continue
            hold = Hold.of(orphan.hold)
            at_once.append(number)
            calls.append((_RELEASE, self._release_names(orphan, hold, orphan.queue), (hold.redis_message_id, b"", RECEIPT_MS)))
        for number, reply in zip(at_once, await run_scripts(self._client, calls), strict=True):
            found[number] = refusal(reply) or Released(text(reply))
        return found

    def _release_names(self, orphan: RunRecord, hold: Hold, queue: str) -> list[str | bytes]:
        delayed = queue.removesuffix(DELAYED) + DELAYED
        dead = dead_letters_key(hold.namespace, queue)
        names: list[str | bytes] = [hold.acks, hold.queue(queue), hold.messages(queue), hold.queue(delayed), hold.messages(delayed)]
        return [*names, dead, f"{dead}.msgs", self._receipt(orphan.claim), self._abort(orphan.claim)]

    async def note_abort(self, claim: str) -> None:
        """Note that the run with this claim is being aborted, so that a sweep does not run its message again if its worker dies."""
        await call(self._client, "SET", self._abort(claim), "1", "PX", RECEIPT_MS)

    async def forget_abort(self, claim: str) -> None:
        """The run has ended, however it did, and dramatiq has its message acknowledged or with the dead letters."""
        await call(self._client, "DEL", self._abort(claim))

    async def locate(self, job_id: str, described: Mapping[str, Description]) -> Located | None:
        """Find a message in the queues of these workers, or with the one that has fetched it. Looks through the whole of a queue."""
        places: dict[tuple[str, str], dict[str, Broker]] = {}
        for instance_id, description in described.items():
            broker = Broker.of(description.broker)
            if broker is not None:
                for queue in description.queues:
                    places.setdefault((broker.namespace, queue), {})[instance_id] = broker
        for (namespace, queue), brokers in places.items():
            found = await self._find(job_id, messages_key(namespace, queue))
            if found is not None:
                fetched_by = await self._fetched_by(brokers, queue, found)
                says = _WAITS if fetched_by is None else _FETCHED
                return Located(says=says.format(queue=queue, instance_id=fetched_by))
            if await self._find(job_id, messages_key(namespace, queue + DELAYED)) is not None:
                return Located(says=_PUT_OFF.format(queue=queue))
        return None

    async def _find(self, job_id: str, messages: str) -> str | None:
        """Give the id in Redis of a message, or None. One in a foreign encoding is found by its id standing in it."""
        cursor = "0"
        while True:
            reply = await run_script(self._client, _FIND, [messages], (cursor, job_id, _AT_ONCE))
            for name, raw in zip(reply[1::2], reply[2::2], strict=True):
                facts = read_message(raw)
                if facts is None or facts.message_id == job_id:
                    return text(name)
            cursor = text(reply[0])
            if cursor == "0":
                return None

    async def _fetched_by(self, brokers: Mapping[str, Broker], queue: str, redis_message_id: str) -> str | None:
        names = list(brokers)
        commands = [("SISMEMBER", brokers[name].hold(queue, "").acks, redis_message_id) for name in names]
        replies = await call_many(self._client, commands)
        return next((name for name, reply in zip(names, replies, strict=True) if reply == 1), None)

    async def _put_off(self, hold: Hold, queue: str, delay: float) -> bytes | None:
        time_reply, raw = await call_many(self._client, [("TIME",), ("HGET", hold.messages(queue), hold.redis_message_id)])
        return put_off(raw, queue=queue.removesuffix(DELAYED), due_at_ms=_ms(time_reply) + int(delay * 1000))

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Queue messages again that were prefetched, or waited in a delay queue, in the worker's memory."""
        by_queue: dict[tuple[str, str], list[str]] = {}
        for claim in claims:
            if claim.hold is not None and claim.queue is not None:
                hold = Hold.of(claim.hold)
                by_queue.setdefault((hold.acks, claim.queue), []).append(hold.redis_message_id)
        for (acks, queue), ids in by_queue.items():
            place = Hold(acks=acks, redis_message_id="")
            for start in range(0, len(ids), _AT_ONCE):
                names = [acks, place.queue(queue), place.messages(queue)]
                await run_script(self._client, _GIVE_BACK, names, ids[start : start + _AT_ONCE])

    async def quarantine(self, orphan: RunRecord, *, error: str) -> QuarantinedPayload | None:
        """Take the message out of its queue. A program that awaits its result waits until its own timeout, as after a dead letter."""
        if orphan.hold is None or orphan.queue is None:
            return None
        hold = Hold.of(orphan.hold)
        names: list[str | bytes] = [hold.acks, hold.messages(orphan.queue), self._receipt(orphan.claim), self._abort(orphan.claim)]
        payload = await run_script(self._client, _QUARANTINE, names, (hold.redis_message_id, KEPT_MS))
        extras = {"hold": orphan.hold.encode(), "token": orphan.claim.encode()}
        return QuarantinedPayload(payload=payload, extras=extras) if payload is not None else None

    async def retry(self, job_id: str, queue: str | None, kept: QuarantinedPayload) -> bool:
        """Queue a quarantined message again, as if it had never been tried, once."""
        hold, queue = Hold.of(text(kept.extras["hold"])), queue or "default"
        names: list[str | bytes] = [hold.queue(queue), hold.messages(queue), self._receipt(text(kept.extras["token"]))]
        arguments = (hold.redis_message_id, with_all_tries(kept.payload), KEPT_MS)
        return int(await run_script(self._client, _RETRY, names, arguments)) == 1

    async def holds(self, run: RunRecord) -> bool:
        """Tell whether the broker still has the message fetched for this process; only a Redis broker can say no."""
        if run.hold is None:
            return True
        hold = Hold.of(run.hold)
        return int(await call(self._client, "SISMEMBER", hold.acks, hold.redis_message_id)) == 1

    async def claims_server(self) -> str | None:
        """Give the run id of the broker's server."""
        return run_id_of(await call(self._client, "INFO", "server")) or None

    async def queues(self, described: Sequence[Description]) -> list[QueueDepth]:
        """Tell how full the queues of these workers are, in two round trips; ``due`` is what waits for a worker."""
        places = sorted(
            {(broker.namespace, queue) for item in described if (broker := Broker.of(item.broker)) is not None for queue in item.queues}
        )
        commands: list[tuple[str | int, ...]] = [("TIME",)]
        for namespace, queue in places:
            commands += [("HLEN", messages_key(namespace, name)) for name in (queue, queue + DELAYED)]
            commands += [("LLEN", queue_key(namespace, queue)), ("LINDEX", queue_key(namespace, queue), 0)]
        now, *replies = await call_many(self._client, commands)
        firsts = [("HGET", messages_key(*place), replies[4 * i + 3] or b"") for i, place in enumerate(places)]
        messages = await call_many(self._client, firsts) if firsts else []
        return [_depth(queue, replies[4 * i : 4 * i + 3], messages[i], _ms(now)) for i, (_, queue) in enumerate(places)]

    def _receipt(self, token: str) -> bytes:
        return self._full_key(keys.receipt(token))

    def _abort(self, claim: str) -> bytes:
        return self._full_key(keys.abort(claim))


def _has_started(name: str, marked: Mapping[str, set[str]], fetching: Mapping[str, set[str]]) -> bool | None:
    """Tell it from the marks; None when one that may have fetched it has left none, which says nothing."""
    if any(name in marks for marks in marked.values()):
        return True
    return False if all(ALL_MARKED in marks for marks in fetching.values()) else None


def _ms(time_reply: Sequence[Any]) -> int:
    seconds, micros = time_reply
    return int(seconds) * 1000 + int(micros) // 1000


def _depth(queue: str, counts: Sequence[Any], first: Any, now_ms: int) -> QueueDepth:
    if not all(isinstance(count, int) for count in counts):  # a key of that name holds something else
        return QueueDepth(queue=queue, library=LIBRARY, depth=0, due=0, oldest_wait=None)
    facts = read_message(first) if isinstance(first, bytes) else None
    since_ms = facts.waits_since_ms if facts is not None else None
    wait = max(now_ms - since_ms, 0) / 1000.0 if since_ms is not None else None
    return QueueDepth(queue=queue, library=LIBRARY, depth=counts[0] + counts[1], due=counts[2], oldest_wait=wait)
