"""What a process has counted is taken from it once."""

import sys
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_tracker.instance.counts import Counts
from async_tracker.store.counters import OTHER, RUN, WAIT, field_name, parse_stats


@given(st.lists(st.sampled_from(["count", "count other", "tally", "take"]), max_size=50))
def test_what_was_counted_is_what_is_taken(history: list[str]):
    counts, taken = Counts(), Counter[str]()
    expected = Counter[str]()
    for what in history:
        if what.startswith("count"):
            function = "other" if what.endswith("other") else "send"
            counts.of(function, None)["failed"] += 1
            counts.of(function, None)["run_ms"] += 10
            expected.update({field_name(function, None, "failed"): 1, field_name(function, None, "run_ms"): 10})
        elif what == "tally":
            counts.tally("send", None).extend((0.5, -2.0))
        else:
            taken.update(counts.take_new_totals())
    taken.update(counts.take_new_totals())
    runs = history.count("tally")
    tallied = {"run_ms": runs // 2, "succeeded": runs, "started": runs}
    expected.update({field_name("send", None, counter): count for counter, count in tallied.items()})
    assert taken == expected
    assert (counts.started, counts.ended) == (runs, runs)


def test_what_has_not_changed_is_not_taken():
    counts = Counts()
    counts.of("send", "mail")["succeeded"] += 1
    assert counts.take_new_totals() == {field_name("send", "mail", "succeeded"): 1}
    assert counts.take_new_totals() == {}


def test_a_process_with_endless_function_names_stays_within_its_bound():
    counts = Counts()
    for number in range(5_000):
        counts.of(f"function {number}", "mail")["started"] += 1
    rows = parse_stats({name: str(total) for name, total in counts.take_new_totals().items()})
    assert len(rows) <= 1_001
    assert sum(row["started"] for row in rows.values()) == 5_000
    assert rows[(OTHER, "mail")]["started"] == 4_000


def test_names_of_any_kind_come_back_as_they_were():
    for name in ("a:b", '"quoted"', "line\nbreak", "ключ", "", "*"):
        assert list(parse_stats({field_name(name, name, "failed"): "1"})) == [(name, name)]


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Have threads take turns hundreds of times as often as by default, so that they meet in the middle of everything."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_what_threads_note_while_another_one_sorts_it_is_counted_once():
    counts, threads, notes, functions = Counts(), 4, 5_000, 7
    has_begun = threading.Barrier(threads + 1)

    def note(thread: int) -> None:
        has_begun.wait()
        for number in range(notes):
            tally = counts.tally(f"function {(thread + number) % functions}", "mail")
            tally += (5.0, 1.0)

    noting = [threading.Thread(target=note, args=(number,)) for number in range(threads)]
    for thread in noting:
        thread.start()
    has_begun.wait()
    taken = []
    while any(thread.is_alive() for thread in noting):
        counts.sort(within=0.001)
        taken += counts.take_new()
        counts.take_new_totals()
    taken += counts.take_new()
    totals = [counts.of(f"function {number}", "mail") for number in range(functions)]
    assert (counts.started, counts.ended, sum(each["succeeded"] for each in totals)) == (threads * notes,) * 3
    assert (sum(each["run_ms"] for each in totals), sum(each["wait_ms"] for each in totals)) == (threads * notes * 5, threads * notes)
    for kind in (RUN, WAIT):
        in_buckets = [count for new in taken for name, count in new.counters.items() if name.startswith(kind) and name[1:].isdigit()]
        assert sum(in_buckets) == threads * notes
