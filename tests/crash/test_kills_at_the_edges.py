"""SIGKILL where a worker's life begins and ends, where a job is done and not yet written down, and in the middle of a quarantine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from async_tracker.embedded import EmbeddedServer
from async_tracker.integrations.arq import adapter as arq_adapter
from async_tracker.store.scripts import SCRIPTS
from tests.crash.conftest import MakeFleet
from tests.crash.fleet import SWIFT, Fleet, kill_under_way, script_call
from tests.crash.test_live_workers import PROMISED_SECONDS, last_beat_of
from tests.harness.resp import Command
from tests.harness.wait import lived, wait_until
from tests.harness.wire import HoldRule, WireProxy
from tests.harness.workers import WorkerProcess

SLOW_START = {**SWIFT, "hook_timeout": 5.0}
ENDS = pytest.mark.parametrize("arrives", [False, True], ids=["and the command is lost", "and the command arrives late"])

is_write = script_call(SCRIPTS["write"])


def is_write_of_an_end(command: Command) -> bool:
    """Match what the journal writes once a run has ended: its fifth argument after the keys counts the ended runs."""
    return is_write(command) and int(command[3 + int(command[2]) + 4]) > 0


async def kill_at(held: HoldRule, victim: WorkerProcess, wire: WireProxy, *, arrives: bool, where: str) -> None:
    """Kill the worker once the command is under way; it arrives after its sender's death, or never."""
    await wait_until(lambda: held.caught, timeout=60, description=f"the worker is about {where}")
    await kill_under_way(victim, wire, held, arrives=arrives)


@ENDS
async def test_a_kill_while_it_registers_leaves_nothing(fleet: Fleet, wire: WireProxy, arrives: bool):
    """Where the registration arrives after its worker's death, the sweep finds that nobody is there. Allowed: lost 0, doubled 0."""
    await fleet.start_ready()
    held = wire.hold(script_call(SCRIPTS["register"]))
    victim = fleet.start(tracker=SLOW_START, redis_url=wire.url)
    await kill_at(held, victim, wire, arrives=arrives, where="its registration")
    await fleet.enqueue("hold", 0.1)
    await fleet.succeeded()

    async def unknown() -> bool:
        return await fleet.instance_of(victim) is None

    await wait_until(unknown, timeout=30, description="nobody knows of the killed worker")
    await fleet.close()


@ENDS
async def test_a_kill_while_it_deregisters_loses_nothing(fleet: Fleet, wire: WireProxy, arrives: bool):
    """Asked to leave, and killed at the last step. Allowed: lost 0, doubled 0."""
    (victim,) = await fleet.start_ready(tracker=SLOW_START, redis_url=wire.url, worker={"max_tries": 20})
    job_id = await fleet.enqueue("interrupted")
    await fleet.running(job_id)
    held = wire.hold(script_call(SCRIPTS["deregister"]))
    await fleet.start_ready(worker={"max_tries": 20})
    victim.ask_to_leave()
    await kill_at(held, victim, wire, arrives=arrives, where="its deregistration")
    await fleet.succeeded(job_id)
    assert await fleet.pool.exists(f"{fleet.namespace}:recoveries:{job_id}") == 0
    await fleet.close()


@ENDS
async def test_a_kill_in_the_write_that_a_durable_start_awaits_counts_no_run(fleet: Fleet, wire: WireProxy, arrives: bool):
    """The job's first statement has not run: its function runs once, on another worker. Allowed: lost 0, doubled 0, runs 1."""
    (victim,) = await fleet.start_ready(tracker={**SLOW_START, "durable": True}, redis_url=wire.url)
    held = wire.hold(is_write)
    job_id = await fleet.enqueue("hold", 0.2)
    await kill_at(held, victim, wire, arrives=arrives, where="the write of a start")
    await fleet.start_ready()
    account = await fleet.succeeded(job_id)
    assert len(account.runs_of(job_id)) == 1
    await fleet.close()


