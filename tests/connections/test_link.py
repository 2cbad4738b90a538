"""The connection of an instance: one for all that its loops send, given in turn."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from async_tracker.connections.calls import call
from async_tracker.connections.link import Link
from async_tracker.embedded import EmbeddedServer
from async_tracker.errors import StorageUnavailable
from tests.harness.wait import wait_until
from tests.harness.wire import WireProxy

PINGS = 20


async def test_the_end_of_an_instance_waits_for_one_command_of_a_sweep_and_not_for_all_of_it(wire: WireProxy, namespace: str):
    """With answers that take a while the rest of a sweep would cost more than the time that a worker has for leaving."""
    async with redis.asyncio.Redis.from_url(wire.url) as client:
        link = Link(client, namespace=namespace, name="async-tracker:test")
        await link.ensure()
        wire.delay(to_client=0.02)
        wire.forget_commands()

        async def sweep() -> None:
            for _ in range(PINGS):
                await call(link.client, "PING")

        sweeping = asyncio.create_task(sweep())
        await wait_until(lambda: wire.commands, description="the sweep is under way")
        before = len(wire.commands)
        async with link.held():
            assert len(wire.commands) <= before + 1
            await asyncio.sleep(0.1)
            assert len(wire.commands) <= before + 1
        await sweeping
        assert wire.command_counts() == {"PING": PINGS}
        await link.aclose()


async def test_commands_of_several_tasks_take_turns(wire: WireProxy, namespace: str):
    async with redis.asyncio.Redis.from_url(wire.url) as client:
        link = Link(client, namespace=namespace, name="async-tracker:test")
        await link.ensure()
        wire.forget_commands()

        async def ask(name: str) -> None:
            for _ in range(PINGS):
                await call(link.client, "ECHO", name)

        await asyncio.gather(ask("a"), ask("b"))
        asked = b"".join(command[1] for command in wire.commands)
        assert asked in (b"ab" * PINGS, b"ba" * PINGS)
        await link.aclose()


async def test_a_command_that_is_cancelled_while_it_waits_for_its_turn_keeps_no_other_from_it(wire: WireProxy, namespace: str):
    async with redis.asyncio.Redis.from_url(wire.url) as client:
        link = Link(client, namespace=namespace, name="async-tracker:test")
        await link.ensure()
        async with link.held():
            waiting = [asyncio.create_task(call(link.client, "ECHO", str(number))) for number in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await asyncio.sleep(0)
            waiting[1].cancel()
        assert await waiting[2] == b"2"
        assert [task.cancelled() for task in waiting] == [True, True, False]
        await link.aclose()


@pytest.mark.parametrize("turns", range(6))
async def test_a_close_that_is_cancelled_closes_all_the_same(redis_url: str, namespace: str, turns: int):
    """A worker's shutdown may be cancelled at any moment; a connection that stayed open would be evidence of a process that has left."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        link = Link(client, namespace=namespace, name="async-tracker:test")
        await link.redis.get("something")
        connection_id = link.connection_id
        closing = asyncio.create_task(link.aclose())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])

        async def is_gone() -> bool:
            return not await client.client_list(client_id=[str(connection_id)])

        if turns:  # else it was cancelled before it began, and nothing was asked of the link
            await wait_until(is_gone, description="the server has the connection no more")
        await link.aclose()


async def test_a_connection_that_was_closed_while_nothing_was_asked_is_made_anew_for_the_next_command(wire: WireProxy, namespace: str):
    lost = []
    async with redis.asyncio.Redis.from_url(wire.url) as client:
        link = Link(client, namespace=namespace, name="async-tracker:test", on_lost=lambda: lost.append(True))
        assert await call(link.client, "ECHO", "before") == b"before"
        wire.cut_clients()
        await wait_until(lambda: lost, description="the end of the connection is heard of")
        assert await call(link.client, "ECHO", "after") == b"after"
        assert (link.generation, lost, link.is_open) == (2, [True], True)
        await link.aclose()


async def test_a_command_that_is_cancelled_while_its_answer_is_awaited_leaves_none_to_the_next(wire: WireProxy, namespace: str):
    """The driver closes the connection then."""
    async with redis.asyncio.Redis.from_url(wire.url) as client:
        link = Link(client, namespace=namespace, name="async-tracker:test")
        await link.ensure()
        wire.delay(to_client=0.05)
        wire.forget_commands()
        left = asyncio.create_task(call(link.client, "ECHO", "left"))
        await wait_until(lambda: wire.command_counts()["ECHO"], description="it is on its way")
        left.cancel()
        await asyncio.wait([left])
        wire.delay()
        assert [await call(link.client, "ECHO", word) for word in ("a", "b")] == [b"a", b"b"]
        await link.aclose()


@pytest.mark.parametrize("transaction", [False, True])
async def test_a_pipeline_that_fails_amid_its_replies_leaves_none_to_the_next(redis_url: str, namespace: str, transaction: bool):
    def fail(reply: Any, **options: Any) -> Any:
        raise AttributeError("no reply of this kind")

    async with redis.asyncio.Redis.from_url(redis_url) as client:
        link = Link(client, namespace=namespace, name="async-tracker:test")
        await link.ensure()
        callbacks: Any = link.client.response_callbacks
        callbacks["ECHO"] = fail
        async with link.client.pipeline(transaction=transaction) as pipe:
            pipe.execute_command("ECHO", "one")
            pipe.execute_command("ECHO", "another")
            with pytest.raises(AttributeError, match="of this kind"):
                await pipe.execute()
        del callbacks["ECHO"]
        assert [await call(link.client, "ECHO", word) for word in ("a", "b")] == [b"a", b"b"]
        await link.aclose()


async def test_what_a_server_does_not_take_in_is_given_up_after_the_timeout(make_server: Callable[..., EmbeddedServer], namespace: str):
    """More than the buffers between here and there hold, to a server that reads nothing."""
    server = make_server()
    async with redis.asyncio.Redis.from_url(server.url, socket_timeout=0.3) as client:
        link = Link(client, namespace=namespace, name="async-tracker:test")
        await link.ensure()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(StorageUnavailable, match="writing to socket"):
                await call(link.client, "ECHO", "x" * 50_000_000)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert await call(link.client, "ECHO", "after") == b"after"

        async def is_alone() -> bool:
            return len([found for found in await client.client_list() if found["name"] == link.name]) == 1

        await wait_until(is_alone, description="the connection that was given up is closed, once the server has taken in what it was sent")
        await link.aclose()
