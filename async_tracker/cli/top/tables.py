"""The rows of each view, with what they are sorted by: pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from async_tracker.cli.instances import blocked_remark
from async_tracker.cli.tables import STYLES
from async_tracker.cli.top.reading import Reading
from async_tracker.cli.top.state import Order, View
from async_tracker.cli.wording import megabytes, shown
from async_tracker.policy import InstanceState
from async_tracker.queries.wording import duration
from async_tracker.records import NOT_WELL, FunctionStats, Instance, Job, QueueDepth

_WORST_FIRST = {InstanceState.DEAD: 0, InstanceState.STALLED_SILENT: 1, InstanceState.STALLED_BLOCKED: 2}
_NOTHING = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its name, and how wide it may be."""

    name: str
    width: int
    is_number: bool = False
    """Aligned at the right, and the highest comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: a text and a sort key for each column, and how it is styled."""

    cells: tuple[str, ...]
    keys: tuple[Any, ...] = field(repr=False)
    style: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A view: its columns, the first of which takes what room there is, in the order in which they are dropped from the right."""

    columns: tuple[Column, ...]
    rows: Sequence[Row]

    def chosen(self, order: Order, wanted: str) -> list[Row]:
        """Give the rows that have a text in them, sorted."""
        found = [row for row in self.rows if not wanted or any(wanted.lower() in cell.lower() for cell in row.cells)]
        at = next((at for at, column in enumerate(self.columns) if column.name == order.column), 0)
        found.sort(key=lambda row: row.keys[0])  # what is equal stays in this order
        found.sort(key=lambda row: row.keys[at], reverse=self.columns[at].is_number is not order.is_reversed)
        return found


def rows_of(reading: Reading, view: View) -> Rows:
    """Lay out one view of a reading."""
    return _VIEWS[view](reading)


def _instances(reading: Reading) -> Rows:
    columns = (
        Column(name="INSTANCE", width=60),
        Column(name="STATE", width=15),
        Column(name="BUSY", width=7, is_number=True),
        Column(name="RUNS/MIN", width=9, is_number=True),
        Column(name="BEAT", width=8, is_number=True),
        Column(name="LAG", width=8, is_number=True),
        Column(name="MEMORY", width=7, is_number=True),
        Column(name="UP", width=12, is_number=True),
        Column(name="QUEUE", width=20),
        Column(name="VERSION", width=16),
        Column(name="BLOCKED AT", width=40),
    )
    return Rows(columns=columns, rows=[_instance(item, reading.instance_rates.get(item.instance_id)) for item in reading.instances])


def _instance(item: Instance, rate: float | None) -> Row:
    up = (item.heartbeat_at - item.started_at).total_seconds() + item.heartbeat_age
    return Row(
        cells=(
            shown(item.instance_id),
            str(item.state),
            f"{item.busy}/{item.concurrency}" if item.concurrency is not None else str(item.busy),
            rate_text(rate),
            duration(item.heartbeat_age),
            duration(item.loop_lag),
            megabytes(item.rss_bytes),
            duration(up),
            shown(item.queue),
            shown(item.version),
            blocked_remark(item),
        ),
        keys=(
            item.instance_id,
            (_WORST_FIRST.get(item.state, len(_WORST_FIRST)), str(item.state)),
            item.busy,
            _number(rate),
            item.heartbeat_age,
            item.loop_lag,
            _number(item.rss_bytes),
            up,
            item.queue or "",
            item.version or "",
            item.blocked_at,
        ),
        style=_style(item.state),
    )


def _style(state: InstanceState) -> str:
    """Style a row by the state of its instance; the usual one is left plain."""
    return "" if state is InstanceState.ALIVE else STYLES.get(str(state), "")


def _jobs(reading: Reading) -> Rows:
    columns = (
        Column(name="JOB", width=60),
        Column(name="FUNCTION", width=28),
        Column(name="RUNNING", width=12, is_number=True),
        Column(name="TRY", width=4, is_number=True),
        Column(name="PROGRESS", width=9, is_number=True),
        Column(name="STATE", width=15),
        Column(name="QUEUE", width=20),
        Column(name="INSTANCE", width=40),
    )
    return Rows(columns=columns, rows=[_job(job) for job in reading.jobs or ()])


def _job(job: Job) -> Row:
    return Row(
        cells=(
            shown(job.job_id),
            shown(job.function),
            duration(job.running_for),
            str(job.job_try),
            f"{job.progress:.0%}" if job.progress is not None else "-",
            str(job.instance_state),
            shown(job.queue),
            shown(job.instance_id),
        ),
        keys=(
            job.job_id,
            job.function or "",
            job.running_for,
            job.job_try,
            _number(job.progress),
            str(job.instance_state),
            job.queue or "",
            job.instance_id,
        ),
        style=_style(job.instance_state),
    )


def _functions(reading: Reading) -> Rows:
    columns = (
        Column(name="FUNCTION", width=60),
        Column(name="QUEUE", width=12),
        Column(name="RUNS/MIN", width=9, is_number=True),
        Column(name="NOT WELL", width=9, is_number=True),
        Column(name="RUN P50", width=8, is_number=True),
        Column(name="RUN P95", width=8, is_number=True),
        Column(name="WAIT P95", width=9, is_number=True),
        Column(name="RUN MAX", width=8, is_number=True),
        Column(name="RUNS", width=11, is_number=True),
    )
    pairs = {(row.function, row.queue): row for row in (*reading.window.values(), *reading.functions)}
    return Rows(columns=columns, rows=[_function(row, reading) for row in pairs.values()])


def _function(total: FunctionStats, reading: Reading) -> Row:
    pair = (total.function, total.queue)
    rate, window = reading.function_rates.get(pair), reading.window.get(pair)
    known = window or FunctionStats(function=total.function, queue=total.queue)
    not_well = sum(getattr(known, name) for name in NOT_WELL) + known.orphaned
    times = (known.run_time_p50, known.run_time_p95, known.queue_wait_p95, known.run_time_max)
    return Row(
        cells=(
            shown(total.function),
            shown(total.queue),
            rate_text(rate),
            str(not_well) if window is not None else "-",
            *(duration(seconds) for seconds in times),
            f"{total.started:,}",
        ),
        keys=(total.function or "", total.queue or "", _number(rate), not_well, *map(_number, times), total.started),
        style="yellow" if not_well else "",
    )


def _queues(reading: Reading) -> Rows:
    columns = (
        Column(name="QUEUE", width=60),
        Column(name="WAITING", width=9, is_number=True),
        Column(name="DUE", width=9, is_number=True),
        Column(name="OLDEST", width=12, is_number=True),
        Column(name="RUNS/MIN", width=9, is_number=True),
        Column(name="BUSY", width=9, is_number=True),
        Column(name="WORKERS", width=8, is_number=True),
        Column(name="LIBRARY", width=12),
    )
    known: dict[str, QueueDepth | None] = {name: None for item in reading.instances for name in item.queues}
    known |= {item.queue: item for item in reading.queues}
    return Rows(columns=columns, rows=[_queue(name, depth, reading) for name, depth in known.items()])


def _queue(name: str, depth: QueueDepth | None, reading: Reading) -> Row:
    """Lay out one queue; of one whose library has none that can be asked, how many jobs wait is not known."""
    working = [item for item in reading.instances if name in item.queues and item.state is not InstanceState.DEAD]
    rate, busy = reading.rate_of_queue(name), sum(item.busy for item in working)
    slots = sum(item.concurrency or 0 for item in working)
    library = depth.library if depth is not None else ", ".join(sorted({item.library for item in working}))
    return Row(
        cells=(
            shown(name),
            f"{depth.depth:,}" if depth is not None else "-",
            f"{depth.due:,}" if depth is not None else "-",
            duration(depth.oldest_wait if depth is not None else None),
            rate_text(rate),
            f"{busy}/{slots}" if slots else str(busy),
            str(len(working)),
            library,
        ),
        keys=(
            name,
            _number(depth.depth if depth is not None else None),
            _number(depth.due if depth is not None else None),
            _number(depth.oldest_wait if depth is not None else None),
            _number(rate),
            busy,
            len(working),
            library,
        ),
        style="bold red" if not working and depth is not None and depth.depth else "",
    )


def _number(value: float | None) -> float:
    return _NOTHING if value is None else value


def rate_text(rate: float | None) -> str:
    """Write how many runs start in a minute.

    >>> rate_text(None), rate_text(0.0), rate_text(2.04), rate_text(1234.5)
    ('-', '0', '2.0', '1,234')
    """
    if rate is None:
        return "-"
    return f"{rate:,.1f}" if 0.0 < rate < 10.0 else f"{rate:,.0f}"


_VIEWS: dict[View, Callable[[Reading], Rows]] = {
    View.INSTANCES: _instances,
    View.JOBS: _jobs,
    View.FUNCTIONS: _functions,
    View.QUEUES: _queues,
}