@ENDS
async def test_a_kill_after_arqs_finish_and_before_the_end_is_written_runs_nothing_again(
    fleet: Fleet, wire: WireProxy, tmp_path: Path, arrives: bool
):
    """The record of a run that is over stands; the job is queued no more. Allowed: lost 0, doubled 0, runs 1."""
    (victim,) = await fleet.start_ready(tracker=SLOW_START, redis_url=wire.url)
    held = wire.hold(is_write_of_an_end)
    job_id = await fleet.enqueue("until_told", str(tmp_path / "end"))
    await fleet.in_flight(job_id)
    (tmp_path / "end").touch()
    await fleet.succeeded(job_id)
    await fleet.start_ready()
    await kill_at(held, victim, wire, arrives=arrives, where="the write of an end")

    async def unknown() -> bool:
        return await fleet.instance_of(victim) is None and await fleet.tracker.job(job_id) is None

    await wait_until(unknown, timeout=30, description="the record of the run is gone, and its worker")
    account = await fleet.close()
    assert len(account.runs_of(job_id)) == 1
    assert (await fleet.tracker.stats()).recovered == 0


async def test_a_kill_that_no_connection_tells_of_is_found_when_the_heartbeat_is_over_and_not_before(
    make_server: Callable[..., EmbeddedServer], make_fleet: MakeFleet
):
    """The workers' user may not ask for connections, so their age is all there is to go by. Allowed: lost 0, doubled 0, robbed 0."""
    server = make_server(tcp=True, extra_args=("--user", *"worker on nopass ~* &* +@all -client|list".split()))
    fleet = await make_fleet(server.url)
    blind: dict[str, Any] = {"tracker": {**SWIFT, "heartbeat_ttl": 3.0}, "redis_url": f"redis://worker:any@127.0.0.1:{server.port}/0"}
    (victim,) = await fleet.start_ready(**blind)
    job_id = await fleet.enqueue("interrupted")
    await fleet.running(job_id)
    await fleet.start_ready(**blind)
    victim.kill()
    async with lived() as waited:
        last_beat = await last_beat_of(fleet, victim)
        account = await fleet.succeeded(job_id)
    assert (account.runs_of(job_id)[1].started_at_ns - last_beat) / 1e9 > 3.0
    assert waited.seconds < 3.0 + PROMISED_SECONDS
    await fleet.close()


QUARANTINES: dict[str, Callable[[Command], bool]] = {
    "taking the job out of arq": script_call(arq_adapter._QUARANTINE),
    "writing it down": script_call(SCRIPTS["settle"]),
}


@pytest.mark.parametrize("step", QUARANTINES)
@ENDS
async def test_a_sweeper_that_dies_in_a_quarantine_is_carried_on_by_the_next(
    make_fleet: MakeFleet, redis_url: str, wire: WireProxy, tmp_path: Path, step: str, arrives: bool
):
    """The payload is in arq, in the receipt or on the list, and never nowhere. Allowed: lost 0, doubled 0; one death is counted."""
    fleet = await make_fleet(redis_url)
    none = {**SLOW_START, "max_recoveries": 0}
    (sweeper,) = await fleet.start_ready(tracker=none, redis_url=wire.url, worker={"queue_name": "elsewhere"})
    await fleet.start_ready(tracker=none, worker={"queue_name": "elsewhere"})
    (victim,) = await fleet.start_ready(tracker=none)
    job_id = await fleet.enqueue("until_told", str(tmp_path / "end"))
    await fleet.running(job_id)
    await fleet.in_flight(job_id)
    held = wire.hold(QUARANTINES[step])
    victim.kill()
    await kill_at(held, sweeper, wire, arrives=arrives, where=step)
    (kept,) = await wait_until(fleet.tracker.quarantined, timeout=30, description="the job is quarantined")
    assert (kept.job_id, kept.deaths) == (job_id, 1)
    types = [event.type for event in await fleet.tracker.recent_events(1000)]
    assert types.count("quarantined") == 1
    await fleet.start_ready(tracker=none)
    (tmp_path / "end").touch()
    assert await fleet.tracker.retry_quarantined(job_id)
    await fleet.succeeded(job_id)
    await fleet.close()
