"""The five hooks of one tracker, for every arq worker of this process. They append and return; whatever goes wrong in here stays here.

arq awaits its hooks outside any try: a hook that raises ends the worker, one that hangs holds its slot. So ours do neither, and
what they must settle they settle without awaiting, before a cancellation can pass.

Settings are shared by the workers that are made of them, so a hook that stands in settings has to find out whose job it is. When a worker
starts, its own copy of each is put into the worker: those know it, and are what nearly every job passes.
"""

import asyncio
import logging
import secrets
import threading
from collections import deque
from collections.abc import Mapping
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from async_tracker.clock import monotonic_ms
from async_tracker.config import Settings
from async_tracker.integrations.arq.adapter import Serializer
from async_tracker.integrations.arq.choice import Choice
from async_tracker.integrations.arq.jobs import Ctx, Hook
from async_tracker.integrations.arq.lookup import find_worker
from async_tracker.integrations.arq.names import DEFAULT_QUEUE
from async_tracker.integrations.arq.tracked_worker import JOB_HOOKS, TrackedWorker
from async_tracker.integrations.footing import HasFooting

logger = logging.getLogger("async_tracker")

__all__ = ["JOB_HOOKS", "ArqHooks"]

_SETTINGS_KEPT = 100
"""Settings that were installed into and are remembered; a process that installs into more makes them one after the other."""


