"""What tracking adds to jobs as people have them: of any length, many or few, with a Redis that is near or a millisecond away."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from async_tracker.embedded import end_with_parent
from benchmarks import dramatiq_worker
from benchmarks.budget import rounds as rounds_within
from benchmarks.budget import share
from benchmarks.ground import ROOT, Ground
from benchmarks.medians import Estimate, estimate
from benchmarks.processes import NAMESPACE, QUEUE, measure, shuffled
from benchmarks.report import HeatMap, Report, Table
from benchmarks.size import Size
from benchmarks.worker import POLL_SECONDS, Load

WAYS = ("untracked", "control", "tracked")
ALLOWED_SHARE = 0.03
ALLOWED_US = {"arq": 15.0, "dramatiq": 50.0}
"""What tracking may add to the processor time of a job, beside 0.2 % of a core."""
PACE_GOAL = {"arq": 0.97, "dramatiq": 0.93}
_ALLOWED_IDLE_US_PER_SECOND = 2_000.0
_OFFERED_JOB_SECONDS = 0.01
_OFFERED_SLOTS = 10
_SLOWEST_JOBS = 30
"""Jobs of a round at the lowest rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a worker does: the length of its jobs and the distance of Redis in ms; and how many become due a second, 0 for all at once."""

    library: str
    job_ms: float
    far_ms: float
    slots: int
    per_second: float = 0.0

    @property
    def name(self) -> str:
        """What the table calls it."""
        slots = f"{self.slots} {'threads' if self.library == 'dramatiq' else 'slots'}"
        offered = f", {self.per_second:g} a second" if self.per_second else ""
        return f"{self.job_ms:g} ms, Redis {self.far_ms:g} ms away, {slots}{offered}"


NAMED = (
    Cell(library="arq", job_ms=0, far_ms=0, slots=10),
    Cell(library="arq", job_ms=10, far_ms=0, slots=10),
    Cell(library="arq", job_ms=100, far_ms=0, slots=10),
    Cell(library="arq", job_ms=10, far_ms=1, slots=10),
    Cell(library="arq", job_ms=30, far_ms=1, slots=10),
    Cell(library="arq", job_ms=10, far_ms=0, slots=10, per_second=20),
    Cell(library="dramatiq", job_ms=0, far_ms=0, slots=1),
    Cell(library="dramatiq", job_ms=0, far_ms=0, slots=8),
    Cell(library="dramatiq", job_ms=10, far_ms=0, slots=1),
    Cell(library="dramatiq", job_ms=10, far_ms=0, slots=8),
)
"""What is measured where there is no time for all: jobs as most people have them, and the ends of the scale."""

DURABLE_WAYS = ("untracked", "durable", "gem")
DURABLE_CELLS = tuple(cell for cell in NAMED if cell.library == "arq" and cell.job_ms <= 10 and not cell.per_second)
"""Where jobs that wait until their start is written are set against the gem's way, which writes start and end while the job waits."""

_IDLE_PART, _DURABLE_PART = 0.2, 0.15
"""How much of the time is for workers that have nothing to do, and for those whose jobs wait for their start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was measured of a cell, as estimates over its rounds; processor time in us per job."""

    cell: Cell
    per_second: float
    alone_us: float
    pace: Estimate
    noise: Estimate
    added: Estimate
    added_again: Estimate
    """What the worker alone, measured a second time, took more than the first time."""

    @property
    def allowed_us(self) -> float:
        """How much tracking may add here."""
        return allowed_us(self.alone_us, self.per_second, library=self.cell.library)


def cells(size: Size) -> tuple[Cell, ...]:
    """Give the cells that are measured: those of arq that are full, those at a rate, those of dramatiq.

    >>> from benchmarks.size import FULL, MIDDLE
    >>> len(cells(FULL)), len(cells(MIDDLE)), set(cells(MIDDLE)) <= set(cells(FULL))
    (58, 10, True)
    """
    if size.only_named_cells:
        return NAMED
    full = [Cell(library="arq", job_ms=ms, far_ms=far, slots=slots) for slots in size.slots for far in size.far_ms for ms in size.job_ms]
    offered = [
        Cell(library="arq", job_ms=_OFFERED_JOB_SECONDS * 1000, far_ms=far, slots=_OFFERED_SLOTS, per_second=rate)
        for far in size.far_ms
        for rate in size.rates
    ]
    threads = [
        Cell(library="dramatiq", job_ms=ms, far_ms=far, slots=count)
        for count in size.threads
        for far in size.far_ms
        for ms in size.message_ms
    ]
    return (*full, *offered, *threads)


