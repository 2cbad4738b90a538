"""The journal against a server that takes, loses, or takes without saying so: in the end it lists what is in flight, and no more."""

import threading
import weakref
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import example, given
from hypothesis import strategies as st

from async_tracker.instance.journal import BATCH, ENDED_KEPT, Batch, Journal
from async_tracker.instance.runs import Run
from async_tracker.records import ENDINGS
from async_tracker.store.writes import Ended
from tests.instance.unkept import UNKEPT


def nobody():
    """Nobody is to be woken."""


def run(job_id: str, name: str, *, at: int = 0) -> Run:
    return Run(job_id, name, "w", started_at_ms=at, started_mono_ms=float(at), keeper=UNKEPT)


class Name(str):
    """The name of a run, which can be looked for: as long as the journal knows the run by anything, it keeps this."""


@dataclass
class Server:
    """What Redis holds of one instance, by the rules of ``write.lua``."""

    listed: set[str] = field(default_factory=set)
    records: dict[str, tuple[int, str]] = field(default_factory=dict)

    def take(self, batch: Batch) -> None:
        for record in batch.records:
            self.listed.add(record.job_id)
            if self.records.get(record.job_id, (-1, ""))[0] <= record.started_at_ms:
                self.records[record.job_id] = (record.started_at_ms, record.token)
        self.end(batch.ended)

    def end(self, ended: list[Ended]) -> None:
        for end in ended:
            if end.token in (None, self.records.get(end.job_id, (0, None))[1]):
                self.records.pop(end.job_id, None)
            if end.last_here:
                self.listed.discard(end.job_id)


Step = tuple[str, int]
OVERTAKEN = [("start", 0), ("start", 0), ("taken", 0), ("end", 1), ("again", 0)]
"""The newer of two runs of a job has its record written, and its end is forgotten."""
steps = st.lists(
    st.tuples(st.sampled_from(["start", "end", "touch", "taken", "lost", "taken in silence", "again"]), st.integers(0, 5)), max_size=60
)


@given(steps)
@example(OVERTAKEN)
def test_whatever_was_lost_on_the_way_the_list_is_what_is_in_flight(history: list[Step]):
    journal, server = Journal(wake=nobody), Server()
    flying: list[Run] = []
    for number, (what, which) in enumerate(history):
        if what == "start":
            flying.append(run(f"job {which}", f"run {number}", at=number))
            journal.start(flying[-1])
        elif what == "end" and flying:
            journal.end(flying.pop(which % len(flying)))
        elif what == "touch" and flying:
            journal.touch(flying[which % len(flying)])
        elif what == "again":
            journal.write_all_again()
        elif what in ("taken", "lost", "taken in silence"):
            compare(journal, server, what)
            batch = journal.take()
            if batch is not None and what != "lost":
                server.take(batch)
            if batch is not None and what != "taken":
                journal.put_back(batch)
    drain(journal, server)
    assert server.listed == {found.job_id for found in flying}
    runs_of = Counter(found.job_id for found in flying)
    alone = {found.job_id: found.token for found in flying if runs_of[found.job_id] == 1}
    for job_id, name in alone.items():
        assert server.records.get(job_id, (0, name))[1] == name
    assert set(server.records) <= server.listed
    assert journal.busy == len(flying)


def compare(journal: Journal, server: Server, what: str) -> None:
    """Do what is done before a write where it must be, with the fate of that write."""
    if journal.must_compare:
        gone = journal.compare(sorted(server.listed))
        if what != "lost":
            server.end(gone)
        if what != "taken":
            journal.compare_again(gone)


def drain(journal: Journal, server: Server) -> None:
    """Write until there is nothing to write, on a server that takes everything."""
    while journal.has_work:
        compare(journal, server, "taken")
        batch = journal.take()
        if batch is not None:
            server.take(batch)


def test_a_run_that_ends_before_it_was_written_is_never_written():
    journal = Journal(wake=nobody)
    short = run("42", "r")
    journal.start(short)
    journal.end(short)
    assert journal.take() is None
    assert not journal.has_work
    assert (journal.counts.started, journal.counts.ended) == (1, 1)


def test_a_run_may_end_twice_and_is_counted_once():
    journal = Journal(wake=nobody)
    once = run("42", "r")
    journal.start(once)
    journal.end(once)
    journal.end(once)
    assert journal.busy == 0
    journal.end(once)
    assert journal.counts.ended == 1


def test_runs_that_end_with_an_error_or_by_their_timeout_have_failed_and_no_others():
    journal = Journal(wake=nobody)
    for outcome in ENDINGS:
        ended = run("1", outcome)
        journal.start(ended)
        ended.outcome = outcome
        journal.end(ended)
        journal.count_end(ended)
    journal.take_new_totals()
    assert (journal.counts.ended, journal.counts.failed) == (len(ENDINGS), 2)


def test_one_write_carries_no_more_than_a_batch_the_oldest_first():
    journal = Journal(wake=nobody)
    for number in range(BATCH + 1):
        journal.start(run(f"job {number}", f"run {number}", at=number))
    first, second = journal.take(), journal.take()
    assert first is not None
    assert second is not None
    assert (len(first.started), [found.job_id for found in second.started]) == (BATCH, [f"job {BATCH}"])


def test_what_is_written_past_the_journal_is_what_is_not_stored_however_many_older_runs_are():
    journal = Journal(wake=nobody)
    for number in range(BATCH + 1):
        stored = run(f"job {number}", f"run {number}", at=number)
        stored.stored = True
        journal.start(stored)
    assert journal.send_runs(BATCH) == []
    blocker = run("the blocker", "r", at=BATCH + 1)
    journal.start(blocker)
    assert journal.send_runs(BATCH) == [blocker]
    assert blocker.sent


def test_in_an_outage_the_journal_is_bounded_by_what_is_in_flight_and_counts_what_it_gives_up():
    """Every run was sent once and nobody knows whether it arrived, so that every end is worth remembering: until there are too many."""
    journal, server = Journal(wake=nobody), Server()
    remembered: weakref.WeakSet[Name] = weakref.WeakSet()
    for number in range(ENDED_KEPT + 10):
        name = Name(f"run {number}")
        remembered.add(name)
        one = run(f"job {number}", name)
        del name
        journal.start(one)
        batch = journal.take()
        assert batch is not None
        journal.put_back(batch)  # it did arrive, and its answer did not
        server.listed.update(record.job_id for record in batch.records)
        journal.end(one)
        del one, batch
        assert journal.busy == 0
        assert len(remembered) <= ENDED_KEPT
    assert journal.dropped > ENDED_KEPT
    drain(journal, server)
    assert server.listed == set()


def test_after_a_death_that_was_none_nothing_of_the_old_instance_is_written():
    journal = Journal(wake=nobody)
    robbed = run("42", "r")
    journal.start(robbed)
    assert journal.disown() == [robbed]
    assert not robbed.owned
    journal.touch(robbed)
    journal.end(robbed)
    assert not journal.has_work


def test_threads_may_start_and_end_runs_at_once():
    journal = Journal(wake=nobody)

    def work(thread: int) -> None:
        for number in range(300):
            one = run(f"job {number % 7}", f"{thread}/{number}")
            journal.start(one)
            journal.touch(one)
            journal.take()
            journal.end(one)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (journal.busy, journal.counts.started, journal.counts.ended) == (0, 1200, 1200)
