"""The workers of one library, as the demo needs to know them."""

import importlib
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Protocol, Self

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings

from async_tracker.cli.endings import Misused
from async_tracker.connections.calls import call_many
from async_tracker.integrations.arq.names import IN_PROGRESS, JOB, RESULT, RETRY


class Crew(AbstractAsyncContextManager["Crew"], Protocol):
    """Enqueues while it is entered."""

    library: str
    queue: str
    """The full name of the key that its jobs wait in."""

    def command(self) -> list[str]:
        """Give the command that starts one worker."""
        ...

    async def enqueue(self, job_id: str, function: str, *arguments: Any) -> None:
        """Give a job to the queue."""
        ...

    async def alone(self, client: Any, job_ids: Sequence[str]) -> dict[str, float]:
        """Tell for how many seconds the library would leave each of these jobs alone that a worker has in hand."""
        ...

    async def traces(self, client: Any, job_ids: Sequence[str]) -> list[str]:
        """Name the keys that the library has written for these jobs."""
        ...


class ArqCrew:
    """Workers of arq."""

    library = "arq"

    def __init__(self, url: str, namespace: str) -> None:
        self._url = url
        self.queue = f"arq:queue:{namespace}"
        self._stack = AsyncExitStack()
        self._pool: ArqRedis | None = None

    async def __aenter__(self) -> Self:
        self._pool = await create_pool(RedisSettings.from_dsn(self._url))
        self._stack.push_async_callback(self._pool.aclose)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        await self._stack.aclose()

    def command(self) -> list[str]:
        return [sys.executable, "-m", "arq", "async_tracker.cli.demo.worker.WorkerSettings"]

    async def enqueue(self, job_id: str, function: str, *arguments: Any) -> None:
        if self._pool is not None:
            await self._pool.enqueue_job(function, *arguments, _job_id=job_id, _queue_name=self.queue)

    async def alone(self, client: Any, job_ids: Sequence[str]) -> dict[str, float]:
        """Read for how long arq's own claims still stand."""
        left = await call_many(client, [("PTTL", IN_PROGRESS + job_id) for job_id in job_ids])
        return {job_id: ms / 1000.0 for job_id, ms in zip(job_ids, left, strict=True) if isinstance(ms, int) and ms > 0}

    async def traces(self, client: Any, job_ids: Sequence[str]) -> list[str]:
        names = [prefix + job_id for job_id in job_ids for prefix in (JOB, IN_PROGRESS, RETRY, RESULT)]
        return [*names, self.queue, f"{self.queue}:health-check"]


def make_crews(choice: str, *, url: str, namespace: str) -> list[Crew]:
    """Make the crews that were chosen. Raises Misused when dramatiq is not installed."""
    crews: list[Crew] = [ArqCrew(url, namespace)] if choice in ("arq", "both") else []
    if choice in ("dramatiq", "both"):
        try:
            module = importlib.import_module("async_tracker.cli.demo.dramatiq_crew")
        except ImportError as exc:
            raise Misused(f"dramatiq is not installed ({exc}): pip install 'async-tracker[dramatiq]'") from exc
        crews.append(module.DramatiqCrew(url, namespace))
    return crews