def run(ground: Ground, size: Size, *, seconds: float | None = None) -> Report:
    """Measure every cell of the grid, in interleaved rounds, and a worker that has nothing to do. Ends after ``seconds``, if given."""
    rounds = _rounds(ground, size, cells(size), WAYS, seconds=share(seconds, 1 - _IDLE_PART - _DURABLE_PART))
    found = [_found(cell, of_cell) for cell, of_cell in rounds.items()]
    by_library = {library: [each for each in found if each.cell.library == library] for library in ALLOWED_US}
    durable = _rounds(ground, size, DURABLE_CELLS, DURABLE_WAYS, seconds=share(seconds, _DURABLE_PART))
    idle = _idle_rounds(ground, size, seconds=share(seconds, _IDLE_PART))
    return Report(
        name="jobs",
        title="what tracking adds to jobs of any length",
        meaning=_meaning(found),
        tables=[*(_table(library, of) for library, of in by_library.items() if of), _durable_table(durable), _idle_table(idle)],
        heat_maps=[_heat_map(library, full) for library, of in by_library.items() if (full := _full(of))],
        data={
            "cells": {f"{cell.library}: {cell.name}": of_cell for cell, of_cell in rounds.items()},
            "durable": {cell.name: of_cell for cell, of_cell in durable.items()},
            "idle": idle,
        },
    )


def _rounds(
    ground: Ground, size: Size, measured: Sequence[Cell], ways: Sequence[str], *, seconds: float | None
) -> dict[Cell, dict[str, list[dict[str, Any]]]]:
    """Measure all cells in each round, so that one that is cut short by the time has measured each of them as often."""
    rounds: dict[Cell, dict[str, list[dict[str, Any]]]] = {cell: {way: [] for way in ways} for cell in measured}
    for number in rounds_within(size.grid_rounds, seconds=seconds):
        for cell, of_cell in rounds.items():
            make = _dramatiq_load if cell.library == "dramatiq" else _arq_load
            for way in shuffled(ways, number):
                found = measure(ground, make(ground, size, cell, way))
                of_cell[way].append({name: found[name] for name in ("jobs_per_second", "cpu_us_per_job", "calls_per_job")})
    return rounds


def _arq_load(ground: Ground, size: Size, cell: Cell, way: str) -> Load:
    seconds, far_seconds = cell.job_ms / 1000, cell.far_ms / 1000
    a_second = cell.per_second or cell.slots / (seconds + 8 * far_seconds + 0.0005)  # arq's own six round trips, and some
    least = min(_SLOWEST_JOBS, size.jobs) if cell.per_second else cell.slots
    return Load(
        way=way,
        url=ground.named_url or ground.url,
        counters_url=ground.url,
        queue=QUEUE,
        namespace=NAMESPACE,
        max_jobs=cell.slots,
        warmup=min(size.warmup, cell.slots),
        jobs=max(min(int(a_second * size.grid_seconds), size.jobs), least),
        job_seconds=seconds,
        far_seconds=far_seconds,
        per_second=cell.per_second,
    )


def _dramatiq_load(ground: Ground, size: Size, cell: Cell, way: str) -> dramatiq_worker.Load:
    seconds, far_seconds = cell.job_ms / 1000, cell.far_ms / 1000
    a_second = min(cell.slots / (seconds + 2 * far_seconds + 0.0005), 2_000)
    return dramatiq_worker.Load(
        way=way,
        url=ground.named_url or ground.url,
        counters_url=ground.url,
        namespace=NAMESPACE,
        threads=cell.slots,
        warmup=min(size.warmup, 4 * cell.slots),
        jobs=max(min(int(a_second * size.grid_seconds), size.jobs), cell.slots),
        job_seconds=seconds,
        far_seconds=far_seconds,
    )


