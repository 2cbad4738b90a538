"""Pooled or dedicated: the tracker on the worker's own pool, or with a pool of its own, near, far away and with few connections.

A server is far away because each reply is held back by the clock, in the worker that waits for it: no process stands in between.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.budget import rounds as rounds_within
from benchmarks.budget import share
from benchmarks.far import ping_ms
from benchmarks.ground import Ground
from benchmarks.medians import Estimate, estimate, quantile
from benchmarks.processes import NAMESPACE, QUEUE, measure, shuffled
from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.size import Size
from benchmarks.worker import Load

WAYS = ("untracked", "control", "tracked", "dedicated")
POOL_LIMIT = 4

_NAMES = {"untracked": "arq alone", "control": "arq alone, again", "tracked": "pooled (shared)", "dedicated": "dedicated"}
_SLOTS = 10
_SURE = 0.9
"""From which coverage on an interval says anything."""
_JOB_SECONDS = 0.01
_MOST_JOBS = 1_000
_SLOW_JOBS, _FEWEST_JOBS = 400, 40
"""Jobs of a round at 1 ms and at the most latency: arq starts one after another, with four round trips each."""
_PACE_SECONDS = 0.002
_PACED_PART = 0.35

Rounds = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the worker stands: how far from its Redis, and with how many connections in its pool, if there is a limit."""

    name: str
    latency_ms: int
    pool_limit: int | None = None


def run(ground: Ground, size: Size) -> Report:
    """Measure all places; jobs last a few ms, so that each of them is written, as most real ones are."""
    places = [Place(name=f"{ms} ms" if ms else "near", latency_ms=ms) for ms in size.latencies_ms]
    limited = Place(name=f"near, pool of {POOL_LIMIT}", latency_ms=0, pool_limit=POOL_LIMIT)
    trips = {place.name: ping_ms(ground.url, place.latency_ms / 1000) for place in (*places, limited)}
    full, paced = _rounds(ground, size, (*places, limited)), _paced_rounds(ground, size, places)
    found = {place.name: (trips[place.name], full[place.name]) for place in (*places, limited)}
    return Report(
        name="connections",
        title="pooled (shared) against dedicated connections",
        meaning=_meaning(found),
        tables=[_table(found), _paced_table(paced)],
        charts=[_chart(found)],
        data={
            "places": {name: {"round_trip_ms": ms, "rounds": _kept(rounds)} for name, (ms, rounds) in found.items()},
            "one_at_a_time": {name: _kept(rounds) for name, rounds in paced.items()},
        },
    )


