"""An arq worker inside the test's own loop: arq's ``Worker``, run and closed as ``Worker.run`` does, without its signal handlers."""

import asyncio
import contextlib
import signal
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import redis
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.jobs import Job
from arq.worker import Worker, get_kwargs

from tests.harness.wait import PATIENCE, wait_until

FOR_A_COMMAND = () if tuple(map(int, redis.__version__.split(".")[:2])) >= (5, 3) else ("PING",)
"""What ``get_connection`` of a pool takes: until redis-py 5.3 it must be told a command, and since then it warns of one."""


class RunningWorker:
    """One worker. ``error`` is what ended its main task, None while it runs or when it was told to stop."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.task = asyncio.create_task(worker.main())
        worker.main_task = self.task
        self._was_told = False

    @property
    def error(self) -> BaseException | None:
        """What its main task raised; None while it runs, and when it was told to stop."""
        return self.task.exception() if self.task.done() and not self.task.cancelled() else None

    def terminate(self) -> None:
        """Do what arq does on SIGTERM, and do not wait."""
        self._was_told = True
        handler = self.worker.handle_sig_wait_for_completion if self.worker._job_completion_wait else self.worker.handle_sig
        handler(signal.SIGTERM)

    async def idle(self) -> None:
        """Wait until none of its jobs runs: who reads a job's result may be quicker than the worker, which has yet to hear of its write."""
        await wait_until(lambda: all(job.done() for job in self.worker.tasks.values()), description="the worker's jobs have ended")

    async def stop(self) -> None:
        """Wait for its jobs, tell it to stop, and close it as ``Worker.run`` does; it does not wait if it was told before."""
        if not self._was_told:
            await self.idle()
        if not self.task.done() and not self._was_told:
            self.terminate()
        with contextlib.suppress(asyncio.CancelledError):
            await self.wait()
        await self._close()

    async def end(self) -> None:
        """Stop it at once whatever comes of it, its jobs too where it ended by itself, and close its pool, which arq does not always."""
        pool = self.worker._pool
        if self.task.done():
            self._was_told = True
            self.worker.handle_sig(signal.SIGTERM)  # arq would wait for the jobs that it still has
        elif not self._was_told:
            self.terminate()
        await asyncio.gather(self.stop(), return_exceptions=True)
        if pool is not None:
            await pool.aclose()

    async def wait(self) -> None:
        """Wait until its main task is done, whatever it was."""
        await self._until_done(self.task, lambda: [self.task])

    async def _close(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # arq closes its pool in a way that redis-py has deprecated
            closing = asyncio.create_task(self.worker.close())
            await self._until_done(closing, lambda: self.worker.tasks.values())
            await closing

    async def _until_done(self, awaited: asyncio.Task[None], cancelled: Callable[[], Iterable[asyncio.Task[Any]]]) -> None:
        for _ in range(15):
            await asyncio.wait([awaited], timeout=2)
            if awaited.done():
                return
            for task in cancelled() if self._was_told else ():
                task.cancel()  # the driver swallows a cancellation now and then, also of an arq without us: Python 3.11's timeouts do
        raise AssertionError("the worker did not end")


def start_worker(settings: Any, pool: ArqRedis, **overrides: Any) -> RunningWorker:
    """Start a worker from a WorkerSettings class or a dict of Worker arguments, on this pool, which it closes at its end."""
    arguments: Mapping[str, Any] = {
        **get_kwargs(settings),
        "redis_pool": pool,
        "queue_name": pool.default_queue_name,
        "poll_delay": 0.02,
        **overrides,
    }
    worker = Worker(**arguments, handle_signals=False)
    worker._handle_signals = True  # close() sends itself a second SIGTERM otherwise, which the command never does
    return RunningWorker(worker)


async def open_pool(url: str, *, queue: str, **options: Any) -> ArqRedis:
    """Open a pool of arq's on a url. ``options`` are further RedisSettings."""
    settings = RedisSettings.from_dsn(url)
    for name, value in options.items():
        setattr(settings, name, value)
    return await create_pool(settings, default_queue_name=queue)


async def result_of(job: Job | None, *, timeout: float = PATIENCE) -> Any:
    """Wait for a job's end, and return its result, or the exception as which it failed."""
    assert job is not None, "the job was not enqueued: its id is in use"
    try:
        return await job.result(timeout=timeout, poll_delay=0.02)
    except asyncio.CancelledError:
        return asyncio.CancelledError()  # an aborted job's result is this exception
    except TimeoutError as exc:
        if (await job.status()).value != "complete":
            raise AssertionError(f"job {job.job_id} has no result after {timeout} s") from exc
        return exc
    except Exception as exc:
        return exc


async def wait_for_end(worker: RunningWorker, jobs: int, *, timeout: float = PATIENCE) -> None:
    """Wait until the worker has ended as many jobs, in whichever way, retries included, and its tasks are gone."""
    inner = worker.worker

    def have_ended() -> bool:
        if worker.error is not None:
            raise AssertionError("the worker ended") from worker.error
        return inner.jobs_complete + inner.jobs_failed + inner.jobs_retried >= jobs and not inner.tasks

    await wait_until(have_ended, timeout=timeout, description=f"{jobs} jobs have ended")
