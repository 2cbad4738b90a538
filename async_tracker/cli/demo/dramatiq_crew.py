"""Workers of dramatiq, each a master with one process."""

import asyncio
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from dramatiq import Message
from dramatiq.brokers.redis import DEFAULT_HEARTBEAT_TIMEOUT, RedisBroker

from async_tracker.connections.calls import call
from async_tracker.connections.replies import text
from async_tracker.integrations.dramatiq.names import DELAYED, acks_key, messages_key, queue_key

QUEUE = "default"


def make_broker(url: str, namespace: str) -> RedisBroker:
    """Make a broker whose own keys belong to one demo."""
    return RedisBroker(url=url, namespace=f"dramatiq:{namespace}")  # type: ignore[no-untyped-call]


class DramatiqCrew:
    """Workers of dramatiq."""

    library = "dramatiq"

    def __init__(self, url: str, namespace: str) -> None:
        self._broker = make_broker(url, namespace)
        self._namespace = self._broker.namespace
        self.queue = queue_key(self._namespace, QUEUE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._broker.client.close()

    def command(self) -> list[str]:
        return [sys.executable, "-m", "dramatiq", "async_tracker.cli.demo.dramatiq_worker:set_up", "-p", "1", "-t", "4"]

    async def enqueue(self, job_id: str, function: str, *arguments: Any) -> None:
        message: Message[Any] = Message(queue_name=QUEUE, actor_name=function, args=arguments, kwargs={}, options={}, message_id=job_id)
        await asyncio.to_thread(self._broker.enqueue, message)

    async def alone(self, client: Any, job_ids: Sequence[str]) -> dict[str, float]:
        """dramatiq waits for so long before it looks, and then looks by chance: it is the least."""
        return dict.fromkeys(job_ids, DEFAULT_HEARTBEAT_TIMEOUT / 1000.0)

    async def traces(self, client: Any, job_ids: Sequence[str]) -> list[str]:
        brokers = [text(member) for member in await call(client, "ZRANGE", f"{self._namespace}:__heartbeats__", 0, -1)]
        names = [f"{self._namespace}:__heartbeats__", f"{self.queue}.XQ", f"{self.queue}.XQ.msgs"]
        for queue in (QUEUE, QUEUE + DELAYED):
            names += [queue_key(self._namespace, queue), messages_key(self._namespace, queue)]
            names += [acks_key(self._namespace, broker, queue) for broker in brokers]
        return names
