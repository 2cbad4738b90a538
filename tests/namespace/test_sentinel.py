"""A client that Sentinel manages, in a namespace."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio
from redis.asyncio.sentinel import Sentinel
from redis.sentinel import Sentinel as SyncSentinel

from async_tracker.embedded import EmbeddedServer, find_server_binary
from async_tracker.namespace import Namespace, SyncNamespace
from tests.harness.ports import TakePort
from tests.harness.wait import wait_until_sync


@pytest.fixture
def sentinel(server_binary: Path | None, tmp_path: Path, take_port: TakePort) -> Iterator[int]:
    """The port of a sentinel that watches over a server called ``main``."""
    port = take_port()
    with EmbeddedServer(binary=server_binary, tcp=True) as server:
        config = tmp_path / "sentinel.conf"
        config.write_text(f'port {port}\nbind 127.0.0.1\ndir "{tmp_path}"\nsentinel monitor main 127.0.0.1 {server.port} 1\n')
        command = [str(server_binary or find_server_binary()), str(config), "--sentinel"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until_sync(lambda: answers(port), timeout=10, description="the sentinel answered")
            yield port
        finally:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    try:
        with redis.Redis(port=port) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


async def test_a_client_that_sentinel_manages_is_confined(sentinel):
    manager = Sentinel([("127.0.0.1", sentinel)])
    client = manager.master_for("main", redis_class=redis.asyncio.Redis)
    ns = Namespace(client, "app")

    await ns.set("k", "v")

    assert await client.keys() == [b"app:k"]
    async with ns.pipeline() as pipe:
        assert await pipe.get("k").execute() == [b"v"]
    await client.aclose()
    for watcher in manager.sentinels:
        await watcher.aclose()


def test_a_synchronous_client_that_sentinel_manages_is_confined(sentinel):
    manager = SyncSentinel([("127.0.0.1", sentinel)])
    client = manager.master_for("main")
    ns = SyncNamespace(client, "app")

    ns.set("k", "v")

    assert client.keys() == [b"app:k"]
    assert ns.get("k") == b"v"
    client.close()
    for watcher in manager.sentinels:
        watcher.close()
