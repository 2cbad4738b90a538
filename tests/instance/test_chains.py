"""Chains of what tasks wait for. What is followed is private to Python, asyncio and anyio: each step is tested on the version at hand."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from types import FrameType
from typing import Any

import anyio
import anyio.to_thread
import pytest

from async_tracker.instance.chains import NOT_BEGUN, QUEUED, READY, RUNNING, Lines, Walk, threads
from async_tracker.records import Chain


async def wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def nested(depth: int, last: Callable[[], Awaitable[Any]]) -> None:
    await (nested(depth - 1, last) if depth else last())


async def over_a_generator() -> None:
    async def values() -> AsyncIterator[int]:
        await wait_for_ever()
        yield 1

    async for _ in values():
        pass


async def in_a_context_manager() -> None:
    @contextlib.asynccontextmanager
    async def held() -> AsyncIterator[None]:
        yield
        await wait_for_ever()

    async with held():
        pass


async def next_of_a_generator() -> None:
    async def values() -> AsyncIterator[int]:
        await wait_for_ever()
        yield 1

    await anext(values(), None)  # with a default it is an awaitable of its own kind


async def a_task() -> None:
    await asyncio.create_task(wait_for_ever())


async def gathered() -> None:
    await asyncio.gather(wait_for_ever(), nested(1, wait_for_ever), wait_for_ever())


async def gathered_once() -> None:
    await asyncio.gather(wait_for_ever())


async def in_a_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(wait_for_ever())
        group.create_task(nested(1, wait_for_ever))


async def in_a_group_of_anyio() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(wait_for_ever)
        group.start_soon(nested, 1, wait_for_ever)


async def with_a_limit() -> None:
    await asyncio.wait_for(wait_for_ever(), 1_000)


async def with_a_timeout() -> None:
    async with asyncio.timeout(1_000):
        await wait_for_ever()


async def for_the_first() -> None:
    await asyncio.wait([asyncio.ensure_future(wait_for_ever()), asyncio.ensure_future(nested(1, wait_for_ever))])


async def shielded() -> None:
    await asyncio.shield(wait_for_ever())


class Promise:
    def __await__(self) -> Generator[Any, None, None]:
        yield from wait_for_ever().__await__()


async def for_an_object() -> None:
    await Promise()


async def locked() -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()


def functions(chain: Chain) -> list[str]:
    return [frame.rpartition(" ")[2] for frame in chain.frames]


def lines_of(chain: Chain) -> list[str]:
    """Return the functions of a chain and, indented, of what it branches into."""
    own = [f"{chain.times} x " * (chain.times > 1) + " ".join([*functions(chain), chain.ends]).strip()]
    return own + [f"  {line}" for branch in chain.branches for line in lines_of(branch)]


@contextlib.asynccontextmanager
async def waiting(job: Callable[[], Awaitable[Any]]) -> AsyncIterator["asyncio.Task[Any]"]:
    """Have a task wait, and end it and all that it has started."""
    others = asyncio.all_tasks()
    task = asyncio.ensure_future(job())
    try:
        for _ in range(8):
            await asyncio.sleep(0)
        yield task
    finally:
        left = asyncio.all_tasks() - others
        for each in left:
            each.cancel()
        await asyncio.wait(left)


EVER = "wait_for_ever Future"


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (lambda: nested(3, wait_for_ever), [f"nested nested nested nested {EVER}"]),
        (over_a_generator, [f"over_a_generator values {EVER}"]),
        (next_of_a_generator, [f"next_of_a_generator values {EVER}"]),
        (in_a_context_manager, [f"in_a_context_manager __aexit__ held {EVER}"]),
        (a_task, [f"a_task {EVER}"]),
        (gathered, ["gathered", f"  2 x {EVER}", f"  nested nested {EVER}"]),
        (gathered_once, [f"gathered_once {EVER}"]),
        (with_a_limit, [f"with_a_limit wait_for {EVER}"]),
        (with_a_timeout, [f"with_a_timeout {EVER}"]),
        (shielded, [f"shielded {EVER}"]),
        (for_an_object, [f"for_an_object __await__ {EVER}"]),
        (locked, ["locked acquire Future"]),
        (for_the_first, ["for_the_first wait _wait", f"  {EVER}", f"  nested nested {EVER}"]),
    ],
)
async def test_a_chain_leads_to_the_line_at_which_it_waits(job, expected):
    async with waiting(job) as task:
        found = lines_of(Walk({}).task(task))
        assert [found[0], *sorted(found[1:])] == [expected[0], *sorted(expected[1:])]


@pytest.mark.parametrize("job", [in_a_task_group, in_a_group_of_anyio])
async def test_a_task_group_branches_into_its_tasks(job):
    async with waiting(job) as task:
        first, *rest = lines_of(Walk({}).task(task))
        assert first.startswith(f"{job.__name__} __aexit__")
        assert sorted(line.replace("_run_coro ", "") for line in rest) == [f"  nested nested {EVER}", f"  {EVER}"]


async def test_equal_chains_of_one_look_are_one_object_and_are_looked_up_and_not_made_again():
    """A thousand jobs that wait in two ways: their text is made twice, and their chains are compared by nothing."""
    made: list[int] = []

    class Counting(Lines):
        def texts(self, frames: Sequence[FrameType]) -> tuple[str, ...]:
            made.append(len(frames))
            return super().texts(frames)

    tasks = [asyncio.create_task(nested(number % 2, wait_for_ever)) for number in range(1_000)]
    await asyncio.sleep(0)
    walk = Walk({}, lines=Counting())
    chains = [walk.task(task, leaving_out=("elsewhere.py",)) for task in tasks]
    assert [id(chain) for chain in chains] == [id(chains[number % 2]) for number in range(1_000)]
    assert sorted(made) == [2, 3]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_chain_names_file_line_and_function_and_no_values():
    async with waiting(lambda: nested(0, wait_for_ever)) as task:
        chain = Walk({}).task(task)
    code = wait_for_ever.__code__
    assert chain.frames[-1] == f"{code.co_filename}:{code.co_firstlineno + 1} wait_for_ever"


async def test_what_is_the_librarys_is_left_out_at_the_beginning_and_the_last_line_never():
    async with waiting(with_a_limit) as task:
        walk = Walk({})
        assert functions(walk.task(task, leaving_out=["test_chains.py", "asyncio/tasks.py"])) == ["wait_for_ever"]
        assert functions(walk.task(task, leaving_out=["asyncio/tasks.py"])) == ["with_a_limit", "wait_for", "wait_for_ever"]


async def test_a_task_that_has_not_begun_or_is_about_to_go_on_says_so():
    new = asyncio.ensure_future(wait_for_ever())
    assert Walk({}).task(new).ends == NOT_BEGUN
    future = asyncio.get_running_loop().create_future()

    async def for_that() -> None:
        await future

    ready = asyncio.ensure_future(for_that())
    await asyncio.sleep(0)
    future.set_result(None)
    await asyncio.sleep(0)
    once_more = asyncio.ensure_future(asyncio.sleep(0))
    await asyncio.sleep(0)
    assert Walk({}).task(once_more).ends == READY
    new.cancel()
    await asyncio.wait([new, ready, once_more])
    assert Walk({}).task(ready).ends == "done"


async def test_a_task_that_runs_shows_what_it_has_called():
    seen: list[Chain] = []

    def look() -> None:
        seen.append(Walk(threads()).task(task))

    async def job() -> None:
        await nested(0, inner)

    async def inner() -> None:
        busy()

    def busy() -> None:
        looker = threading.Thread(target=look)
        looker.start()
        looker.join()

    task = asyncio.ensure_future(job())
    await task
    assert functions(seen[0])[:4] == ["job", "nested", "inner", "busy"]
    assert seen[0].ends == RUNNING


def _in_executor(work: Callable[[], None]) -> Awaitable[None]:
    return asyncio.get_running_loop().run_in_executor(None, work)


@pytest.mark.parametrize("in_thread", [asyncio.to_thread, anyio.to_thread.run_sync, _in_executor])
async def test_a_chain_goes_on_in_the_thread_that_works_for_it(in_thread):
    loop, begun, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait()

    async def job() -> None:
        await in_thread(work)

    try:
        async with waiting(job) as task:
            await begun.wait()
            chain = Walk(threads()).task(task)
            release.set()
    finally:
        release.set()
    assert functions(chain)[0] == "job"
    assert chain.ends == ""
    assert str(chain.thread).startswith(("asyncio_", "AnyIO"))
    (there,) = chain.branches
    assert "work" in functions(there)
    assert "_worker" not in functions(there)


async def test_work_that_waits_for_a_free_thread_says_so():
    release = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        first = executor.submit(release.wait)

        async def job() -> None:
            await asyncio.wrap_future(executor.submit(print))

        try:
            async with waiting(job) as task:
                chain = Walk(threads()).task(task)
        finally:
            release.set()
    assert first.result()
    assert (functions(chain), chain.ends) == (["job"], QUEUED)


async def test_a_thread_that_waits_for_a_coroutine_shows_where_that_waits():
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    inner: list[asyncio.Task[Any] | None] = []

    async def work() -> None:
        inner.append(asyncio.current_task())
        begun.set()
        await nested(1, wait_for_ever)

    def in_thread() -> None:
        with contextlib.suppress(concurrent.futures.CancelledError):
            asyncio.run_coroutine_threadsafe(work(), loop).result()

    thread = threading.Thread(target=in_thread)
    thread.start()
    try:
        await begun.wait()
        for _ in range(1_000):  # until the thread has come to wait for it
            chain = Walk(threads()).thread(thread.ident or 0)
            if chain.branches:
                break
            await asyncio.sleep(0.005)
    finally:
        for task in inner:
            if task is not None:
                task.cancel()
        await asyncio.to_thread(thread.join)
    assert "in_thread" in functions(chain)
    assert [lines_of(branch) for branch in chain.branches] == [[f"work nested nested {EVER}"]]


async def test_what_cannot_be_followed_ends_with_its_type():
    class Strange(asyncio.Future[None]):
        @property
        def _callbacks(self) -> Any:
            raise RuntimeError("not for you")

    async def job() -> None:
        await Strange()

    async with waiting(job) as task:
        chain = Walk({}).task(task)
    assert chain.ends in ("Strange", "Task")


async def test_a_gather_of_thousands_is_cut_and_says_by_how_much():
    async def job() -> None:
        await asyncio.gather(*(wait_for_ever() for _ in range(1_000)))

    async with waiting(job) as task:
        chain = Walk({}).task(task)
    (branch,) = chain.branches
    assert branch.times + chain.left_out == 1_000
    assert branch.times < 300


async def test_a_task_that_several_wait_for_is_shown_once():
    async def job() -> None:
        shared = asyncio.ensure_future(wait_for_ever())
        await asyncio.gather(asyncio.shield(shared), asyncio.shield(shared))

    async with waiting(job) as task:
        chain = Walk({}).task(task)
    assert [branch.ends for branch in chain.branches] == ["Future", "a task that is shown above"]
