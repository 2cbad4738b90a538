"""Which arq worker calls this hook, and what its tasks for jobs know.

arq hands its hooks no worker, only its ``ctx``, and that very object is one worker's.
"""

import asyncio
import sys
from collections.abc import Collection, Iterator
from types import FrameType
from typing import Any

Found = tuple[Any, asyncio.Task[Any] | None]


def find_worker(ctx: Any, *, known: Collection[Any] = ()) -> Found:
    """Find the arq worker whose ``ctx`` this is, and the task that runs its ``main``; None, None where there is none in sight.

    Looked for in the frames that have led to this call, the nearest first, then in those of the other tasks of this loop: a hook may
    be called through `asyncio.wait_for`, or from a task of its own. Workers that were given one dict as their ctx are distinguished by
    being nearer, or else by not being among those that are ``known``; where they cannot be, none is found.
    """
    for frame in _frames_above():
        worker = _one_of(_workers_in(frame, ctx), known)
        if worker is not None:
            return worker, _task_of(frame)
    seen = [(worker, task, frame) for task in _other_tasks() for frame in _frames_of(task) for worker in _workers_in(frame, ctx)]
    worker = _one_of(list({id(worker): worker for worker, _, _ in seen}.values()), known)
    tasks = [task for other, task, frame in seen if other is worker and frame.f_code.co_name == "main"]
    return worker, tasks[0] if tasks else None  # a task may know the worker and only wait for the one that runs it


def variable_of_run_job(task: asyncio.Task[Any], name: str) -> Any:
    """Give a variable of arq's ``Worker.run_job``, in its task for a job; None where it is not there."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame.f_locals.get(name) if frame is not None and frame.f_code.co_name == "run_job" else None


def _one_of(workers: list[Any], known: Collection[Any]) -> Any:
    if len(workers) > 1:
        workers = [worker for worker in workers if not any(worker is other for other in known)]
    return workers[0] if len(workers) == 1 else None


def _workers_in(frame: FrameType, ctx: Any) -> list[Any]:
    """Give the workers with this ctx among the variables of a frame. Nothing of the user's is called for that."""
    arq = sys.modules.get("arq.worker")  # no worker without it
    kind = getattr(arq, "Worker", None)
    if not isinstance(kind, type):
        return []
    found: dict[int, Any] = {}
    for value in frame.f_locals.values():
        if issubclass(type(value), kind) and getattr(value, "ctx", None) is ctx:
            found[id(value)] = value
    return list(found.values())


def _frames_above() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _task_of(frame: FrameType) -> asyncio.Task[Any] | None:
    """Give the task that runs this frame. It need not be the current one: a task that starts eagerly runs within the one that made it."""
    try:
        tasks = {id(_frame_of(task.get_coro())): task for task in asyncio.all_tasks()}
    except RuntimeError:  # no loop runs here
        return None
    above: FrameType | None = frame
    while above is not None and id(above) not in tasks:
        above = above.f_back
    return tasks[id(above)] if above is not None else None


def _other_tasks() -> Collection[asyncio.Task[Any]]:
    try:
        return asyncio.all_tasks() - {asyncio.current_task()}
    except RuntimeError:
        return ()


def _frames_of(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """Give the frames of a task that waits: of its coroutine, of what that awaits, and so on."""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = _frame_of(awaited)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None) or getattr(awaited, "ag_await", None)


def _frame_of(awaited: Any) -> FrameType | None:
    """Give the frame of a coroutine, a generator or an asynchronous generator; None for anything else."""
    frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None) or getattr(awaited, "ag_frame", None)
    return frame if isinstance(frame, FrameType) else None
