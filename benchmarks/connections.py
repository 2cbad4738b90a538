"""Pooled or dedicated: the tracker on the worker's own pool, or with a pool of its own, near, far away and with few connections."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.ground import Ground
from benchmarks.latency import far_away
from benchmarks.medians import Estimate, estimate, quantile
from benchmarks.processes import NAMESPACE, QUEUE, measure, shuffled
from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.size import Size
from benchmarks.worker import Load

WAYS = ("untracked", "tracked", "dedicated")
POOL_LIMIT = 4

_NAMES = {"untracked": "arq alone", "tracked": "pooled (shared)", "dedicated": "dedicated"}
_SLOTS = 10
_SURE = 0.9
"""From which coverage on an interval says anything."""
_JOB_SECONDS = 0.01
_MOST_JOBS = 1_000
_SLOW_JOBS, _FEWEST_JOBS = 150, 40
"""Jobs of a round at 1 ms and at the most latency: arq starts one after another, with four round trips each."""

Rounds = dict[str, list[dict[str, Any]]]


def run(ground: Ground, size: Size) -> Report:
    """Measure all places; jobs last a few ms, so that each of them is written, as most real ones are."""
    places: list[tuple[str, int, int | None]] = [(f"{ms} ms" if ms else "near", ms, None) for ms in size.latencies_ms]
    places.append((f"near, pool of {POOL_LIMIT}", 0, POOL_LIMIT))
    found: dict[str, tuple[float, Rounds]] = {}
    for name, latency_ms, limit in places:
        with far_away(ground.url, latency_ms=latency_ms) as (url, round_trip_ms):
            found[name] = round_trip_ms, _rounds(ground, size, url=url, latency_ms=latency_ms, limit=limit)
    return Report(
        name="connections",
        title="pooled (shared) against dedicated connections",
        meaning=_meaning(found),
        tables=[_table(found)],
        charts=[_chart(found)],
        data={"places": {name: {"round_trip_ms": ms, "rounds": _kept(rounds)} for name, (ms, rounds) in found.items()}},
    )


def _rounds(ground: Ground, size: Size, *, url: str, latency_ms: int, limit: int | None) -> Rounds:
    jobs = min(size.jobs, max(_SLOW_JOBS // latency_ms, _FEWEST_JOBS) if latency_ms else _MOST_JOBS)
    rounds: Rounds = {way: [] for way in WAYS}
    for number in range(size.latency_rounds):
        for way in shuffled(WAYS, number):
            load = Load(
                way=way,
                url=url,
                counters_url=ground.url,
                queue=QUEUE,
                namespace=NAMESPACE,
                max_jobs=_SLOTS,
                warmup=min(size.warmup, jobs // 2),
                jobs=jobs,
                pool_limit=limit,
                counts_round_trips=True,
                job_seconds=_JOB_SECONDS,
            )
            rounds[way].append(measure(ground, load))
    return rounds


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


def _meaning(found: dict[str, tuple[float, Rounds]]) -> list[str]:
    pooled = {place: _ratio(rounds, "tracked") for place, (_, rounds) in found.items()}
    dedicated = {place: _ratio(rounds, "dedicated") for place, (_, rounds) in found.items()}
    near = next(iter(found.values()))[1]
    own = {way: _median(near[way], "tracker_connections") for way in ("tracked", "dedicated")}
    compared = "; ".join(f"{place}: {pooled[place].median:.3f} and {dedicated[place].median:.3f}" for place in found)
    return [
        f"Throughput by that of arq alone, pooled and dedicated: {compared}. Latency is put in by a proxy in Python through which every "
        "message of arq and of the tracker goes: far away the proxy's own work for the tracker's messages is part of what is measured.",
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
