"""The server dies, comes back, hands over, sleeps, or the wire to it is bad: live workers keep their jobs, and nothing is lost.

arq itself ends a worker whose Redis is away for longer than a moment; then that worker is replaced, as a supervisor would.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from async_tracker import InstanceState
from async_tracker.store.scripts import SCRIPTS
from tests.crash.conftest import MakeFleet
from tests.crash.fleet import QUICK, Fleet, script_call
from tests.harness.servers import address_of
from tests.harness.wait import wait_until
from tests.harness.wire import WireProxy
from tests.harness.workers import WorkerProcess

TTL: float = QUICK["heartbeat_ttl"]
RETURNS: dict[str, Any] = {**QUICK, "heartbeat_ttl": 3.0}
"""Enough to return in after a failover, also on a loaded machine."""


async def replace_the_ended(fleet: Fleet, *, count: int, **options: Any) -> None:
    """Start a worker for each that arq has ended, until there are ``count`` instances."""
    for _ in range(count - len([worker for worker in fleet.started if worker.exit_code is None])):
        fleet.start(**options)
    for worker in [worker for worker in fleet.started if worker.exit_code is None]:
        await still_there(fleet, worker)


async def still_there(fleet: Fleet, worker: WorkerProcess) -> None:
    """Wait until a worker is registered, or has ended over the outage."""

    async def settled() -> bool:
        return worker.exit_code is not None or await fleet.instance_of(worker) is not None

    await wait_until(settled, timeout=60, description=f"{worker.name} is registered or has ended")


async def finish(fleet: Fleet, *, count: int = 2, **options: Any) -> None:
    """Keep up the number of workers until every job has succeeded."""

    async def done() -> bool:
        fleet.note_deaths()
        await replace_the_ended(fleet, count=count, **options)
        return fleet.ledger.read().lost() == frozenset()

    await wait_until(done, timeout=60, description="every job has succeeded", poll_interval=0.1)
    await fleet.succeeded()


@pytest.mark.lasts
async def test_a_server_that_is_killed_and_comes_back_with_its_data_loses_no_job(make_server: Any, make_fleet: MakeFleet):
    """Allowed: lost 0, robbed 0; doubled as many as were finishing while it was away."""
    server = make_server(appendonly=True, extra_args=("--appendfsync", "always"))
    fleet = await make_fleet(server.url)
    await fleet.start_ready(2, tracker=RETURNS)
    jobs = await fleet.enqueue_many(6, "hold", 3.0)
    for job_id in jobs:
        await fleet.running(job_id)
    server.kill()
    await asyncio.sleep(0.3)
    server.start()
    await fleet.open()
    await finish(fleet, tracker=RETURNS)
    await fleet.close(doubled=6)


async def test_a_server_that_comes_back_empty_knows_its_live_workers_again(make_server: Any, make_fleet: MakeFleet):
    """What it held is gone with it; who lives registers again, under the same id, and works on. Allowed: lost what was queued there."""
    server = make_server()
    fleet = await make_fleet(server.url)
    (worker,) = await fleet.start_ready(tracker=RETURNS, worker={"poll_delay": 3.0})
    before = await fleet.registered(worker)
    async with _a_moment_without_polling(fleet):
        server.kill()
        server.start()
    await fleet.open()
    await still_there(fleet, worker)
    await finish(fleet, count=1, tracker=RETURNS)
    if worker.exit_code is None:
        assert (await fleet.registered(worker)).instance_id == before.instance_id
    await fleet.enqueue("hold", 0.1)
    await fleet.succeeded()
    await fleet.close()


class _a_moment_without_polling:  # noqa: N801 - reads as a statement
    """Right after a job of the worker's has ended, it will not poll for ``poll_delay`` seconds."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def __aenter__(self) -> None:
        await self._fleet.succeeded(await self._fleet.enqueue("hold", 0.0))

    async def __aexit__(self, *exc_info: object) -> None:
        """Nothing to undo."""


