"""kill -9 of a random worker, the sweeper among them, until another runs its jobs; beside what arq alone would have taken."""

import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import redis.asyncio
from arq.connections import ArqRedis

from async_tracker import Instance, InstanceState, Tracker
from benchmarks import hardships
from benchmarks.crowd import CROWD_PID, Process, crowd_beside
from benchmarks.ground import Ground
from benchmarks.medians import quantile
from benchmarks.probes import probes
from benchmarks.processes import NAMESPACE, QUEUE
from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.size import Size
from benchmarks.victim import Orders
from benchmarks.victims import Log, wait, workers

GOAL_SECONDS = 3.0

_LONG_SECONDS = (1.0, 10.0)
_SHORT_SECONDS = (0.001, 0.05)
_FEED_SECONDS = 0.25
_LONG_SHARE = 0.35  # about eight long jobs in flight: far below the thirty slots, so that one is always free
_SEED = 4


class Victim(StrEnum):
    """Which worker is killed."""

    ANY = "any"
    SWEEPER = "the sweeper"
    ANOTHER = "another"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Workers of which one after the other is killed, as long as there are ``victims``, and what else there is."""

    workers: int
    beside: int = 0
    """So many instances that are registered, beat, look and sweep as well."""
    is_probed: bool = False
    """Each instance is asked for by ``check`` every ten seconds, so that connections come and go all the time."""
    victims: tuple[Victim, ...]

    @property
    def instances(self) -> int:
        """How many there are in all."""
        return self.workers + self.beside


def scenes(size: Size) -> list[Scene]:
    """Give the scenes of a size: few workers, more of them, and three workers in fleets that grow."""
    both = (Victim.SWEEPER, Victim.ANOTHER)
    few, *more = size.recovering_workers
    found = [Scene(workers=few, victims=(Victim.ANY,) * size.kills)]
    found += [Scene(workers=workers, victims=(Victim.SWEEPER,) * size.kills_of_sweepers) for workers in (few, *more)]
    found += [Scene(workers=workers, victims=(Victim.ANY,) * size.kills_of_sweepers) for workers in more]
    for instances in size.recovering_fleets:
        for is_probed in size.recovering_probed:
            victims = tuple(both[number % 2] for number in range(size.kills_in_fleets))
            found.append(Scene(workers=few, beside=instances - few, is_probed=is_probed, victims=victims))
    return [scene for scene in found if scene.victims]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill: for each job that the worker had in hand, when another ran it, and what arq alone would have waited for at least."""

    instances: int
    is_probed: bool
    was_sweeper: bool
    seconds: tuple[float, ...]
    arq_alone_seconds: tuple[float, ...]
    set_aside: int
    """Jobs under which a worker had died before: those are delayed on purpose."""


def run(ground: Ground, size: Size) -> Report:
    """Kill as often as the size says."""
    ground.empty()
    account = Account()
    with tempfile.TemporaryDirectory(prefix="async-tracker-bench-") as folder:
        for number, scene in enumerate(scenes(size)):
            ground.empty()
            log = Log(Path(folder, f"log-{number}"))
            log.path.touch()
            asyncio.run(_play(ground, scene, log, account))
            account.robbed += len(log.robbed)
            account.doubled += len(log.doubled)
        ground.empty()
        found = asyncio.run(hardships.suffer(ground, Path(folder))) if size.hardships else []
    kills = account.kills
    seconds = [second for kill in kills for second in kill.seconds]
    alone = [second for kill in kills for second in kill.arq_alone_seconds]
    counts = {"lost": account.lost, "put_off": account.put_off, "robbed": account.robbed, "doubled": account.doubled}
    return Report(
        name="recovery",
        title="kill -9 of a worker until another runs its jobs",
        meaning=_meaning(kills, seconds, alone, counts),
        tables=[_table(kills, alone), _table_by_fleet(kills), *([hardships.table(found)] if found else [])],
        charts=[_chart(seconds, alone)],
        data={
            "kills": [dataclasses.asdict(kill) for kill in kills],
            **counts,
            "hardships": [dataclasses.asdict(hardship) for hardship in found],
        },
    )


@dataclass(slots=True)
class Account:
    """What became of all that was killed."""

    kills: list[Kill] = field(default_factory=list)
    lost: int = 0
    put_off: int = 0
    robbed: int = 0
    doubled: int = 0


