"""What tracking adds to arq's jobs as people have them: of any length, beside a Redis that is near or a millisecond away."""

import statistics
from typing import Any

from benchmarks.ground import Ground
from benchmarks.medians import estimate
from benchmarks.processes import NAMESPACE, QUEUE, measure, shuffled
from benchmarks.report import Table
from benchmarks.size import Size
from benchmarks.worker import POLL_SECONDS, Load

WAYS = ("untracked", "control", "tracked")
ALLOWED_SHARE, ALLOWED_US = 0.03, 15.0
"""What tracking may add to the processor time of a job, beside 0.2 % of a core."""
_ALLOWED_IDLE_US_PER_SECOND = 2_000.0

Cell = tuple[float, float, int]
"""Length of the jobs and distance of Redis in seconds, and slots."""
Rounds = dict[str, list[dict[str, Any]]]


def run(ground: Ground, size: Size) -> tuple[Table, dict[str, Any]]:
    """Measure every cell of the grid, in interleaved rounds. Returns the table and the data behind it."""
    cells = [(job_ms / 1000, far_ms / 1000, slots) for slots in size.slots for far_ms in size.far_ms for job_ms in size.job_ms]
    found = {cell: _rounds(ground, size, cell) for cell in cells}
    data = {f"{job * 1000:g} ms, {away * 1000:g} ms away, {slots} slots": rounds for (job, away, slots), rounds in found.items()}
    return _table(found, size), data


def _rounds(ground: Ground, size: Size, cell: Cell) -> Rounds:
    job_seconds, far_seconds, slots = cell
    a_second = slots / (job_seconds + 8 * far_seconds + 0.0005)  # arq's own six round trips, and some
    jobs = max(min(int(a_second * size.grid_seconds), size.jobs), slots)
    rounds: Rounds = {way: [] for way in WAYS}
    for number in range(size.grid_rounds):
        for way in shuffled(WAYS, number):
            load = Load(
                way=way,
                url=ground.named_url or ground.url,
                counters_url=ground.url,
                queue=QUEUE,
                namespace=NAMESPACE,
                max_jobs=slots,
                warmup=min(size.warmup, slots),
                jobs=jobs,
                job_seconds=job_seconds,
                far_seconds=far_seconds,
            )
            found = measure(ground, load)
            rounds[way].append({name: found[name] for name in ("jobs_per_second", "cpu_us_per_job", "calls_per_job")})
    return rounds


def allowed_us(alone_us: float, jobs_per_second: float) -> float:
    """Tell how much processor time per job tracking may add, in µs.

    >>> round(allowed_us(1_000.0, 200.0)), round(allowed_us(300.0, 3_000.0), 1)
    (55, 24.7)
    """
    return alone_us * ALLOWED_SHARE + ALLOWED_US + _ALLOWED_IDLE_US_PER_SECOND / jobs_per_second


def _table(found: dict[Cell, Rounds], size: Size) -> Table:
    rows = []
    for (job_seconds, far_seconds, slots), rounds in found.items():
        pairs = list(zip(rounds["tracked"], rounds["untracked"], strict=True))
        pace = estimate([mine["jobs_per_second"] / theirs["jobs_per_second"] for mine, theirs in pairs])
        twice = zip(rounds["control"], rounds["untracked"], strict=True)
        noise = estimate([mine["jobs_per_second"] / theirs["jobs_per_second"] for mine, theirs in twice])
        added = estimate([mine["cpu_us_per_job"] - theirs["cpu_us_per_job"] for mine, theirs in pairs])
        alone_us = statistics.median(each["cpu_us_per_job"] for each in rounds["untracked"])
        a_second = statistics.median(each["jobs_per_second"] for each in rounds["untracked"])
        rows.append(
            [
                f"{job_seconds * 1000:g} ms, Redis {far_seconds * 1000:g} ms away, {slots} slots",
                f"{a_second:,.0f}",
                f"{pace.median:.3f} ({pace.low:.3f} to {pace.high:.3f})",
                f"{noise.median:.3f}",
                f"{alone_us:.0f}",
                f"{added.median:+.0f} ({added.low:+.0f} to {added.high:+.0f})",
                f"{allowed_us(alone_us, a_second):.0f}",
            ]
        )
    return Table(
        title=f"arq's jobs of any length, all slots full, poll_delay {POLL_SECONDS * 1000:g} ms, {size.grid_rounds} interleaved rounds",
        columns=["jobs", "jobs/s alone", "pace", "alone twice", "CPU us/job alone", "added", "goal"],
        rows=rows,
    )