async def test_a_replica_that_is_promoted_robs_nobody(make_server: Any, make_fleet: MakeFleet):
    """Every connection is dropped and the clocks of evidence start anew. Allowed: lost 0, robbed 0, doubled what was finishing."""
    old, new = make_server(tcp=True), make_server(tcp=True, extra_args=("--repl-diskless-sync-delay", "0"))
    async with redis.asyncio.Redis.from_url(new.tcp_url) as replica, redis.asyncio.Redis.from_url(old.tcp_url) as primary:
        await replica.execute_command("REPLICAOF", "127.0.0.1", str(old.port))

        async def in_sync() -> bool:
            status: str = (await replica.info("replication")).get("master_link_status", "")
            return status == "up"

        await wait_until(in_sync, timeout=30, description="the replica follows")
        with WireProxy(address_of(old.tcp_url)) as service:
            fleet = await make_fleet(service.url)
            await fleet.start_ready(2, tracker=RETURNS)
            jobs = await fleet.enqueue_many(6, "hold", 5.0)
            for job_id in jobs:
                await fleet.running(job_id)
                await fleet.in_flight(job_id)
            await primary.execute_command("WAIT", "1", "5000")
            await replica.execute_command("REPLICAOF", "NO", "ONE")
            service.lead_to(address_of(new.tcp_url))
            service.cut()
            old.kill()
            await fleet.open()
            await finish(fleet, tracker=RETURNS)
            await fleet.close(doubled=6)


async def test_an_outage_that_outlasts_every_heartbeat_makes_nobody_dead(make_server: Any, make_fleet: MakeFleet, redis_url: str):
    """The tracker's own server is away for longer than two ttl, and comes back with the old heartbeats. Allowed: lost 0, robbed 0.

    All that it has left to judge by is stale or gone, and the one that judges has just started and knows nothing of an outage: nobody is
    dead before everybody had the time to return, also who takes longer than another one takes to sweep.
    """
    apart = make_server(appendonly=True, extra_args=("--appendfsync", "always"))
    fleet = await make_fleet(redis_url, tracker_url=apart.url, arq_redis=redis_url)
    patient = {**QUICK, "heartbeat_ttl": 4.0}
    with WireProxy(address_of(apart.url)) as detour:
        workers = await fleet.start_ready(2, tracker={**patient, "recover": False}, tracker_url=apart.url)
        workers += await fleet.start_ready(tracker=patient, tracker_url=detour.url)
        jobs = await fleet.enqueue_many(6, "hold", 13.0)
        for job_id in jobs:
            await fleet.running(job_id)
        ids = {(await fleet.registered(worker)).instance_id for worker in workers}
        detour.refuse()
        apart.kill()
        await asyncio.sleep(2.2 * patient["heartbeat_ttl"])
        newcomer = fleet.start(tracker=patient, tracker_url=apart.url)
        await asyncio.to_thread(newcomer.wait_for_output, "Starting worker", timeout=60)
        apart.start()
        await fleet.registered(newcomer)
        await asyncio.sleep(6 * QUICK["sweep_interval"])
        detour.accept()
        await fleet.succeeded()
        await assert_unchanged(fleet, workers, ids)
        account = await fleet.close()
    assert len(account.runs) == len(jobs)


async def assert_unchanged(fleet: Fleet, workers: list[WorkerProcess], ids: set[str]) -> None:
    """Fail where a worker goes by another id than before."""
    assert {(await fleet.registered(worker)).instance_id for worker in workers} == ids


async def test_a_server_that_sleeps_makes_nobody_dead(make_server: Any, make_fleet: MakeFleet):
    """DEBUG SLEEP for longer than the heartbeats last. Allowed: lost 0, doubled 0, robbed 0."""
    server = make_server(extra_args=("--enable-debug-command", "yes"))
    fleet = await make_fleet(server.url)
    workers = await fleet.start_ready(2, tracker=QUICK)
    jobs = await fleet.enqueue_many(6, "hold", 5.0)
    for job_id in jobs:
        await fleet.running(job_id)
    ids = [(await fleet.registered(worker)).instance_id for worker in workers]
    async with redis.asyncio.Redis.from_url(server.url, socket_timeout=30) as client:
        await client.execute_command("DEBUG", "SLEEP", str(2.5 * TTL))
    await fleet.succeeded()
    assert [(await fleet.registered(worker)).instance_id for worker in workers] == ids
    account = await fleet.close()
    assert len(account.runs) == len(jobs)


async def test_a_server_that_sleeps_until_every_connection_has_given_up_makes_nobody_dead(make_server: Any, make_fleet: MakeFleet):
    """Longer than a socket's timeout, so that all connections are gone when it wakes. Allowed: lost 0, doubled 0, robbed 0."""
    server = make_server(extra_args=("--enable-debug-command", "yes"))
    fleet = await make_fleet(server.url)
    workers = await fleet.start_ready(3, tracker=QUICK)
    jobs = await fleet.enqueue_many(6, "hold", 11.0)
    for job_id in jobs:
        await fleet.running(job_id)
    ids = {(await fleet.registered(worker)).instance_id for worker in workers}
    async with redis.asyncio.Redis.from_url(server.url, socket_timeout=60) as client:
        await client.execute_command("DEBUG", "SLEEP", "7.5")
    await fleet.succeeded()
    assert {(await fleet.registered(worker)).instance_id for worker in workers} == ids
    account = await fleet.close()
    assert len(account.runs) == len(jobs)


