"""How arq holds a job, and how a dead worker's hold is given back. Payloads are pickles and stay opaque bytes."""

import asyncio
import logging
import pickle
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from async_tracker.clock import ServerClock
from async_tracker.connections.calls import ScriptCall, call, call_many, load_script, refusal, refused, run_script, run_scripts
from async_tracker.connections.replies import members_of, run_id_of, scores_of, text
from async_tracker.errors import StorageError
from async_tracker.integrations.arq.names import ABORT, DEFAULT_QUEUE, IN_PROGRESS, JOB, LIBRARY, RESULT, RETRY
from async_tracker.records import QueueDepth
from async_tracker.recovery.adapter import Claim, Located, QuarantinedPayload, Released
from async_tracker.store import keys
from async_tracker.store.instance_record import Description
from async_tracker.store.run_record import RunRecord

logger = logging.getLogger("async_tracker")

_RELEASE = load_script(__package__, "release")
_QUARANTINE = load_script(__package__, "quarantine")
_RETRY = load_script(__package__, "retry")
_KEEP_TRY = load_script(__package__, "keep_try")
_FINISH_ABORTED = load_script(__package__, "finish_aborted")
_ABORTING = "aborting"

_WAITS = (
    "it does not run: it waits in {queue!r}. Take it out of its queue, as arq's own Job.abort does for workers with allow_abort_jobs, "
    "or abort it once it runs"
)
_CLAIMED = "a worker that is not tracked has it, and cannot be told anything"

_IDS_AT_ONCE = 500
"""Ids of a queue that are looked at in one round trip: well under a millisecond of the server's time."""

_MOST_AT_ONE_SCORE = 2_000
"""How many ids of one score are remembered while a queue is read in order."""

RECOVERY_SECONDS = 259_200.0
"""Within which kept tries of a job are counted, where the adapter is not told another time: the default of ``recovery_window``."""

RECEIPT_MS = 86_400_000
"""For how long a release is remembered, so that a sweeper that died after it is not asked to do it twice."""

RESULT_MS = 3_600_000
"""For how long a quarantined job's failed result is kept: arq's own default."""

KEPT_MS = 604_800_000
"""For how long it is remembered that a job was quarantined, or retried after that. Until the quarantine is recorded, this receipt is the
only copy of the job. Seven days, so that it survives a weekend without workers."""

RETRY_MS = 88_400_000
"""For how long arq remembers how often it has tried a job, since the last try."""
_NO_KEY = -2

JOB_MS = 86_400_000
"""For how long a retried job may wait for a worker: arq's own default."""

Serializer = Callable[[dict[str, Any]], bytes]
SerializerOf = Callable[[str], tuple[Serializer | None] | None]
"""Tells how results are written in a queue, None within for arq's own way; None where it does not know."""


