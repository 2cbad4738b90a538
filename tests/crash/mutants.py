"""Take one safeguard out at a time, and show that a test notices: ``python -m tests.crash.mutants``, or ``make mutants``.

Each mutant is a copy of the package with one line changed, beside a copy of the tests. The copy without a change must pass all of the tests
that are used, every other one must fail at least one of them.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("async_tracker", "tests", "pyproject.toml", "README.md", "LICENSE")

PASSED, FAILED = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One safeguard, the line that it stands on, what is left without it, and the tests of which one must fail."""

    name: str
    path: str
    line: str
    without: str
    tests: tuple[str, ...]


SHARED = "tests/crash/test_shared_queues.py::"
MODEL = "tests/model/test_store_model.py"

MUTANTS = (
    Mutant(
        name="the fence: claims that name their run",
        path="async_tracker/integrations/arq/claims.py",
        line='_UNNAMED = b"1"',
        without='_UNNAMED = b"none of them"',
        tests=(SHARED + "test_every_claim_of_a_tracked_worker_names_it_cron_included",),
    ),
    Mutant(
        name="the grace: time to come back with another connection",
        path="async_tracker/policy.py",
        line="if evidence.connection is not Connection.GONE or evidence.gone_for < limits.disconnect_grace:",
        without="if evidence.connection is not Connection.GONE:",
        tests=(
            "tests/crash/test_live_workers.py::test_a_blocked_worker_whose_connections_are_cut_again_and_again_keeps_its_jobs",
            "tests/unit/test_policy.py",
        ),
    ),
    Mutant(
        name="the token check: only the dead run's own claim is released",
        path="async_tracker/integrations/arq/lua/release.lua",
        line="if redis.call('GET', KEYS[1]) ~= ARGV[2] then",
        without="if false then",
        tests=(SHARED + "test_an_orphan_that_another_worker_has_picked_up_again_is_left_alone",),
    ),
    Mutant(
        name="the queue check: only what is queued is recovered",
        path="async_tracker/integrations/arq/lua/release.lua",
        line="if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then",
        without="if false then",
        tests=(SHARED + "test_an_orphan_that_is_queued_no_more_is_not_recovered",),
    ),
    Mutant(
        name="the sequence number: a late write changes nothing",
        path="async_tracker/store/lua/write.lua",
        line="if seen and tonumber(seen) >= tonumber(ARGV[2]) then",
        without="if false then",
        tests=("tests/crash/test_servers_that_fail.py::test_a_batch_that_is_delivered_late_changes_nothing", MODEL),
    ),
    Mutant(
        name="the judged evidence: who has beaten since is not declared dead",
        path="async_tracker/store/lua/declare_dead.lua",
        line="if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then",
        without="if false then",
        tests=(MODEL,),
    ),
    Mutant(
        name="the receipt: a release is known to whoever carries on",
        path="async_tracker/integrations/arq/lua/release.lua",
        line="if receipt ~= 'none' then",
        without="if false then",
        tests=("tests/crash/test_kills.py::test_a_sweeper_that_dies_half_way_is_carried_on_by_the_next",),
    ),
    Mutant(
        name="the book of what is settled: a sweeper that comes late settles nothing again",
        path="async_tracker/store/lua/adopt.lua",
        line="if not redis.call('HGET', KEYS[4], run) then",
        without="if true then",
        tests=("tests/store/test_transitions.py",),
    ),
    Mutant(
        name="the absence: who comes back gives the others time to return",
        path="async_tracker/evidence.py",
        line="if heard_at_ms is not None and now_ms - heard_at_ms >= 1000.0 * self.away_after:",
        without="if False:",
        tests=("tests/crash/test_everything_stops.py",),
    ),
)


def main() -> int:
    """Run the control and every mutant; returns 0 when each of them was noticed."""
    every_test = sorted({test for mutant in MUTANTS for test in mutant.tests})
    outcomes = [("nothing taken out", _run(None, every_test) == PASSED)]
    print(f"{'passes' if outcomes[0][1] else 'FAILS'}: {outcomes[0][0]}", flush=True)
    for mutant in MUTANTS:
        noticed = _run(mutant, mutant.tests) == FAILED
        outcomes.append((mutant.name, noticed))
        print(f"{'noticed' if noticed else 'SURVIVES'}: without {mutant.name}", flush=True)
    return 0 if all(good for _, good in outcomes) else 1


def _run(mutant: Mutant | None, tests: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="async-tracker-mutant-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, copy / name)
        if mutant is not None:
            _take_out(mutant, copy / mutant.path)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests]
        ended = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
        if ended.returncode != (PASSED if mutant is None else FAILED):
            print(ended.stdout[-4_000:], ended.stderr[-2_000:])
        return ended.returncode


def _take_out(mutant: Mutant, path: Path) -> None:
    text = path.read_text()
    if text.count(mutant.line) != 1:
        raise SystemExit(f"{mutant.path} holds {mutant.line!r} {text.count(mutant.line)} times: say anew where {mutant.name} stands")
    path.write_text(text.replace(mutant.line, mutant.without))


if __name__ == "__main__":
    sys.exit(main())
