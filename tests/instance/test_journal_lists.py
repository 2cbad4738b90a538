"""What the journal tells Redis to list, when runs are too short to be written or are written by somebody else."""

import math

from async_tracker.instance.journal import Journal
from async_tracker.instance.runs import Run
from tests.instance.unkept import UNKEPT


def journal() -> Journal:
    return Journal(wake=lambda: None)


def run_of(job_id: str, token: str, *, since_mono_ms: float) -> Run:
    started_at_ms = int(since_mono_ms)
    return Run(job_id, token, "web:1:ab", started_at_ms, started_mono_ms=since_mono_ms, keeper=UNKEPT)


def test_the_end_of_the_last_run_of_a_job_takes_it_off_the_list_however_short_that_run_was():
    kept = journal()
    long_run, short_run = run_of("42", "aa", since_mono_ms=0.0), run_of("42", "bb", since_mono_ms=10.0)
    kept.start(long_run)
    assert kept.take(before_ms=5.0) is not None
    kept.end(long_run)
    kept.start(short_run)
    kept.take_in()
    batch = kept.take(before_ms=5.0)  # the second run is too young to be written, and keeps the job on the list
    assert batch is not None
    assert [(end.token, end.last_here) for end in batch.ended] == [("aa", False)]
    kept.end(short_run)
    last = kept.take(before_ms=math.inf)
    assert last is not None
    assert [(end.token, end.last_here) for end in last.ended] == [("bb", True)]


def test_a_run_that_nobody_has_looked_at_puts_its_job_on_the_list_again_once_it_is_old_enough():
    kept = journal()
    long_run, young = run_of("42", "aa", since_mono_ms=0.0), run_of("42", "bb", since_mono_ms=10.0)
    kept.start(long_run)
    assert kept.take(before_ms=5.0) is not None
    kept.end(long_run)
    kept.start(young)
    batch = kept.take(before_ms=5.0)
    assert batch is not None
    assert [(end.token, end.last_here) for end in batch.ended] == [("aa", True)]
    later = kept.take(before_ms=10.0)
    assert later is not None
    assert [record.token for record in later.records] == ["bb"]


def test_a_prompt_run_is_written_whatever_its_age_and_the_younger_ones_are_not():
    kept = journal()
    for token in ("aa", "bb", "cc"):
        kept.start(run := run_of(token, token, since_mono_ms=10.0))
        run.is_prompt = token == "bb"
        kept.take_in_run(run)
    assert kept.is_due(before_ms=5.0)
    batch = kept.take(before_ms=5.0)
    assert batch is not None
    assert [record.token for record in batch.records] == ["bb"]
    assert not kept.is_due(before_ms=5.0)


def test_the_end_of_a_written_run_is_due_after_its_time_and_goes_with_any_earlier_start():
    kept = journal()
    first, second = run_of("1", "aa", since_mono_ms=0.0), run_of("2", "bb", since_mono_ms=10.0)
    kept.start(first)
    kept.take()
    kept.end(first)
    assert not kept.is_due(before_ms=5.0, ended_before_ms=0.0)
    assert kept.is_due(before_ms=5.0)
    kept.start(second)
    batch = kept.take(before_ms=10.0)
    assert batch is not None
    assert ([record.token for record in batch.records], [end.token for end in batch.ended]) == (["bb"], ["aa"])


def test_the_end_of_a_run_that_was_given_for_a_write_past_the_journal_is_written():
    kept = journal()
    run = run_of("42", "aa", since_mono_ms=0.0)
    kept.start(run)
    assert kept.send_runs(1) == [run]
    kept.end(run)
    batch = kept.take()
    assert batch is not None
    assert [(end.token, end.last_here) for end in batch.ended] == [("aa", True)]
