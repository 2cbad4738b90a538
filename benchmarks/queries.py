"""What it costs to ask who is alive and what runs, in a Redis full of other people's keys; ours and the gem's way."""

import asyncio
import itertools
import json
import random
import resource
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
import redis.asyncio

from async_tracker import Tracker
from async_tracker.history.histogram import Histogram
from async_tracker.history.minutes import sample_of
from async_tracker.history.packing import Span, entry, pack
from async_tracker.metrics.prometheus import Collector
from async_tracker.namespace import Namespace
from async_tracker.records import QueueDepth
from async_tracker.store.commands import Store
from async_tracker.store.counters import BOUNDS, RUN, WAIT, counted_name, field_name
from benchmarks import stacks
from benchmarks.gem import read_jobs, write_instances
from benchmarks.ground import Ground
from benchmarks.medians import Estimate, estimate
from benchmarks.processes import NAMESPACE
from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.size import Size

JOBS_EACH = 10
GOAL_MS, GOAL_ROUND_TRIPS = 100.0, 4
SCRAPED_FUNCTIONS = 100
GOAL_SCRAPE_MS, GOAL_SCRAPE_ROUND_TRIPS = 150.0, 6
RUNS_A_MINUTE, DAY = 200, 86_400
GOAL_HISTORY_MS, GOAL_HISTORY_ROUND_TRIPS = 30.0, 4
_BY_MINUTE, _BY_TEN = "history(), a day by the minute", "history(), a day by ten minutes"
_GEM_NAMESPACE = "gem"

_FILL = """
for i = ARGV[1], ARGV[2] do
  redis.call('SET', 'foreign:' .. i, 'somebody else')
end
"""
_FILL_AT_ONCE = 20_000
_FUNCTIONS = ("send_email", "resize_image", "charge_card", "sync_account", "build_report")

Question = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one question costs. ``held`` is the longest that nobody else had a turn on the event loop, in ms."""

    ms: Estimate
    held: Estimate
    round_trips: int


def run(ground: Ground, size: Size) -> Report:
    """Ask at each size, beside the foreign keys."""
    fill(ground, size.foreign_keys)
    measured = {}
    for instances in size.instances:
        with named_connections(ground.url, instances) as names:
            measured[instances] = asyncio.run(_measure(ground, names, size))
    ground.empty()
    told = asyncio.run(stacks.measure(size.stacks_jobs, rounds=size.query_rounds))
    return Report(
        name="queries",
        title="what a question costs",
        meaning=[*_meaning(measured, size), stacks.meaning(told, size.stacks_jobs)],
        tables=[_table(measured, size), stacks.table(told, size.stacks_jobs)],
        charts=[_chart(measured)],
        data={
            "foreign_keys": size.foreign_keys,
            "measured": {
                str(count): {
                    name: {"ms": cost.ms.to_dict(), "held_ms": cost.held.to_dict(), "round_trips": cost.round_trips}
                    for name, cost in found.items()
                }
                for count, found in measured.items()
            },
            "stacks": {name: {"ms": cost.spent.to_dict(), "turn_ms": cost.turn.to_dict()} for name, cost in told.items()},
        },
    )


def fill(ground: Ground, keys: int) -> None:
    """Write that many keys that are none of ours."""
    for start in range(1, keys + 1, _FILL_AT_ONCE):
        ground.sync.eval(_FILL, 0, start, min(start + _FILL_AT_ONCE - 1, keys))


@contextmanager
def named_connections(url: str, count: int) -> Iterator[dict[int, str]]:
    """Open that many connections, named as those that speak for instances are; gives ids and names."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pool: Any = redis.ConnectionPool.from_url(url)
    opened = [pool.make_connection() for _ in range(count)]
    names: dict[int, str] = {}
    for connection in opened:
        connection.connect()
        name = f"async-tracker:{secrets.token_hex(6)}"
        connection.send_command("CLIENT", "SETNAME", name)
        connection.read_response()
        connection.send_command("CLIENT", "ID")
        names[int(connection.read_response())] = name
    try:
        yield names
    finally:
        for connection in opened:
            connection.disconnect()