def allowed_us(alone_us: float, jobs_per_second: float, *, library: str = "arq") -> float:
    """Tell how much processor time per job tracking may add, in us.

    >>> round(allowed_us(1_000.0, 200.0)), round(allowed_us(300.0, 3_000.0), 1), round(allowed_us(400.0, 500.0, library="dramatiq"))
    (55, 24.7, 66)
    """
    return alone_us * ALLOWED_SHARE + ALLOWED_US[library] + _ALLOWED_IDLE_US_PER_SECOND / jobs_per_second


def _found(cell: Cell, rounds: dict[str, list[dict[str, Any]]]) -> Found:
    pairs = list(zip(rounds["tracked"], rounds["untracked"], strict=True))
    twice = list(zip(rounds["control"], rounds["untracked"], strict=True))
    return Found(
        cell=cell,
        per_second=statistics.median(each["jobs_per_second"] for each in rounds["untracked"]),
        alone_us=statistics.median(each["cpu_us_per_job"] for each in rounds["untracked"]),
        pace=estimate([mine["jobs_per_second"] / theirs["jobs_per_second"] for mine, theirs in pairs]),
        noise=estimate([mine["jobs_per_second"] / theirs["jobs_per_second"] for mine, theirs in twice]),
        added=estimate([mine["cpu_us_per_job"] - theirs["cpu_us_per_job"] for mine, theirs in pairs]),
        added_again=estimate([mine["cpu_us_per_job"] - theirs["cpu_us_per_job"] for mine, theirs in twice]),
    )


def _table(library: str, found: Sequence[Found]) -> Table:
    poll = f", poll_delay {POLL_SECONDS * 1000:g} ms" if library == "arq" else ""
    count, coverage = found[0].added.rounds, found[0].added.coverage
    return Table(
        title=f"{library}'s jobs, {count} interleaved rounds{poll} (interval of the median: {coverage:.0%})",
        columns=["jobs", "jobs/s alone", "pace", "alone twice", "CPU us/job alone", "added", "alone twice", "goal"],
        rows=[
            [
                each.cell.name,
                f"{each.per_second:,.0f}",
                f"{each.pace.median:.3f} ({each.pace.low:.3f} to {each.pace.high:.3f})",
                f"{each.noise.median:.3f} ({each.noise.low:.3f} to {each.noise.high:.3f})",
                f"{each.alone_us:.0f}",
                f"{each.added.median:+.0f} ({each.added.low:+.0f} to {each.added.high:+.0f})",
                f"{each.added_again.median:+.0f} ({each.added_again.low:+.0f} to {each.added_again.high:+.0f})",
                f"{each.allowed_us:.0f}",
            ]
            for each in found
        ],
    )


def _durable_table(rounds: dict[Cell, dict[str, list[dict[str, Any]]]]) -> Table:
    rows = []
    for cell, of_cell in rounds.items():
        alone = of_cell["untracked"]
        row = [cell.name]
        for way in DURABLE_WAYS[1:]:
            pairs = list(zip(of_cell[way], alone, strict=True))
            pace = estimate([mine["jobs_per_second"] / theirs["jobs_per_second"] for mine, theirs in pairs])
            added = estimate([mine["cpu_us_per_job"] - theirs["cpu_us_per_job"] for mine, theirs in pairs])
            row.append(f"{pace.median:.3f} ({pace.low:.3f} to {pace.high:.3f})")
            row.append(f"{added.median:+.0f} ({added.low:+.0f} to {added.high:+.0f})")
        rows.append(row)
    return Table(
        title="Starts that jobs wait for, against the gem's way, which writes start and end while they wait: pace, and CPU us/job added",
        columns=["jobs", "durable: pace", "added", "the gem: pace", "added"],
        rows=rows,
    )


def _full(found: Sequence[Found]) -> list[Found]:
    """Give those that have all their jobs at once."""
    return [each for each in found if not each.cell.per_second]