async def _play(ground: Ground, scene: Scene, log: Log, account: Account) -> None:
    """Kill the victims of a scene, one after the other."""
    pool = ArqRedis(redis.asyncio.ConnectionPool.from_url(ground.url), default_queue_name=QUEUE)
    orders = Orders(url=ground.url, queue=QUEUE, namespace=NAMESPACE, log_path=str(log.path))
    choose = random.Random(_SEED)
    enqueued: list[str] = []
    with _around(ground, scene) as crowd, workers(orders) as start:
        for _ in range(scene.workers):
            start()
        feeding = asyncio.create_task(_feed(pool, choose, enqueued, workers=scene.workers))
        async with Tracker(namespace=NAMESPACE, redis=pool) as tracker:
            stage = Stage(scene=scene, tracker=tracker, pool=pool, log=log, choose=choose, crowd=crowd)
            for victim in scene.victims:
                account.kills.append(await stage.kill_one(victim))
                start()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        lost, put_off = await _count_lost(pool, log, enqueued)
        account.lost += lost
        account.put_off += put_off
    await pool.aclose(close_connection_pool=True)


@contextlib.contextmanager
def _around(ground: Ground, scene: Scene) -> Iterator[Process | None]:
    """Have the other instances of a scene there, and the probes."""
    with contextlib.ExitStack() as stack:
        crowd = None
        if scene.beside:
            crowd = stack.enter_context(crowd_beside(ground.url, instances=scene.beside, beside=scene.workers))
        if scene.is_probed:
            stack.enter_context(probes(ground.url, instances=scene.instances))
        yield crowd


async def _feed(pool: ArqRedis, choose: random.Random, enqueued: list[str], *, workers: int) -> None:
    """Keep the workers busy with short and long jobs, and a slot free."""
    while True:
        for _ in range(4):
            await _enqueue(pool, choose.uniform(*_SHORT_SECONDS), enqueued)
        if choose.random() < _LONG_SHARE:
            await _enqueue(pool, choose.uniform(*_LONG_SECONDS), enqueued)
        await asyncio.sleep(_FEED_SECONDS * 3 / workers)


