"""What the page costs: the process that serves it, the server that it reads, and the wire to each viewer, while a fleet beats."""

import asyncio
import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio

from async_tracker import Tracker
from async_tracker.web.live import Live
from async_tracker.web.readings import Readings
from async_tracker.web.screens import topic
from benchmarks.browser import Seen, look_at
from benchmarks.ground import Ground
from benchmarks.processes import NAMESPACE
from benchmarks.queries import JOBS_EACH, named_connections, write_namespace
from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.size import Size

SCREENS = {"overview": "overview", "instances, 100 rows": "instances?limit=100", "jobs, 100 rows": "jobs?limit=100"}
GOALS_KB = {"overview": 1.0, "instances, 100 rows": 6.0, "jobs, 100 rows": 20.0}
VIEWERS = (1, 100)
BEATS_EVERY = 5
"""Seconds in which each instance beats once."""
_SETTLES = 2.5
_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one screen costs while it is looked at. Shares are of one core."""

    first_ms: float
    first_kb: float
    kb_a_second: float
    commands_a_round: float
    """In a round in which everything that is looked at is read anew; those inside of scripts are counted."""
    commands_a_second: float
    process_share: float
    server_share: float
    held_ms: float


def run(ground: Ground, size: Size) -> Report:
    """Look at each screen, at the largest size, with one viewer and with a hundred."""
    instances, seconds = max(size.instances), 1.5 if size.name == "one round" else 15.0
    viewers = VIEWERS if size.name != "one round" else VIEWERS[:1]
    with named_connections(ground.url, instances) as connections:
        measured, seen = asyncio.run(_measure(ground, connections, seconds=seconds, viewers=viewers))
    ground.empty()
    return Report(
        name="web",
        title="what the page costs",
        meaning=[*_meaning(measured, instances, max(viewers)), _meaning_of_browser(seen)],
        tables=[_table(measured, instances), *([_table_of_browser(seen)] if seen else [])],
        charts=[_chart(measured)],
        data={
            "measured": [{"screen": name, "viewers": count, **_plain(cost)} for (name, count), cost in measured.items()],
            "browser": [{"screen": name, **_plain(found)} for name, found in seen.items()],
        },
    )


async def _measure(
    ground: Ground, connections: dict[int, str], *, seconds: float, viewers: tuple[int, ...]
) -> tuple[dict[tuple[str, int], Cost], dict[str, Seen]]:
    client = redis.asyncio.Redis.from_url(ground.url)
    await write_namespace(client, NAMESPACE, connections=connections, jobs_each=JOBS_EACH)
    tracker = Tracker(namespace=NAMESPACE, redis=client)
    found: dict[tuple[str, int], Cost] = {}
    with beating(ground.url):
        for name, wanted in SCREENS.items():
            for count in viewers:
                found[name, count] = await _look(ground, tracker, wanted, count, seconds=seconds)
        seen = await look_at(tracker, SCREENS, seconds=seconds)
    await client.aclose()
    return found, seen


async def _look(ground: Ground, tracker: Tracker, wanted: str, viewers: int, *, seconds: float) -> Cost:
    readings = Readings(tracker)
    hub = Live(readings, ends_after=None)
    sent, first_ms, first_bytes = [0] * viewers, 0.0, 0
    began = time.perf_counter()

    async def view(number: int) -> None:
        async def send(message: dict[str, Any]) -> None:
            nonlocal first_ms, first_bytes
            body = len(message.get("body", b""))
            if body and not first_bytes:
                first_ms, first_bytes = (time.perf_counter() - began) * 1000, body
            sent[number] += body

        async def receive() -> dict[str, Any]:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        topics = [(wanted, topic(wanted))]
        await hub.stream({"type": "http"}, receive, send, topics=topics, last_event_id=None, once=False)  # type: ignore[arg-type]

    tasks = [asyncio.create_task(view(number)) for number in range(viewers)]
    await asyncio.sleep(_SETTLES)
    before, cpu, server, wall = sum(sent), time.process_time(), _server(ground), time.perf_counter()
    await asyncio.sleep(seconds)
    passed = time.perf_counter() - wall
    process_share, after = (time.process_time() - cpu) / passed, _server(ground)
    held_ms = await _longest_turn(seconds)  # apart: who looks at the clock a thousand times a second takes a part of the core too
    commands_a_round = await _whole_round(ground, hub, readings)
    cost = Cost(
        first_ms=first_ms,
        first_kb=first_bytes / 1000,
        kb_a_second=(sum(sent) - before) / viewers / passed / 1000,
        commands_a_round=commands_a_round,
        commands_a_second=(after[0] - server[0]) / passed,
        process_share=process_share,
        server_share=(after[1] - server[1]) / passed,
        held_ms=held_ms,
    )
    await hub.aclose()
    await asyncio.gather(*tasks, return_exceptions=True)
    await readings.aclose()
    return cost


async def _whole_round(ground: Ground, hub: Live, readings: Readings) -> float:
    """Count the commands of a round in which everything is read anew: the fewest of some, as other rounds go on beside these."""
    counts = []
    for _ in range(_ROUNDS):
        before, _ = _server(ground)
        readings.forget()
        await hub.run_round()
        counts.append(_server(ground)[0] - before)
    return min(counts)


async def _longest_turn(seconds: float) -> float:
    """Tell for how many ms at most a timer of somebody else was late."""
    ends, longest = time.perf_counter() + seconds, 0.0
    while time.perf_counter() < ends:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - began - 0.001)
    return longest * 1000


def _server(ground: Ground) -> tuple[float, float]:
    """Read how many commands the server has done and how many seconds of its core that took, the beats and this question taken off."""
    stats = ground.sync.info("commandstats")
    own = [row for name, row in stats.items() if name not in ("cmdstat_hset", "cmdstat_zadd", "cmdstat_zrange")]
    return sum(row["calls"] for row in own) - 1, sum(row["usec"] for row in own) / 1e6


@contextmanager
def beating(url: str) -> Iterator[None]:
    """Have the fleet beat, from a process of its own: each instance every five seconds, with other numbers each time."""
    process = multiprocessing.get_context("spawn").Process(target=beat, args=(url,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def beat(url: str) -> None:
    """Beat for ever."""
    client: Any = redis.Redis.from_url(url)
    names = client.zrange(f"{NAMESPACE}:instances", 0, -1, withscores=True)
    for second in range(1_000_000):
        began = time.monotonic()
        with client.pipeline(transaction=False) as pipe:
            for name, score in names[second % BEATS_EVERY :: BEATS_EVERY]:
                numbers = {"busy": random.randrange(JOBS_EACH), "jobs_started": second * 7, "jobs_ended": second * 7 - 3}
                pipe.hset(f"{NAMESPACE}:instance:{name.decode()}", mapping=numbers)
                pipe.zadd(f"{NAMESPACE}:instances", {name: score + second * 1000 + random.randrange(1000)})
            pipe.execute()
        time.sleep(max(1.0 - (time.monotonic() - began), 0.0))


def _plain(cost: Cost | Seen) -> dict[str, float]:
    return {name: getattr(cost, name) for name in type(cost).__slots__}


def _table(measured: dict[tuple[str, int], Cost], instances: int) -> Table:
    rows = [
        [
            f"{name}: {count} viewer{'s' if count > 1 else ''}",
            f"{cost.first_ms:,.0f}",
            f"{cost.first_kb:,.1f}",
            f"{cost.kb_a_second:,.2f}",
            f"{cost.commands_a_round:,.0f}",
            f"{cost.commands_a_second:,.1f}",
            f"{cost.process_share:.1%}",
            f"{cost.server_share:.2%}",
            f"{cost.held_ms:,.1f}",
        ]
        for (name, count), cost in measured.items()
    ]
    return Table(
        title=f"{instances:,} instances x {JOBS_EACH} jobs, each instance beats every {BEATS_EVERY} s",
        columns=["screen", "first, ms", "first, kB", "kB/s a viewer", "commands/round", "commands/s", "of a core", "of Redis", "held, ms"],
        rows=rows,
    )


def _table_of_browser(seen: dict[str, Seen]) -> Table:
    rows = [[name, f"{found.longest_ms:,.1f}", f"{found.share:.1%}", f"{found.updates:,}"] for name, found in seen.items()]
    columns = ["screen", "longest task, ms", "of a core", "calls of scripts"]
    return Table(title="In the browser, once it is drawn", columns=columns, rows=rows)


def _meaning_of_browser(seen: dict[str, Seen]) -> str:
    if not seen:
        return "What it costs the browser was not measured: there is no Chromium here (apt-get install --no-install-recommends chromium)."
    longest = max(found.longest_ms for found in seen.values())
    return f"The main thread of Chromium is held for {longest:.1f} ms at a stretch at most while the page is brought up to date (goal 50)."


def _meaning(measured: dict[tuple[str, int], Cost], instances: int, most: int) -> list[str]:
    one, many = measured["overview", 1], measured["overview", most]
    sizes = ", ".join(f"{name} {measured[name, most].kb_a_second:.2f} kB (goal {goal:g})" for name, goal in GOALS_KB.items())
    return [
        f"Each second a viewer is sent: {sizes}.",
        f"The overview of {instances:,} instances takes {one.process_share:.1%} of a core of the process that serves it and "
        f"{one.server_share:.2%} of Redis's with one viewer, {many.process_share:.1%} and {many.server_share:.2%} with {most}; "
        f"a round in which all of it is read anew takes {one.commands_a_round:,.0f} commands with one viewer and "
        f"{many.commands_a_round:,.0f} with {most}, those inside of scripts included. How many come in a second follows from how often "
        "what is seldom read (jobs past their timeout, every ten seconds or more) falls into the time of measuring.",
    ]


def _chart(measured: dict[tuple[str, int], Cost]) -> Chart:
    bars = [
        Bar(label=f"{name}: {count}", value=cost.kb_a_second, low=cost.kb_a_second, high=cost.kb_a_second)
        for (name, count), cost in measured.items()
    ]
    return Chart(title="What a viewer is sent", axis="kB/s", bars=bars)
