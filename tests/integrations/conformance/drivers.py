"""One driver per integration: how a worker process is started, and how it is given a job. A new integration adds one, and passes."""

import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from arq.connections import ArqRedis
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from async_tracker import Tracker
from tests.integrations.conformance import plain_app

APPS = "tests.integrations.conformance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """What the scenarios need to know of an integration."""

    library: str
    command: tuple[str, ...]
    """The command that starts one worker process of it, or a master with one."""
    enqueue: Callable[[redis.asyncio.Redis, str, str, tuple[Any, ...]], Awaitable[None]]
    """Give a job to the queue: client, job id, function, arguments."""
    recovers: bool = True
    """Whether a dead worker's job runs again by itself."""
    make_known: Callable[[Tracker], None] = lambda tracker: None
    """Tell a tracker of a library that it does not bring along."""
    folder: Path | None = None
    """Where further modules of it are."""


def arq() -> Driver:
    async def enqueue(client: redis.asyncio.Redis, job_id: str, function: str, args: tuple[Any, ...]) -> None:
        pool = ArqRedis(connection_pool=client.connection_pool)
        assert await pool.enqueue_job(function, *args, _job_id=job_id) is not None

    return Driver(library="arq", command=(sys.executable, "-m", "arq", f"{APPS}.arq_app.WorkerSettings"), enqueue=enqueue)


def dramatiq() -> Driver:
    async def enqueue(client: redis.asyncio.Redis, job_id: str, function: str, args: tuple[Any, ...]) -> None:
        kwargs = client.connection_pool.connection_kwargs
        address = {"unix_socket_path": kwargs["path"]} if "path" in kwargs else {"host": kwargs["host"], "port": kwargs["port"]}
        broker = RedisBroker(db=kwargs.get("db") or 0, **address)
        broker.enqueue(Message(queue_name="default", actor_name=function, args=args, kwargs={}, options={}, message_id=job_id))
        broker.client.close()

    command = (sys.executable, "-m", "dramatiq", f"{APPS}.dramatiq_app", "-p", "1", "-t", "1")
    return Driver(library="dramatiq", command=command, enqueue=enqueue)


def plain() -> Driver:
    async def enqueue(client: redis.asyncio.Redis, job_id: str, function: str, args: tuple[Any, ...]) -> None:
        await client.rpush(plain_app.QUEUE, json.dumps([job_id, function, args]))

    return Driver(library="asyncio", command=(sys.executable, "-m", f"{APPS}.plain_app"), enqueue=enqueue, recovers=False)


def listq(folder: Path, modules: Any) -> Driver:
    """``modules``: the page's two modules, imported from ``folder``."""

    async def enqueue(client: redis.asyncio.Redis, job_id: str, function: str, args: tuple[Any, ...]) -> None:
        await modules[0].enqueue(client, job_id, function, *args)

    return Driver(
        library="listq",
        command=(sys.executable, "-m", f"{APPS}.listq_app"),
        enqueue=enqueue,
        make_known=modules[1].know_listq,
        folder=folder,
    )
