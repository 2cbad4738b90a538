"""What is seen of the threads and jobs of an instance: from its loop, and from another thread while that is blocked."""

import asyncio
import sys
import threading
from collections.abc import Iterable

import dramatiq
import pytest
from arq.worker import func
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO
from dramatiq.worker import Worker

from async_tracker import Tracker
from async_tracker.clock import ServerClock
from async_tracker.instance.runs import Run
from async_tracker.instance.stacks import Observer
from async_tracker.integrations.dramatiq import TrackerMiddleware
from async_tracker.records import WaitingJobs
from tests.harness.inside import runtime_of
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until
from tests.integrations.arq.running import open_pool, start_worker


def functions(group: WaitingJobs) -> list[str]:
    return [frame.rpartition(" ")[2] for frame in group.chain.frames]


def waits_for_an_event(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "wait"


async def until(event: asyncio.Event) -> None:
    await event.wait()


async def nested(event: asyncio.Event) -> None:
    await until(event)


async def test_jobs_of_plain_asyncio_are_grouped_by_where_they_wait(make_tracker):
    tracker = make_tracker()
    may_end = asyncio.Event()

    async def work(job_id: str, way) -> None:
        async with tracker.track(job_id, function="send"):
            await way(may_end)

    async with tracker, tracker.register():
        tasks = [asyncio.create_task(work(f"a{number}", until)) for number in range(3)]
        tasks.append(asyncio.create_task(work("b", nested)))
        observer = runtime_of(tracker).observer
        await wait_until(lambda: runtime_of(tracker).journal.busy == 4, description="all are in flight")
        seen = await observer.look()
        assert [(group.count, group.job_ids, group.function) for group in seen.jobs] == [
            (3, ("a0", "a1", "a2"), "send"),
            (1, ("b",), "send"),
        ]
        assert functions(seen.jobs[0]) == ["work", "until", "wait"]
        assert functions(seen.jobs[1]) == ["work", "nested", "until", "wait"]
        assert (seen.instance_id, seen.is_blocked, seen.cut) == (tracker.instance_id, False, "")
        only = await observer.look("b")
        assert [group.job_ids for group in only.jobs] == [("b",)]
        assert only.threads
        may_end.set()
        await asyncio.gather(*tasks)
        assert (await observer.look()).jobs == ()


async def test_threads_have_their_names_and_what_looks_is_not_among_their_frames(make_tracker):
    tracker = make_tracker()
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="mail-sender")
    thread.start()
    try:
        async with tracker, tracker.register():
            await wait_until(lambda: waits_for_an_event(thread), description="the thread has come to where it waits")
            seen = await asyncio.create_task(runtime_of(tracker).observer.look())
    finally:
        release.set()
        thread.join()
    by_name = {stack.name: stack.frames for stack in seen.threads}
    assert by_name["mail-sender"][-1].endswith(" wait")
    assert by_name[threading.current_thread().name][-1].endswith(" _run")
    assert not any("async_tracker/instance/stacks.py" in frame for frames in by_name.values() for frame in frames)
    assert "async-tracker-watchdog" in by_name


async def test_a_job_that_blocks_the_loop_is_seen_from_another_thread(make_tracker):
    tracker = make_tracker()
    seen = []

    def block() -> None:
        looker = threading.Thread(target=lambda: seen.append(observer.look_from_outside()))
        looker.start()
        looker.join()

    async def work(job_id: str, way) -> None:
        async with tracker.track(job_id, function=job_id):
            await way(may_end)

    async def blocking(event: asyncio.Event) -> None:
        await wait_until(lambda: runtime_of(tracker).journal.busy == 2, description="both are in flight")
        block()
        may_end.set()

    may_end = asyncio.Event()
    async with tracker, tracker.register():
        observer = runtime_of(tracker).observer
        await asyncio.gather(work("waits", until), work("blocks", blocking))
    (blocks, waits) = sorted(seen[0].jobs, key=lambda group: str(group.function))
    assert functions(blocks)[:3] == ["work", "blocking", "block"]
    assert blocks.chain.ends == "running"
    assert functions(waits) == ["work", "until", "wait"]
    assert seen[0].is_blocked


