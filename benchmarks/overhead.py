"""What tracking costs a worker: arq with and without it, no-op jobs, in interleaved rounds of real processes."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks import footprint, grid
from benchmarks.budget import rounds as rounds_within
from benchmarks.budget import share
from benchmarks.ground import Ground, place
from benchmarks.medians import Estimate, estimate, quantile
from benchmarks.processes import NAMESPACE, QUEUE, measure, shuffled
from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.size import Size
from benchmarks.worker import Load

WAYS = ("untracked", "control", "tracked", "durable", "gem")
GOAL = 0.97

_WAYS_ELSEWHERE = ("untracked", "control", "tracked")
"""Measured over the second way to the server as well: what is said of the others is the same there."""

_NAMES = {
    "untracked": "arq alone",
    "control": "arq alone, again",
    "tracked": "tracked (default)",
    "durable": "tracked (durable)",
    "gem": "the gem's way",
}
_PACE_SECONDS = 0.002
_ALONE = 1
_FAR_SECONDS = 0.001
LATENCY_GOALS_MS = {"p50": 0.03, "p99": 0.10}

_THROUGHPUT_PART, _PACED_PART, _GRID_PART = 0.2, 0.15, 0.6
"""How the time is shared out, where it is limited; the rest is for what is done once."""

Rounds = dict[str, list[dict[str, Any]]]
Setting = tuple[str, int]
"""Over what the server is reached, and with how many slots: each has its rounds."""
Distance = float
"""How many seconds each reply takes."""


def run(ground: Ground, size: Size) -> Report:
    """Measure throughput, processor time, commands, bytes, latency, memory and start-up."""
    rounds = _all_rounds(ground, size)
    counted = {
        way: measure(ground, _load(ground, way, slots=size.slots[0], jobs=size.jobs, warmup=size.warmup, counts=True)) for way in WAYS
    }
    timed = measure(ground, replace(_load(ground, "tracked", slots=size.slots[0], jobs=size.jobs, warmup=size.warmup), times_parts=True))
    paced = _paced_rounds(ground, size)
    jobs = grid.run(ground, size, seconds=share(size.seconds, _GRID_PART))
    memory = footprint.run(ground, size)
    return Report(
        name="overhead",
        title="what tracking costs a worker",
        meaning=[*_meaning(rounds, counted, paced), *jobs.meaning, *memory.meaning],
        tables=[
            *(_throughput_table(setting, found) for setting, found in rounds.items()),
            *jobs.tables,
            _parts_table(timed["parts_us_per_job"]),
            _counts_table(counted),
            *(_latency_table(far, found) for far, found in paced.items()),
            *memory.tables,
        ],
        charts=[_chart(setting, found) for setting, found in rounds.items()],
        heat_maps=jobs.heat_maps,
        data={
            "rounds": {f"{over}, {slots}": _kept(found) for (over, slots), found in rounds.items()},
            "parts_us_per_job": timed["parts_us_per_job"],
            "counted": {way: {**found, "service_ms": None} for way, found in counted.items()},
            "service_ms": {
                f"{far * 1000:g} ms away": {way: [_percentiles(found) for found in of_way] for way, of_way in rounds_there.items()}
                for far, rounds_there in paced.items()
            },
            **jobs.data,
            **memory.data,
        },
    )


def _load(
    ground: Ground,
    way: str,
    *,
    slots: int,
    jobs: int,
    warmup: int,
    url: str | None = None,
    counts: bool = False,
    pace: float = 0.0,
    far: Distance = 0.0,
) -> Load:
    return Load(
        way=way,
        url=url or ground.url,
        counters_url=ground.url,
        queue=QUEUE,
        namespace=NAMESPACE,
        max_jobs=slots,
        warmup=warmup,
        jobs=jobs,
        counts_round_trips=counts,
        job_seconds=pace,
        far_seconds=far,
    )


def _all_rounds(ground: Ground, size: Size) -> dict[Setting, Rounds]:
    """Measure throughput as workers reach their server as a rule, and over a unix socket, where a worker of arq's has the least to do."""
    ways = {ground.named_url: WAYS, ground.url: _WAYS_ELSEWHERE} if ground.named_url is not None else {ground.url: WAYS}
    found: dict[Setting, Rounds] = {(place(url), slots): {way: [] for way in ways[url]} for url in ways for slots in size.slots}
    for number in rounds_within(size.rounds, seconds=share(size.seconds, _THROUGHPUT_PART)):
        for url in ways:
            for slots in size.slots:
                for way in shuffled(ways[url], number):
                    load = _load(ground, way, url=url, slots=slots, jobs=size.jobs, warmup=size.warmup)
                    found[place(url), slots][way].append(measure(ground, load))
    return found


