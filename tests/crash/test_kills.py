"""SIGKILL, at random and at chosen moments: nothing is lost, and nobody runs a job that another still runs."""

import asyncio
import random
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from async_tracker import AbortOutcome
from async_tracker.integrations.arq import adapter as arq_adapter
from async_tracker.store.scripts import SCRIPTS
from tests.crash.conftest import MakeFleet
from tests.crash.fleet import SWIFT, Fleet, kill_under_way, script_call, was_killed
from tests.crash.reruns import summary, waits
from tests.harness.inside import abort_soon
from tests.harness.ledger import SUCCEEDED
from tests.harness.resp import Command
from tests.harness.servers import address_of, database_of
from tests.harness.wait import wait_until
from tests.harness.wire import WireProxy
from tests.harness.workers import WorkerProcess

DURATIONS = (0.001, 0.01, 0.05, 0.2, 0.5, 1.0, 2.0, 3.0)
LONG_DURATIONS = (*DURATIONS, 5.0, 10.0)
SLOW_START = {**SWIFT, "hook_timeout": 5.0}
AT_A_TIME = 10
"""How many jobs a worker of arq's runs at a time, by default."""
UNCOUNTED = {"max_recoveries": 1_000}
"""Here healthy jobs are killed again and again: none of them is a pill."""


async def kill_at_random(fleet: Fleet, *, kills: int, tracker: dict[str, Any], durations: Sequence[float], dice: random.Random) -> int:
    """Keep three workers under load, killing one after the other; each is replaced at once. Returns how many of them were the sweeper.

    The first to be killed has a job in hand for certain; whether the others have is left to the dice.
    """
    options: dict[str, Any] = {"tracker": {**tracker, **UNCOUNTED}, "worker": {"max_tries": 1_000}}
    alive = await fleet.start_ready(3, **options)
    sweepers = 0
    for number in range(kills):
        busy = await fleet.running(await fleet.enqueue("interrupted")) if number == 0 else None
        for _ in range(8):
            await fleet.enqueue("hold", dice.choice(durations))
        await asyncio.sleep(dice.uniform(0.0, 0.9))
        sweeper = await (the_sweeper(fleet, alive) if number % 4 == 1 else sweeping(fleet, alive))
        victim = busy or (sweeper if sweeper is not None and number % 4 == 1 else dice.choice(alive))
        victim.kill()
        sweepers += victim is sweeper
        alive.remove(victim)
        alive += await fleet.start_ready(1, **options)
    return sweepers


async def sweeping(fleet: Fleet, among: Sequence[WorkerProcess]) -> WorkerProcess | None:
    """Tell which of these workers holds the lease; None in the moment when none of them does."""
    holder = (await fleet.pool.get(f"{fleet.namespace}:lease:sweep:arq") or b"").decode().split(" ")[0]
    found = await fleet.tracker.instance(holder)
    return next((worker for worker in among if found is not None and worker.pid == found.pid), None)


async def the_sweeper(fleet: Fleet, among: Sequence[WorkerProcess]) -> WorkerProcess:
    """Wait until one of these workers holds the lease."""
    found = await wait_until(lambda: sweeping(fleet, among), timeout=60, description="one of them sweeps")
    assert found is not None
    return found


async def test_random_kills_of_random_workers_lose_nothing_and_run_nothing_twice_at_once(fleet: Fleet):
    """Allowed: lost 0, overlapping 0; doubled only what was killed between its last line in the ledger and arq's own finish.

    How much that is depends on how long the machine takes from the one to the other; in no case more than a worker runs at a time.
    """
    kills = 4
    assert await kill_at_random(fleet, kills=kills, tracker=SWIFT, durations=DURATIONS, dice=random.Random(4)) >= 1
    await fleet.succeeded()
    killed = {worker.pid for worker in fleet.started if was_killed(worker)}
    account = await fleet.close(doubled=kills * AT_A_TIME)
    assert waits(account)
    for job_id in account.doubled():
        *before, _ = [run.pid for run in account.runs_of(job_id) if run.outcome == SUCCEEDED]
        assert set(before) <= killed, "a job ran again whose worker could write down that it had succeeded"


