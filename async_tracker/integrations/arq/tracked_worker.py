"""One run of one arq worker: the instance that it is, its claims and its jobs, from start-up to shutdown."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from async_tracker.clock import monotonic_ms
from async_tracker.connections.access import describe
from async_tracker.connections.calls import bounded, let_be_left
from async_tracker.connections.link import Link
from async_tracker.errors import StorageError
from async_tracker.events.encoding import tries_count_event
from async_tracker.instance.order_taker import Handler
from async_tracker.instance.runtime import Runtime
from async_tracker.integrations.arq.aborts import Aborts
from async_tracker.integrations.arq.adapter import ArqAdapter, Serializer, SerializerOf
from async_tracker.integrations.arq.choice import Choice
from async_tracker.integrations.arq.claims import Claims, name_claims, stop_naming
from async_tracker.integrations.arq.controls import ArqControls
from async_tracker.integrations.arq.job_run import ArqRun
from async_tracker.integrations.arq.jobs import Ctx, Hook, Jobs
from async_tracker.integrations.arq.names import DEFAULT_QUEUE, LIBRARY
from async_tracker.integrations.arq.tries import Tries
from async_tracker.integrations.arq.wrapping import Wrapping, plain_text
from async_tracker.integrations.footing import Footing
from async_tracker.store.instance_record import Description, Note
from async_tracker.store.run_record import RunRecord

logger = logging.getLogger("async_tracker")

JOB_HOOKS = ("on_job_start", "on_job_end", "after_job_end")
"""What arq calls these hooks, as attributes of its worker and as settings."""

_LAST_CALL_SECONDS = 1.0
"""How long a worker whose polling has ended is given to call ``on_shutdown`` before it is deregistered without it."""
_NAMES_SHOWN = 5


class TrackedWorker:
    """One worker between start-up and shutdown.

    ``worker`` is arq's, and None where it was not found: then nothing is wrapped, and how jobs end is known as far as arq's own
    pipelines tell. ``choice`` is None where only our hooks were set. ``serializer_of`` gives the serializer of the callers who await the
    jobs of a queue; ``on_ended`` is told when the instance has left.
    """

    def __init__(
        self,
        *,
        footing: Footing,
        ctx: Ctx,
        worker: Any,
        main_task: asyncio.Task[Any] | None,
        choice: Choice | None,
        ctx_key: str,
        serializer_of: SerializerOf,
        on_ended: Callable[["TrackedWorker"], None],
    ) -> None:
        self._footing = footing
        self._settings = footing.settings
        self.ctx = ctx
        self.worker = worker
        self.main_task = main_task
        self.pool: Any = ctx["redis"]
        self.own_queue = self._find_queue()
        self.queue = self._settings.queue or self.own_queue
        """What people are told."""
        self.hold = self.own_queue if self.own_queue != self.queue else None
        """The queue as arq knows it, where the tracker was told to call it something else: there its jobs are recovered."""
        self._serializer_of = serializer_of
        self._on_ended = on_ended
        self.tries = Tries(worker, most=int(self._settings.keep_tries) if worker is not None and choice is not None else 0)
        self.jobs = Jobs(ctx_key=ctx_key, is_durable=self._settings.durable, on_strangers=self._found_strangers, keep_try=self._keep_try)
        self.wrapping: Wrapping | None = None
        if worker is not None and choice is not None:
            self.wrapping = Wrapping(
                worker,
                settings=self._settings,
                choice=choice,
                ctx_key=ctx_key,
                ignore=self.jobs.ignore,
                missed=self._job_missed,
                make_known=self.jobs.make_known,
                tracing=footing.tracing,
                lost_traceparent=self._lost_traceparent,
            )
        self.controls = ArqControls(worker)
        self._notes: dict[str, Note] = {}
        self._hooks: dict[tuple[str, Hook | None, bool], Hook] = {}
        self._replaced: list[tuple[str, Hook, Hook]] = []
        self._is_pool_shared = False
        self._is_leaving = False
        self._claims_server: str | None = None
        self._claims_link: Link | None = None
        self.adapter: ArqAdapter | None = None
        self.runtime: Runtime | None = None
        self.claims: Claims | None = None

    @property
    def serializer(self) -> Serializer | None:
        """What the worker writes results with; None for arq's own way."""
        found: Serializer | None = getattr(self.worker if self.worker is not None else self.pool, "job_serializer", None)
        return found

    @property
    def is_at_work(self) -> bool:
        """Whether its instance runs, and its loop."""
        return self.runtime is not None and self.runtime.is_running

    def is_same_run(self, worker: Any, main_task: asyncio.Task[Any] | None) -> bool:
        """Whether a start-up is one that was heard of before: the same worker in the same task, which has not ended."""
        is_same = worker is not None and worker is self.worker and main_task is self.main_task
        return is_same and self.is_at_work and (main_task is None or not main_task.done())

    def must_make_way(self, worker: Any, ctx: Ctx) -> bool:
        """Whether a worker that starts is this one once more, or this one's loop has ended."""
        is_over = self.runtime is not None and not self.runtime.is_running
        return is_over or (self.worker is worker if worker is not None else self.ctx is ctx)

    # start-up

    async def start(self, *, deadline_ms: float) -> None:
        """Register the instance and start its loops, by that moment on the monotonic clock; later they go on by themselves.

        What comes first has parts of the time, the registration has what they leave.
        """
        access = self._footing.access
        if not access.is_explicit:
            access.share(self.pool)
            self._is_pool_shared = True
        self._claims_server = await self._ask_claims_server()
        self._note_what_is_wrong()
        runtime = self.runtime = self._footing.runtime(
            self._describe(),
            make_adapter=self._make_adapter,
            main_task=self.main_task,
            is_draining=None if self.worker is None else lambda: not self.worker.allow_pick_jobs,
            on_pulse=self.jobs.look_after,
            on_closed=self.jobs.close,
            on_renamed=self._renamed,
            controls=self.controls,
        )
        claims = self.claims = Claims(
            runtime.pen, hears_ends=self.wrapping is None, keeps_tries=self.tries.most > 0, find_run=self.jobs.find
        )
        if self.adapter is not None:
            aborts = Aborts(self.worker, jobs=self.jobs, claims=claims, adapter=self.adapter, patience=self._settings.hook_timeout)
            runtime.orders.handle("abort", Handler(carry_out=aborts.carry_out, goes_over=False))
        if self.wrapping is not None:
            self.wrapping.put_in()
        self.jobs.open(
            runtime=runtime,
            claims=claims,
            worker=self.worker,
            wrapping=self.wrapping,
            tries=self.tries,
            queue=self.queue,
            hold=self.hold,
        )
        name_claims(self.pool, claims, main_task=self.main_task)
        if self.main_task is not None:
            self.main_task.add_done_callback(self._polling_ended)
        await runtime.start(within=(deadline_ms - monotonic_ms()) / 1000)

    def _renamed(self) -> None:
        if self.claims is not None:
            self.claims.turn_over()

    def _find_queue(self) -> str:
        """The worker's own word, for its queue need not be the pool's default; the setting only where neither is known."""
        known = (getattr(self.worker, "queue_name", None), self._settings.queue, getattr(self.pool, "default_queue_name", None))
        return plain_text(next(filter(None, known), DEFAULT_QUEUE))

    def _describe(self) -> Description:
        worker = self.worker
        return self._footing.describe(
            LIBRARY,
            queue=self.queue,
            queues=(self.hold,) if self.hold else (),
            functions=[plain_text(name) for name in worker.functions] if worker is not None else (),
            concurrency=_whole(self.controls.max_jobs) if worker is not None else None,
            claim_seconds=_seconds(getattr(worker, "in_progress_timeout_s", None)),
            claims_server=self._claims_server,
            broker=describe(self.pool),
            notes=tuple(self._notes.values()),
        )

    def _is_apart(self) -> bool:
        """Whether arq's Redis was not chosen as the tracker's."""
        access = self._footing.access
        return access.is_explicit and access.client() is not self.pool

    async def _ask_claims_server(self) -> str | None:
        if not self._is_apart():
            return None
        try:
            return await bounded(ArqAdapter(self.pool, receipt_key=str.encode).claims_server(), self._settings.hook_timeout / 2)
        except (StorageError, TimeoutError) as exc:
            logger.warning("arq's Redis does not tell its run id: %s", exc)
            return None

    def _make_adapter(self, link: Link) -> ArqAdapter:
        """Release through the instance's own connection where it leads to arq's Redis, else through one like arq's pool."""
        if self._is_apart():
            self._claims_link = Link(self.pool, namespace=self._settings.namespace, name=f"{link.name}:claims")
        client = self._claims_link.client if self._claims_link is not None else link.client
        self.adapter = ArqAdapter(
            client,
            receipt_key=link.redis.full_key,
            serializer=self.serializer,
            serializer_of=self._serializer_of,
            recovery_window=self._settings.recovery_window,
        )
        return self.adapter

    # hooks

    def hook(self, kind: str, user: Hook | None, *, enters: bool = False) -> Hook:
        """Give one of the job's three hooks around the user's, of this worker; the same one each time."""
        key = (kind, user, enters)
        made = self._hooks.get(key)
        if made is None:
            made = self._hooks[key] = self._make_hook(kind, user, enters=enters)
        return made

    def _make_hook(self, kind: str, user: Hook | None, *, enters: bool) -> Hook:
        if kind == "on_job_start":
            return self.jobs.start_hook(user, enters=enters)
        return self.jobs.end_hook(user) if kind == "on_job_end" else self.jobs.after_hook(user)

    def replace_hook(self, kind: str, hook: Hook) -> None:
        """Have the worker call a hook of its own from here on, instead of one that asks each time which worker it is."""
        self._replaced.append((kind, getattr(self.worker, kind), hook))
        setattr(self.worker, kind, hook)

    # tries

    async def _keep_try(self, run: ArqRun) -> None:
        """A run was cancelled because the worker is told to stop: arq is about to give its claim back. Have it not count the try.

        Where that cannot be noted, or too many of the job were, arq's count stands. Raises a cancellation and nothing else.
        """
        claims, adapter, runtime = self.claims, self.adapter, self.runtime
        if claims is None or adapter is None or runtime is None or not self.tries.may_keep(run, asyncio.current_task()):
            return
        record = run.record()
        try:
            if await bounded(adapter.keep_try(record), self._settings.hook_timeout):
                claims.give_try_back(run.job_id)
            else:
                await bounded(runtime.announce(tries_count_event(record)), self._settings.hook_timeout)
        except (StorageError, TimeoutError) as exc:
            logger.warning(
                "a try of job %s is counted although the worker was told to stop: %s", run.job_id, str(exc) or "Redis takes too long"
            )

    # what is not as it was meant

    def _note_what_is_wrong(self) -> None:
        if self._settings.keep_tries and not self.tries.most:
            self._note(
                "keep_tries is set, and tries are counted all the same: what a job was allowed is not known to hooks alone",
                "write @tracker.install over the settings of the worker",
            )
        fault = self.wrapping.fault if self.wrapping is not None else None
        if fault is not None:
            self._note(
                f"{fault}. Every function is tracked, and no arguments are recorded",
                "mend the names given to install, and start the worker again",
                is_error=True,
            )
        if self.worker is None:
            self._note(
                "the arq worker that called on_startup was not found: names of functions are not known, and outcomes only as far as "
                "arq tells",
                "call the hooks from arq's Worker, with the ctx that it gives to them",
            )

    def _found_strangers(self, names: Sequence[str]) -> None:
        shown = ", ".join(names[:_NAMES_SHOWN]) + (" and more" if len(names) > _NAMES_SHOWN else "")
        self._note(
            f"functions came into the worker after its start-up and are not wrapped: {shown}. How their jobs end is not known",
            "put them into functions before the worker starts",
        )

    async def _lost_traceparent(self, ref: str) -> str | None:
        return await self.runtime.lost_traceparent(ref) if self.runtime is not None else None

    def _job_missed(self) -> None:
        if self.jobs.is_open:
            self._note(
                "jobs run without having passed the tracker's on_job_start, and are not tracked",
                "leave the hooks that install has set, or call tracker.on_job_start in yours",
            )

    def _note(self, says: str, remedy: str, *, is_error: bool = False) -> None:
        """Log it once, and show it in doctor."""
        kind = says.partition(":")[0]
        if kind in self._notes:
            return
        self._notes[kind] = Note(says=says, remedy=remedy, is_error=is_error)
        logger.log(logging.ERROR if is_error else logging.WARNING, "%s: %s", says, remedy)
        if self.runtime is not None and self.runtime.is_running:
            self.runtime.describe_anew(self._describe())

    # the end

    def _polling_ended(self, task: asyncio.Task[Any]) -> None:
        """arq's main task is done: no more jobs are picked, and ``on_shutdown`` may or may not follow."""
        runtime = self.runtime
        if runtime is not None and runtime.is_running:
            runtime.drain()
            let_be_left(asyncio.ensure_future(self._stop_when_idle()))

    async def _stop_when_idle(self) -> None:
        running = self.jobs.tasks()
        if running:
            await asyncio.wait(running)
        await asyncio.sleep(_LAST_CALL_SECONDS)
        await self.stop()

    async def stop(self, *, within: float | None = None) -> None:
        """Deregister the instance, within ``hook_timeout`` by default. A second call changes nothing."""
        if self._is_leaving:
            return
        self._is_leaving = True
        runtime, self.runtime = self.runtime, None
        self._let_go_of_worker()
        try:
            if runtime is not None:
                self.jobs.look_after()
                within = self._settings.hook_timeout if within is None else within
                await self._footing.leave(runtime, within=within, first=lambda: self._end_claims(runtime))
        finally:
            self._let_go_of_pool()
            self._on_ended(self)

    def _let_go_of_pool(self) -> None:
        if self.claims is not None:
            stop_naming(self.pool, self.claims)
        if self._is_pool_shared:
            self._footing.access.unshare(self.pool)

    def _let_go_of_worker(self) -> None:
        """Leave the worker as it was found, before anything is waited for: it may start again meanwhile."""
        if self.main_task is not None:
            self.main_task.remove_done_callback(self._polling_ended)
        self.controls.let_go()
        if self.wrapping is not None:
            self.wrapping.take_out()
        for kind, before, ours in self._replaced:
            if getattr(self.worker, kind, None) is ours:
                setattr(self.worker, kind, before)
        self._replaced.clear()

    async def _end_claims(self, runtime: Runtime) -> None:
        """The last that is done at arq's Redis: the sweeper has ended."""
        try:
            await self._look_at_claims(runtime)
        except StorageError as exc:
            logger.warning("claims without a job could not be given back: %s", exc)
        finally:
            if self._claims_link is not None:
                await self._claims_link.aclose()

    async def _look_at_claims(self, runtime: Runtime) -> None:
        """Give back the claims under which no job runs, and end the runs whose claims arq has given back. One round trip for all.

        arq may be cancelled between its claim and the job's start: then no worker runs the job, and the claim blocks it. Many more
        were won by other workers. And it may be cancelled while it waits for the answer to its last write: Redis has done that, and
        the job is no orphan.
        """
        if self.claims is None or self.adapter is None:
            return
        idle = [
            RunRecord(job_id=job_id, instance_id=instance_id, token=run, queue=self.queue, library=LIBRARY, started_at_ms=0, hold=self.hold)
            for job_id, instance_id, run in self.claims.unstarted()
        ]
        interrupted = {run.record(): run for run in self.jobs.interrupted if run.in_flight}
        held = await self.adapter.still_held([*idle, *interrupted])
        for record in held:
            if record not in interrupted:
                await self.adapter.release(record, delay=0.0)
        for record in interrupted.keys() - set(held):
            runtime.end_run(interrupted[record])


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _whole(number: Any) -> int | None:
    """Give a number of slots as one that can be written down: arq takes any that can be compared with one.

    >>> _whole(10), _whole(2.0), _whole(float("inf"))
    (10, 2, None)
    """
    try:
        return int(number)
    except (TypeError, ValueError, OverflowError):
        return None
