"""What a namespace costs: the proxy against the client underneath, against prefixing by hand, and against kombu's mixin.

``run(quick)`` measures, ``render(result)`` writes the table. The work is cut into pieces of a few calls, and each piece is done in every
way, in an order that changes, before the next: what disturbs the machine disturbs all alike. What is told is the median over the rounds
of each way's time by the raw client's, with its 95 % interval. The server is an own one, over a unix socket. The last rows are CPU time
on a client that answers by itself: there the proxy's own cost is all that differs.
"""

import asyncio
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import redis
import redis.asyncio
from redis.connection import PythonRespSerializer

from async_tracker.embedded import EmbeddedServer
from async_tracker.namespace import Namespace, SyncNamespace

PREFIX = "bench:"
GOALS = {"in sequence": 1.03, "20 tasks": 1.06, "pipeline of 100": 1.10}
ROUNDS, QUICK_ROUNDS = 301, 5
CALLS, TASKS, PIPELINE = 100, 20, 100
MOCKED_CALLS = 200
PACKED_AT_ONCE = 6_000
TEN_KEYS = [f"key:{number}" for number in range(10)]

Work = Callable[[Any], Awaitable[None]]


class ByHand:
    """A client whose keys the caller prefixes: what one writes without a proxy."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def get(self, key: str) -> Any:
        """GET, the key prefixed."""
        return self.client.get(f"{PREFIX}{key}")

    def set(self, key: str, value: Any) -> Any:
        """SET, the key prefixed."""
        return self.client.set(f"{PREFIX}{key}", value)

    def mget(self, keys: Sequence[str]) -> Any:
        """MGET, the keys prefixed."""
        return self.client.mget([f"{PREFIX}{key}" for key in keys])

    def evalsha(self, sha: str, numkeys: int, *args: str) -> Any:
        """EVALSHA, the keys prefixed."""
        return self.client.evalsha(sha, numkeys, *(f"{PREFIX}{key}" for key in args[:numkeys]), *args[numkeys:])

    def blpop(self, key: str, timeout: int) -> Any:
        """BLPOP, the key prefixed, the reply left as it is."""
        return self.client.blpop(f"{PREFIX}{key}", timeout)

    def pipeline(self, transaction: bool = True) -> "ByHand":
        """A pipeline, its keys prefixed."""
        return ByHand(self.client.pipeline(transaction=transaction))

    def execute(self) -> Any:
        """Execute the pipeline."""
        return self.client.execute()


async def in_sequence(client: Any) -> None:
    """One task sets and gets, each call after the reply of the one before."""
    await client.set("key:1", "value")
    await client.get("key:1")


async def in_tasks(client: Any) -> None:
    """Twenty tasks do so at once."""

    async def task(at: int) -> None:
        await client.get(f"key:{at}")

    await asyncio.gather(*(task(at) for at in range(TASKS)))


async def in_a_pipeline(client: Any) -> None:
    """One pipeline of a hundred commands."""
    pipe = client.pipeline(transaction=False)
    for number in range(PIPELINE):
        pipe.get(f"key:{number}")
    await pipe.execute()


WORKS: dict[str, tuple[Work, int]] = {
    "in sequence": (in_sequence, 2),
    "20 tasks": (in_tasks, TASKS),
    "pipeline of 100": (in_a_pipeline, PIPELINE),
}
"""Each with the number of calls in one piece of it."""


def interval_of_median(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and its 95 % interval by order statistics.

    >>> interval_of_median([1.0, 2.0, 3.0])
    (2.0, 1.0, 3.0)
    """
    ordered = sorted(values)
    half = round(1.96 * len(ordered) ** 0.5 / 2)
    middle = len(ordered) // 2
    low, high = max(0, middle - half), min(len(ordered) - 1, middle + half)
    return statistics.median(ordered), ordered[low], ordered[high]


def compare(times: dict[str, list[float]], *, calls: int) -> dict[str, Any]:
    """Return for each way its microseconds a call, and its ratio to the raw client's of the same round."""
    result: dict[str, Any] = {}
    for way, taken in times.items():
        ratio, low, high = interval_of_median([mine / raw for mine, raw in zip(taken, times["raw"], strict=True)])
        result[way] = {"us_per_call": statistics.median(taken) / calls * 1e6, "ratio": ratio, "low": low, "high": high}
    return result


