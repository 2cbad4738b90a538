"""A hook of ours may be cancelled wherever it awaits: the cancellation passes, and nothing is left half-way.

arq cancels its tasks on SIGTERM, and with it whichever hook is awaiting. The awaits are not listed here but found: each hook is
run and cancelled at its first suspension, then at its second, until it ends before it is cancelled.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest

from async_tracker import Tracker
from tests.harness.wait import wait_until
from tests.integrations.arq.running import RunningWorker, result_of

MOST_AWAITS = 60


class CancelledAt(Awaitable[None]):
    """Runs a coroutine and has the task that awaits it cancelled at its ``number``-th suspension; ``was_cancelled`` if it came to that."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], number: int) -> None:
        self._coroutine = coroutine
        self._left = number
        self.was_cancelled = False

    def __await__(self) -> Generator[Any, Any, None]:
        inner = self._coroutine.__await__()
        task = asyncio.current_task()
        assert task is not None
        try:
            awaited = next(inner)
            while True:
                self._left -= 1
                if self._left == 0:
                    self.was_cancelled = True
                    task.cancel()
                try:
                    sent = yield awaited
                except BaseException as exc:
                    awaited = inner.throw(exc)
                else:
                    awaited = inner.send(sent)
        except StopIteration:
            return


class CancelledLater(Awaitable[None]):
    """Runs a coroutine and has the task that awaits it cancelled when the loop has turned ``number`` times."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], number: int) -> None:
        self._coroutine = coroutine
        self._number = number
        self.was_cancelled = False

    def __await__(self) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        later = asyncio.ensure_future(self._cancel(task))
        try:
            yield from self._coroutine.__await__()
        finally:
            later.cancel()

    async def _cancel(self, task: asyncio.Task[Any]) -> None:
        for _ in range(self._number):
            await asyncio.sleep(0)
        self.was_cancelled = True
        task.cancel()


class Culprit:
    """The hooks of a tracker, of which one is cancelled the first time it is called: at its n-th await, or after n turns of the loop."""

    def __init__(self, settings: dict[str, Any], hook: str, number: int, *, kind: type[CancelledAt | CancelledLater] = CancelledAt) -> None:
        self._hook = settings[hook]
        self._number = number
        self._kind = kind
        self.was_cancelled = False
        self.settings = {**settings, hook: self._once}

    async def _once(self, ctx: Any) -> None:
        number, self._number = self._number, 0
        if not number:
            await self._hook(ctx)
            return
        cancelled = self._kind(self._hook(ctx), number)
        try:
            await cancelled
        finally:
            self.was_cancelled = cancelled.was_cancelled


async def job(ctx):
    return "done"


async def hold(ctx):
    await asyncio.sleep(60)


async def every_await(story: Callable[[int], Awaitable[bool]]) -> int:
    """Tell the story with the cancellation at each await in turn, until there is none left; return how many there were."""
    for number in range(1, MOST_AWAITS):
        if not await story(number):
            return number - 1
    raise AssertionError("the hook never came to its end")


async def assert_nobody_is_left(observer: Tracker) -> None:
    async def nobody() -> bool:
        await observer.recover()
        return not await observer.instances() and not await observer.jobs() and not await observer.orphans()

    await wait_until(nobody, timeout=30, description="no instance, job or orphan is left")


async def assert_a_cancelled_start_is_settled(make_tracker, observer, run_worker, pool, redis_client, *, number, kind) -> bool:
    """Start a worker whose ``on_startup`` is cancelled; return whether it came to that."""
    tracker = make_tracker()
    culprit = Culprit(tracker.install({"functions": [job]}), "on_startup", number, kind=kind)
    worker: RunningWorker = await run_worker(culprit.settings)
    queued = await pool.enqueue_job("job")
    await wait_until(lambda: culprit.was_cancelled or worker.worker.jobs_complete, description="the worker works or was cancelled")
    if culprit.was_cancelled:
        await worker.wait()  # the cancellation passed
        assert worker.task.cancelled()
    else:
        assert await result_of(queued) == "done"
        await worker.idle()
    await worker.end()
    assert tracker.instance_id is None
    await assert_nobody_is_left(observer)
    await redis_client.delete(pool.default_queue_name)
    return culprit.was_cancelled


async def assert_a_cancelled_end_is_settled(make_tracker, observer, run_worker, pool, *, number, kind) -> bool:
    """Stop a worker whose ``on_shutdown`` is cancelled; return whether it came to that."""
    tracker = make_tracker()
    culprit = Culprit(tracker.install({"functions": [job]}), "on_shutdown", number, kind=kind)
    worker: RunningWorker = await run_worker(culprit.settings)
    assert await result_of(await pool.enqueue_job("job")) == "done"
    await worker.idle()
    await worker.end()
    assert tracker.instance_id is None
    await assert_nobody_is_left(observer)
    return culprit.was_cancelled


async def test_on_startup_may_be_cancelled_at_every_await(make_tracker, observer, run_worker, pool, redis_client):
    async def story(number: int) -> bool:
        return await assert_a_cancelled_start_is_settled(
            make_tracker, observer, run_worker, pool, redis_client, number=number, kind=CancelledAt
        )

    assert await every_await(story) >= 1


async def test_on_shutdown_may_be_cancelled_at_every_await(make_tracker, observer, run_worker, pool):
    async def story(number: int) -> bool:
        return await assert_a_cancelled_end_is_settled(make_tracker, observer, run_worker, pool, number=number, kind=CancelledAt)

    assert await every_await(story) >= 1


@pytest.mark.parametrize("turns", [1, 2, 4, 8, 12, 16, 20, 24, 32])
async def test_on_startup_may_be_cancelled_however_far_its_registration_is(make_tracker, observer, run_worker, pool, redis_client, turns):
    await assert_a_cancelled_start_is_settled(make_tracker, observer, run_worker, pool, redis_client, number=turns, kind=CancelledLater)


@pytest.mark.parametrize("turns", [1, 2, 4, 8, 12, 16, 20, 24, 32])
async def test_on_shutdown_may_be_cancelled_however_far_its_deregistration_is(make_tracker, observer, run_worker, pool, turns):
    await assert_a_cancelled_end_is_settled(make_tracker, observer, run_worker, pool, number=turns, kind=CancelledLater)


@pytest.mark.parametrize("hook", ["on_job_start", "on_job_end", "after_job_end"])
async def test_by_default_the_hooks_of_a_job_await_nothing(make_tracker, run_worker, pool, hook):
    culprit = Culprit(make_tracker().install({"functions": [job]}), hook, 1)
    await run_worker(culprit.settings)
    assert await result_of(await pool.enqueue_job("job")) == "done"
    assert not culprit.was_cancelled


@pytest.mark.parametrize("hook", ["on_job_start", "on_job_end", "after_job_end"])
async def test_a_durable_hook_of_a_job_may_be_cancelled_at_every_await_and_the_job_runs_again(
    make_tracker, observer, run_worker, pool, redis_client, hook
):
    """arq leaves such a job for 310 s, or until its worker's end: ours gives it back."""

    async def story(number: int) -> bool:
        tracker = make_tracker(durable=True, hook_timeout=2.0)
        culprit = Culprit(tracker.install({"functions": [job]}), hook, number)
        worker: RunningWorker = await run_worker(culprit.settings)
        queued = await pool.enqueue_job("job")
        await wait_until(lambda: culprit.was_cancelled or worker.worker.jobs_complete, description="the hook was called")
        if culprit.was_cancelled:
            await worker.wait()  # arq's worker ends of it, with or without us
        else:
            await worker.idle()  # arq counts a job as complete before it has written what became of it
        await worker.end()
        await wait_until(lambda: recovered(observer, redis_client), timeout=30, description="no claim is left")
        other: RunningWorker = await run_worker({"functions": [job]})
        assert await result_of(queued) == "done"
        await other.stop()
        await assert_nobody_is_left(observer)
        return culprit.was_cancelled

    awaits = await every_await(story)
    assert awaits > 0 if hook == "on_job_start" else awaits == 0


async def recovered(observer: Tracker, redis_client: Any) -> bool:
    """Let somebody sweep, and tell whether no job is claimed."""
    await observer.recover()
    return not [key async for key in redis_client.scan_iter("arq:in-progress:*")]


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("turns", [0, 2, 5, 10, 15, 20, 30, 50])
async def test_a_job_is_put_back_wherever_sigterm_meets_it(make_tracker, observer, run_worker, pool, redis_client, turns, durable):
    """The worker is told to stop at one turn of its loop in the first moments of a job."""
    worker: RunningWorker = await run_worker(make_tracker(durable=durable).install({"functions": [hold]}))
    queued = await pool.enqueue_job("hold")
    await wait_until(lambda: worker.worker.job_counter, poll_interval=0, description="the job is being claimed")
    for _ in range(turns):
        await asyncio.sleep(0)
    await worker.end()
    await wait_until(lambda: recovered(observer, redis_client), timeout=30, description="no claim is left")
    assert await redis_client.zscore(pool.default_queue_name, queued.job_id) is not None, "the job is lost"
    await assert_nobody_is_left(observer)
