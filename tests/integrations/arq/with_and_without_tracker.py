"""The same jobs run with and without the tracker, in the same weather: what became of each must be the same."""

import asyncio
import types
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from arq import Retry
from arq.connections import ArqRedis
from arq.worker import func

from async_tracker import Tracker
from tests.harness.inside import has_runtime, runtime_of
from tests.harness.wait import lived, wait_until
from tests.integrations.arq.running import RunningWorker, result_of

HOOK_TIMEOUT = 0.25
"""What the trackers of these tests are given; a quarter of a second is also the default."""
MARGIN = 0.5
"""Seconds of its loop that a hook may take longer than it was given; every fault lasts longer."""

HOOKS_OF_A_JOB = ("on_job_start", "on_job_end", "after_job_end")
HOOKS = ("on_startup", "on_shutdown", *HOOKS_OF_A_JOB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What became of every job: its result and try, how often it ran, what arq left behind, and what ended the worker."""

    results: Mapping[str, str]
    runs: Mapping[str, int]
    left: frozenset[str]
    error: str


class Company:
    """The functions of one worker, whose runs are counted, and the hooks around them, whose time is taken."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.hook_seconds: dict[str, float] = {}
        self.suspensions: Counter[str] = Counter()
        self.may_end = asyncio.Event()

    def settings(self, install: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Give the worker's arguments, with the time of every hook taken from outside."""
        functions = [
            func(self.succeed, name="succeed"),
            func(self.fail, name="fail"),
            func(self.retry, name="retry"),
            func(self.time_out, name="time_out", timeout=0.3),
            func(self.hold, name="hold"),
        ]
        settings = install({"functions": functions})
        return {**settings, **{name: self._timed(name, settings[name]) for name in HOOKS if settings.get(name) is not None}}

    def _timed(self, name: str, hook: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], Awaitable[None]]:
        async def timed(ctx: Any) -> None:
            async with lived() as taken:
                try:
                    await counted(hook(ctx), lambda: self.suspensions.update([name]))
                finally:
                    self.hook_seconds[name] = max(self.hook_seconds.get(name, 0.0), taken.seconds)

        timed.__wrapped__ = hook  # type: ignore[attr-defined]
        return timed

    async def succeed(self, ctx: Any, value: int) -> int:
        self.runs[ctx["job_id"]] += 1
        return value

    async def fail(self, ctx: Any) -> None:
        self.runs[ctx["job_id"]] += 1
        raise ValueError(ctx["job_id"])

    async def retry(self, ctx: Any) -> int:
        self.runs[ctx["job_id"]] += 1
        if ctx["job_try"] < 3:
            raise Retry(defer=0.01)
        tries: int = ctx["job_try"]
        return tries

    async def time_out(self, ctx: Any) -> None:
        self.runs[ctx["job_id"]] += 1
        await asyncio.sleep(30)

    async def hold(self, ctx: Any) -> str:
        self.runs[ctx["job_id"]] += 1
        await self.may_end.wait()
        return "held"

    def assert_hooks_kept_their_time(self) -> None:
        """Fail where a hook took longer than ``hook_timeout``, or one of a job's waited for anything at all."""
        self.assert_no_job_waited()
        self.assert_hooks_were_in_time()

    def assert_no_job_waited(self) -> None:
        """Fail where a hook of a job gave way to the event loop even once: by default there is nothing that it may wait for."""
        assert [name for name in HOOKS_OF_A_JOB if self.suspensions[name]] == [], "these hooks waited"

    def assert_hooks_were_in_time(self) -> None:
        """Fail where a hook took longer than ``hook_timeout``."""
        late = {name: seconds for name, seconds in self.hook_seconds.items() if seconds > HOOK_TIMEOUT + MARGIN}
        assert late == {}, f"these hooks took longer than {HOOK_TIMEOUT} s"


@types.coroutine
def counted(work: Coroutine[Any, Any, None], suspended: Callable[[], object]) -> Generator[Any, Any, None]:
    """Do the work of a coroutine, and call ``suspended`` each time that it gives way to the event loop."""
    step: Callable[[], Any] = partial(work.send, None)
    while True:
        try:
            waited_for = step()
        except StopIteration:
            return
        suspended()
        try:
            step = partial(work.send, (yield waited_for))
        except BaseException as exc:
            step = partial(work.throw, exc)


@asynccontextmanager
async def nothing_happens() -> AsyncIterator[None]:
    """Weather in which nothing happens."""
    yield


async def enqueue_a_round(pool: ArqRedis, prefix: str) -> list[Any]:
    """Enqueue one job of every kind that ends by itself."""
    plans: list[tuple[str, tuple[Any, ...]]] = [("succeed", (1,)), ("fail", ()), ("retry", ()), ("time_out", ()), ("succeed", (2,))]
    return [await pool.enqueue_job(name, *args, _job_id=f"{prefix}-{name}-{number}") for number, (name, args) in enumerate(plans)]


async def story_of(
    company: Company,
    worker: RunningWorker,
    pool: ArqRedis,
    *,
    prefix: str,
    weather: Callable[[], Any] = nothing_happens,
    has_met_it: Callable[[], Any] = lambda: True,
    on_change: Callable[[], Awaitable[None]] | None = None,
) -> Story:
    """Run jobs before, in and after the weather, one of them all through it; the worker is stopped in order.

    The weather lasts until those that began in it have ended, and until ``has_met_it()``.

    ``on_change`` is awaited when the weather has passed, while that one job still runs.
    """
    company.may_end.clear()
    company.runs.clear()
    jobs = await enqueue_a_round(pool, f"{prefix}before")
    held = await pool.enqueue_job("hold", _job_id=f"{prefix}hold")
    await wait_until(lambda: company.runs[f"{prefix}hold"], description="the long job runs")
    async with weather():
        jobs += await enqueue_a_round(pool, f"{prefix}during")
        results = {job.job_id: repr(await result_of(job)) for job in jobs}
        await wait_until(has_met_it, timeout=30, description="the tracker has met the fault")
    if on_change is not None:
        await on_change()
    late_jobs = await enqueue_a_round(pool, f"{prefix}after")
    results.update({job.job_id: repr(await result_of(job)) for job in late_jobs})
    company.may_end.set()
    results[f"{prefix}hold"] = repr(await result_of(held))
    await worker.stop()
    left = [key async for key in pool.scan_iter("arq:*")]
    await pool.delete(*left)
    return Story(
        results={name.removeprefix(prefix): result.replace(prefix, "") for name, result in results.items()},
        runs={name.removeprefix(prefix): count for name, count in company.runs.items()},
        left=frozenset(key.decode().replace(prefix, "") for key in left),
        error=repr(worker.error),
    )


def has_met_the_fault(tracker: Tracker) -> bool:
    """Tell whether both a write and a heartbeat of the tracker's have failed, after whatever time that takes in the fault at hand."""
    return has_runtime(tracker) and runtime_of(tracker).writer.is_behind and runtime_of(tracker).registration.is_behind


async def sees(observer: Tracker, worker_of: Tracker, job_id: str) -> bool:
    """Tell whether the tracker is right: its instance alive, this job in flight and no other, and its beats and writes reach Redis."""
    if worker_of.is_behind:
        return False
    instances, jobs = await observer.instances(), await observer.jobs()
    alive = [instance.instance_id for instance in instances if instance.state == "alive"]
    return alive == [worker_of.instance_id] and [job.job_id for job in jobs] == [job_id]