class ArqAdapter:
    """arq's side of the boundary.

    ``client`` is a client of arq's Redis, ``receipt_key`` makes the full name of a key of our namespace there, and ``serializer``
    is the worker's: with it the error is written for the caller who awaits a quarantined job, unless ``serializer_of`` knows that of the
    job's queue.
    """

    library = LIBRARY
    scope = ""

    def __init__(
        self,
        client: Any,
        *,
        receipt_key: Callable[[str], bytes],
        serializer: Serializer | None = None,
        serializer_of: SerializerOf = lambda queue: None,
        recovery_window: float = RECOVERY_SECONDS,
    ) -> None:
        self._client = client
        self._receipt_key = receipt_key
        self._serializer = serializer
        self._serializer_of = serializer_of
        self._window_ms = int(recovery_window * 1000)

    async def claims_of(self, dead: Mapping[str, Description | None]) -> AsyncIterator[Claim | None]:
        """Find the claims that carry the names of these instances, queue by queue, in the order in which jobs are due.

        The whole queue is looked at, not only what is due by the server's clock: arq claims by its worker's. The first thing that
        arq does with a job that it has claimed is to count the try: one whose tries were not counted since was not started.
        Gives None between two parts of a queue.
        """
        owners = tuple(f"{instance_id}:" for instance_id in dead)
        for queue in _queues_of(dead.values()) or [DEFAULT_QUEUE]:
            found: set[str] = set()
            is_first = True
            async for job_ids in self._scan(queue):
                if not is_first:
                    yield None
                is_first = False
                tokens = await call(self._client, "MGET", *(IN_PROGRESS.encode() + job_id for job_id in job_ids))
                held = {
                    job_id: text(token)
                    for job_id, token in zip(job_ids, tokens, strict=True)
                    if token is not None and text(token).startswith(owners) and text(job_id) not in found
                }
                # The tries first: what passes between the two answers makes the claim older, and a try that was counted stays one.
                ttls = [("PTTL", prefix.encode() + job_id) for prefix in (RETRY, IN_PROGRESS) for job_id in held]
                left_ms = await call_many(self._client, ttls) if held else []
                for (job_id, token), tries_ms, claim_ms in zip(held.items(), left_ms[: len(held)], left_ms[len(held) :], strict=True):
                    found.add(text(job_id))
                    description = dead.get(token.rpartition(":")[0])
                    claim_seconds = description.claim_seconds if description is not None else None
                    started = has_begun(tries_left_ms=tries_ms, claim_left_ms=claim_ms, claim_seconds=claim_seconds)
                    yield _claim(text(job_id), token, queue, started=started)

    async def _scan(self, queue: str) -> AsyncIterator[Sequence[bytes]]:
        """Give every id that is queued all the while, some of them twice, in the order in which they are due: claims are at the beginning.

        Reading the queue by rank would pass over an id for each job that ends meanwhile before it. So it is read on from the last score,
        which several jobs may have; where very many have it, the rest is read in no order.
        """
        score, seen = "-inf", set[bytes]()
        while len(seen) <= _MOST_AT_ONE_SCORE:
            wanted = _IDS_AT_ONCE + len(seen)
            reply = await call(self._client, "ZRANGE", queue, score, "+inf", "BYSCORE", "LIMIT", 0, wanted, "WITHSCORES")
            job_ids, scores = members_of(reply), scores_of(reply)
            new = [job_id for job_id in job_ids if job_id not in seen]
            if new:
                yield new
            if len(job_ids) < wanted:
                return
            seen = {job_id for job_id, of_it in zip(job_ids, scores, strict=True) if of_it == scores[-1]}
            score = repr(scores[-1])
        async for some in self._scan_in_no_order(queue):
            yield some

    async def _scan_in_no_order(self, queue: str) -> AsyncIterator[Sequence[bytes]]:
        cursor = b"0"
        while True:
            cursor, members = await call(self._client, "ZSCAN", queue, cursor, "COUNT", _IDS_AT_ONCE)
            job_ids = members_of(members)
            for start in range(0, len(job_ids), _IDS_AT_ONCE):
                yield job_ids[start : start + _IDS_AT_ONCE]
            if int(cursor) == 0:
                return

    async def release(self, orphan: RunRecord, *, delay: float) -> Released:
        """Delete the claim if it is still that run's, and put the job off by ``delay`` seconds through its score."""
        return await self._released(orphan, text(await run_script(self._client, *self._release_call(orphan, delay))))

    async def _released(self, orphan: RunRecord, said: str) -> Released:
        """Read what the script of a release says; one that was being aborted is finished."""
        return await self._finish_aborted(orphan) if said == _ABORTING else Released(said)

    def _release_call(self, orphan: RunRecord, delay: float) -> ScriptCall:
        job_id, queue = orphan.job_id, _queue_of(orphan)
        names: list[str | bytes] = [IN_PROGRESS + job_id, queue, JOB + job_id, self._receipt(orphan.claim), RETRY + job_id]
        names += [self._kept(job_id), self._abort(orphan.claim)]
        lifetimes = (int(delay * 1000), RECEIPT_MS)
        return _RELEASE, names, (job_id, orphan.claim, *lifetimes, orphan.job_try, orphan.tries_to_keep, self._window_ms)

    async def _finish_aborted(self, orphan: RunRecord) -> Released:
        names = self._names_of_all(orphan)
        result = self._failed_result(orphan, asyncio.CancelledError())
        arguments = (orphan.job_id, orphan.claim, result, RESULT_MS, RECEIPT_MS)
        return Released(text(await run_script(self._client, _FINISH_ABORTED, names, arguments)))

    async def note_abort(self, claim: str) -> None:
        """Note that the run with this claim is being aborted, so that a sweep finishes its job if its worker dies meanwhile."""
        await call(self._client, "SET", self._abort(claim), "1", "PX", RECEIPT_MS)

    async def forget_abort(self, claim: str) -> None:
        """The run has ended, however it did."""
        await call(self._client, "DEL", self._abort(claim))

    async def locate(self, job_id: str, described: Mapping[str, Description]) -> Located | None:
        """Find the run that has claimed a job, or the queue of these workers in which it waits."""
        token = await call(self._client, "GET", IN_PROGRESS + job_id)
        claim = text(token) if token is not None else ""
        if claim.count(":") > 1:
            instance_id, _, run = claim.rpartition(":")
            return Located(claimed=(instance_id, run))
        for queue in _queues_of(described.values()) or [DEFAULT_QUEUE]:
            if await call(self._client, "ZSCORE", queue, job_id) is not None:
                return Located(says=_CLAIMED if claim else _WAITS.format(queue=queue))
        return None

    async def keep_try(self, run: RunRecord) -> bool:
        """Note that the try of this run is about to be given back to its job; False where too many of it were."""
        arguments = (run.claim, run.tries_to_keep, self._window_ms)
        return int(await run_script(self._client, _KEEP_TRY, [self._kept(run.job_id)], arguments)) == 1

    async def release_many(self, orphans: Sequence[tuple[RunRecord, float]]) -> list[Released | StorageError]:
        """Do what `release` does for each of these, each in a script of its own, in one round trip."""
        calls = [self._release_call(orphan, delay) for orphan, delay in orphans]
        replies = await run_scripts(self._client, calls)
        return [refusal(reply) or await self._released(orphan, text(reply)) for (orphan, _), reply in zip(orphans, replies, strict=True)]

    async def quarantine(self, orphan: RunRecord, *, error: str) -> QuarantinedPayload | None:
        """Take the job out of arq; the caller who awaits it gets arq's own JobExecutionFailed."""
        names, queue = self._names_of_all(orphan), _queue_of(orphan)
        result = self._failed_result(orphan, _job_execution_failed(error), error)
        reply = await run_script(self._client, _QUARANTINE, names, (orphan.job_id, orphan.claim, result, RESULT_MS, KEPT_MS))
        if not reply:
            return None
        extras = {"result": reply[1], "token": orphan.claim.encode(), **({"queue": queue.encode()} if orphan.hold else {})}
        return QuarantinedPayload(payload=reply[0], extras=extras)

    async def retry(self, job_id: str, queue: str | None, kept: QuarantinedPayload) -> bool:
        """Queue a quarantined job again, due now, once."""
        own_queue = text(kept.extras["queue"]) if "queue" in kept.extras else queue or DEFAULT_QUEUE
        names: list[str | bytes] = [own_queue, JOB + job_id, RETRY + job_id, RESULT + job_id, IN_PROGRESS + job_id]
        names.append(self._receipt(text(kept.extras["token"])))
        arguments = (job_id, kept.payload, kept.extras.get("result", b""), JOB_MS, KEPT_MS)
        return int(await run_script(self._client, _RETRY, names, arguments)) == 1

    async def holds(self, run: RunRecord) -> bool:
        """Tell whether arq's claim still carries this run's token."""
        token = await call(self._client, "GET", IN_PROGRESS + run.job_id)
        return token is not None and text(token) == run.claim

    async def still_held(self, runs: Sequence[RunRecord]) -> list[RunRecord]:
        """Give those of these runs whose claims are still their own, in one round trip."""
        tokens = await call(self._client, "MGET", *(IN_PROGRESS + run.job_id for run in runs)) if runs else []
        return [run for run, token in zip(runs, tokens, strict=True) if token is not None and text(token) == run.claim]

    async def claims_server(self) -> str | None:
        """Give the run id of arq's server."""
        return run_id_of(await call(self._client, "INFO", "server")) or None

    def shares_claims(self, one: Description, other: Description) -> bool:
        """Every claim carries the name of its instance."""
        return False

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Release claims under which no job was started."""
        for claim in claims:
            record = RunRecord(
                job_id=claim.job_id,
                instance_id=claim.instance_id,
                token=claim.run or "",
                queue=claim.queue,
                library=LIBRARY,
                started_at_ms=0,
            )
            await self.release(record, delay=0.0)

    async def queues(self, described: Sequence[Description]) -> list[QueueDepth]:
        """Tell how full the queues of these workers are, by the server's clock, in two round trips."""
        names = _queues_of(described)
        seconds, micros = await call(self._client, "TIME")
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        commands: list[tuple[str | int, ...]] = []
        for name in names:
            commands += [("ZCARD", name), ("ZCOUNT", name, "-inf", now_ms), ("ZRANGE", name, 0, 0, "WITHSCORES")]
        replies = await call_many(self._client, commands)
        for reply in replies:
            if refused(reply) and "permission" in str(reply).lower():  # else a queue that may not be looked at would pass for an empty one
                raise StorageError(f"Redis refuses to tell how full the queues are: {reply}")
        return [_depth(name, replies[3 * i : 3 * i + 3], now_ms) for i, name in enumerate(names)]

    def _names_of_all(self, orphan: RunRecord) -> list[str | bytes]:
        """Give the keys of all that arq keeps of a job, and ours of this run."""
        job_id = orphan.job_id
        names: list[str | bytes] = [IN_PROGRESS + job_id, _queue_of(orphan), JOB + job_id, RETRY + job_id, RESULT + job_id, ABORT]
        return [*names, self._receipt(orphan.claim), self._abort(orphan.claim)]

    def _failed_result(self, orphan: RunRecord, error: BaseException, words: str | None = None) -> bytes:
        queue = _queue_of(orphan)
        (serializer,) = self._serializer_of(queue) or (self._serializer,)
        return failed_result(orphan, queue=queue, error=error, words=words or repr(error), serializer=serializer or pickle.dumps)

    def _abort(self, claim: str) -> bytes:
        return self._receipt_key(keys.abort(claim))

    def _kept(self, job_id: str) -> bytes:
        return self._receipt_key(keys.kept(job_id))

    def _receipt(self, token: str) -> bytes:
        return self._receipt_key(keys.receipt(token))