async def test_of_an_arq_job_its_own_function_is_shown_and_a_hook_that_hangs(namespace: str, redis_url: str):
    tracker = Tracker(namespace=namespace, **KNOWN)
    may_end, hook_may_end = asyncio.Event(), asyncio.Event()

    async def send(ctx) -> None:
        await nested(may_end)

    async def slow_hook(ctx) -> None:
        if ctx["job_id"] == "hangs":
            await hook_may_end.wait()

    def where_they_wait_is(last: tuple[str, ...], count: int):
        async def is_so() -> bool:
            groups = (await runtime_of(tracker).observer.look()).jobs
            return any(tuple(functions(group)[-len(last) :]) == last and group.count == count for group in groups)

        return is_so

    pool = await open_pool(redis_url, queue=f"queue:{namespace}")
    worker = start_worker(
        tracker.install({"functions": [func(send, name="send")], "on_job_start": slow_hook}), pool, queue_name=f"queue:{namespace}"
    )
    try:
        for job_id in ("one", "two", "hangs"):
            await pool.enqueue_job("send", _job_id=job_id, _queue_name=f"queue:{namespace}")
        # arq has tasks of its jobs before they have come to a hook.
        await wait_until(where_they_wait_is(("send", "nested", "until", "wait"), 2), description="two wait in their function")
        await wait_until(where_they_wait_is(("slow_hook", "wait"), 1), description="one waits in a hook")
        seen = await runtime_of(tracker).observer.look()
        by_ids = {tuple(sorted(group.job_ids)): functions(group) for group in seen.jobs}
        assert by_ids["one", "two"] == ["send", "nested", "until", "wait"]
        assert by_ids["hangs",][-2:] == ["slow_hook", "wait"]
    finally:
        may_end.set()
        hook_may_end.set()
        await worker.idle()
        await worker.end()
        await tracker.aclose()


async def test_of_a_dramatiq_message_the_thread_that_runs_it_is_shown(namespace: str, redis_url: str):
    tracker = Tracker(namespace=namespace, **KNOWN)
    broker = RedisBroker(url=redis_url, namespace=f"{namespace}-broker")
    broker.add_middleware(AsyncIO())
    broker.add_middleware(TrackerMiddleware(tracker))
    release = threading.Event()
    in_loop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    @dramatiq.actor(broker=broker, max_retries=0)
    def plain() -> None:
        release.wait(60)

    @dramatiq.actor(broker=broker, max_retries=0)
    async def in_coroutine() -> None:
        in_loop.append((asyncio.get_running_loop(), asyncio.Event()))
        await nested(in_loop[0][1])

    worker = Worker(broker, worker_threads=2, worker_timeout=50)
    worker.start()
    try:
        plain.send()
        in_coroutine.send()

        def look() -> dict[str | None, WaitingJobs]:
            return {group.function: group for group in runtime_of(tracker).observer.look_from_outside().jobs}

        def both_wait_where_they_should() -> bool:
            seen = look()
            if set(seen) != {"plain", "in_coroutine"} or functions(seen["plain"])[:2] != ["plain", "wait"]:
                return False
            ends = [[frame.rpartition(" ")[2] for frame in branch.frames][-4:] for branch in seen["in_coroutine"].chain.branches]
            return ends == [["in_coroutine", "nested", "until", "wait"]]

        await wait_until(both_wait_where_they_should, description="both are seen to wait where they do")
    finally:
        release.set()
        for loop, event in in_loop:
            loop.call_soon_threadsafe(event.set)
        await asyncio.to_thread(worker.stop)
        broker.flush_all()
        broker.close()
        broker.client.connection_pool.disconnect()
        await tracker.aclose()


class _Turns:
    """How often the loop got its turn while a block ran."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.count += 1


@pytest.mark.parametrize("jobs", [3_000])
async def test_many_jobs_are_looked_at_in_turns_of_the_loop(jobs: int):
    """Counted, and not timed: the loop gets its turn many times meanwhile."""
    may_end = asyncio.Event()
    runs = [Run(str(number), str(number), "w", 0, 0.0, keeper=None) for number in range(jobs)]  # type: ignore[arg-type]
    for run in runs:
        run.placed = asyncio.create_task(nested(may_end))
    await asyncio.sleep(0)
    observer = Observer(runs=lambda: runs, instance_id=lambda: "w", clock=ServerClock())
    turns = _Turns()
    beside = asyncio.create_task(turns.run())
    seen = await observer.look()
    beside.cancel()
    assert [group.count for group in seen.jobs] == [jobs]
    assert turns.count >= 3
    may_end.set()
    await _ended(run.placed for run in runs)
    await asyncio.wait([beside])


async def _ended(tasks: Iterable["asyncio.Task[None]"]) -> None:
    await asyncio.wait(list(tasks))