async def test_a_wire_that_delays_and_stalls_robs_nobody(fleet: Fleet, wire: WireProxy):
    """A slow wire, then one that delivers nothing for longer than the heartbeats last. Allowed: lost 0, doubled 0, robbed 0."""
    patient = {**QUICK, "hook_timeout": 5.0}
    (far,) = await fleet.start_ready(tracker=patient, redis_url=wire.url)
    jobs = await fleet.enqueue_many(3, "hold", 6.0)
    for job_id in jobs:
        await fleet.running(job_id)
    await fleet.start_ready(tracker=patient)
    wire.delay(to_server=0.2, to_client=0.2)
    await asyncio.sleep(1.0)
    wire.stall()

    async def silent() -> bool:
        found = await fleet.instance_of(far)
        return found is not None and found.state is InstanceState.STALLED_SILENT

    await wait_until(silent, timeout=30, description="its heartbeats do not arrive")
    wire.flow()
    await fleet.succeeded()
    account = await fleet.close()
    assert len(account.runs) == len(jobs)


async def test_a_batch_that_is_delivered_late_changes_nothing(fleet: Fleet, wire: WireProxy, tmp_path: Path):
    """The start of a job arrives after its end: its record must not come back to stay. Allowed: lost 0, doubled 0."""
    await fleet.start_ready(tracker={**QUICK, "hook_timeout": 5.0}, tracker_url=wire.url)  # arq ends where its own is cut
    held = wire.hold(script_call(SCRIPTS["write"]))
    late = await fleet.enqueue("until_told", str(tmp_path / "late"))
    await wait_until(lambda: held.caught, timeout=30, description="the start of the job is under way")
    assert late.encode() in b"".join(held.caught[0])
    wire.cut_clients()
    (tmp_path / "late").touch()
    await fleet.succeeded(late)
    other = await fleet.enqueue("until_told", str(tmp_path / "end"))
    await fleet.in_flight(other)
    held.release()
    await asyncio.sleep(0.3)
    assert await fleet.tracker.job(late) is None
    assert [job.job_id for job in await fleet.tracker.jobs()] == [other]
    (tmp_path / "end").touch()
    await fleet.succeeded()
    wire.cut()
    await fleet.close()


CLOCK = """
import time as _time
_shift, _real, _real_ns = {shift}, _time.time, _time.time_ns
_time.time = lambda: _real() + _shift
_time.time_ns = lambda: _real_ns() + _shift * 10**9
"""


def _second_of_day(text: str) -> int:
    """Read the time with which a text begins, as arq's log does."""
    hours, minutes, seconds = map(int, text[:8].split(":"))
    return 3600 * hours + 60 * minutes + seconds


async def test_clocks_an_hour_apart_make_nobody_dead_and_hide_no_orphan(fleet: Fleet, tmp_path: Path):
    """One worker lives an hour ahead, one an hour behind the server. Allowed: lost 0, doubled 0, robbed 0."""
    workers = []
    for name, shift in (("ahead", 3600), ("behind", -3600)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(CLOCK.format(shift=shift))
        workers += await fleet.start_ready(tracker=QUICK, env={"PYTHONPATH": str(tmp_path / name)}, worker={"max_jobs": 2})
    long_due = datetime.now(tz=UTC) - timedelta(hours=2)
    jobs = [await fleet.enqueue("interrupted", 0.1, _defer_until=long_due) for _ in range(4)]
    for job_id in jobs:
        await fleet.running(job_id)
    for worker, shift in zip(workers, (3600, -3600), strict=True):
        ahead = _second_of_day(worker.output()) - _second_of_day(f"{datetime.now(tz=UTC).astimezone():%H:%M:%S}")
        assert abs(ahead % 86_400 - shift % 86_400) < 60, "its clock is not where the test has put it"
        found = await fleet.registered(worker)
        assert found.state is InstanceState.ALIVE
        assert abs((found.started_at - datetime.now(tz=UTC)).total_seconds()) < 60
    await asyncio.sleep(2 * TTL)
    assert len(fleet.ledger.read().runs) == 4
    await fleet.start_ready(tracker=QUICK, worker={"max_jobs": 4})
    for worker in workers:
        worker.kill()
    account = await fleet.succeeded()
    assert len(account.runs) == 8
    await fleet.close()