def _paced_rounds(ground: Ground, size: Size) -> dict[Distance, Rounds]:
    """One job at a time, each of a few ms: what a job waits for tracking where no other is in its way, near and far from Redis."""
    ways: dict[Distance, Sequence[str]] = {0.0: WAYS, _FAR_SECONDS: _WAYS_ELSEWHERE}
    found: dict[Distance, Rounds] = {far: {way: [] for way in ways[far]} for far in ways}
    jobs, warmup = size.paced_jobs, min(size.warmup, size.paced_jobs // 2)
    for number in rounds_within(max(size.rounds // 3, 1), seconds=share(size.seconds, _PACED_PART)):
        for far in ways:
            for way in shuffled(ways[far], number):
                load = _load(ground, way, slots=_ALONE, jobs=jobs, warmup=warmup, pace=_PACE_SECONDS, far=far)
                found[far][way].append(measure(ground, load))
    return found


def ratios(rounds: Rounds, way: str, *, of: str = "untracked", what: str = "jobs_per_second") -> Estimate:
    """Estimate the ratio of two ways, each round against the same round of the other."""
    return estimate([mine[what] / theirs[what] for mine, theirs in zip(rounds[way], rounds[of], strict=True)])


def _median(found: Sequence[dict[str, Any]], what: str) -> float:
    return float(statistics.median(round_[what] for round_ in found))


def _throughput_table(setting: Setting, rounds: Rounds) -> Table:
    over, slots = setting
    rows = []
    for way, found in rounds.items():
        ratio = ratios(rounds, way)
        added = _median(found, "cpu_us_per_job") - _median(rounds["untracked"], "cpu_us_per_job")
        rows.append(
            [
                _NAMES[way],
                f"{_median(found, 'jobs_per_second'):,.0f}",
                f"{ratio.median:.3f}",
                f"{ratio.low:.3f} to {ratio.high:.3f}",
                f"{_median(found, 'cpu_us_per_job'):.0f}",
                f"{added:+.0f}",
            ]
        )
    count, coverage = len(rounds["untracked"]), ratios(rounds, "untracked").coverage
    return Table(
        title=f"Throughput over {over}, max_jobs = {slots}, {count} interleaved rounds (interval of the median: {coverage:.0%})",
        columns=["way", "jobs/s", "ratio", "interval", "CPU us/job", "added"],
        rows=rows,
    )


def _parts_table(parts_us: dict[str, float]) -> Table:
    rows = [[label, f"{taken:.1f}"] for label, taken in sorted(parts_us.items(), key=lambda part: -part[1])]
    return Table(
        title="Timers around the parts of tracking in a worker at work, their own cost included; what they miss: see the architecture page",
        columns=["part", "us/job"],
        rows=[*rows, ["together", f"{sum(parts_us.values()):.1f}"]],
    )


def _counts_table(counted: dict[str, dict[str, Any]]) -> Table:
    columns = ["way", "round trips/job", "commands/job", "bytes/job", "connections"]
    return Table(
        title="Counted on the server and at the socket, per job",
        columns=columns,
        rows=[
            [
                _NAMES[way],
                f"{found['round_trips_per_job']:.3f}",
                f"{found['commands_per_job']:.2f}",
                f"{found['bytes_per_job']:,.0f}",
                str(found["connections"]),
            ]
            for way, found in counted.items()
        ],
    )


def _percentiles(found: dict[str, Any]) -> dict[str, float]:
    return {"p50": quantile(found["service_ms"], 0.5), "p99": quantile(found["service_ms"], 0.99)}


def added_latency(rounds: Rounds, way: str, share: str) -> Estimate:
    """Estimate what a way adds to a percentile of the time that a job occupies its worker, in ms."""
    pairs = zip(rounds[way], rounds["untracked"], strict=True)
    return estimate([_percentiles(mine)[share] - _percentiles(theirs)[share] for mine, theirs in pairs])


def _latency_table(far: Distance, rounds: Rounds) -> Table:
    rows = []
    for way, found in rounds.items():
        p50, p99 = added_latency(rounds, way, "p50"), added_latency(rounds, way, "p99")
        rows.append(
            [
                _NAMES[way],
                f"{statistics.median(_percentiles(round_)['p50'] for round_ in found):.2f}",
                f"{p50.median:+.2f} ({p50.low:+.2f} to {p50.high:+.2f})",
                f"{statistics.median(_percentiles(round_)['p99'] for round_ in found):.2f}",
                f"{p99.median:+.2f} ({p99.low:+.2f} to {p99.high:+.2f})",
            ]
        )
    where = f"Redis {far * 1000:g} ms away" if far else "Redis near"
    goals = ", ".join(f"{goal:.2f} to {name}" for name, goal in LATENCY_GOALS_MS.items())
    return Table(
        title=f"Latency: ms from claim to acknowledgement of a job of {_PACE_SECONDS * 1000:.0f} ms, one at a time, {where} "
        f"({len(rounds['untracked'])} rounds; goal: {goals})",
        columns=["way", "p50", "added to p50", "p99", "added to p99"],
        rows=rows,
    )


def _meaning(rounds: dict[Setting, Rounds], counted: dict[str, dict[str, Any]], paced: dict[Distance, Rounds]) -> list[str]:
    sentences = []
    for (over, slots), found in rounds.items():
        ours, noise = ratios(found, "tracked"), ratios(found, "control")
        verdict = "reached" if ours.median >= GOAL else "missed"
        gem = f", {ratios(found, 'gem').median:.1%} the gem's way" if "gem" in found else ""
        sentences.append(
            f"Over {over}, with max_jobs = {slots}, a worker that does nothing but start and end jobs keeps {ours.median:.1%} of its "
            f"throughput when it is tracked (goal {GOAL:.0%}: {verdict}){gem}; the same worker measured twice differs by "
            f"{abs(1 - noise.median):.1%}, between {noise.low:.3f} and {noise.high:.3f}."
        )
    if len({over for over, _ in rounds}) > 1:
        sentences.append(
            "To look up the name of a host asyncio starts a thread, and a process that has threads pays more for each call of the system. "
            "Over a unix socket the first thread of a worker is the tracker's, and what it costs is part of what tracking costs there."
        )
    trips = {way: counted[way]["round_trips_per_job"] - counted["untracked"]["round_trips_per_job"] for way in WAYS}
    connections = counted["tracked"]["tracker_connections"]
    added = {far: {name: added_latency(found, "tracked", name).median for name in LATENCY_GOALS_MS} for far, found in paced.items()}
    latency = "; ".join(f"{added_there['p50']:+.2f} and {added_there['p99']:+.2f} ms {_at(far)}" for far, added_there in added.items())
    sentences.append(
        f"Tracking adds {max(trips['tracked'], 0.0):.3f} round trips per job, none of which a job waits for "
        f"(durable: {trips['durable']:.3f}; the gem: {trips['gem']:.2f}, each awaited), {connections} connection(s) per worker. "
        f"To p50 and p99 of a job of {_PACE_SECONDS * 1000:.0f} ms, one at a time, it adds {latency}."
    )
    return sentences


def _at(far: Distance) -> str:
    return f"with Redis {far * 1000:g} ms away" if far else "beside Redis"


def _kept(rounds: Rounds) -> dict[str, list[dict[str, Any]]]:
    return {
        way: [{name: value for name, value in round_.items() if name != "service_ms"} for round_ in found] for way, found in rounds.items()
    }


def _chart(setting: Setting, rounds: Rounds) -> Chart:
    over, slots = setting
    bars = []
    for way in list(rounds)[1:]:
        ratio = ratios(rounds, way)
        bars.append(Bar(label=_NAMES[way], value=ratio.median, low=ratio.low, high=ratio.high))
    return Chart(title=f"Throughput against arq alone over {over}, max_jobs = {slots}", axis="ratio", bars=bars, goal=GOAL)
