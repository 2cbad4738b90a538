"""Counters are totals: however often, late or in vain they are sent, they count once."""

from hypothesis import given
from hypothesis import strategies as st

from async_tracker.instance.counts import Counts
from async_tracker.store.counters import OTHER, field_name, parse_stats


class Server:
    """Adds what has grown since this instance's last report, as ``beat.lua`` does."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.reported: dict[str, int] = {}

    def take(self, sent: dict[str, int]) -> None:
        for name, total in sent.items():
            self.totals[name] = self.totals.get(name, 0) + total - self.reported.get(name, 0)
            self.reported[name] = total


happenings = st.lists(
    st.sampled_from(["count", "count other", "tally", "reported", "lost", "answer lost", "resend", "new instance"]), max_size=50
)


@given(happenings)
def test_what_was_counted_is_what_redis_counts(history: list[str]):
    counts, server = Counts(), Server()
    expected: dict[str, int] = {}
    for what in history:
        if what.startswith("count"):
            function = "other" if what.endswith("other") else "send"
            counts.of(function, None)["failed"] += 1
            counts.of(function, None)["run_ms"] += 10
            expected[field_name(function, None, "failed")] = expected.get(field_name(function, None, "failed"), 0) + 1
            expected[field_name(function, None, "run_ms")] = expected.get(field_name(function, None, "run_ms"), 0) + 10
        elif what == "tally":
            counts.tally("send", None).extend((0.5, -2.0))
            expected["succeeded"] = expected.get("succeeded", 0) + 1
        elif what == "resend":
            counts.resend_all()
        elif what == "new instance":
            server.take(counts.unsent())
            counts.acknowledge(counts.unsent())
            counts.start_anew()
            server.reported.clear()
        else:
            sent = counts.unsent()
            if what != "lost":
                server.take(sent)
            if what == "reported":
                counts.acknowledge(sent)
    server.take(counts.unsent())
    runs = expected.pop("succeeded", 0)
    if runs:
        run_ms = field_name("send", None, "run_ms")
        expected[run_ms] = expected.get(run_ms, 0) + runs // 2
        expected |= {field_name("send", None, "succeeded"): runs, field_name("send", None, "started"): runs}
    assert {name: total for name, total in server.totals.items() if total} == {name: total for name, total in expected.items() if total}
    assert (counts.started, counts.ended) == (runs, runs)


def test_what_has_not_changed_is_not_sent():
    counts = Counts()
    counts.of("send", "mail")["succeeded"] += 1
    counts.acknowledge(counts.unsent())
    assert counts.unsent() == {}


def test_a_process_with_endless_function_names_stays_within_its_bound():
    counts = Counts()
    for number in range(5_000):
        counts.of(f"function {number}", "mail")["started"] += 1
    rows = parse_stats({name: str(total) for name, total in counts.unsent().items()})
    assert len(rows) <= 1_001
    assert sum(row["started"] for row in rows.values()) == 5_000
    assert rows[(OTHER, "mail")]["started"] == 4_000


def test_names_of_any_kind_come_back_as_they_were():
    for name in ("a:b", '"quoted"', "line\nbreak", "ключ", "", "*"):
        assert list(parse_stats({field_name(name, name, "failed"): "1"})) == [(name, name)]
