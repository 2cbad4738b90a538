"""Redis that is reached with TLS: by its url everywhere, checked, and a closed connection is evidence there as well."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from async_tracker import StorageUnavailable, Tracker
from tests.cli.conftest import Cli
from tests.crash.fleet import SWIFT, open_fleet
from tests.harness.ledger import Ledger
from tests.harness.ports import TakePort
from tests.harness.tls import TlsServer, tls_server
from tests.harness.wait import wait_until
from tests.harness.workers import Workers
from tests.servers.sequel import BEATING


@pytest.fixture
async def tls(tmp_path: Path, server_binary: Path | None, take_port: TakePort) -> AsyncIterator[TlsServer]:
    async with tls_server(tmp_path, port=take_port(), binary=server_binary) as made:
        yield made


async def test_its_url_is_taken_everywhere_and_its_certificate_is_checked(tls: TlsServer, namespace: str, monkeypatch: pytest.MonkeyPatch):
    async with Tracker(namespace=namespace, redis_options={"url": tls.url}, **BEATING) as tracker, tracker.register() as instance_id:
        await wait_until(tracker.instances, description="it is registered")
        bare, _, authority = tls.url.partition("?ssl_ca_certs=")
        monkeypatch.setenv("TRACKER_REDIS_URL", tls.url)
        for other in (
            Tracker.from_env(namespace=namespace),
            Tracker(namespace=namespace, redis_options={"url": bare, "ssl_ca_certs": authority}),
        ):
            async with other:
                assert [item.instance_id for item in await other.instances()] == [instance_id]
                assert await asyncio.to_thread(_connections, other) == 1
        for command in (("ps",), ("check", "--timeout", "30"), ("doctor",), ("jobs",)):
            answer = await Cli(url=tls.url, namespace=namespace).within(*command, "--json")
            assert answer.code == 0, answer
        async with Tracker(namespace=namespace, redis_options={"url": bare}) as unchecked:
            with pytest.raises(StorageUnavailable, match="certificate verify failed"):
                await unchecked.instances()
        async with Tracker(namespace=namespace, redis_options={"url": f"redis://127.0.0.1:{tls.port}/0"}) as plain:
            with pytest.raises(StorageUnavailable):
                await plain.instances()


def _connections(tracker: Tracker) -> int:
    with tracker.redis_sync() as r:
        return int(r.hlen("connections"))


async def test_a_kill_amid_handshakes_that_do_not_end_is_found_by_the_closed_connection_alone(
    tls: TlsServer, namespace: str, redis_url: str, workers: Workers, ledger: Ledger
):
    """Heartbeats would tell of it after ten minutes. A server with TLS counts a connection whose handshake has not ended as connected
    and not as received, so that its counters may stand still when another one closes."""
    patient = {**SWIFT, "heartbeat_ttl": 600.0, "silence_limit": 600.0}
    async with aclosing(await open_fleet(workers, ledger, redis_url, namespace, tracker_url=tls.url, arq_redis=redis_url)) as fleet:
        await fleet.start_ready(2, tracker=patient, tracker_url=tls.url, worker={"max_jobs": 4})
        job_id = await fleet.enqueue("interrupted")
        victim = await fleet.running(job_id)
        await fleet.in_flight(job_id, run_of=victim)
        with socket.create_connection(("127.0.0.1", tls.port)):
            victim.kill()
            with socket.create_connection(("127.0.0.1", tls.port)):
                assert await fleet.running(job_id, runs=2) is not victim
        account = await fleet.succeeded()
        assert len(account.runs_of(job_id)) == 2
        await fleet.close()
