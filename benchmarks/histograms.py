"""What the histograms add to a no-op job: ``python -m benchmarks.histograms [ROUNDS]``. It needs no Redis.

A difference of a microsecond cannot be seen between two workers on a machine whose times vary by a third. So the very statements that
serve the histograms are taken out of the hook in which they stand and run many times over, with the objects that they have in a worker;
and so is what the pulse makes of the numbers. What they cost is charged in full, though the totals of ``stats`` need most of it as well.
It is the processor time of a thread whose caches hold what is used; in a worker at work they may not.
"""

import ast
import inspect
import random
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any

from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.history.histogram import Histogram
from async_tracker.instance.counts import Counts
from async_tracker.integrations.arq import jobs
from async_tracker.integrations.arq.job_run import ArqRun
from benchmarks.medians import Estimate, estimate
from benchmarks.report import Table

GOAL_US = 1.5
ROUNDS = 400
RUNS = 500
"""Between two pulses, at 2,000 jobs a second."""

NOTE = "note two durations in the hook"
SORT = "sort them into totals and buckets at the pulse"
BUCKETS = "of that, into buckets"


def noting() -> tuple[list[str], Callable[[Any, Any, dict[str, Any]], None]]:
    """Give the statements of the hook that serve the histograms, and a function of the hook's names that does nothing else."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(jobs.Jobs.after_hook)))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.AugAssign) and _target(node) == "tally"]
    lines = [ast.unparse(node) for node in found]
    made: dict[str, Any] = {}
    exec("\n    ".join(["def note(self, run, ctx):", *lines]), vars(jobs), made)
    return lines, made["note"]


def _target(node: ast.Assign | ast.AugAssign) -> str | None:
    target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
    return target.id if isinstance(target, ast.Name) else None


def nothing(self: Any, run: Any, ctx: dict[str, Any]) -> None:
    """Do nothing, for as much as a call costs."""


def measure(rounds: int = ROUNDS) -> dict[str, Estimate]:
    """Time each part, in us a job."""
    _, note = noting()
    counts, chance = Counts(), random.Random(1)
    of = jobs.Jobs(ctx_key="run", is_durable=False, on_strangers=lambda names: None, keep_try=_none_kept)
    of._tallies, of._clock = jobs._Tallies(counts, "arq:queue"), ServerClock()
    runs = [_run(chance) for _ in range(RUNS)]
    taken: dict[str, list[float]] = {NOTE: [], SORT: [], BUCKETS: []}
    for _ in range(rounds):
        empty_us = _timed(nothing, of, runs)
        taken[NOTE].append(_timed(note, of, runs) - empty_us)
        began = time.thread_time()
        counts.sort(within=60.0)
        taken[SORT].append((time.thread_time() - began) * 1e6 / RUNS)
        counts.take_new()
        durations = [[run.ended_mono_ms - run.started_mono_ms for run, _ in runs], [float(ctx["score"] % 50) for _, ctx in runs]]
        began = time.thread_time()
        for each in durations:
            Histogram().add(each)
        taken[BUCKETS].append((time.thread_time() - began) * 1e6 / RUNS)
    return {name: estimate(values) for name, values in taken.items()}


async def _none_kept(run: ArqRun) -> None:
    """No tries are kept."""


def _run(chance: random.Random) -> tuple[ArqRun, dict[str, Any]]:
    """Make a run that has ended, as the last hook finds it: of some milliseconds, after a wait."""
    run = ArqRun()
    run.function = "noop"
    run.started_mono_ms = monotonic_ms()
    run.ended_mono_ms = run.started_mono_ms + chance.lognormvariate(1.0, 1.0)
    return run, {"score": int(time.time() * 1000 - chance.lognormvariate(3.0, 1.0))}


def _timed(part: Callable[..., None], of: Any, runs: Sequence[tuple[ArqRun, dict[str, Any]]]) -> float:
    began = time.thread_time()
    for run, ctx in runs:
        part(of, run, ctx)
    return (time.thread_time() - began) * 1e6 / len(runs)


def table(found: dict[str, Estimate]) -> Table:
    """Lay out what each part takes."""
    rows = [[name, f"{each.median:.2f}", f"{each.low:.2f} to {each.high:.2f}"] for name, each in found.items()]
    rows.append(["together", f"{found[NOTE].median + found[SORT].median:.2f}", ""])
    return Table(
        title=f"What the histograms add to a no-op job, {found[NOTE].rounds} rounds of {RUNS} runs (goal: {GOAL_US} us)",
        columns=["part", "us/job", "interval"],
        rows=rows,
    )


if __name__ == "__main__":
    statements, _ = noting()
    found = table(measure(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
    print("\n".join([*statements, "", found.title, "", found.to_markdown()]))