@pytest.mark.soak
@pytest.mark.parametrize("tracker", [{}, SWIFT], ids=["default settings", "short limits"])
async def test_a_hundred_random_kills_lose_nothing(
    fleet: Fleet, soak_minutes: float, tracker: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    """Allowed: lost 0, overlapping 0; doubled what each kill interrupts in arq's finish. How long it took is said, not judged."""
    kills = max(100, int(soak_minutes * 10))
    sweepers = await kill_at_random(fleet, kills=kills, tracker=tracker, durations=LONG_DURATIONS, dice=random.Random())
    await fleet.succeeded(timeout=900)
    account = await fleet.close(doubled=kills)
    with capsys.disabled():
        print(f"\n{kills} kills, {sweepers} of them of the sweeper; lost {len(account.lost())}, robbed {len(account.overlapping())}, "
              f"doubled {len(account.doubled())} of {len(account.enqueued)} jobs; {summary(waits(account))}")  # fmt: skip
    assert sweepers >= kills // 5


async def test_a_killed_workers_jobs_run_again_elsewhere_once(fleet: Fleet, tmp_path: Path):
    """Allowed: lost 0, doubled 0, overlapping 0."""
    await fleet.start_ready(2)
    jobs = await fleet.enqueue_many(6, "until_told", str(tmp_path / "end"))
    victim = await fleet.running(jobs[0])
    for job_id in jobs:
        await fleet.running(job_id)
    victim.kill()
    (tmp_path / "end").touch()
    account = await fleet.succeeded()
    again = [run for run in account.runs if run.attempt == 2]
    assert again
    assert victim.pid not in {run.pid for run in again}
    await fleet.close()


async def test_with_default_settings_a_killed_sweepers_job_runs_again(fleet: Fleet):
    """Allowed: lost 0, doubled 0. How long it takes is for the benchmark to say; here it must be far below arq's own five minutes."""
    (sweeper,) = await fleet.start_ready(tracker={})
    job_id = await fleet.enqueue("interrupted")
    await fleet.running(job_id)
    await fleet.start_ready(tracker={})
    sweeper.kill()
    await fleet.succeeded(timeout=30)
    await fleet.close()


async def test_the_last_worker_that_is_killed_is_recovered_by_the_first_that_starts(fleet: Fleet):
    """Allowed: lost 0, doubled 0."""
    (only,) = await fleet.start_ready()
    job_id = await fleet.enqueue("interrupted")
    await fleet.running(job_id)
    only.kill()
    await fleet.start_ready()
    await fleet.succeeded()
    await fleet.close()


async def test_a_job_that_leaves_by_system_exit_is_recovered_like_one_that_was_killed(fleet: Fleet):
    """Allowed: lost 0, doubled 0."""
    job_id = await fleet.enqueue("quits")
    leaving = fleet.start()
    await wait_until(lambda: leaving.exit_code is not None, timeout=60, description="the worker has left by SystemExit")
    await fleet.start_ready()
    await fleet.succeeded(job_id)
    await fleet.close()


async def test_two_deaths_at_once_are_recovered_by_the_third(fleet: Fleet):
    """Allowed: lost 0, doubled 0."""
    first = await fleet.start_ready(2)
    jobs = await fleet.enqueue_many(12, "interrupted")
    for job_id in jobs:
        await fleet.running(job_id)
    (third,) = await fleet.start_ready(worker={"max_jobs": 20})
    for worker in first:
        worker.kill()
    account = await fleet.succeeded()
    assert {run.pid for run in account.runs if run.attempt == 2} == {third.pid}
    await fleet.close()


ELSEWHERE = """
import os as _os
_readlink = _os.readlink
_os.readlink = lambda path, **options: "pid:[1]" if path == "/proc/self/ns/pid" else _readlink(path, **options)
"""
"""Another container, as the kernel shows it."""


async def test_a_container_host_name_that_comes_back_elsewhere_hides_no_orphan(fleet: Fleet, tmp_path: Path):
    """The same label and host name on another machine, as a pod's name that is used again. Allowed: lost 0, doubled 0."""
    labelled = {**SWIFT, "instance_id": "pod-7"}
    (tmp_path / "sitecustomize.py").write_text(ELSEWHERE)
    (gone,) = await fleet.start_ready(tracker=labelled, env={"PYTHONPATH": str(tmp_path)})
    there = await fleet.registered(gone)
    job_id = await fleet.enqueue("interrupted")
    await fleet.running(job_id)
    gone.kill()
    (back,) = await fleet.start_ready(tracker=labelled)
    instance = await fleet.registered(back)
    assert (instance.label, instance.host) == (there.label, there.host) == ("pod-7", socket.gethostname())
    assert instance.host_id != there.host_id
    await fleet.succeeded(job_id)
    await fleet.close()


def is_claim(command: Command) -> bool:
    return command[0] == b"PSETEX" and command[1].startswith(b"arq:in-progress:")


def is_start(command: Command) -> bool:
    return command[0] in (b"INCR", b"INCRBY") and command[1].startswith(b"arq:retry:")


def is_finish(command: Command) -> bool:
    return command[0] == b"DEL" and any(name.startswith(b"arq:in-progress:") for name in command[1:])


POINTS: dict[str, Callable[[Command], bool]] = {
    "inside the claim": is_claim,
    "between the claim and the start hook": is_start,
    "in the journal's write": script_call(SCRIPTS["write"]),
    "between the end hook and arq's finish": is_finish,
}


NEVER_STARTED = ("inside the claim", "between the claim and the start hook")
"""Where arq has not yet counted the try of the job whose command is caught: such a death is not the job's doing."""


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("arrives", [False, True], ids=["and the command is lost", "and the command arrives late"])
async def test_a_kill_at_an_armed_point_of_a_job_loses_nothing(fleet: Fleet, wire: WireProxy, tmp_path: Path, point: str, arrives: bool):
    """Allowed: lost 0, overlapping 0; doubled 1 where the job had succeeded and arq did not live to write it down."""
    (victim,) = await fleet.start_ready(tracker=SLOW_START, redis_url=wire.url)
    held = wire.hold(POINTS[point])
    if POINTS[point] is is_finish:
        await fleet.enqueue_many(4, "hold", 0.3)
    else:  # the others must not be about to end as well, however long it takes until the kill
        await fleet.enqueue_many(4, "until_told", str(tmp_path / "end"))
    await wait_until(lambda: held.caught, timeout=60, description=f"a command is caught {point}")
    await fleet.start_ready(tracker=SLOW_START)
    await kill_under_way(victim, wire, held, arrives=arrives)
    (tmp_path / "end").touch()
    await fleet.succeeded()
    if point in NEVER_STARTED and not arrives:
        caught = held.caught[0][1].decode().rsplit(":", 1)[-1]
        assert await fleet.pool.exists(f"{fleet.namespace}:recoveries:{caught}") == 0
    await fleet.close(doubled=1)


SWEEP_POINTS = {
    "declaring it dead": script_call(SCRIPTS["declare_dead"]),
    "adopting a claim": script_call(SCRIPTS["adopt"]),
    "releasing the claim": script_call(arq_adapter._RELEASE),
    "settling the orphan": script_call(SCRIPTS["settle"]),
    "burying the instance": script_call(SCRIPTS["bury"]),
}


@pytest.mark.parametrize("point", SWEEP_POINTS)
@pytest.mark.parametrize("arrives", [False, True], ids=["before", "after"])
async def test_a_sweeper_that_dies_half_way_is_carried_on_by_the_next(
    make_fleet: MakeFleet, redis_url: str, wire: WireProxy, point: str, arrives: bool
):
    """Killed before or after the step is taken. Allowed: lost 0, doubled 0, overlapping 0, and one death counted per orphan."""
    fleet = await make_fleet(redis_url)
    with WireProxy(address_of(redis_url), database=database_of(redis_url)) as victims_wire:
        jobs, sweeper = await _sweeper_at_work(fleet, wire, victims_wire, SWEEP_POINTS[point], adopting=point == "adopting a claim")
        (other,) = await fleet.start_ready(tracker=SLOW_START)
        held = wire.hold(SWEEP_POINTS[point])
        fleet.started[1].kill()
        victims_wire.cut()
        await wait_until(lambda: held.caught, timeout=60, description=f"the sweeper is about {point}")
        if arrives:
            wire.cut_clients()
            held.release()
            await asyncio.sleep(0.05)
        sweeper.kill()
        wire.cut()
        await fleet.succeeded(*jobs)
    account = await fleet.close()
    assert {run.pid for run in account.runs if run.outcome is not None} == {other.pid}
    for job_id in jobs:
        assert await fleet.pool.hlen(f"{fleet.namespace}:recoveries:{job_id}") == 1
    stats = await fleet.tracker.stats()
    assert (stats.orphaned, stats.recovered) == (len(jobs), len(jobs))


async def _sweeper_at_work(
    fleet: Fleet, wire: WireProxy, victims_wire: WireProxy, matches: Any, *, adopting: bool
) -> tuple[list[str], WorkerProcess]:
    """Make a sweeper without free slots, and a worker beside it that runs two jobs, unrecorded ones if they are to be adopted."""
    (sweeper,) = await fleet.start_ready(tracker=SLOW_START, redis_url=wire.url, worker={"queue_name": "elsewhere"})
    await fleet.start_ready(tracker=SLOW_START, redis_url=victims_wire.url)
    if adopting:
        victims_wire.hold(script_call(SCRIPTS["write"]), times=None)
    jobs = await fleet.enqueue_many(2, "interrupted")
    for job_id in jobs:
        await fleet.running(job_id)
    if not adopting:
        for job_id in jobs:
            await fleet.in_flight(job_id)
    return jobs, sweeper


async def test_a_kill_is_not_counted_as_a_try_where_tries_are_kept(fleet: Fleet, tmp_path: Path):
    """The record of the run tells its try and what its function is allowed. Allowed: lost 0, doubled 0."""
    keeping = {**SWIFT, "keep_tries": True}
    (first,) = await fleet.start_ready(tracker=keeping)
    job_id = await fleet.enqueue("until_told", str(tmp_path / "end"))
    await fleet.running(job_id)
    await fleet.in_flight(job_id)
    first.kill()
    await fleet.start_ready(tracker=keeping)
    await fleet.running(job_id, runs=2)
    (tmp_path / "end").touch()
    await fleet.succeeded()
    assert [run.attempt for run in fleet.ledger.read().runs_of(job_id)] == [1, 1]
    await fleet.close()


async def test_a_job_whose_worker_is_killed_while_it_aborts_it_does_not_run_again(fleet: Fleet):
    """It has swallowed the cancellation when its worker dies. Allowed: the job is over, as an abort leaves it; nothing else is lost."""
    (worker,) = await fleet.start_ready()
    job = await fleet.pool.enqueue_job("stubborn", 600.0, _job_id="aborted")
    assert job is not None
    await fleet.running("aborted")
    await fleet.in_flight("aborted")
    found = await abort_soon(fleet.tracker, "aborted", wait=1.0)
    assert found.outcome is AbortOutcome.GOES_ON
    worker.kill()
    await fleet.start_ready()
    after = await fleet.enqueue("hold", 0.1)
    info = await wait_until(job.result_info, timeout=60, description="the caller who awaits the job is told")
    assert info is not None
    assert (info.success, repr(info.result)) == (False, "CancelledError()")
    await fleet.succeeded(after)
    assert len(fleet.ledger.read().runs_of("aborted")) == 1
    assert await fleet.pool.zscore("arq:queue", "aborted") is None
    await fleet.pool.delete("arq:result:aborted")
    await fleet.close()
