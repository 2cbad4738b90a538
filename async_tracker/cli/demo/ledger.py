"""What really ran, told by the jobs themselves, past Redis and past everything that is being demonstrated.

A line is one ``write`` to a file opened for appending, so that processes do not mix theirs and a SIGKILL takes none back.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUCCEEDED, FAILED, RETRIED = "succeeded", "failed", "retried"


@dataclass(frozen=True, slots=True)
class Ledger:
    """One file for all processes of a demo."""

    path: Path

    def enqueued(self, job_id: str) -> None:
        """Say that a job is queued: it counts as lost until a run of it ends for good."""
        self._write("enqueued", job_id)

    def killed(self, pid: int) -> None:
        """Say that a process is dead, and that it was killed."""
        self._write("killed", "", victim_pid=pid)

    @contextmanager
    def run(self, job_id: str, attempt: int, retry: type[BaseException]) -> Iterator[None]:
        """Write the start and the end of one run. ``retry`` is what a job raises that is to run again."""
        self._write("started", job_id, attempt=attempt)
        try:
            yield
        except retry:
            self._write("ended", job_id, attempt=attempt, outcome=RETRIED)
            raise
        except Exception:  # whatever the job raises is its outcome, and goes on
            self._write("ended", job_id, attempt=attempt, outcome=FAILED)
            raise
        self._write("ended", job_id, attempt=attempt, outcome=SUCCEEDED)

    def _write(self, kind: str, job_id: str, **facts: Any) -> None:
        # The monotonic clock is one for all processes of a machine.
        line = json.dumps({"kind": kind, "job_id": job_id, "pid": os.getpid(), "at": time.monotonic(), **facts})
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)

    def read(self) -> "Account":
        """Read what was written so far."""
        written = self.path.read_text(encoding="ascii") if self.path.exists() else ""
        whole, _, _ = written.rpartition("\n")  # of a line that is being written a reader may see a part
        return account_of([json.loads(line) for line in whole.splitlines()])


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of a job; ``outcome`` is None while it goes on, and for ever when its process was killed under it."""

    job_id: str
    pid: int
    attempt: int
    started_at: float
    outcome: str | None = None
    was_killed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The sum of a ledger."""

    enqueued: frozenset[str]
    runs: tuple[Run, ...]

    def _with(self, outcome: str) -> set[str]:
        return {run.job_id for run in self.runs if run.outcome == outcome}

    @property
    def succeeded(self) -> set[str]:
        """Jobs of which a run succeeded."""
        return self._with(SUCCEEDED)

    @property
    def failed(self) -> set[str]:
        """Jobs that failed for good."""
        return self._with(FAILED) - self.succeeded

    @property
    def retried(self) -> set[str]:
        """Jobs that asked to be run again."""
        return self._with(RETRIED)

    @property
    def killed(self) -> set[str]:
        """Jobs that a killed worker had in hand."""
        return {run.job_id for run in self.runs if run.was_killed}

    @property
    def recovered(self) -> set[str]:
        """Jobs that a killed worker had in hand and another process started again."""
        victims = {(run.job_id, run.pid) for run in self.runs if run.was_killed}
        return {run.job_id for run in self.runs for job_id, pid in victims if run.job_id == job_id and run.pid != pid}

    @property
    def lost(self) -> set[str]:
        """Jobs that were queued and have not ended, in whatever way."""
        return set(self.enqueued) - self.succeeded - self.failed

    def in_hand(self, pid: int) -> list[Run]:
        """Runs that this process has started and not ended, the oldest first."""
        return [run for run in self.runs if run.pid == pid and run.outcome is None]

    def again(self, run: Run) -> Run | None:
        """The first later run of the same job elsewhere."""
        later = (other for other in self.runs if other.job_id == run.job_id and other.pid != run.pid and other.started_at > run.started_at)
        return min(later, key=lambda other: other.started_at, default=None)


def account_of(lines: list[dict[str, Any]]) -> Account:
    """Sum up the lines of a ledger.

    >>> lines = [
    ...     {"kind": "enqueued", "job_id": "a", "pid": 1, "at": 0.0},
    ...     {"kind": "started", "job_id": "a", "pid": 2, "at": 1.0, "attempt": 1},
    ...     {"kind": "killed", "job_id": "", "pid": 1, "at": 2.0, "victim_pid": 2},
    ...     {"kind": "started", "job_id": "a", "pid": 3, "at": 3.0, "attempt": 2},
    ... ]
    >>> account_of(lines).lost, account_of(lines).recovered
    ({'a'}, {'a'})
    >>> lines += [{"kind": "ended", "job_id": "a", "pid": 3, "at": 4.0, "attempt": 2, "outcome": "succeeded"}]
    >>> account_of(lines).lost
    set()
    """
    runs: dict[tuple[str, int, int], Run] = {}
    for line in lines:
        key = (line["job_id"], line["pid"], line.get("attempt", 0))
        if line["kind"] == "started":
            runs[key] = Run(job_id=line["job_id"], pid=line["pid"], attempt=line["attempt"], started_at=line["at"])
        elif line["kind"] == "ended" and key in runs:
            runs[key].outcome = line["outcome"]
        elif line["kind"] == "killed":
            for run in runs.values():
                run.was_killed = run.was_killed or (run.pid == line["victim_pid"] and run.outcome is None)
    enqueued = frozenset(line["job_id"] for line in lines if line["kind"] == "enqueued")
    return Account(enqueued=enqueued, runs=tuple(sorted(runs.values(), key=lambda run: run.started_at)))