class ArqHooks:
    """The hooks of one tracker, and the workers of this process that they track."""

    def __init__(self, tracker: HasFooting) -> None:
        self._tracker = tracker
        self._settings = tracker.settings
        key = secrets.token_hex(4)
        self.ctx_key = f"async_tracker_run_{key}"
        """Under which a run stands in arq's ctx: one for each tracker, and text, so that a job may pass its ctx on as keywords."""
        self._worker_key = f"async_tracker_worker_{key}"
        self.workers: tuple[TrackedWorker, ...] = ()
        """Those at work; the newest last. Each may be in a thread of its own."""
        self._lock = threading.Lock()
        self._installed: deque[Any] = deque(maxlen=_SETTINGS_KEPT)
        self._kinds: WeakKeyDictionary[FunctionType, str] = WeakKeyDictionary()
        """The hooks that any worker may call, as they stand in settings."""
        self._ports = {kind: self.port(kind, None, enters=True) for kind in JOB_HOOKS}

    # start-up and shutdown

    async def on_startup(self, ctx: Ctx, *, choice: Choice | None = None) -> None:
        """Register the instance that the worker with this ctx is. With a ``choice`` its functions are wrapped."""
        try:
            await self._start(ctx, choice)
        except Exception:  # the edge of a hook: a worker that cannot be tracked still works
            logger.exception("tracking could not start; the worker runs without it")

    async def _start(self, ctx: Ctx, choice: Choice | None) -> None:
        """All of it within ``hook_timeout`` seconds."""
        deadline_ms = monotonic_ms() + self._settings.hook_timeout * 1000
        worker, main_task = find_worker(ctx, known=[tracked.worker for tracked in self.workers])
        if any(tracked.is_same_run(worker, main_task) for tracked in self.workers):
            return
        for before in [tracked for tracked in self.workers if tracked.must_make_way(worker, ctx)]:
            await before.stop(within=self._settings.hook_timeout / 4)
        tracked = TrackedWorker(
            footing=self._tracker.footing,
            ctx=ctx,
            worker=worker,
            main_task=main_task,
            choice=choice,
            ctx_key=self.ctx_key,
            serializer_of=self.serializer_of,
            on_ended=self._ended,
        )
        with self._lock:
            self.workers = (*self.workers, tracked)
        ctx["async_tracker"] = self._tracker
        ctx[self._worker_key] = tracked
        if worker is not None:
            self._replace_hooks(tracked)
        try:
            await tracked.start(deadline_ms=deadline_ms)
        except Exception:
            await tracked.stop()
            raise

    def _replace_hooks(self, tracked: TrackedWorker) -> None:
        for kind in JOB_HOOKS:
            hook = getattr(tracked.worker, kind, None)
            if self._is_of_tracker(hook):
                tracked.replace_hook(kind, tracked.hook(kind, None, enters=True))
            elif self._is_port(hook, kind):
                user = getattr(hook, "__wrapped__", None)
                tracked.replace_hook(kind, self.marked(tracked.hook(kind, user), user))

    def _is_of_tracker(self, hook: Any) -> bool:
        """Whether a hook is the tracker's own method, and no subclass's in its place."""
        method = getattr(hook, "__func__", None)
        return getattr(hook, "__self__", None) is self._tracker and getattr(method, "__module__", "").startswith("async_tracker.")

    def _is_port(self, hook: Any, kind: str) -> bool:
        """Tell by the object itself: a decorator may have copied all its marks to another one."""
        return isinstance(hook, FunctionType) and self._kinds.get(hook) == kind

    def _ended(self, tracked: TrackedWorker) -> None:
        with self._lock:
            self.workers = tuple(other for other in self.workers if other is not tracked)
        if tracked.ctx.get(self._worker_key) is tracked:
            del tracked.ctx[self._worker_key]

    async def on_shutdown(self, ctx: Ctx) -> None:
        """Deregister the instance that the worker with this ctx is."""
        try:
            tracked = self._leaving(ctx)
            if tracked is not None:
                await tracked.stop()
        except Exception:  # the edge of a hook
            logger.exception("tracking did not end in order; the sweep will find out")

    def _leaving(self, ctx: Ctx) -> TrackedWorker | None:
        worker, _ = find_worker(ctx)
        for tracked in self.workers if worker is not None else ():
            if tracked.worker is worker:
                return tracked
        found: TrackedWorker | None = ctx.get(self._worker_key)
        if found is not None:
            return found
        possible = [tracked for tracked in self.workers if worker is None or tracked.worker is None]
        return possible[0] if len(possible) == 1 else None

    # jobs

    def port(self, kind: str, user: Hook | None, *, enters: bool = False) -> Hook:
        """Make a hook that any worker may call, around the user's: it finds out whose job it is, and does what that worker's own does."""

        async def call_hook_of_worker(ctx: Ctx) -> None:
            tracked = self._of_job(ctx)
            if tracked is not None:
                await tracked.hook(kind, user, enters=enters or tracked.wrapping is None)(ctx)
            elif user is not None:
                await user(ctx)

        hook: Any = call_hook_of_worker
        self._kinds[hook] = kind
        return self.marked(hook, user)

    def marked(self, hook: Any, user: Hook | None) -> Hook:
        """Mark a hook as ours, around the user's."""
        hook.async_tracker_hooks = self
        hook.__wrapped__ = user
        result: Hook = hook
        return result

    def _of_job(self, ctx: Ctx) -> TrackedWorker | None:
        """Tell whose job has this ctx: its worker's ctx is in it. Of workers that share one, that whose task this is."""
        workers = self.workers
        if len(workers) > 1:
            task = asyncio.current_task()
            for tracked in workers:
                if tracked.worker is not None and tracked.worker.tasks.get(ctx.get("job_id")) is task:
                    return tracked
        found: TrackedWorker | None = ctx.get(self._worker_key)
        return found if found is not None or len(workers) != 1 else workers[0]

    async def on_job_start(self, ctx: Ctx) -> None:
        """Put the run in flight. With ``durable``, wait until it is written, for ``hook_timeout`` seconds at most."""
        await self._ports["on_job_start"](ctx)

    async def on_job_end(self, ctx: Ctx) -> None:
        """Take the run out of flight."""
        await self._ports["on_job_end"](ctx)

    async def after_job_end(self, ctx: Ctx) -> None:
        """arq has written what became of the job: without wrapping, this is when it can be told."""
        await self._ports["after_job_end"](ctx)

    # what the recovery of arq's jobs must know of this process

    @property
    def pool(self) -> Any:
        """The pool of a worker of this process, and of this event loop if there are several; None where there is none."""
        workers = self.workers
        here = [tracked for tracked in workers if tracked.runtime is not None and tracked.runtime.lives_here]
        return (here or workers)[-1].pool if workers else None

    @property
    def settings(self) -> Settings:
        """Those of the tracker."""
        return self._settings

    def knows(self, settings: Any) -> None:
        """Remember what was installed into: the serializer of a queue is asked for where a job of it is quarantined."""
        if not any(settings is known for known in self._installed):
            self._installed.append(settings)

    def serializer_of(self, queue: str) -> tuple[Serializer | None] | None:
        """Tell how results are written in a queue of arq's, by the workers here or by settings; None where neither knows that queue."""
        for tracked in self.workers:
            if tracked.own_queue == queue:
                return (tracked.serializer,)
        for known in self._installed:
            settings: Mapping[str, Any] = known if isinstance(known, Mapping) else vars(known)
            own = settings.get("queue_name", DEFAULT_QUEUE) or getattr(settings.get("redis_pool"), "default_queue_name", None)
            if own == queue:
                return (settings.get("job_serializer"),)
        return None