def has_begun(*, tries_left_ms: int, claim_left_ms: int, claim_seconds: float | None) -> bool:
    """Tell from the lifetimes that are left of a job's count of tries and of its claim whether the claim's own try was counted.

    Both are set anew each time. ``claim_seconds`` is the whole lifetime of the claim; where it is not known, any count will do.

    >>> has_begun(tries_left_ms=88_399_990, claim_left_ms=309_980, claim_seconds=310.0)
    True
    >>> has_begun(tries_left_ms=88_395_000, claim_left_ms=309_980, claim_seconds=310.0)
    False
    >>> has_begun(tries_left_ms=-2, claim_left_ms=309_980, claim_seconds=None)
    False
    """
    if tries_left_ms < 0 or claim_seconds is None:  # there is no such key, or it lives for ever
        return tries_left_ms != _NO_KEY
    return RETRY_MS - tries_left_ms <= int(claim_seconds * 1000) - claim_left_ms


def _queues_of(described: Iterable[Description | None]) -> list[str]:
    return sorted({name for item in described if item is not None for name in item.queues or (item.queue,) if name})


def _queue_of(orphan: RunRecord) -> str:
    """Name the queue in which arq keeps the job: its ``hold`` where the tracker was told to call that queue something else."""
    return orphan.hold or orphan.queue or DEFAULT_QUEUE


