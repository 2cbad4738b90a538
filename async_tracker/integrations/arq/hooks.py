"""The five hooks of an arq worker. They append and return; whatever goes wrong in here stays in here.

arq awaits its hooks outside any try: a hook that raises ends the worker, one that hangs holds its slot. So ours do neither, and
what they must settle they settle without awaiting, before a cancellation can pass.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from async_tracker.clock import monotonic_ms
from async_tracker.config import Settings
from async_tracker.connections.access import Access, describe
from async_tracker.connections.calls import bounded
from async_tracker.connections.link import Link
from async_tracker.errors import StorageError
from async_tracker.instance.host import host_id, hostname, versions
from async_tracker.instance.runtime import Runtime
from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.integrations.arq.claims import Claims, name_claims, stop_naming
from async_tracker.integrations.arq.jobs import Ctx, Hook, Jobs, WorkerFacts
from async_tracker.integrations.arq.names import DEFAULT_QUEUE, LIBRARY
from async_tracker.store.instance_record import Description
from async_tracker.store.run_record import RunRecord

logger = logging.getLogger("async_tracker")

_LAST_CALL_SECONDS = 1.0
"""How long a worker whose polling has ended is given to call ``on_shutdown`` before it is deregistered without it."""


@dataclass(slots=True, eq=False)
class ArqHooks:
    """The hooks of one tracker. One worker at a time: a process runs one."""

    settings: Settings
    access: Access
    tracker: Any
    on_runtime: Callable[[Runtime | None], None]
    on_event: Callable[[str], None]
    facts: WorkerFacts = field(default_factory=WorkerFacts)
    runtime: Runtime | None = None
    claims: Claims | None = None
    claims_link: Link | None = None
    """The connection to arq's Redis, where that is not the tracker's."""
    adapter: ArqAdapter | None = None
    pool: Any = None
    queue: str = DEFAULT_QUEUE
    hold: str | None = None
    """The queue as arq knows it, where the tracker was told to call it something else: there its jobs are recovered."""
    ctx_key: str = field(default_factory=lambda: f"async_tracker_run_{secrets.token_hex(4)}")
    """Under which a run stands in arq's ctx: one for each tracker, and text, so that a job may pass its ctx on as keywords."""
    jobs: Jobs = field(init=False)
    """The jobs in hand; open from start-up to shutdown."""
    _on_job_start: Hook = field(init=False)
    _on_job_end: Hook = field(init=False)
    _after_job_end: Hook = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = Jobs(ctx_key=self.ctx_key, is_durable=self.settings.durable)
        self._on_job_start = self.jobs.start_hook(None, enters=True)
        self._on_job_end = self.jobs.end_hook(None)
        self._after_job_end = self.jobs.after_hook(None)

    # start-up and shutdown

    async def on_startup(self, ctx: Ctx) -> None:
        """Register the instance and start its loops."""
        try:
            await self._start(ctx)
        except Exception:  # the edge of a hook: a worker that cannot be tracked still works
            logger.exception("tracking could not start; the worker runs without it")

    async def _start(self, ctx: Ctx) -> None:
        """All of it within ``hook_timeout`` seconds: what comes first has parts of it, the registration has what they leave."""
        deadline_ms = monotonic_ms() + self.settings.hook_timeout * 1000
        if self.runtime is not None:
            await self.runtime.stop(within=self.settings.hook_timeout / 4)
        pool = self.pool = ctx["redis"]
        if not self.access.is_explicit:
            self.access.share(pool)
        worker, main_task = _worker_of(asyncio.current_task())
        own_queue = self._own_queue(worker, pool)
        self.queue = self.settings.queue or own_queue
        self.hold = own_queue if own_queue != self.queue else None
        runtime = Runtime(
            settings=self.settings,
            client=self.access.client(),
            description=self._describe(pool, worker, await self._claims_server(pool)),
            make_adapter=partial(self._make_adapter, pool),
            on_event=self.on_event,
            main_task=main_task,
            is_draining=None if worker is None else lambda: not worker.allow_pick_jobs,
            on_pulse=self.jobs.look_after,
            on_closed=self.jobs.close,
            on_renamed=self._renamed,
        )
        claims = Claims(runtime.pen, hears_ends=not self.facts.is_installed)
        self.runtime, self.claims = runtime, claims
        self.jobs.open(
            runtime=runtime,
            claims=claims,
            facts=self.facts,
            queue=self.queue,
            hold=self.hold,
            tasks=worker.tasks if worker is not None else None,
        )
        name_claims(pool, claims)
        ctx["async_tracker"] = self.tracker
        self.on_runtime(runtime)
        if main_task is not None:
            main_task.add_done_callback(partial(self._polling_ended, runtime))
        await runtime.start(within=(deadline_ms - monotonic_ms()) / 1000)

    def _renamed(self) -> None:
        if self.claims is not None:
            self.claims.turn_over()

    def _describe(self, pool: Any, worker: Any, claims_server: str | None) -> Description:
        facts = self.facts
        functions = facts.functions or (tuple(worker.functions) if worker is not None else ())
        return Description(
            library=LIBRARY,
            host=hostname(),
            host_id=host_id(),
            pid=os.getpid(),
            label=self.settings.instance_id,
            queue=self.queue,
            queues=(self.hold,) if self.hold else (),
            functions=functions,
            concurrency=facts.concurrency or (worker.max_jobs if worker is not None else None),
            tags=self.settings.tags,
            versions=versions(LIBRARY),
            redis=describe(self.access.client()),
            claims_server=claims_server,
            broker=describe(pool),
        )

    def _is_apart(self, pool: Any) -> bool:
        """Whether arq's Redis was not chosen as the tracker's."""
        return self.access.is_explicit and self.access.client() is not pool

    async def _claims_server(self, pool: Any) -> str | None:
        if not self._is_apart(pool):
            return None
        try:
            return await bounded(ArqAdapter(pool, receipt_key=str.encode).claims_server(), self.settings.hook_timeout / 2)
        except (StorageError, TimeoutError) as exc:
            logger.warning("arq's Redis does not tell its run id: %s", exc)
            return None

    def _own_queue(self, worker: Any, pool: Any) -> str:
        """The worker's own word, for its queue need not be the pool's default; what was asked for only where nobody knows better."""
        known = (getattr(worker, "queue_name", None), self.settings.queue, self.facts.queue, getattr(pool, "default_queue_name", None))
        return next(filter(None, known), DEFAULT_QUEUE)

    def _make_adapter(self, pool: Any, link: Link) -> ArqAdapter:
        """Release through the instance's own connection where it leads to arq's Redis, else through one like arq's pool."""
        apart = self._is_apart(pool)
        self.claims_link = Link(pool, namespace=self.settings.namespace, name=f"{link.name}:claims") if apart else None
        client = self.claims_link.client if self.claims_link is not None else link.client
        self.adapter = ArqAdapter(
            client, receipt_key=link.redis.full_key, serializer=self.facts.serializer or getattr(pool, "job_serializer", None)
        )
        return self.adapter

    def _polling_ended(self, runtime: Runtime, task: asyncio.Task[Any]) -> None:
        """arq's main task is done: no more jobs are picked, and ``on_shutdown`` may or may not follow."""
        if runtime.is_running:
            runtime.drain()
            last = asyncio.ensure_future(self._stop_when_idle(runtime))
            last._log_destroy_pending = False  # type: ignore[attr-defined]

    async def _stop_when_idle(self, runtime: Runtime) -> None:
        running = self.jobs.tasks()
        if running:
            await asyncio.wait(running)
        await asyncio.sleep(_LAST_CALL_SECONDS)
        await self._stop(runtime)

    async def on_shutdown(self, ctx: Ctx) -> None:
        """Deregister the instance."""
        try:
            if self.runtime is not None:
                await self._stop(self.runtime)
        except Exception:  # the edge of a hook
            logger.exception("tracking did not end in order; the sweep will find out")

    async def _stop(self, runtime: Runtime) -> None:
        if self.runtime is not runtime:
            return
        self.jobs.look_after()
        try:
            await runtime.stop(within=self.settings.hook_timeout, first=self._end_claims)
        finally:
            self._forget(runtime)

    def _forget(self, runtime: Runtime) -> None:
        if self.runtime is not runtime:
            return  # another worker has begun meanwhile
        if self.claims is not None:
            stop_naming(self.pool, self.claims)
        self.access.unshare()
        self.runtime = None
        self.on_runtime(None)

    async def _end_claims(self) -> None:
        """The last that is done at arq's Redis: the sweeper has ended."""
        try:
            await self._give_back_idle_claims()
        except StorageError as exc:
            logger.warning("claims without a job could not be given back: %s", exc)
        finally:
            if self.claims_link is not None:
                await self.claims_link.aclose()

    async def _give_back_idle_claims(self) -> None:
        """arq may be cancelled between its claim and the job's start: then nobody runs the job, and the claim is in the way.

        Many more were won by other workers, so all are looked at in one round trip.
        """
        if self.claims is None or self.adapter is None:
            return
        idle = [
            RunRecord(job_id=job_id, instance_id=instance_id, token=run, queue=self.queue, library=LIBRARY, started_at_ms=0, hold=self.hold)
            for job_id, instance_id, run in self.claims.unstarted()
        ]
        for record in await self.adapter.still_held(idle):
            await self.adapter.release(record, delay=0.0)

    # jobs

    async def on_job_start(self, ctx: Ctx) -> None:
        """Put the run in flight. With ``durable``, wait until it is written, for ``hook_timeout`` seconds at most."""
        await self._on_job_start(ctx)

    async def on_job_end(self, ctx: Ctx) -> None:
        """Take the run out of flight."""
        await self._on_job_end(ctx)

    async def after_job_end(self, ctx: Ctx) -> None:
        """arq has written what became of the job: without wrapping, this is when it can be told."""
        await self._after_job_end(ctx)


def _worker_of(task: asyncio.Task[Any] | None) -> tuple[Any, asyncio.Task[Any] | None]:
    """Find the arq worker whose main task calls this hook; None, None when the hook is called from elsewhere.

    arq hands its hooks no worker. The main task is the coroutine ``Worker.main``, and its frame knows the worker.
    """
    coroutine: Any = task.get_coro() if task is not None else None
    frame = getattr(coroutine, "cr_frame", None)
    if frame is None or getattr(coroutine, "__qualname__", "") != "Worker.main":
        return None, None
    worker = frame.f_locals.get("self")
    return (worker, task) if hasattr(worker, "allow_pick_jobs") and hasattr(worker, "tasks") else (None, None)
