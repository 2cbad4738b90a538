"""The ground that every benchmark stands on: a server of its own or one that it was given, empty, and what it counts there."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from async_tracker.embedded import EmbeddedServer, end_with_parent

ROOT = Path(__file__).resolve().parents[1]
_ROUND_SECONDS = 120.0


class DatabaseInUse(Exception):
    """The database that was given is not empty: benchmarks empty theirs between rounds."""


def run_program(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as a process of its own. Raises ``subprocess.TimeoutExpired``."""
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=_ROUND_SECONDS, preexec_fn=end_with_parent(), check=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """An empty database. ``sync`` is a client of the program itself, and ``run`` runs the workers that are measured."""

    url: str
    sync: Any
    run: Callable[[Sequence[str]], subprocess.CompletedProcess[str]] = run_program
    named_url: str | None = None
    """The same over TCP and by the name of a host, as workers are given it as a rule; None where the url was given by whoever measures."""

    def empty(self) -> None:
        """Take everything away again, before the next round."""
        self.sync.flushdb()

    def reading(self) -> "Reading":
        """Read the server's own counters."""
        return read_counters(self.sync)


@contextmanager
def ground(redis_url: str | None = None) -> Iterator[Ground]:
    """Give an embedded server, or the one named if its database is empty. Settings of the shell are no business of ours.

    Raises DatabaseInUse.
    """
    for name in [name for name in os.environ if name == "REDIS_URL" or name.startswith("TRACKER_")]:
        del os.environ[name]
    if redis_url is None:
        with EmbeddedServer(tcp=True) as server:
            yield from _on(server.url, named_url=f"redis://localhost:{server.port}/0")
        return
    with redis.Redis.from_url(redis_url) as client:
        key_count = client.dbsize()
    if key_count:
        raise DatabaseInUse(
            f"the database of {where(redis_url)} holds {key_count} keys: benchmarks empty theirs, so name an empty one (…/9)"
        )
    yield from _on(redis_url)


def where(url: str) -> str:
    """Name a server for people: the url without user and password.

    >>> where("redis://me:secret@db:7000/9"), where("unix:///tmp/s?db=0")
    ('db:7000/9', '/tmp/s?db=0')
    """
    return url.split("://", 1)[-1].rsplit("@", 1)[-1]


def place(url: str) -> str:
    """Name the way to a server for people, who need not know its port.

    >>> place("unix:///tmp/s?db=0"), place("redis://localhost:7000/9"), place("redis://10.0.0.1:7000/9")
    ('a unix socket', 'TCP, localhost', 'TCP, 10.0.0.1')
    """
    return "a unix socket" if url.startswith("unix") else f"TCP, {where(url).rsplit(':', 1)[0]}"


def _on(url: str, *, named_url: str | None = None) -> Iterator[Ground]:
    with redis.Redis.from_url(url) as client:
        try:
            yield Ground(url=url, sync=client, named_url=named_url)
        finally:
            client.flushdb()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the server has counted since it was started."""

    calls: Mapping[str, int]
    bytes_in: int
    bytes_out: int
    clients: int
    memory: int

    def since(self, before: "Reading") -> "Reading":
        """Give what was counted since; clients and memory as they are now."""
        calls = {name: count - before.calls.get(name, 0) for name, count in self.calls.items()}
        return Reading(
            calls={name: count for name, count in calls.items() if count and name not in ("info", "command")},
            bytes_in=self.bytes_in - before.bytes_in,
            bytes_out=self.bytes_out - before.bytes_out,
            clients=self.clients,
            memory=self.memory,
        )

    @property
    def commands(self) -> int:
        """How many commands were called, those inside scripts and transactions included."""
        return sum(self.calls.values())

    def to_dict(self) -> dict[str, Any]:
        """Give it JSON-ready."""
        return {"calls": dict(self.calls), "bytes_in": self.bytes_in, "bytes_out": self.bytes_out, "clients": self.clients}


def read_counters(client: Any) -> Reading:
    """Read the counters over a synchronous client: three INFO, which are not counted themselves."""
    stats, clients, memory = client.info("stats"), client.info("clients"), client.info("memory")
    commands = client.info("commandstats")
    return Reading(
        calls={name.removeprefix("cmdstat_"): int(found["calls"]) for name, found in commands.items()},
        bytes_in=int(stats["total_net_input_bytes"]),
        bytes_out=int(stats["total_net_output_bytes"]),
        clients=int(clients["connected_clients"]),
        memory=int(memory["used_memory"]),
    )