async def measure(
    ways: dict[str, Any], work: Work, rounds: int, *, pieces: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Do every piece of the work in every way, in an order that changes; return the seconds of each way in each round."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    order = random.Random(0)
    for way in ways.values():
        await work(way)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            taken = dict.fromkeys(ways, 0.0)
            for _ in range(pieces):
                for way in order.sample(list(ways), len(ways)):
                    began = clock()
                    await work(ways[way])
                    taken[way] += clock() - began
            for way, seconds in taken.items():
                times[way].append(seconds)
            gc.collect(0)
    finally:
        gc.enable()
    return times


async def measure_async(path: str, rounds: int) -> dict[str, Any]:
    """The works of an asynchronous client over a unix socket."""
    client = redis.asyncio.Redis(unix_socket_path=path)
    ways = {"raw": client, "namespace": Namespace(client, PREFIX[:-1]), "by hand": ByHand(client)}
    result = {name: compare(await measure(ways, work, rounds, pieces=CALLS // calls), calls=CALLS) for name, (work, calls) in WORKS.items()}
    await client.aclose()
    return result


def kombu_client(path: str) -> Any:
    """Return kombu's client with a prefix."""
    return import_module("kombu.transport.redis").PrefixedStrictRedis(unix_socket_path=path, global_keyprefix=PREFIX)


def synchronously(work: Callable[[Any], None]) -> Work:
    """Let ``measure`` do the work of a synchronous client."""

    async def do(client: Any) -> None:
        work(client)

    return do


def sync_sequence(client: Any) -> None:
    """Set and get, each call after the reply of the one before."""
    client.set("key:1", "value")
    client.get("key:1")


def sync_pipeline(client: Any) -> None:
    """One pipeline of a hundred commands."""
    pipe = client.pipeline(transaction=False)
    for number in range(PIPELINE):
        pipe.get(f"key:{number}")
    pipe.execute()


async def measure_sync(path: str, rounds: int) -> dict[str, Any]:
    """The works of a synchronous client over a unix socket, kombu's mixin among the ways."""
    client = redis.Redis(unix_socket_path=path)
    ways: dict[str, Any] = {"raw": client, "namespace": SyncNamespace(client, PREFIX[:-1]), "by hand": ByHand(client)}
    if find_spec("kombu") is not None:
        ways["kombu"] = kombu_client(path)
    works = {"synchronous, in sequence": (sync_sequence, 2), "synchronous, pipeline of 100": (sync_pipeline, PIPELINE)}
    result = {
        name: compare(await measure(ways, synchronously(work), rounds, pieces=CALLS // calls), calls=CALLS)
        for name, (work, calls) in works.items()
    }
    for way in ways.keys() & {"raw", "kombu"}:
        ways[way].close()
    return result


def answering_client() -> Any:
    """Make a client that packs commands as ever but is answered at once, without a connection."""
    client: Any = redis.asyncio.Redis()
    packer: Any = PythonRespSerializer(PACKED_AT_ONCE, client.get_encoder().encode)

    async def execute_command(*args: Any, **options: Any) -> Any:
        packer.pack(*args)
        return (b"bench:list", b"1") if args[0] == "BLPOP" else b"value"

    client.execute_command = execute_command
    return client


MOCKED: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "GET": lambda client: client.get("key"),
    "SET": lambda client: client.set("key", "value"),
    "MGET of 10": lambda client: client.mget(TEN_KEYS),
    "EVALSHA, 3 keys": lambda client: client.evalsha("sha", 3, "a", "b", "c", "d", "e", "f"),
    "BLPOP": lambda client: client.blpop("list", 1),
}


async def measure_mocked(rounds: int) -> dict[str, Any]:
    """CPU time of single calls, answered without a connection."""
    client = answering_client()
    ways = {"raw": client, "namespace": Namespace(client, PREFIX[:-1]), "by hand": ByHand(client)}

    def repeated(call: Callable[[Any], Awaitable[Any]]) -> Work:
        async def do(way: Any) -> None:
            for _ in range(MOCKED_CALLS):
                await call(way)

        return do

    return {
        name: compare(await measure(ways, repeated(call), rounds, pieces=1, clock=time.process_time), calls=MOCKED_CALLS)
        for name, call in MOCKED.items()
    }


def run(quick: bool) -> dict[str, Any]:
    """Measure everything; ``quick`` does only enough rounds to see that it works."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with EmbeddedServer() as server:
        return {
            "python": sys.version.split()[0],
            "redis_py": redis.__version__,
            "rounds": rounds,
            "goals": GOALS,
            "over_a_unix_socket": {
                **asyncio.run(measure_async(server.unix_socket_path, rounds)),
                **asyncio.run(measure_sync(server.unix_socket_path, rounds)),
            },
            "mocked": asyncio.run(measure_mocked(rounds)),
        }


def render(result: dict[str, Any]) -> str:
    """Write a result as a table in Markdown."""
    lines = [
        f"Python {result['python']}, redis-py {result['redis_py']}, {result['rounds']} rounds; "
        "ratio to the raw client: median (95 % interval), and microseconds a call",
        "",
        "| work | goal | raw | namespace | by hand | kombu |",
        "|---|---|---|---|---|---|",
    ]
    for group in ("over_a_unix_socket", "mocked"):
        for name, ways in result[group].items():
            label = name if group == "over_a_unix_socket" else f"{name}, CPU without a connection"
            goal = f"<= {result['goals'][name]:.2f}" if name in result["goals"] else ""
            cells = [_cell(ways.get(way), way) for way in ("raw", "namespace", "by hand", "kombu")]
            lines.append(f"| {label} | {goal} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(measured: dict[str, float] | None, way: str) -> str:
    if measured is None:
        return ""
    if way == "raw":
        return f"{measured['us_per_call']:.2f} us"
    return f"{measured['ratio']:.3f} ({measured['low']:.3f} to {measured['high']:.3f}), {measured['us_per_call']:.2f} us"


if __name__ == "__main__":
    found = run("--quick" in sys.argv)
    print(json.dumps(found) if "--json" in sys.argv else render(found))