async def _enqueue(pool: ArqRedis, seconds: float, enqueued: list[str]) -> None:
    job = await pool.enqueue_job("take", seconds)
    if job is not None:
        enqueued.append(job.job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a kill needs."""

    scene: Scene
    tracker: Tracker
    pool: ArqRedis
    log: Log
    choose: random.Random
    crowd: Process | None

    async def kill_one(self, which: Victim) -> Kill:
        """Wait until all is well, kill a worker that has a job in hand, and wait until another runs what it had."""
        log = self.log
        await wait(self._all_alive, f"{self.scene.workers} workers are alive")
        if which is Victim.SWEEPER and self.crowd is not None:
            self.crowd.leave_the_sweeps()
            await wait(self._sweeper, "a real worker sweeps")
            self.crowd.take_part()
        await asyncio.sleep(self.choose.uniform(0.0, 1.0))  # anywhere between two beats and two sweeps
        victim, sweeper = await wait(lambda: self._victim(which), "a worker that may be killed has a job in hand that was never killed")
        killed_ns = time.monotonic_ns()
        os.kill(victim.pid, signal.SIGKILL)
        log.killed.add(victim.pid)
        log.read()
        in_hand = log.in_hand(victim.pid)
        fresh = [job_id for job_id in in_hand if len(log.starts[job_id]) == 1]
        left_ms = [await self.pool.pttl(f"arq:in-progress:{job_id}") for job_id in fresh]
        seconds = [await _rerun(log, job_id, victim.pid, killed_ns) for job_id in fresh]
        return Kill(
            instances=self.scene.instances,
            is_probed=self.scene.is_probed,
            was_sweeper=victim.instance_id == sweeper,
            seconds=tuple(seconds),
            arq_alone_seconds=tuple(max(left, 0) / 1000.0 for left in left_ms),
            set_aside=len(in_hand) - len(fresh),
        )

    async def _workers(self) -> list[Instance]:
        """Ask for the real workers: these alone have a pid that wrote to the log, or will; the crowd's are of another host but one."""
        return [instance for instance in await self.tracker.instances_here() if instance.pid != CROWD_PID]

    async def _all_alive(self) -> bool:
        found = await self._workers()
        return sum(instance.state is InstanceState.ALIVE for instance in found) == self.scene.workers == len(found)

    async def _sweeper(self) -> str | None:
        """Give the id of the real worker that sweeps; None while none does."""
        held_by = (await self.pool.get(f"{NAMESPACE}:lease:sweep:arq") or b"").decode().split(" ")[0]
        return held_by if any(instance.instance_id == held_by for instance in await self._workers()) else None

    async def _victim(self, which: Victim) -> tuple[Instance, str | None] | None:
        """Choose a worker with a fresh job in hand, and tell which real one sweeps; None while there is no such victim."""
        found, sweeper = await self._workers(), await self._sweeper()
        self.log.read()
        fits: Callable[[Instance], bool] = {
            Victim.ANY: lambda instance: True,
            Victim.SWEEPER: lambda instance: instance.instance_id == sweeper,
            Victim.ANOTHER: lambda instance: instance.instance_id != sweeper,
        }[which]
        may_be = [instance for instance in found if fits(instance)]
        if not may_be:
            return None
        victim = self.choose.choice(may_be)
        is_busy = any(len(self.log.starts[job_id]) == 1 for job_id in self.log.in_hand(victim.pid))
        return (victim, sweeper) if is_busy else None


async def _rerun(log: Log, job_id: str, pid: int, killed_ns: int) -> float:
    async def started() -> int | None:
        log.read()
        return log.started_elsewhere(job_id, pid, after_ns=killed_ns)

    at_ns: int = await wait(started, f"another worker runs job {job_id}")
    return (at_ns - killed_ns) / 1e9


async def _count_lost(pool: ArqRedis, log: Log, enqueued: list[str]) -> tuple[int, int]:
    """Give the jobs that nobody has run to its end and nobody ever will, and those that are put off until later."""

    async def left() -> dict[str, float | None]:
        log.read()
        return {job_id: await pool.zscore(QUEUE, job_id) for job_id in set(enqueued) - log.ends.keys()}

    async def all_is_told() -> bool:
        now_ms = time.time() * 1000.0
        return all(due_ms is not None and due_ms > now_ms for due_ms in (await left()).values())

    with contextlib.suppress(TimeoutError):
        await wait(all_is_told, "every job has ended, or is put off")
    waiting = await left()
    lost = sum(due_ms is None for due_ms in waiting.values())
    return lost, len(waiting) - lost


def _table(kills: list[Kill], alone: list[float]) -> Table:
    groups = {
        "any worker": kills,
        "the sweeper": [kill for kill in kills if kill.was_sweeper],
        "another": [kill for kill in kills if not kill.was_sweeper],
    }
    rows = [_row(f"killed: {name}", [s for kill in chosen for s in kill.seconds], len(chosen)) for name, chosen in groups.items() if chosen]
    rows.append(_row("arq alone, at least (what its claims had left)", alone, len(kills)))
    return Table(
        title="Seconds from SIGKILL until another worker runs the job, default settings",
        columns=["what", "kills", "jobs", "p50", "p99", "most"],
        rows=rows,
    )


def _table_by_fleet(kills: list[Kill]) -> Table:
    """Lay out the same kills by how many instances there were, the sweeper's by themselves."""
    cells = sorted({(kill.instances, kill.is_probed, not kill.was_sweeper) for kill in kills})
    rows = []
    for instances, is_probed, is_another in cells:
        chosen = [kill for kill in kills if (kill.instances, kill.is_probed, not kill.was_sweeper) == (instances, is_probed, is_another)]
        name = f"{instances:,}, {'each probed every 10 s' if is_probed else 'no probes'}: {'another' if is_another else 'the sweeper'}"
        rows.append(_row(name, [second for kill in chosen for second in kill.seconds], len(chosen)))
    return Table(title="The same by instances", columns=["instances, and who was killed", "kills", "jobs", "p50", "p99", "most"], rows=rows)


def _row(name: str, seconds: list[float], kills: int) -> list[str]:
    return [
        name,
        str(kills),
        str(len(seconds)),
        f"{statistics.median(seconds):.2f}",
        f"{quantile(seconds, 0.99):.2f}",
        f"{max(seconds):.2f}",
    ]


def _meaning(kills: list[Kill], seconds: list[float], alone: list[float], counts: dict[str, int]) -> list[str]:
    p99 = quantile(seconds, 0.99)
    set_aside = sum(kill.set_aside for kill in kills)
    of_sweepers = sum(kill.was_sweeper for kill in kills)
    return [
        f"Of {len(kills)} killed workers, {of_sweepers or 'none'} of them the sweeper{'' if of_sweepers else ' (its death is not shown)'}, "
        f"the {len(seconds)} jobs in hand "
        f"ran again after {statistics.median(seconds):.1f} s in the median and {p99:.1f} s at p99 (goal {GOAL_SECONDS:.0f} s: "
        f"{'reached' if p99 <= GOAL_SECONDS else 'missed'}). {counts['lost']} jobs were lost, {counts['robbed']} robbed of a live worker, "
        f"{counts['doubled']} run twice to their end: killed before arq could write that down. arq alone would have waited for another "
        f"{statistics.median(alone):.0f} s, the rest of its claims' lifetime. "
        f"({set_aside} times a job was killed that had been killed before: such are delayed on purpose, and not counted here; "
        f"{counts['put_off']} of these jobs waited for their time at the end.)",
        "The gem looks for orphans five seconds after a process starts, while the dead one's heartbeat of 45 s still stands, and once more "
        "after 300 s: about 305 s after a start, else never.",
    ]


def _chart(seconds: list[float], alone: list[float]) -> Chart:
    bars = [
        Bar(label=label, value=statistics.median(found), low=min(found), high=quantile(found, 0.99))
        for label, found in (("tracked", seconds), ("arq alone", alone))
    ]
    return Chart(title="Until another worker runs the jobs: least, median, p99", axis="seconds", bars=bars, goal=GOAL_SECONDS, is_log=True)
