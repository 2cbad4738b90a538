"""What is measured of a worker: from its first job that counts to its last."""

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from async_tracker.instance.host import rss_bytes
from benchmarks.ground import Reading, read_counters


class Counted(Protocol):
    """What a worker is to do, as far as a meter must know it."""

    @property
    def warmup(self) -> int:
        """Jobs before those that count; one at least."""
        ...

    @property
    def jobs(self) -> int:
        """Jobs that count."""
        ...


@dataclass(slots=True)
class Meter:
    """Counts jobs and takes the measurements at the first and the last that count."""

    load: Counted
    client: Any
    done: int = 0
    round_trips: int = 0
    service_ms: list[float] = field(default_factory=list)
    _began: float = 0.0
    _began_cpu: float = 0.0
    _before: Reading | None = None
    _round_trips_before: int = 0
    found: dict[str, Any] = field(default_factory=dict)

    def note(self) -> None:
        """A job is done."""
        self.done += 1
        if self.done == self.load.warmup:
            self._begin()
        elif self.done == self.load.warmup + self.load.jobs:
            self._end()

    def _begin(self) -> None:
        self._before = read_counters(self.client)
        self._round_trips_before = self.round_trips
        self.service_ms.clear()
        self._began, self._began_cpu = time.perf_counter(), time.process_time()

    def _end(self) -> None:
        seconds, cpu_seconds = time.perf_counter() - self._began, time.process_time() - self._began_cpu
        round_trips = self.round_trips - self._round_trips_before
        if self._before is None:
            raise ValueError(f"a warm-up of {self.load.warmup} jobs never began: it must be one job at least")
        counted = read_counters(self.client).since(self._before)
        jobs = self.load.jobs
        self.found = {
            "jobs_per_second": jobs / seconds,
            "cpu_us_per_job": cpu_seconds / jobs * 1e6,
            "round_trips_per_job": round_trips / jobs,
            "commands_per_job": counted.commands / jobs,
            "bytes_per_job": (counted.bytes_in + counted.bytes_out) / jobs,
            "calls_per_job": {name: count / jobs for name, count in counted.calls.items()},
            "tracker_connections": sum(found["name"].startswith("async-tracker") for found in self.client.client_list()),
            "connections": counted.clients - 2,  # this meter's own, and that of the program that started us
            "rss_mb": rss_bytes() / 2**20,
        }