def _heat_map(library: str, found: Sequence[Found]) -> HeatMap:
    lengths = sorted({each.cell.job_ms for each in found})
    rows = list(dict.fromkeys((each.cell.slots, each.cell.far_ms) for each in found))
    by_cell = {(each.cell.slots, each.cell.far_ms, each.cell.job_ms): each.added.median / each.allowed_us for each in found}
    unit = "threads" if library == "dramatiq" else "slots"
    return HeatMap(
        title=f"{library}: processor time added, in parts of what it may be",
        rows=[f"{slots} {unit}, {far:g} ms away" for slots, far in rows],
        columns=[f"{length:g} ms" for length in lengths],
        values=[[by_cell.get((slots, far, length)) for length in lengths] for slots, far in rows],
    )


def _meaning(found: Sequence[Found]) -> list[str]:
    within = sum(each.added.median <= each.allowed_us for each in found)
    quick = sum(each.pace.median >= PACE_GOAL[each.cell.library] for each in found)
    return [
        f"Tracking adds no more than its goal in {within} of {len(found)} cells, by the medians; the pace is as meant in {quick}.",
        "The goal is 3 % and 15 us (dramatiq: 50 us) a job and 0.2 % of a core. A distance is made by the clock: each reply is held back.",
        "What the machine itself varies by is seen in the worker alone against itself, and in the intervals.",
    ]


# a worker that has nothing to do

_IDLE_WAYS = ("untracked", "tracked")
_OTHERS = 19
_BESIDE = {
    "alone": ("asyncio", 0),
    f"a stand-by, one of {_OTHERS + 1}": ("arq", _OTHERS),
    f"the sweeper of {_OTHERS + 1}": ("asyncio", _OTHERS),
}
"""Which instances there are beside the worker that is measured, and how many."""


def _idle_rounds(ground: Ground, size: Size, *, seconds: float | None) -> dict[str, dict[str, list[float]]]:
    """Measure the share of a core that an arq worker takes which has nothing to do: by itself, as a stand-by, and as the sweeper."""
    found: dict[str, dict[str, list[float]]] = {name: {way: [] for way in _IDLE_WAYS} for name in _BESIDE}
    for number in rounds_within(max(size.grid_rounds // 2, 1), seconds=seconds):
        for name, (kind, count) in _BESIDE.items():
            for way in shuffled(_IDLE_WAYS, number):
                ground.empty()
                with _registered(ground, kind, count):
                    found[name][way].append(_idle(ground, way, seconds=size.idle_seconds))
    return found


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.idle", *arguments]


def _idle(ground: Ground, way: str, *, seconds: float) -> float:
    command = _command("worker", ground.named_url or ground.url, way, str(seconds))
    done = ground.run(command)
    done.check_returncode()
    return float(json.loads(done.stdout.splitlines()[-1]))


@contextmanager
def _registered(ground: Ground, kind: str, count: int) -> Iterator[None]:
    """Have so many instances beat beside, in a process of their own."""
    if not count:
        yield
        return
    command = _command("others", ground.named_url or ground.url, kind, str(count))
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent()
    ) as process:
        try:
            if process.stdout is not None:
                process.stdout.readline()
            yield
        finally:
            process.communicate()  # its input ends, and so does it


def _idle_table(idle: dict[str, dict[str, list[float]]]) -> Table:
    rows = []
    for name, ways in idle.items():
        alone, tracked = (estimate(ways[way]) for way in _IDLE_WAYS)
        added = estimate([mine - theirs for mine, theirs in zip(ways["tracked"], ways["untracked"], strict=True)])
        rows.append(
            [
                name,
                f"{alone.median:.2%}",
                f"{tracked.median:.2%}",
                f"{added.median:+.2%} ({added.low:+.2%} to {added.high:+.2%})",
                f"{_ALLOWED_IDLE_US_PER_SECOND / 1e6:.1%}",
            ]
        )
    columns = ["an arq worker that has nothing to do", "alone", "tracked", "added", "goal"]
    return Table(title="Share of a core without a job, arq's own poll_delay", columns=columns, rows=rows)
