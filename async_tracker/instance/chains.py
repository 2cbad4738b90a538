"""What a task waits for, followed from its coroutine down to the line at which it waits: ``file:line function``, no values.

What is followed beyond the coroutines themselves is private to Python or to a library; each such step is named in `Walk` and tested on
each version of Python. Where a step is not there, the chain ends with the type of what is waited for: nothing here fails for it.

Nothing of the user's is called, and nothing is changed. It may run in any thread, beside a loop that runs or is blocked.
"""

import asyncio
import concurrent.futures
import gc
import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, FunctionType, GeneratorType
from typing import Any

from async_tracker.records import Chain

logger = logging.getLogger("async_tracker")

RUNNING = "running"
"""How a chain ends that waits for nothing: it runs at this moment."""
NOT_BEGUN = "not begun"
READY = "about to go on"
"""What it waited for is there; the loop has not come to it yet."""
DONE = "done"
QUEUED = "a free thread"
"""It waits for an executor that has not begun its work."""
SEEN = "a task that is shown above"

_CODE, _POSITION = attrgetter("f_code"), attrgetter("f_lasti")
_FRAMES = 64
"""Frames that are shown of one chain, and of one thread; what is left out is in the middle of none: the innermost are kept."""
_NODES = 200
"""Tasks that are followed for one job: a `gather` of thousands does not hold the loop, and does not fill the answer."""

_OPAQUE = frozenset({"async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable"})
"""Awaitables made in C that show nothing of what they drive; the garbage collector knows it."""
_GROUP_EXITS = frozenset({"TaskGroup.__aexit__", "TaskGroup._aexit"})
"""Where asyncio and anyio wait for the tasks of a group, ``self._tasks``."""
_WAITERS = {"wait_for": "fut", "_wait": "fs"}
"""Functions of ``asyncio.tasks`` that wait for a future of their own making, and the variable that holds what they wait for."""


class Lines:
    """The text of frames. Thousands of them are at a few dozen lines, and finding out a line's number is what costs most."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[str, CodeType]] = {}
        """By the code, which is kept so that no other one gets its number."""

    def texts(self, frames: Sequence[FrameType]) -> tuple[str, ...]:
        """Give ``file:line function`` of each."""
        known = self._known
        keys = [(id(frame.f_code), frame.f_lasti) for frame in frames]
        try:
            return tuple([known[key][0] for key in keys])
        except KeyError:  # the first that are at such a line
            for key, frame in zip(keys, frames, strict=True):
                code = frame.f_code
                known[key] = (f"{code.co_filename}:{frame.f_lineno} {code.co_name}", code)
        return tuple(known[key][0] for key in keys)


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread at one moment, its frames the outermost first."""

    ident: int
    name: str
    frames: tuple[FrameType, ...]


