"""What a caller is told where Redis goes away while an answer is waited for, and does not come back in time."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio.to_thread
import pytest
import redis.asyncio

from async_tracker import StorageUnavailable, Tracker
from async_tracker.embedded import EmbeddedServer
from tests.cli.conftest import Answer, Cli, make_cli
from tests.control.test_orders import registered
from tests.harness.inside import runtime_of
from tests.harness.wait import wait_until

__all__ = ["make_cli"]

WORKER: dict[str, Any] = {"heartbeat_interval": 13.0, "heartbeat_ttl": 60.0, "silence_limit": 60.0, "watchdog": False}
"""Both callers wait for 15 seconds: its interval and two more."""

NOT_KNOWN = "what came of the order is not known, and it is not begun any more"


@contextmanager
def killed(server: EmbeddedServer) -> Iterator[None]:
    """Each attempt to reach it is refused at once, and what it held is lost."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def stopped(server: EmbeddedServer) -> Iterator[None]:
    """Nothing is answered and nothing is refused, and what it held it still has."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize("away", [killed, stopped])
@pytest.mark.lasts
async def test_a_caller_who_cannot_reach_redis_any_more_is_told_so_and_the_order_is_not_begun_after_it(
    make_server: Callable[..., EmbeddedServer],
    make_tracker: Callable[..., Tracker],
    make_cli: Callable[..., Cli],
    namespace: str,
    away: Any,
):
    """By the library and on the command line. The instance hears nothing until both callers have given up."""
    server = make_server()
    here: dict[str, Any] = {"redis_options": {"url": server.url}}
    worker, person, cli = make_tracker(**here, **WORKER), make_tracker(**here), make_cli(url=server.url, namespace=namespace)
    async with registered(worker) as instance_id, redis.asyncio.Redis.from_url(server.url) as client:
        runtime = runtime_of(worker)
        async with runtime.pen.lock:
            by_library = asyncio.create_task(person.quiet(instance_id))
            by_command = asyncio.create_task(anyio.to_thread.run_sync(cli, "quiet", instance_id))

            async def both_stand() -> bool:
                return len((await client.hget(f"{namespace}:instance:{instance_id}", "orders") or b"").splitlines()) == 2

            await wait_until(both_stand, description="both orders stand in its hash")
            with away(server):
                with pytest.raises(StorageUnavailable, match=NOT_KNOWN):
                    await by_library
                answer: Answer = await by_command
        assert (answer.code, answer.out) == (3, "")
        assert NOT_KNOWN in answer.err
        assert answer.err.count("\n") == 1

        async def beats() -> bool:
            await runtime.registration.beat()
            return runtime.registration.is_registered and not await client.hexists(f"{namespace}:instance:{instance_id}", "orders")

        await wait_until(beats, timeout=60.0, description="it beats again, and no order stands")
        assert not worker.is_quiet