async def _measure(ground: Ground, connections: dict[int, str], size: Size) -> dict[str, Cost]:
    client = redis.asyncio.Redis.from_url(ground.url)
    await write_namespace(client, NAMESPACE, connections=connections, jobs_each=JOBS_EACH)
    await write_instances(client, _GEM_NAMESPACE, instances=len(connections), jobs_each=JOBS_EACH)
    await _write_totals(client, NAMESPACE)
    await _write_day(client, NAMESPACE, function="function_0", queue="mail")
    tracker = Tracker(namespace=NAMESPACE, redis=client)
    questions: dict[str, Question] = {
        _BY_MINUTE: partial(tracker.history, function="function_0", queue="mail", since=DAY, step=60.0),
        _BY_TEN: partial(tracker.history, function="function_0", queue="mail", since=DAY, step=600.0),
        "a scrape": Collector(tracker, fresh_for=0.0).exposition,
        "snapshot()": tracker.snapshot,
        "jobs()": tracker.jobs,
        "stats()": tracker.stats,
        "the gem's way": lambda: read_jobs(client, _GEM_NAMESPACE),
    }
    times: dict[str, list[float]] = {name: [] for name in questions}
    held: dict[str, list[float]] = {name: [] for name in questions}
    round_trips = {name: await count_round_trips(client, question) for name, question in questions.items()}
    for _ in range(size.query_rounds):
        for name, question in questions.items():
            began = time.perf_counter()
            await question()
            times[name].append((time.perf_counter() - began) * 1000.0)
            held[name].append(await longest_held(question))
    for namespace in (NAMESPACE, _GEM_NAMESPACE):
        await _clear(client, namespace)
    await client.aclose()
    return {name: Cost(ms=estimate(times[name]), held=estimate(held[name]), round_trips=round_trips[name]) for name in questions}


async def longest_held(question: Question) -> float:
    """Tell for how many ms at most somebody else on the event loop had to wait for a turn while one question was asked."""
    return await stacks.longest_turn(question(), clock=time.perf_counter)


async def count_round_trips(client: Any, question: Question) -> int:
    """Count how often a client waits for the server while it asks one question; what it sends at once counts once.

    Asked a first time before, so that connections are made and scripts are known.
    """
    await question()
    kind = client.connection_pool.connection_class
    send = kind.send_packed_command
    sent = 0

    async def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal sent
        sent += 1
        await send(self, *args, **kwargs)

    kind.send_packed_command = counted
    try:
        await question()
    finally:
        kind.send_packed_command = send
    return sent


async def write_namespace(client: Any, namespace: str, *, connections: dict[int, str], jobs_each: int) -> None:
    """Write what a live worker for each of these connections has in Redis: as they write it themselves, and all at once.

    One worker is registered and tracks its jobs; the others are copies of its keys with ids of their own.
    """
    tracker = Tracker(namespace=namespace, redis=client, recover=False, watchdog=False)
    ids = [secrets.token_hex(16) for _ in range(jobs_each)]
    async with tracker.register(queue="mail", concurrency=jobs_each, functions=_FUNCTIONS) as instance_id:
        over = asyncio.Event()
        functions = itertools.cycle(_FUNCTIONS)
        tasks = [asyncio.create_task(_in_flight(tracker, job_id, function, over)) for job_id, function in zip(ids, functions, strict=False)]
        try:
            await _wait_written(client, f"{namespace}:jobs:{instance_id}", jobs_each)
            copies = await _copies(client, namespace, instance_id, ids, connections)
        finally:
            over.set()
            await asyncio.gather(*tasks)
    for start in range(0, len(copies), 1_000):
        async with client.pipeline(transaction=False) as pipe:
            for command in copies[start : start + 1_000]:
                pipe.execute_command(*command)
            await pipe.execute()