def threads() -> dict[int, Thread]:
    """Give the threads of this process, by their numbers. One that was not made by `threading` has a number for its name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = {}
    for ident, innermost in sys._current_frames().items():
        frames = []
        frame: FrameType | None = innermost
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        found[ident] = Thread(ident, names.get(ident, f"thread {ident}"), tuple(reversed(frames)))
    return found


@dataclass(slots=True)
class _Budget:
    """What one job may cost."""

    nodes: int = _NODES
    seen: set[int] = field(default_factory=set)


class Walk:
    """One look at what tasks wait for, and at what the threads do that work for them."""

    def __init__(self, at_work: Mapping[int, Thread], *, lines: Lines | None = None) -> None:
        """``at_work`` are the threads, as `threads` has found them at the beginning of this look."""
        self._threads = at_work
        self._lines = lines if lines is not None else Lines()
        self._by_future = {id(future): thread for thread in at_work.values() for future in _futures_of(thread)}
        self._texts: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[str, ...]] = {}
        """By where in which code frames are: most jobs wait at the same few places."""
        self._frames: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._chains: dict[tuple[Any, ...], Chain] = {}
        """Equal chains are one object, and can be compared by what they are and not by what they hold."""
        self._left_out: dict[tuple[int, Sequence[str]], Chain] = {}

    def task(self, task: "asyncio.Future[Any]", *, leaving_out: Sequence[str] = ()) -> Chain:
        """Follow a task. Its outermost frames in files that end in one of ``leaving_out`` are a library's, and left out.

        Equal chains of one walk are the same object.

        >>> async def nap():
        ...     await asyncio.sleep(9)
        >>> async def main():
        ...     task = asyncio.create_task(nap())
        ...     await asyncio.sleep(0)
        ...     chain = Walk({}).task(task)
        ...     return [frame.rpartition(" ")[2] for frame in chain.frames], chain.ends
        >>> asyncio.run(main())
        (['nap', 'sleep'], 'Future')
        """
        return self._without(self._of(task, _Budget()), tuple(leaving_out))

    def thread(self, ident: int, *, leaving_out: Sequence[str] = ()) -> Chain:
        """Show what a thread does, and where it waits for a coroutine in a loop, follow that."""
        found = self._threads.get(ident)
        if found is None:
            return self._made((), DONE)
        return self._without(self._of_thread(found, 0, _Budget()), tuple(leaving_out))

    def texts(self, frames: Sequence[FrameType]) -> tuple[str, ...]:
        """Give the text of the innermost of these frames; equal ones are the same object."""
        frames = frames[-_FRAMES:]
        where = tuple(map(_POSITION, frames)), tuple(map(id, map(_CODE, frames)))
        found = self._texts.get(where)
        if found is None:
            found = self._texts[where] = self._same(self._lines.texts(frames))
        return found

    def _same(self, frames: tuple[str, ...]) -> tuple[str, ...]:
        return self._frames.setdefault(frames, frames)

    def _of(self, awaited: Any, budget: _Budget) -> Chain:
        try:
            return self._followed(awaited, budget)
        except Exception as exc:  # the edge of the walk: an awaitable may be of any library's making, and the others are to be shown
            logger.debug("what %s waits for cannot be followed: %r", type(awaited).__name__, exc)
            return self._made((), type(awaited).__name__)

    def _followed(self, awaited: Any, budget: _Budget) -> Chain:
        """Follow a future or a task over every task that it waits for alone."""
        frames: list[FrameType] = []
        while True:
            if id(awaited) in budget.seen:
                return self._chain(frames, SEEN)
            budget.seen.add(id(awaited))
            budget.nodes -= 1
            if not _is_task(awaited):
                return self._future(awaited, frames, budget)
            if awaited.done():
                return self._chain(frames, DONE)
            steps, is_running, is_begun = _steps(awaited.get_coro())
            frames += steps
            waiter = _peek(awaited, "_fut_waiter")
            if is_running:
                return self._running(frames)
            if not is_begun:
                return self._chain(frames, NOT_BEGUN)
            if waiter is None:
                return self._chain(frames, READY)
            behind = _behind(frames[-1] if frames else None, waiter)
            if behind is not None:
                return self._branched(frames, behind, budget)
            awaited = waiter

    def _future(self, future: Any, frames: Sequence[FrameType], budget: _Budget) -> Chain:
        """End with a future that is no task: what stands behind it may be known."""
        children = _peek(future, "_children")  # of gather
        if isinstance(children, list):
            return self._branched(frames, children, budget)
        source = future
        functions = [item[0] for item in _peek(future, "_callbacks") or () if type(item[0]) is FunctionType]
        if functions:
            behind = _captured(functions, "_outer_done_callback", "inner")  # of shield
            if behind is not None:
                return self._branched(frames, [behind], budget)
            behind = _captured(functions, "_call_check_cancel", "source")  # of wrap_future, run_in_executor and to_thread
            source = behind if behind is not None else future
        thread = self._by_future.get(id(source))
        if thread is not None:
            position = _first_below(thread, source)
            return self._chain(frames, "", thread=thread.name, branches=(self._of_thread(thread, position, budget),))
        if isinstance(source, concurrent.futures.Future) and _peek(source, "_state") == "PENDING":
            return self._chain(frames, QUEUED)
        return self._chain(frames, type(source).__name__)

    def _branched(self, frames: Sequence[FrameType], children: Iterable[Any], budget: _Budget) -> Chain:
        """What waits for several others: those that are not done, equal ones once."""
        pending = [child for child in children if not child.done()]
        if len(pending) == 1 and budget.nodes > 0:  # one after the other: a chain as before
            only = self._of(pending[0], budget)
            return self._changed(only, frames=(*self.texts(frames), *only.frames)[-_FRAMES:])
        counted: dict[Chain, int] = {}
        left_out = 0
        for child in pending:
            if budget.nodes <= 0:
                left_out += 1
                continue
            chain = self._of(child, budget)
            counted[chain] = counted.get(chain, 0) + 1
        branches = tuple(self._changed(chain, times=times) if times > 1 else chain for chain, times in counted.items())
        return self._chain(frames, "" if branches or left_out else READY, branches=branches, left_out=left_out)

    def _running(self, frames: Sequence[FrameType]) -> Chain:
        """A coroutine that runs shows nothing of what it has called: its thread does."""
        for thread in self._threads.values():
            if frames and frames[-1] in thread.frames:
                position = thread.frames.index(frames[-1])
                return self._chain([*frames[:-1], *thread.frames[position:]], RUNNING)
        return self._chain(frames, RUNNING)

    def _of_thread(self, thread: Thread, position: int, budget: _Budget) -> Chain:
        """Show the frames of a thread from one on; where it waits for a coroutine in a loop, that too."""
        frames = thread.frames[position:]
        for frame in reversed(frames):
            if frame.f_code.co_name != "result" or frame.f_code is not concurrent.futures.Future.result.__code__:
                continue
            future = frame.f_locals.get("self")
            behind = _captured(list(_peek(future, "_done_callbacks") or ()), "_call_check_cancel", "source")
            if behind is not None and budget.nodes > 0:  # of run_coroutine_threadsafe
                return self._chain(frames, "", branches=(self._of(behind, budget),))
            break
        return self._chain(frames, "")

    def _chain(
        self, frames: Sequence[FrameType], ends: str, *, thread: str | None = None, branches: tuple[Chain, ...] = (), left_out: int = 0
    ) -> Chain:
        return self._made(self.texts(frames), ends, thread=thread, branches=branches, left_out=left_out)

    def _made(
        self,
        frames: tuple[str, ...],
        ends: str,
        *,
        thread: str | None = None,
        branches: tuple[Chain, ...] = (),
        times: int = 1,
        left_out: int = 0,
    ) -> Chain:
        """Make a chain of such frames as `_same` gives; one that was made before where it is equal."""
        key = (id(frames), ends, thread, tuple(map(id, branches)), times, left_out)
        found = self._chains.get(key)
        if found is None:
            found = Chain(frames=frames, ends=ends, thread=thread, branches=branches, times=times, left_out=left_out)
            self._chains[key] = found
        return found

    def _changed(self, chain: Chain, *, frames: tuple[str, ...] | None = None, times: int | None = None) -> Chain:
        return self._made(
            chain.frames if frames is None else self._same(frames),
            chain.ends,
            thread=chain.thread,
            branches=chain.branches,
            times=chain.times if times is None else times,
            left_out=chain.left_out,
        )

    def _without(self, chain: Chain, files: tuple[str, ...]) -> Chain:
        """Leave out the outermost frames that are in these files, except for the innermost frame of all."""
        key = id(chain), files
        found = self._left_out.get(key)
        if found is None:
            position = 0
            last = len(chain.frames) - (0 if chain.branches else 1)
            while files and position < last and chain.frames[position].rpartition(":")[0].endswith(files):
                position += 1
            found = self._left_out[key] = self._changed(chain, frames=chain.frames[position:]) if position else chain
        return found


def _steps(awaited: Any) -> tuple[list[FrameType], bool, bool]:
    """Go from a coroutine to what it awaits, and so on, as far as there are frames. Gives whether it runs and has begun, too."""
    frames: list[FrameType] = []
    while type(awaited) is CoroutineType and (inner := awaited.cr_await) is not None:  # nearly all are: these few steps are what costs
        if (frame := awaited.cr_frame) is not None:
            frames.append(frame)
        awaited = inner
    for _ in range(1_000):  # deeper than Python lets calls be, by default
        if isinstance(awaited, CoroutineType):
            frame, inner, is_running = awaited.cr_frame, awaited.cr_await, awaited.cr_running
        elif isinstance(awaited, AsyncGeneratorType):
            frame, inner, is_running = awaited.ag_frame, awaited.ag_await, awaited.ag_running and awaited.ag_await is None
        elif isinstance(awaited, GeneratorType):
            frame, inner, is_running = awaited.gi_frame, awaited.gi_yieldfrom, awaited.gi_running
        elif type(awaited).__name__ in _OPAQUE and (driven := _driven(awaited)) is not None:
            awaited = driven
            continue
        elif isinstance(found := _peek(awaited, "cr_frame"), FrameType):  # of a compiler's making
            frame, inner, is_running = found, _peek(awaited, "cr_await"), bool(_peek(awaited, "cr_running"))
        else:
            break
        if frame is not None:
            frames.append(frame)
        if inner is None:
            return frames, is_running, is_running or _peek(awaited, "cr_suspended") is not False  # that of a new coroutine is False
        awaited = inner
    return frames, False, True


def _driven(awaited: Any) -> Any:
    for other in gc.get_referents(awaited):
        if isinstance(other, CoroutineType | AsyncGeneratorType | GeneratorType) or type(other).__name__ in _OPAQUE:
            return other
    return None


def _is_task(awaited: Any) -> bool:
    if type(awaited) is asyncio.Future:
        return False
    return isinstance(awaited, asyncio.Task) or (asyncio.isfuture(awaited) and callable(_peek(awaited, "get_coro")))


def _behind(frame: FrameType | None, waiter: Any) -> Iterable[Any] | None:
    """Give what is waited for where the innermost frame waits for a bare future that stands for others; else None."""
    if frame is None:
        return None
    code = frame.f_code
    if code.co_qualname in _GROUP_EXITS and not _is_task(waiter):
        found = _peek(frame.f_locals.get("self"), "_tasks")
    elif code.co_name in _WAITERS and frame.f_globals.get("__name__") == "asyncio.tasks" and not _is_task(waiter):
        found = frame.f_locals.get(_WAITERS[code.co_name])
    else:
        return None
    others = list(found) if isinstance(found, set | frozenset | list | tuple) else [found]
    return others if others and all(asyncio.isfuture(other) for other in others) else None


def _captured(callbacks: Iterable[Any], function: str, variable: str) -> Any:
    """Give a variable that one of these callbacks, an inner function of asyncio's by this name, has captured; else None."""
    for callback in callbacks:
        if isinstance(callback, FunctionType) and callback.__name__ == function and callback.__module__.startswith("asyncio."):
            names = callback.__code__.co_freevars
            if variable in names and callback.__closure__ is not None:
                try:
                    return callback.__closure__[names.index(variable)].cell_contents
                except ValueError:  # it is gone
                    return None
    return None


def _futures_of(thread: Thread) -> Iterator[Any]:
    """Give what a thread works for: the futures of an executor's work, or of anyio's."""
    for frame in thread.frames:
        future = _future_in(frame)
        if future is not None:
            yield future


def _future_in(frame: FrameType) -> Any:
    name = frame.f_code.co_qualname
    if name == "_WorkItem.run":  # of concurrent.futures
        return _peek(frame.f_locals.get("self"), "future")
    return frame.f_locals.get("future") if name == "WorkerThread.run" else None  # of anyio


def _first_below(thread: Thread, future: Any) -> int:
    """Give the position of the first frame of the work itself."""
    position = next((index for index, frame in enumerate(thread.frames) if _future_in(frame) is future), -1)
    return min(position + 1, len(thread.frames) - 1)


def _peek(thing: Any, name: str) -> Any:
    """Read an attribute that may not be there."""
    return getattr(thing, name, None)
