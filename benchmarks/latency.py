"""A network that is slower than a unix socket: a forwarder that delivers what is sent to the server some ms later.

It is a process of its own, so that it takes no processor time from the worker that is measured:
``python -m benchmarks.latency URL MS`` prints the port that it listens on, and forwards until it is ended.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.asyncio.connection import parse_url

from async_tracker.embedded import end_with_parent
from benchmarks.medians import estimate

_ROOT = Path(__file__).resolve().parents[1]
_CHUNK_BYTES = 65_536
_PINGS = 50


@contextmanager
def far_away(url: str, *, latency_ms: float) -> Iterator[tuple[str, float]]:
    """Give a url of the same database behind that much latency, and the round trip in ms as a client measures it."""
    if not latency_ms:
        yield url, round_trip_ms(url)
        return
    command = [sys.executable, "-m", "benchmarks.latency", url, str(latency_ms)]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent()) as process:
        try:
            port = int(process.stdout.readline()) if process.stdout is not None else 0
            database = parse_url(url).get("db", 0)
            there = f"redis://127.0.0.1:{port}/{database}"
            yield there, round_trip_ms(there)
        finally:
            process.kill()


def round_trip_ms(url: str) -> float:
    """Measure a PING; the median of many."""
    with redis.Redis.from_url(url) as client:
        client.ping()
        return estimate([_timed_ping(client) for _ in range(_PINGS)]).median


def _timed_ping(client: redis.Redis) -> float:
    began = time.perf_counter()
    client.ping()
    return (time.perf_counter() - began) * 1000.0


class _Later(asyncio.Protocol):
    """One direction's end: what arrives is written to the other end after the delay."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        self._loop = loop
        self._delay = delay
        self.transport: asyncio.Transport | None = None
        self.other: _Later | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self.transport = transport

    def pair_with(self, other: "_Later") -> None:
        """Both ends are connected: deliver what came before."""
        self.other = other
        for data in self._early:
            self._forward(data)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self._forward(data)

    def _forward(self, data: bytes) -> None:
        if self._delay:
            self._loop.call_later(self._delay, self._deliver, data)
        else:
            self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def forward(url: str, *, latency_ms: float) -> None:
    """Listen, say where, and forward for ever."""
    loop = asyncio.get_running_loop()
    options = parse_url(url)
    tasks: set[asyncio.Task[None]] = set()

    async def connect(client: _Later) -> None:
        def make() -> _Later:
            return _Later(loop, 0.0)

        if "path" in options:
            _, server = await loop.create_unix_connection(make, options["path"])
        else:
            _, server = await loop.create_connection(make, options.get("host", "localhost"), options.get("port", 6379))
        server.pair_with(client)
        client.pair_with(server)

    def accept() -> _Later:
        client = _Later(loop, latency_ms / 1000.0)
        task = loop.create_task(connect(client))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return client

    listener = await loop.create_server(accept, "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(forward(sys.argv[1], latency_ms=float(sys.argv[2])))