async def _write_totals(client: Any, namespace: str) -> None:
    """Write what many functions that have run for long have counted: what a scrape tells of each."""
    async with client.pipeline(transaction=False) as pipe:
        for number in range(SCRAPED_FUNCTIONS):
            function, queue = f"function_{number}", "mail"
            pair = counted_name(function, queue)
            pipe.zadd(f"{namespace}:series", {pair: number})
            buckets = {f"{kind}{bound}": 700 + bound for kind in (RUN, WAIT) for bound in BOUNDS}
            pipe.hset(f"{namespace}:total:{pair}", mapping={"since_ms": number, **buckets, "run_ms": 555, "wait_ms": 55})
            counters = {field_name(function, queue, counter): 7_000 for counter in ("started", "succeeded", "failed", "run_ms", "wait_ms")}
            pipe.hset(f"{namespace}:stats", mapping=counters)
        await pipe.execute()


async def _write_day(client: Any, namespace: str, *, function: str, queue: str) -> None:
    """Write the last day of a function that ran all the time, as the instance that sweeps would have packed it."""
    store, chance, pair = Store(Namespace(client, namespace)), random.Random(1), counted_name(function, queue)
    records = []
    for _ in range(100):
        run, wait = Histogram(), Histogram()
        run.add(chance.lognormvariate(3.0, 1.0) for _ in range(RUNS_A_MINUTE))
        wait.add(chance.lognormvariate(2.0, 1.5) for _ in range(RUNS_A_MINUTE))
        records.append(pack(Span({"started": RUNS_A_MINUTE, "succeeded": RUNS_A_MINUTE, "run_ms": 6_000, "wait_ms": 4_000}, run, wait)))
    seconds, _ = await client.time()
    now = int(seconds) // 60
    sample = sample_of(7, 10, [QueueDepth(queue=queue, library="arq", depth=3, due=2, oldest_wait=1.5)], instances=3, orphans=0)
    for minute in range(now - DAY // 60, now):
        await store.pack_minute(minute, {pair: entry(minute % 60, records[minute % len(records)])})
        await store.sample(minute, "arq", sample, [])


async def _in_flight(tracker: Tracker, job_id: str, function: str, over: asyncio.Event) -> None:
    async with tracker.track(job_id, function=function, queue="mail", timeout=300.0):
        await over.wait()


async def _wait_written(client: Any, key: str, count: int, *, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while await client.scard(key) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{key} did not come to hold {count} jobs within {timeout} s")
        await asyncio.sleep(0.005)


async def _copies(client: Any, namespace: str, instance_id: str, ids: list[str], connections: dict[int, str]) -> list[tuple[Any, ...]]:
    """Give the commands that write the copies. Their heartbeats are to come, so that they stay alive while they are asked about."""
    fields = await client.hgetall(f"{namespace}:instance:{instance_id}")
    registered = json.loads(await client.hget(f"{namespace}:connections", instance_id) or '{"server":""}')
    records = [json.loads(raw) for raw in await client.mget([f"{namespace}:job:{job_id}" for job_id in ids])]
    seconds, _ = await client.time()
    host, pid, _ = instance_id.rsplit(":", 2)
    commands: list[tuple[Any, ...]] = []
    for number, (connection_id, connection_name) in enumerate(connections.items()):
        name = f"{host}:{int(pid) + number}:{number:012x}"
        flat = [part for pair in fields.items() for part in pair]
        commands.append(("HSET", f"{namespace}:instance:{name}", *flat))
        commands.append(("ZADD", f"{namespace}:instances", (seconds + 3_600) * 1000, name))
        own = json.dumps({**registered, "ids": {str(connection_id): connection_name}}, separators=(",", ":"))
        commands.append(("HSET", f"{namespace}:connections", name, own))
        job_ids = [secrets.token_hex(16) for _ in records]
        commands.append(("SADD", f"{namespace}:jobs:{name}", *job_ids))
        for job_id, record in zip(job_ids, records, strict=True):
            text = json.dumps({**record, "instance": name, "run": secrets.token_hex(8)}, separators=(",", ":"))
            commands.append(("SET", f"{namespace}:job:{job_id}", text))
    return commands


async def _clear(client: Any, namespace: str) -> None:
    batch = [key async for key in client.scan_iter(match=f"{namespace}:*", count=10_000)]
    for start in range(0, len(batch), 1_000):
        await client.unlink(*batch[start : start + 1_000])


def _table(measured: dict[int, dict[str, Cost]], size: Size) -> Table:
    rows = [
        [
            f"{instances:,} x {JOBS_EACH}: {name}",
            f"{cost.ms.median:,.2f}",
            f"{cost.ms.low:,.2f} to {cost.ms.high:,.2f}",
            f"{cost.held.median:,.2f}",
            f"{cost.round_trips:,}",
        ]
        for instances, found in measured.items()
        for name, cost in found.items()
    ]
    return Table(
        title=f"Instances x jobs, among {size.foreign_keys:,} keys of others",
        columns=["what: question", "ms", "interval", "loop held, ms", "round trips"],
        rows=rows,
    )


def _meaning(measured: dict[int, dict[str, Cost]], size: Size) -> list[str]:
    largest = max(measured)
    ours, gem = measured[largest]["snapshot()"], measured[largest]["the gem's way"]
    verdict = "reached" if ours.ms.median <= GOAL_MS and ours.round_trips <= GOAL_ROUND_TRIPS else "missed"
    scrape, day, by_ten = (measured[largest][name] for name in ("a scrape", _BY_MINUTE, _BY_TEN))
    is_soon = day.ms.median <= GOAL_HISTORY_MS and day.round_trips <= GOAL_HISTORY_ROUND_TRIPS
    is_quick = scrape.ms.median <= GOAL_SCRAPE_MS and scrape.round_trips <= GOAL_SCRAPE_ROUND_TRIPS
    smallest = measured[min(measured)]["snapshot()"]
    return [
        f"A snapshot of {largest:,} instances and {largest * JOBS_EACH:,} jobs takes {ours.ms.median:,.1f} ms and {ours.round_trips} round "
        f"trips among {size.foreign_keys:,} foreign keys (goal {GOAL_MS:.0f} ms and {GOAL_ROUND_TRIPS}: {verdict}), one of the smallest "
        f"{smallest.ms.median:.1f} ms: the cost is that of the answer. Nobody else on the event loop waits for longer than "
        f"{ours.held.median:,.1f} ms for a turn. The gem's way takes {gem.ms.median:,.0f} ms and {gem.round_trips:,} round trips, and "
        "blocks everybody else while KEYS runs.",
        f"A scrape of {largest:,} instances, their jobs and {SCRAPED_FUNCTIONS} functions takes {scrape.ms.median:,.1f} ms and "
        f"{scrape.round_trips} round trips (goal for 1,000: {GOAL_SCRAPE_MS:.0f} ms and {GOAL_SCRAPE_ROUND_TRIPS}: "
        f"{'reached' if is_quick else 'missed'}).",
        f"The history of one function's day, {RUNS_A_MINUTE} runs a minute and a sample of the fleet each minute, takes "
        f"{day.ms.median:,.1f} ms and {day.round_trips} round trips in its 1,440 steps of a minute (goal {GOAL_HISTORY_MS:.0f} ms and "
        f"{GOAL_HISTORY_ROUND_TRIPS}: {'reached' if is_soon else 'missed'}), and {by_ten.ms.median:,.1f} ms in steps of ten minutes.",
    ]


def _chart(measured: dict[int, dict[str, Cost]]) -> Chart:
    bars = [
        Bar(label=f"{instances:,}: {name}", value=cost.ms.median, low=cost.ms.low, high=cost.ms.high)
        for instances, found in measured.items()
        for name, cost in found.items()
    ]
    return Chart(title=f"One question, instances x {JOBS_EACH} jobs", axis="ms", bars=bars, goal=GOAL_MS, is_log=True)
