"""The oracle itself: it must see what is lost, doubled and robbed, or it proves nothing."""

import os
import subprocess
import sys

import pytest

from tests.harness.ledger import Account, Ledger


def test_a_job_that_ran_once_is_neither_lost_nor_doubled_nor_robbed(ledger: Ledger):
    ledger.enqueued("42")
    with ledger.run("42", attempt=1):
        pass
    account = ledger.read()
    assert account.succeeded() == {"42"}
    assert (account.lost(), account.doubled(), account.overlapping()) == (frozenset(), frozenset(), ())
    assert [(run.pid, run.attempt, run.outcome) for run in account.runs] == [(os.getpid(), 1, "succeeded")]


def test_a_job_that_never_ran_is_lost(ledger: Ledger):
    ledger.enqueued("42")
    assert ledger.read().lost() == {"42"}


def test_a_job_that_only_failed_is_lost_and_its_outcome_is_the_exception(ledger: Ledger):
    ledger.enqueued("42")
    with pytest.raises(KeyError), ledger.run("42"):
        raise KeyError
    account = ledger.read()
    assert account.lost() == {"42"}
    assert [run.outcome for run in account.runs] == ["KeyError"]


def test_a_job_that_succeeded_twice_is_doubled(ledger: Ledger):
    for _ in range(2):
        with ledger.run("42"):
            pass
    assert ledger.read().doubled() == {"42"}


def test_a_run_that_begins_while_another_goes_on_is_an_overlap(ledger: Ledger):
    first = ledger.started("42")
    second = ledger.started("42")
    assert [(a.run_id, b.run_id) for a, b in ledger.read().overlapping()] == [(first, second)]
    ledger.finished("42", first, outcome="succeeded")
    ledger.finished("42", second, outcome="succeeded")
    assert [(a.run_id, b.run_id) for a, b in ledger.read().overlapping()] == [(first, second)]


def test_a_long_run_overlaps_every_later_one_that_it_outlasts(ledger: Ledger):
    long = ledger.started("42")
    for _ in range(2):
        with ledger.run("42"):
            pass
    ledger.finished("42", long, outcome="succeeded")
    assert [first.run_id for first, _ in ledger.read().overlapping()] == [long, long]


def test_a_killed_run_does_not_overlap_what_starts_after_the_kill(ledger: Ledger):
    ledger.started("42")
    ledger.killed(os.getpid())
    with ledger.run("42"):
        pass
    assert ledger.read().overlapping() == ()


def test_a_death_before_the_start_is_that_of_an_earlier_process_with_this_id(ledger: Ledger):
    ledger.killed(os.getpid())
    ledger.started("42")
    ledger.started("42")
    assert len(ledger.read().overlapping()) == 1


def test_an_empty_ledger_accuses_nobody(ledger: Ledger):
    assert ledger.read() == Account(enqueued=frozenset(), runs=())


def test_lines_of_many_processes_do_not_mix_and_survive_a_kill(ledger: Ledger):
    program = (
        "import os, signal, sys; from tests.harness.ledger import Ledger; ledger = Ledger(sys.argv[1])\n"
        "for n in range(200): ledger.started(f'{os.getpid()}-{n}')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(ledger.path)]) for _ in range(3)]
    for writer in writers:
        writer.wait()
    assert {run.job_id for run in ledger.read().runs} == {f"{writer.pid}-{n}" for writer in writers for n in range(200)}
