"""What a person sees: a live view on a terminal, plain lines everywhere else."""

import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from async_tracker.cli.demo.ledger import Account
from async_tracker.cli.instances import blocked_remark
from async_tracker.cli.tables import Table, framed
from async_tracker.cli.wording import shown
from async_tracker.queries.wording import counted, duration
from async_tracker.records import Instance, Job, Snapshot

_JOBS_SHOWN = 10
_STATUS_SECONDS = 3.0


class Screen:
    """Lines that stay, and under them, on a terminal, the present state."""

    def __init__(self, *, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(file=stream, highlight=False)
        self._live: Live | None = None
        self._started_at = time.monotonic()
        self._status_at = self._started_at

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def tell(self, line: str, *, style: str = "") -> None:
        """Print a line with the time since the beginning."""
        stamped = f"{time.monotonic() - self._started_at:6.1f} s  {line}"
        if self._live is not None:
            self._console.print(Text(stamped, style=style))
        else:
            print(stamped, file=self._stream, flush=True)

    def show(self, snapshot: Snapshot, account: Account) -> None:
        """Show the present state."""
        summary = _summary(snapshot, account)
        if self._live is not None:
            self._live.update(Group(_instances(snapshot), _jobs(snapshot), Text(summary, style="bold")), refresh=True)
        elif time.monotonic() - self._status_at >= _STATUS_SECONDS:
            self._status_at = time.monotonic()
            self.tell(summary)


def _summary(snapshot: Snapshot, account: Account) -> str:
    ended = len(account.succeeded | account.failed)
    instances, jobs = counted(len(snapshot.instances), "instance"), counted(len(snapshot.jobs), "job")
    return f"{instances}, {jobs} in flight; {len(account.enqueued)} enqueued, {ended} ended"


def _instances(snapshot: Snapshot) -> RichTable:
    rows = [_instance_row(item) for item in snapshot.instances]
    return framed(Table(title="Instances", columns=("INSTANCE", "STATE", "BUSY", "HEARTBEAT", "WHY"), rows=rows))


def _instance_row(item: Instance) -> tuple[str, ...]:
    why = blocked_remark(item) or item.reason
    return shown(item.instance_id), str(item.state), f"{item.busy}/{item.concurrency}", f"{duration(item.heartbeat_age)} ago", shown(why)


def _jobs(snapshot: Snapshot) -> RichTable:
    rows = [_job_row(job) for job in snapshot.jobs[:_JOBS_SHOWN]]
    title = f"Jobs in flight, the oldest {_JOBS_SHOWN} of {len(snapshot.jobs)}"
    return framed(Table(title=title, columns=("JOB", "TRY", "RUNNING FOR", "PROGRESS", "INSTANCE"), rows=rows))


def _job_row(job: Job) -> tuple[str, ...]:
    progress = f"{job.progress:.0%}" if job.progress is not None else "-"
    return shown(job.job_id), str(job.job_try), duration(job.running_for), progress, shown(job.instance_id)
