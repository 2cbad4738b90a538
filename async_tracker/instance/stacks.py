"""What the threads of this process do, and where its jobs in flight wait."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from async_tracker.clock import ServerClock, from_ms
from async_tracker.instance.chains import Lines, Thread, Walk, threads
from async_tracker.instance.runs import Run
from async_tracker.records import Chain, Stacks, ThreadStack, WaitingJobs

_NOT_KNOWN = Chain(ends="not known")
_FRAMES = 12
_SLICE_SECONDS = 0.002
"""For how long jobs are looked at before the loop gets its turn; the last job of a turn may take as long again."""


def blocking_stack(thread_id: int) -> list[str]:
    """Give the innermost frames of a thread as ``file:line function``, at most 12, the innermost first; no values of variables."""
    frame = sys._current_frames().get(thread_id)
    frames: list[str] = []
    while frame is not None and len(frames) < _FRAMES:
        frames.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return frames


class Observer:
    """Looks at the threads and the jobs of one instance: from its loop in short turns, or from any thread while the loop is blocked.

    ``runs`` gives the runs in flight, the oldest first, in any thread.
    """

    def __init__(self, *, runs: Callable[[], Sequence[Run]], instance_id: Callable[[], str], clock: ServerClock) -> None:
        self._runs = runs
        self._instance_id = instance_id
        self._clock = clock
        self._lines = Lines()

    async def look(self, job_id: str | None = None) -> Stacks:
        """Look from the loop itself, in turns of a few ms; with ``job_id`` at the runs of that job alone."""
        look = self._new_look(job_id)
        until = time.perf_counter() + _SLICE_SECONDS
        for _ in look.steps(self._runs):
            if time.perf_counter() >= until:
                await asyncio.sleep(0)
                until = time.perf_counter() + _SLICE_SECONDS
        return look.result(is_blocked=False)

    def look_from_outside(self, job_id: str | None = None) -> Stacks:
        """Look from another thread than the loop's, which is blocked."""
        look = self._new_look(job_id)
        for _ in look.steps(self._runs):
            pass
        return look.result(is_blocked=True)

    def _new_look(self, job_id: str | None) -> "_Look":
        return _Look(self._instance_id(), job_id, taken_at_ms=self._clock.now_ms(), lines=self._lines)


class _Look:
    def __init__(self, instance_id: str, job_id: str | None, *, taken_at_ms: int, lines: Lines) -> None:
        self._instance_id = instance_id
        self._job_id = job_id
        self._taken_at_ms = taken_at_ms
        self._lines = lines
        self._began = time.perf_counter()
        self._threads: list[ThreadStack] = []
        self._groups: dict[tuple[str | None, int], tuple[Chain, list[str]]] = {}
        """By function and chain, of which equal ones are one object."""

    def steps(self, runs: Callable[[], Sequence[Run]]) -> Iterator[None]:
        """Look at everything, with a pause after each thing."""
        at_work = threads()
        walk = Walk(at_work, lines=self._lines)
        yield
        for thread in at_work.values():
            self._threads.append(ThreadStack(name=thread.name, frames=walk.texts(_shown(thread))))
        yield
        for run in runs():
            if run.in_flight and self._job_id in (None, run.job_id):
                chain = chain_of(run, walk)
                self._groups.setdefault((run.function, id(chain)), (chain, []))[1].append(run.job_id)
                yield

    def result(self, *, is_blocked: bool) -> Stacks:
        """Give what was found, the largest group of jobs first."""
        groups = sorted(self._groups.items(), key=lambda item: -len(item[1][1]))
        return Stacks(
            instance_id=self._instance_id,
            taken_at=from_ms(self._taken_at_ms),
            took=time.perf_counter() - self._began,
            is_blocked=is_blocked,
            threads=tuple(sorted(self._threads, key=lambda stack: stack.name)),
            jobs=tuple(
                WaitingJobs(count=len(job_ids), job_ids=tuple(job_ids), function=function, chain=chain)
                for (function, _), (chain, job_ids) in groups
            ),
        )


def chain_of(run: Run, walk: Walk) -> Chain:
    """Tell where one run waits."""
    place = run.place()
    if place is None:
        return _NOT_KNOWN
    follow = walk.thread if isinstance(place, int) else walk.task
    return follow(place, leaving_out=run.library_files)


def _shown(thread: Thread) -> Sequence[FrameType]:
    """Leave out what looks: of our own thread, everything within the step of the loop, or the thread's function, that does."""
    if thread.ident != threading.get_ident():
        return thread.frames
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        task = None
    coroutine = task.get_coro() if task is not None else None
    outermost = getattr(coroutine, "cr_frame", None)
    return thread.frames[: thread.frames.index(outermost)] if outermost in thread.frames else thread.frames[:-1]