def _rounds(ground: Ground, size: Size, places: Sequence[Place]) -> dict[str, Rounds]:
    found: dict[str, Rounds] = {place.name: {way: [] for way in WAYS} for place in places}
    for number in rounds_within(size.latency_rounds, seconds=share(size.seconds, 1 - _PACED_PART)):
        for place in places:
            far = max(_SLOW_JOBS // place.latency_ms, _FEWEST_JOBS) if place.latency_ms else _MOST_JOBS
            jobs = min(size.jobs, far)
            for way in shuffled(WAYS, number):
                load = _load(ground, way, place, slots=_SLOTS, jobs=jobs, warmup=min(size.warmup, jobs // 2), job_seconds=_JOB_SECONDS)
                found[place.name][way].append(measure(ground, load))
    return found


def _paced_rounds(ground: Ground, size: Size, places: Sequence[Place]) -> dict[str, Rounds]:
    """One job at a time: what it waits for tracking where no other is in its way."""
    found: dict[str, Rounds] = {place.name: {way: [] for way in WAYS} for place in places}
    for number in rounds_within(size.latency_rounds, seconds=share(size.seconds, _PACED_PART)):
        for place in places:
            jobs = max(size.paced_jobs // max(place.latency_ms, 1), 1)
            for way in shuffled(WAYS, number):
                load = _load(ground, way, place, slots=1, jobs=jobs, warmup=max(jobs // 2, 1), job_seconds=_PACE_SECONDS)
                found[place.name][way].append(measure(ground, load))
    return found


def _load(ground: Ground, way: str, place: Place, *, slots: int, jobs: int, warmup: int, job_seconds: float) -> Load:
    return Load(
        way=way,
        url=ground.url,
        counters_url=ground.url,
        queue=QUEUE,
        namespace=NAMESPACE,
        max_jobs=slots,
        warmup=warmup,
        jobs=jobs,
        pool_limit=place.pool_limit,
        counts_round_trips=True,
        job_seconds=job_seconds,
        far_seconds=place.latency_ms / 1000,
    )


def _median(found: Sequence[dict[str, Any]], what: str) -> float:
    return float(statistics.median(round_[what] for round_ in found))


def _ratio(rounds: Rounds, way: str) -> Estimate:
    pairs = zip(rounds[way], rounds["untracked"], strict=True)
    return estimate([mine["jobs_per_second"] / theirs["jobs_per_second"] for mine, theirs in pairs])


def _latency(found: Sequence[dict[str, Any]], share: float) -> float:
    return float(statistics.median(quantile(round_["service_ms"], share) for round_ in found))


def _table(found: dict[str, tuple[float, Rounds]]) -> Table:
    rows = []
    for place, (round_trip_ms, rounds) in found.items():
        for way, measured in rounds.items():
            ratio = _ratio(rounds, way)
            rows.append(
                [
                    f"{place} ({round_trip_ms:.2f} ms): {_NAMES[way]}",
                    f"{_median(measured, 'jobs_per_second'):,.0f}",
                    f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
                    f"{_latency(measured, 0.5):.1f}",
                    f"{_latency(measured, 0.99):.1f}",
                    f"{_median(measured, 'connections'):.0f}",
                    f"{_median(measured, 'round_trips_per_job'):.2f}",
                    f"{_median(measured, 'commands_per_job'):.1f}",
                ]
            )
    return Table(
        title=f"Jobs of {_JOB_SECONDS * 1000:.0f} ms, max_jobs = {_SLOTS}; the round trip in brackets is that of a PING",
        columns=["where: how", "jobs/s", "ratio", "p50 ms", "p99 ms", "connections", "round trips/job", "commands/job"],
        rows=rows,
    )


def _added_ms(rounds: Rounds, way: str, part: float) -> str:
    pairs = zip(rounds[way], rounds["untracked"], strict=True)
    added = estimate([quantile(mine["service_ms"], part) - quantile(theirs["service_ms"], part) for mine, theirs in pairs])
    return f"{added.median:+.2f} ({added.low:+.2f} to {added.high:+.2f})"


def _paced_table(found: dict[str, Rounds]) -> Table:
    rows = [
        [
            f"{place}: {_NAMES[way]}",
            f"{_latency(measured, 0.5):.2f}",
            _added_ms(rounds, way, 0.5),
            f"{_latency(measured, 0.99):.2f}",
            _added_ms(rounds, way, 0.99),
        ]
        for place, rounds in found.items()
        for way, measured in rounds.items()
    ]
    return Table(
        title=f"Latency: ms from claim to acknowledgement of a job of {_PACE_SECONDS * 1000:.0f} ms, one at a time",
        columns=["where: how", "p50", "added to p50", "p99", "added to p99"],
        rows=rows,
    )


def _meaning(found: dict[str, tuple[float, Rounds]]) -> list[str]:
    pooled = {place: _ratio(rounds, "tracked") for place, (_, rounds) in found.items()}
    dedicated = {place: _ratio(rounds, "dedicated") for place, (_, rounds) in found.items()}
    again = "; ".join(f"{place}: {_ratio(rounds, 'control').median:.3f}" for place, (_, rounds) in found.items())
    near = next(iter(found.values()))[1]
    own = {way: _median(near[way], "tracker_connections") for way in ("tracked", "dedicated")}
    compared = "; ".join(f"{place}: {pooled[place].median:.3f} and {dedicated[place].median:.3f}" for place in found)
    return [
        f"Throughput by that of arq alone, pooled and dedicated: {compared}. arq alone, measured twice: {again}. A server is "
        "far away because each reply is held back by the clock, in the worker that waits for it.",
        f"Of the connections of a worker {own['tracked']:.0f} is the tracker's where it shares the pool, and {own['dedicated']:.0f} where "
        "it has one of its own (arq's own number goes up and down with the jobs at hand); it is outside the pool's count in either case, "
        f"so a pool of few connections loses none of them to it. {which_is_faster(pooled, dedicated)} "
        "Memory per job in flight is the same either way: the same records are written.",
    ]


def which_is_faster(pooled: dict[str, Estimate], dedicated: dict[str, Estimate]) -> str:
    """Say where the intervals of the two lie apart: only there is one of them faster, and only if they mean something."""
    estimates = (*pooled.values(), *dedicated.values())
    coverage = min(found.coverage for found in estimates)
    if coverage < _SURE:
        return f"Which of the two is faster cannot be told from {min(found.rounds for found in estimates)} round(s) each."
    apart = []
    for place, one in pooled.items():
        other = dedicated[place]
        if one.low > other.high or other.low > one.high:
            apart.append(f"{'pooled' if one.median > other.median else 'dedicated'} at {place}")
    if apart:
        return f"The intervals ({coverage:.0%}) of the two lie apart where one is faster: {', '.join(apart)}."
    return (
        f"Nowhere do the intervals ({coverage:.0%}) of the two lie apart: take a dedicated Redis to keep the tracker's load and data "
        "apart, not for speed."
    )


def _kept(rounds: Rounds) -> dict[str, list[dict[str, Any]]]:
    return {way: [{name: value for name, value in one.items() if name != "service_ms"} for one in found] for way, found in rounds.items()}


def _chart(found: dict[str, tuple[float, Rounds]]) -> Chart:
    bars = []
    for place, (_, rounds) in found.items():
        for way in WAYS[1:]:
            ratio = _ratio(rounds, way)
            bars.append(Bar(label=f"{place}: {_NAMES[way]}", value=ratio.median, low=ratio.low, high=ratio.high))
    return Chart(title="Throughput against arq alone", axis="ratio", bars=bars, goal=1.0)
