"""What really ran, told by the jobs themselves: the oracle that a tracker is judged by.

The jobs of a test write one line at the start and one at the end of each run to a file, past Redis and past everything of ours; the test
adds what it enqueued and whom it killed. A line is one ``write`` to a file opened for appending, so that processes do not mix theirs and a
SIGKILL takes none back.
"""

import json
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUCCEEDED = "succeeded"


class Ledger:
    """The writing side; one per process, on the same path. ``path`` need not exist."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def enqueued(self, job_id: str) -> None:
        """Say that the job was handed to the queue: from now on it counts as lost until a run of it succeeds."""
        self._write("enqueued", job_id=job_id)

    def killed(self, pid: int) -> None:
        """Say that the process is dead, once it is: its unfinished runs ended here."""
        self._write("killed", pid=pid)

    @contextmanager
    def run(self, job_id: str, *, attempt: int = 0) -> Iterator[str]:
        """Write the start, run the block, write the end; yields the id of the run. An exception is its outcome, and passes through."""
        run_id = self.started(job_id, attempt=attempt)
        try:
            yield run_id
        except BaseException as exc:
            self.finished(job_id, run_id, outcome=type(exc).__name__)
            raise
        self.finished(job_id, run_id, outcome=SUCCEEDED)

    def started(self, job_id: str, *, attempt: int = 0) -> str:
        """Write the start of a run, and return the id to finish it with."""
        run_id = uuid.uuid4().hex
        self._write("started", job_id=job_id, run_id=run_id, attempt=attempt)
        return run_id

    def finished(self, job_id: str, run_id: str, *, outcome: str) -> None:
        """Write the end of a run."""
        self._write("finished", job_id=job_id, run_id=run_id, outcome=outcome)

    def read(self) -> "Account":
        """Read everything that any process has written so far."""
        written = self.path.read_text() if self.path.exists() else ""
        whole, _, _ = written.rpartition("\n")  # of a line that is being written a reader may see a part
        return Account.of([json.loads(line) for line in whole.splitlines()])

    def _write(self, kind: str, **facts: object) -> None:
        # The monotonic clock is one for all processes of a machine, and nobody sets it.
        entry = {"kind": kind, "pid": os.getpid(), "at_ns": time.monotonic_ns(), **facts}
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, json.dumps(entry).encode() + b"\n")
        finally:
            os.close(handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run, from its start until it finished, was killed (``outcome`` is None) or neither (``ended_at_ns`` is None too)."""

    job_id: str
    run_id: str
    pid: int
    attempt: int
    started_at_ns: int
    ended_at_ns: int | None
    outcome: str | None

    def outlasts(self, later: "Run") -> bool:
        """Tell whether this run, which started first, was still going on when the other one started."""
        return self.ended_at_ns is None or self.ended_at_ns > later.started_at_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the ledger says, and what is wrong with it."""

    enqueued: frozenset[str]
    runs: tuple[Run, ...]

    @classmethod
    def of(cls, entries: Collection[dict[str, Any]]) -> "Account":
        """Put the lines together into runs, in the order of their starts."""
        ends = {entry["run_id"]: entry for entry in entries if entry["kind"] == "finished"}
        deaths: dict[int, list[int]] = defaultdict(list)
        for entry in entries:
            if entry["kind"] == "killed":
                deaths[entry["pid"]].append(entry["at_ns"])
        runs = [_run(entry, ends.get(entry["run_id"]), deaths[entry["pid"]]) for entry in entries if entry["kind"] == "started"]
        return cls(
            enqueued=frozenset(entry["job_id"] for entry in entries if entry["kind"] == "enqueued"),
            runs=tuple(sorted(runs, key=lambda run: run.started_at_ns)),
        )

    def runs_of(self, job_id: str) -> tuple[Run, ...]:
        """Return the runs of a job in the order of their starts."""
        return tuple(run for run in self.runs if run.job_id == job_id)

    def succeeded(self) -> frozenset[str]:
        """Return the jobs of which at least one run succeeded."""
        return frozenset(run.job_id for run in self.runs if run.outcome == SUCCEEDED)

    def lost(self) -> frozenset[str]:
        """Return the jobs that were enqueued and of which no run has succeeded."""
        return self.enqueued - self.succeeded()

    def doubled(self) -> frozenset[str]:
        """Return the jobs of which more than one run succeeded."""
        successes: dict[str, int] = defaultdict(int)
        for run in self.runs:
            successes[run.job_id] += run.outcome == SUCCEEDED
        return frozenset(job_id for job_id, count in successes.items() if count > 1)

    def overlapping(self) -> tuple[tuple[Run, Run], ...]:
        """Return the pairs of runs of one job of which the second began while the first was going on: the first was robbed."""
        by_job: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            by_job[run.job_id].append(run)
        return tuple((first, second) for runs in by_job.values() for first, second in _overlaps(runs))


def _run(start: dict[str, Any], end: dict[str, Any] | None, deaths_at_ns: list[int]) -> Run:
    if end is not None:
        ended_at_ns: int | None = end["at_ns"]
    else:  # process ids come again: only a death after the start is this run's
        ended_at_ns = min((at_ns for at_ns in deaths_at_ns if at_ns >= start["at_ns"]), default=None)
    return Run(
        job_id=start["job_id"],
        run_id=start["run_id"],
        pid=start["pid"],
        attempt=start["attempt"],
        started_at_ns=start["at_ns"],
        ended_at_ns=ended_at_ns,
        outcome=end["outcome"] if end is not None else None,
    )


def _overlaps(runs: list[Run]) -> Iterator[tuple[Run, Run]]:
    if not runs:
        return
    longest = runs[0]
    for later in runs[1:]:
        if longest.outlasts(later):
            yield longest, later
        if longest.ended_at_ns is not None and (later.ended_at_ns is None or later.ended_at_ns > longest.ended_at_ns):
            longest = later