def _claim(job_id: str, token: str, queue: str, *, started: bool) -> Claim:
    instance_id, run = token.rsplit(":", 1)
    return Claim(job_id=job_id, instance_id=instance_id, run=run, queue=queue, started=started)


def _depth(name: str, replies: Sequence[Any], now_ms: int) -> QueueDepth:
    depth, due, first = replies
    if not isinstance(depth, int) or not isinstance(due, int):  # a key of that name holds something else
        return QueueDepth(queue=name, library=LIBRARY, depth=0, due=0, oldest_wait=None)
    oldest = scores_of(first)[0] if due and first else None
    wait = max(now_ms - oldest, 0.0) / 1000.0 if oldest is not None else None
    return QueueDepth(queue=name, library=LIBRARY, depth=depth, due=due, oldest_wait=wait)


def _job_execution_failed(error: str) -> BaseException:
    from arq.worker import JobExecutionFailed  # noqa: PLC0415 - arq is an extra; without it there is no worker whose job could be a pill

    return JobExecutionFailed(error)


def failed_result(orphan: RunRecord, *, queue: str, error: BaseException, words: str, serializer: Serializer) -> bytes:
    """Write a failed result as arq's ``serialize_result`` lays it out, without the arguments: they were never unpickled.

    Where the worker's serializer takes no exception, its ``words`` stand there alone, as arq does it.
    """
    now_ms = ServerClock().now_ms()
    result: dict[str, Any] = {
        "t": orphan.job_try,
        "f": orphan.function or "<unknown>",
        "a": (),
        "k": {},
        "et": orphan.enqueued_at_ms or orphan.started_at_ms,
        "s": False,
        "r": error,
        "st": orphan.started_at_ms,
        "ft": now_ms,
        "q": queue,
        "id": orphan.job_id,
    }
    in_words = {**result, "r": words}
    for data in (result, in_words):
        try:
            return serializer(data)
        except Exception as exc:  # a user's serializer failed: the other orphans must not wait for it
            logger.info("the serializer of job %s does not take its failed result: %r", orphan.job_id, exc)
    return pickle.dumps(in_words)
