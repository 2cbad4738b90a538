"""Redis that is reached with TLS: by its url everywhere, checked, and a closed connection is evidence there as well."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from async_tracker import InstanceState, StorageError, StorageUnavailable, Tracker
from tests.cli.conftest import Cli
from tests.crash.fleet import SWIFT, open_fleet
from tests.harness.ledger import Ledger
from tests.harness.ports import TakePort
from tests.harness.settings import KNOWN
from tests.harness.tls import TlsServer, tls_server
from tests.harness.wait import wait_until
from tests.harness.ways import Cluster, Sentinels
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


def asker(servers: Sentinels | Cluster, namespace: str) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Give what runs a command by the url of these servers, and returns its document, which shows that url."""
    cli = Cli(url=servers.url, namespace=namespace)

    async def ask(*command: str) -> dict[str, Any]:
        answer = await cli.within(*command, "--json")
        assert answer.code == 0 or command == ("doctor",), answer
        assert answer.document.get("redis", servers.shown) == servers.shown
        return answer.document

    return ask


async def test_behind_sentinels_all_of_which_take_tls_alone_the_tracker_and_the_command_line_find_the_primary_and_its_successor(
    tls_sentinels: Sentinels, namespace: str
):
    checked, before = tls_sentinels.url, tls_sentinels.primary
    tracker = Tracker(namespace=namespace, redis_options={"url": checked}, **BEATING, **KNOWN)
    shown = asker(tls_sentinels, namespace)
    async with tracker, tracker.register() as instance_id, tracker.track("42"):
        await wait_until(tracker.jobs, description="the job is listed")
        assert await asyncio.to_thread(_connections, tracker) == 1
        (found,) = (await shown("ps"))["instances"]
        assert (found["instance_id"], found["redis"]) == (instance_id, tls_sentinels.shown)
        findings = {item["subject"]: item["status"] for item in (await shown("doctor"))["findings"]}
        assert findings["connection"] in ("ok", "warning"), findings  # the latter where a busy machine answers late
        assert (await shown("check", "--timeout", "30"))["alive"]
        assert tls_sentinels.refused == 0

        await asyncio.to_thread(tls_sentinels.kill_primary)
        await asyncio.to_thread(lambda: tls_sentinels.promoted(instead_of=before))

        await right_again_here(tracker, instance_id)
        assert [item["instance_id"] for item in (await shown("ps"))["instances"]] == [instance_id]
        assert await asyncio.to_thread(_connections, tracker) == 1
        assert tls_sentinels.refused == 0

    await refused_unless_checked(tls_sentinels, namespace, "no sentinel knows")


async def right_again_here(tracker: Tracker, instance_id: str) -> None:
    """Wait until the one instance is alive on the server that is the right one now, with its job."""

    async def is_back() -> bool:
        try:
            snapshot = await tracker.snapshot()
        except StorageError:
            return False
        assert {item.instance_id for item in snapshot.instances} <= {instance_id}
        states = [item.state for item in snapshot.instances if item.heartbeat_age < BEATING["heartbeat_ttl"]]
        return (states, [job.job_id for job in snapshot.jobs], snapshot.role) == ([InstanceState.ALIVE], ["42"], "primary")

    await wait_until(is_back, timeout=60, description="it is alive on the right server, with its job", poll_interval=0.1)


async def refused_unless_checked(servers: Sentinels | Cluster, namespace: str, otherwise: str) -> None:
    """Ask by a url that names no authority for the certificates, and by one without TLS."""
    unchecked = re.split("[?&]ssl_ca_certs=", servers.url)[0]
    assert servers.refused == 0
    for url, said in ((unchecked, "certificate verify failed"), (unchecked.replace("rediss+", "redis+"), otherwise)):
        async with Tracker(namespace=namespace, redis_options={"url": url}) as lost:
            with pytest.raises(StorageUnavailable, match=said):
                await lost.instances()
    assert servers.refused > 0


async def test_in_a_cluster_whose_nodes_take_tls_alone_the_tracker_and_the_command_line_find_the_owner_of_the_slot(
    tls_cluster: Cluster, namespace: str
):
    tagged = f"{{app}}{namespace}"
    tracker = Tracker(namespace=tagged, redis_options={"url": tls_cluster.url}, **BEATING, **KNOWN)
    shown = asker(tls_cluster, tagged)
    async with tracker, tracker.register() as instance_id, tracker.track("42"):
        await wait_until(tracker.jobs, description="the job is listed")
        assert await asyncio.to_thread(_connections, tracker) == 1
        for _ in range(2):
            (found,) = (await shown("ps"))["instances"]
            assert (found["instance_id"], found["redis"], found["state"]) == (instance_id, tls_cluster.shown, "alive")
            assert (await shown("check", "--timeout", "30"))["alive"]
            assert [job["job_id"] for job in (await shown("jobs"))["jobs"]] == ["42"]
            await shown("doctor")
            await asyncio.to_thread(lambda: tls_cluster.move_slot(tls_cluster.another_primary()))
            await right_again_here(tracker, instance_id)
    await refused_unless_checked(tls_cluster, tagged, "no node knows")
