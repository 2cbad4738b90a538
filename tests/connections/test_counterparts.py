"""A client of the other kind has every option of the one that it is made of: of the master's connections, and of the sentinels."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ConstantBackoff
from redis.credentials import UsernamePasswordCredentialProvider
from redis.retry import Retry
from redis.sentinel import Sentinel as SyncSentinel

from async_tracker import ConfigError
from async_tracker.connections.counterparts import async_counterpart, sync_counterpart
from async_tracker.embedded import EmbeddedServer, find_server_binary
from tests.harness.ports import TakePort
from tests.harness.wait import wait_until_sync

TLS = {
    "ssl": True,
    "ssl_ca_certs": "/etc/ssl/ca.pem",
    "ssl_certfile": "/etc/ssl/cert.pem",
    "ssl_keyfile": "/etc/ssl/key.pem",
    "ssl_cert_reqs": "required",
    "ssl_check_hostname": True,
}
OF_THE_MASTER = {
    **TLS,
    "username": "me",
    "password": "m@ster",
    "db": 3,
    "socket_timeout": 2.5,
    "socket_connect_timeout": 1.5,
    "socket_keepalive": True,
    "health_check_interval": 7,
    "client_name": "mine",
    "protocol": 3,
    "decode_responses": True,
    "encoding": "latin-1",
}
OF_SENTINELS = {**TLS, "username": "watcher", "password": "s3ntinel", "socket_timeout": 0.7, "ssl_ca_certs": "/etc/ssl/sentinels.pem"}


def options_of(client, wanted):
    kwargs = dict(client.connection_pool.connection_kwargs)
    kwargs["ssl"] = "SSL" in client.connection_pool.connection_class.__name__
    return {name: kwargs.get(name) for name in wanted}


async def test_every_option_comes_along_both_ways():
    provider = UsernamePasswordCredentialProvider("me", "p")
    for options in (OF_THE_MASTER, {"credential_provider": provider}, {"unix_socket_path": "/run/x.sock", "db": 1, "password": "p"}):
        wanted = {("path" if name == "unix_socket_path" else name): value for name, value in options.items()}
        there = sync_counterpart(redis.asyncio.Redis(**options))
        assert options_of(there, wanted) == {**wanted, "ssl": options.get("ssl", False)} if "ssl" in wanted else wanted
        back = async_counterpart(there)
        assert options_of(back, wanted) == options_of(there, wanted)


def sentinels_of(client):
    return client.connection_pool.sentinel_manager.sentinels


@pytest.mark.parametrize(
    "make", [lambda manager: manager.master_for("main"), lambda manager: manager.slave_for("main")], ids=["master", "replica"]
)
async def test_so_do_those_of_sentinels_and_of_the_service_behind_them(make):
    hosts = [("s1", 26379), ("s2", 26380)]
    for manager, counterpart, back in (
        (Sentinel(hosts, min_other_sentinels=1, sentinel_kwargs=OF_SENTINELS, **OF_THE_MASTER), sync_counterpart, async_counterpart),
        (SyncSentinel(hosts, min_other_sentinels=1, sentinel_kwargs=OF_SENTINELS, **OF_THE_MASTER), async_counterpart, sync_counterpart),
    ):
        given = make(manager)
        chain: list[Any] = [counterpart(given), back(counterpart(given))]
        for made in chain:
            assert options_of(made, OF_THE_MASTER) == OF_THE_MASTER
            assert made.connection_pool.service_name == "main"
            assert made.connection_pool.is_master is given.connection_pool.is_master
            assert made.connection_pool.sentinel_manager.min_other_sentinels == 1
            assert [options_of(watcher, {**OF_SENTINELS, "host": 0, "port": 0}) for watcher in sentinels_of(made)] == [
                {**OF_SENTINELS, "host": host, "port": port} for host, port in hosts
            ]


async def test_a_retry_of_one_kind_becomes_one_of_the_other():
    there = sync_counterpart(redis.asyncio.Redis(retry=AsyncRetry(ConstantBackoff(0.5), 7)))
    retry = there.connection_pool.connection_kwargs["retry"]
    assert isinstance(retry, Retry)
    assert (retry._retries, retry._backoff.compute(1)) == (7, 0.5)
    back = async_counterpart(there).connection_pool.connection_kwargs["retry"]
    assert isinstance(back, AsyncRetry)
    assert back._retries == 7


async def test_what_tls_would_no_longer_check_is_refused_and_not_left_out():
    with pytest.raises(ConfigError, match="does not know the option ssl_ca_path"):
        async_counterpart(redis.Redis(ssl=True, ssl_ca_path="/etc/ssl/certs"))


@pytest.fixture
def guarded(server_binary: Path | None, tmp_path: Path, take_port: TakePort) -> Iterator[int]:
    """The port of a sentinel with a password, whose server has another one."""
    port = take_port()
    with EmbeddedServer(binary=server_binary, tcp=True, extra_args=("--requirepass", "m@ster")) as server:
        config = tmp_path / "sentinel.conf"
        config.write_text(
            f'port {port}\nbind 127.0.0.1\ndir "{tmp_path}"\nrequirepass s3ntinel\n'
            f"sentinel monitor main 127.0.0.1 {server.port} 1\nsentinel auth-pass main m@ster\n"
        )
        command = [str(server_binary or find_server_binary()), str(config), "--sentinel"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until_sync(lambda: knows_its_master(port), timeout=20, description="the sentinel knows its master")
            yield port
        finally:
            process.kill()
            process.wait()


def knows_its_master(port: int) -> bool:
    try:
        with redis.Redis(port=port, password="s3ntinel") as client:
            return "flags" in (state := client.sentinel_master("main")) and state["flags"] == "master"
    except redis.RedisError:
        return False


async def test_a_sentinel_that_asks_for_a_password_is_asked_by_both_kinds(guarded):
    of_sentinels = {"password": "s3ntinel", "socket_timeout": 2.0}
    given = SyncSentinel([("127.0.0.1", guarded)], sentinel_kwargs=of_sentinels, password="m@ster").master_for("main")
    made = async_counterpart(given)
    assert await made.ping()
    back = sync_counterpart(made)
    assert back.ping()
    for client in (given, back, *sentinels_of(given), *sentinels_of(back)):
        client.close()
    for client in (made, *sentinels_of(made)):
        await client.aclose()
