"""Workers that are started to be killed, stopped or blocked; what their jobs have written; and waiting for what becomes of them."""

import asyncio
import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from async_tracker.embedded import end_with_parent
from benchmarks.ground import ROOT
from benchmarks.victim import Orders

PATIENCE_SECONDS = 150.0


@dataclass(slots=True)
class Log:
    """What the jobs themselves have written."""

    path: Path
    _offset: int = 0
    starts: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    runs_ended: set[tuple[str, int]] = field(default_factory=set)
    killed: set[int] = field(default_factory=set)
    robbed: set[str] = field(default_factory=set)
    """Jobs that were started while another process lived that had started them and not ended."""

    def read(self) -> None:
        """Read what is new."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self._offset += len(new)
        for line in new.decode().splitlines():
            kind, job_id, pid, at_ns = line.split()
            if kind == "start":
                runs = self.starts.setdefault(job_id, [])
                if any((job_id, other) not in self.runs_ended and other not in self.killed for other, _ in runs):
                    self.robbed.add(job_id)
                runs.append((int(pid), int(at_ns)))
            else:
                self.ends[job_id] = self.ends.get(job_id, 0) + 1
                self.runs_ended.add((job_id, int(pid)))

    @property
    def doubled(self) -> set[str]:
        """Jobs that were run to their end more than once: killed between their last line and arq's own finish."""
        return {job_id for job_id, count in self.ends.items() if count > 1}

    def begun(self, job_id: str) -> int:
        """Tell how often a job was started so far."""
        self.read()
        return len(self.starts.get(job_id, ()))

    def in_hand(self, pid: int) -> list[str]:
        """Give the jobs that a process has started and not ended."""
        return [job_id for job_id, runs in self.starts.items() if runs[-1][0] == pid and (job_id, pid) not in self.runs_ended]

    def started_elsewhere(self, job_id: str, pid: int, *, after_ns: int) -> int | None:
        """Tell when another process started the job, in ns of the monotonic clock; None while none has."""
        return next((at_ns for other, at_ns in self.starts[job_id] if other != pid and at_ns > after_ns), None)


@contextlib.contextmanager
def workers(orders: Orders) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Give what starts a worker, with other orders if any are named; they are all ended at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**others: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.victim", json.dumps(dataclasses.asdict(orders) | others)]
        started.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, preexec_fn=end_with_parent()))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


async def wait(question: Callable[[], Awaitable[Any]], description: str) -> Any:
    """Ask until the answer is something, and give that. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := await question()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not reached within {PATIENCE_SECONDS} s: {description}")
        await asyncio.sleep(0.01)
    return answer
