"""The main act: a busy worker is killed, and everything that follows gets its time."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from async_tracker.cli.demo.crews import Crew
from async_tracker.cli.demo.ledger import Run
from async_tracker.cli.demo.screen import Screen
from async_tracker.cli.demo.stage import Stage, Worker
from async_tracker.cli.wording import shown
from async_tracker.errors import TrackerError
from async_tracker.queries.wording import counted, duration
from async_tracker.records import Event

_BUSY_JOBS = 2
_BUSY_TIMEOUT = 10.0
_REPLAY_TIMEOUT = 60.0
_POLL_INTERVAL = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of one job that the killed worker had in hand. Seconds after the kill; None: not within the time of the demo."""

    job_id: str
    recovered_after: float | None
    running_after: float | None
    running_on: str | None
    attempt: int | None
    alone: float | None
    """For how long its claim would have stood: then, and not before, its library would have run it again by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """The kill and what followed."""

    victim: str
    victim_pid: int
    library: str
    noticed_after: float | None
    reason: str
    fates: tuple[Fate, ...]


@dataclass(slots=True)
class Witness:
    """Follows the events and notes when each was heard."""

    stage: Stage
    heard: list[tuple[float, Event]] = field(default_factory=list)

    async def follow(self) -> None:
        """Listen for ever."""
        async for event in self.stage.tracker.events("0-0"):
            self.heard.append((time.monotonic(), event))

    def first(self, matches: Callable[[Event], bool]) -> tuple[float, Event] | None:
        """When and as what a matching event was first heard."""
        return next(((at, event) for at, event in self.heard if matches(event)), None)


async def kill_one(stage: Stage, screen: Screen, witness: Witness, crew: Crew) -> Act:
    """Kill the busiest worker of a library with SIGKILL and wait until its jobs run again."""
    victim = await _busy_worker(stage, crew)
    victim.hold_still()  # so that the claims that are read are those of the jobs that are cut off
    claims = await _claims(stage, crew, stage.ledger.read().in_hand(victim.pid))
    killed_at = time.monotonic()
    victim.kill()
    stage.ledger.killed(victim.pid)
    cut = [run for run in stage.ledger.read().runs if run.pid == victim.pid and run.was_killed]
    screen.tell(f"KILLED {victim.name} (pid {victim.pid}) with SIGKILL, {counted(len(cut), 'job')} in hand", style="bold red")
    try:
        async with asyncio.timeout(_REPLAY_TIMEOUT):
            await _watch(stage, screen, witness, victim, cut, killed_at)
    except TimeoutError:
        screen.tell(f"not everything has happened within {_REPLAY_TIMEOUT:g} s", style="bold red")
    return _act(stage, witness, victim, cut, claims, killed_at)


async def _busy_worker(stage: Stage, crew: Crew) -> Worker:
    """Wait for a worker with jobs in hand; after a while one job is busy enough."""
    started_at = time.monotonic()
    while True:
        account = stage.ledger.read()
        crew_workers = [worker for worker in stage.workers if worker.crew is crew]
        busiest = max(crew_workers, key=lambda worker: len(account.in_hand(worker.pid)))
        in_hand, waited = len(account.in_hand(busiest.pid)), time.monotonic() - started_at
        if in_hand >= _BUSY_JOBS or (in_hand and waited > _BUSY_TIMEOUT / 2):
            return busiest
        if waited > _BUSY_TIMEOUT:
            raise TrackerError(f"no worker has taken a job for {_BUSY_TIMEOUT:g} s: is this machine overloaded?")
        await asyncio.sleep(_POLL_INTERVAL)


async def _claims(stage: Stage, crew: Crew, runs: list[Run]) -> dict[str, float]:
    """Read for how many seconds the library would leave these jobs alone."""
    async with stage.tracker.redis() as namespaced:
        return await crew.alone(namespaced.redis, [run.job_id for run in runs])


def _is_death_of(stage: Stage, victim: Worker) -> Callable[[Event], bool]:
    # The label stands in front of the id: label:pid:nonce.
    return lambda event: event.type == "instance_dead" and (event.instance_id or "").startswith(f"{victim.name}:{victim.pid}:")


def _is_recovery_of(job_id: str) -> Callable[[Event], bool]:
    return lambda event: event.type == "recovered" and event.job_id == job_id


async def _watch(stage: Stage, screen: Screen, witness: Witness, victim: Worker, cut: list[Run], killed_at: float) -> None:
    """Tell each thing when it happens, until every job that was cut runs again."""
    said: set[str] = set()

    def once(key: str, line: str, style: str) -> None:
        if key not in said:
            said.add(key)
            screen.tell(line, style=style)

    while len(said) < 1 + 2 * len(cut):
        account = stage.ledger.read()
        death = witness.first(_is_death_of(stage, victim))
        if death is not None:
            why = shown(str(death[1].details.get("reason", "")))
            once("death", f"NOTICED after {duration(death[0] - killed_at)}: {why}", "bold yellow")
        for run in cut:
            recovery = witness.first(_is_recovery_of(run.job_id))
            if recovery is not None:
                once(f"recovered {run.job_id}", f"RECOVERED {run.job_id} after {duration(recovery[0] - killed_at)}", "green")
            again = account.again(run)
            if again is not None:
                where, after = stage.name_of(again.pid), duration(again.started_at - killed_at)
                once(f"again {run.job_id}", f"RUNNING AGAIN {run.job_id} on {where} after {after}, try {again.attempt}", "bold green")
        await asyncio.sleep(_POLL_INTERVAL)


def _act(stage: Stage, witness: Witness, victim: Worker, cut: list[Run], claims: Mapping[str, float], killed_at: float) -> Act:
    account = stage.ledger.read()
    death = witness.first(_is_death_of(stage, victim))
    fates = []
    for run in cut:
        recovery, again = witness.first(_is_recovery_of(run.job_id)), account.again(run)
        fates.append(
            Fate(
                job_id=run.job_id,
                recovered_after=recovery[0] - killed_at if recovery is not None else None,
                running_after=again.started_at - killed_at if again is not None else None,
                running_on=stage.name_of(again.pid) if again is not None else None,
                attempt=again.attempt if again is not None else None,
                alone=claims.get(run.job_id),
            )
        )
    return Act(
        victim=victim.name,
        victim_pid=victim.pid,
        library=victim.crew.library,
        noticed_after=death[0] - killed_at if death is not None else None,
        reason=str(death[1].details.get("reason", "")) if death is not None else "",
        fates=tuple(fates),
    )
