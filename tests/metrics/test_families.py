"""What the metrics are made of, and how they are kept within bounds."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

from async_tracker.history.histogram import TOP, upper_bound_ms
from async_tracker.metrics.families import FAMILIES, FINISHED, Distribution, Shown
from async_tracker.policy import InstanceState
from async_tracker.records import OUTCOMES, Durations, FunctionStats, Instance, Measures, Stats
from async_tracker.store.counters import BOUNDS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = Stats(functions=(), **dict.fromkeys(("started", *OUTCOMES), 0), run_time=0.0, queue_wait=0.0)
EMPTY = Measures(taken_at=NOW, instances=(), in_flight=(), orphans=0, quarantined=0, stats=NOTHING, durations=())


def instance(number: int, **facts: object) -> Instance:
    given: dict[str, Any] = {"state": InstanceState.ALIVE, "queue": "mail", "concurrency": 10, "busy": 3, **facts}
    return Instance(
        instance_id=f"w{number}",
        reason="",
        library="arq",
        host="h",
        pid=number,
        started_at=NOW,
        heartbeat_at=NOW,
        heartbeat_age=0.0,
        **given,
    )


def counted(*rows: FunctionStats) -> Measures:
    return dataclasses.replace(EMPTY, stats=dataclasses.replace(NOTHING, functions=rows))


def test_there_are_fourteen_bounds_and_each_is_one_of_our_histograms():
    assert len(BOUNDS) == 14
    assert list(BOUNDS) == sorted(set(BOUNDS))
    assert all(0 < bound < TOP for bound in BOUNDS)
    assert (round(upper_bound_ms(BOUNDS[0]), 2), round(upper_bound_ms(BOUNDS[-1]) / 60_000, 1)) == (4.98, 57.3)


def test_every_outcome_of_a_run_is_one_of_what_is_finished():
    assert set(FINISHED) == set(OUTCOMES) - {"recovered"}
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) == 21


def test_draining_silent_and_dead_instances_are_no_capacity_and_a_dead_one_has_no_jobs():
    instances = [instance(number, state=state) for number, state in enumerate(InstanceState)]
    values = Shown().values(dataclasses.replace(EMPTY, instances=tuple(instances)))
    assert values["async_tracker_slots"] == {(): 20}, "of those that are alive or blocked"
    assert values["async_tracker_busy"] == {(): 3 * (len(InstanceState) - 1)}
    assert values["async_tracker_instances"] == {(state.value, "mail", "arq"): 1 for state in InstanceState}


def test_an_instance_of_two_queues_is_a_worker_of_both_and_has_its_slots_once():
    values = Shown().values(dataclasses.replace(EMPTY, instances=(instance(1, queue="mail, pay", queues=("mail", "pay")),)))
    alive = {labels[1] for labels, count in values["async_tracker_instances"].items() if count}
    assert (alive, values["async_tracker_slots"]) == ({"mail", "pay"}, {(): 10})


def test_a_loop_that_is_blocked_lags_for_as_long_as_it_is_blocked():
    blocked = instance(1, state=InstanceState.STALLED_BLOCKED, loop_lag=0.2, blocked_for=42.0)
    assert Shown().values(dataclasses.replace(EMPTY, instances=(instance(2), blocked)))["async_tracker_event_loop_lag_seconds"] == {
        (): 42.0
    }


def test_functions_and_queues_beyond_the_cap_are_counted_together_and_no_run_is_lost():
    rows = [FunctionStats(function=f"f{number}", queue=f"q{number % 40}", started=number) for number in range(200)]
    started = Shown(names_most=20).values(counted(*rows))["async_tracker_jobs_started_total"]
    assert sum(value for value in started.values() if isinstance(value, int)) == sum(range(200))
    assert len({function for _, function in started}) == len({queue for queue, _ in started}) == 21
    assert "other" in {function for _, function in started}


def test_which_functions_have_a_label_depends_on_which_came_first_and_not_on_which_are_asked_for_first():
    """Else a second program, or the same one after its restart, would show other ones, and `other` would go back."""
    early = [
        Durations(
            function=f"f{number}",
            queue="q",
            since=NOW,
            run_time_counts=(1,) * 15,
            run_time=1.0,
            queue_wait_counts=(0,) * 15,
            queue_wait=0.0,
        )
        for number in range(5, 10)
    ]
    rows = [FunctionStats(function=f"f{number}", queue="q", started=1) for number in range(10)]
    measures = dataclasses.replace(counted(*rows), durations=tuple(early))
    for _ in range(2):
        started = Shown(names_most=5).values(measures)["async_tracker_jobs_started_total"]
        assert started == {("q", name): 1 for name in ("f5", "f6", "f7", "f8", "f9")} | {("q", "other"): 5}


def test_a_function_keeps_its_label_whatever_comes_and_goes():
    shown = Shown(names_most=2)
    shown.values(counted(FunctionStats(function="a", queue="q", started=1), FunctionStats(function="b", queue="q", started=1)))
    started = shown.values(counted(FunctionStats(function="b", queue="q", started=2), FunctionStats(function="c", queue="q", started=5)))
    assert started["async_tracker_jobs_started_total"] == {("q", "b"): 2, ("q", "other"): 5}


def test_a_counter_that_has_lost_a_little_waits_until_it_is_whole_again_and_one_that_began_anew_begins_anew():
    shown = Shown()

    def seen(started: int) -> object:
        values = shown.values(counted(FunctionStats(function="a", queue="q", started=started)))
        return values["async_tracker_jobs_started_total"]["q", "a"]

    assert [seen(number) for number in (1_000, 990, 1_005, 3, 4)] == [1_000, 1_000, 1_005, 3, 4]


def test_a_histogram_goes_back_as_a_whole_or_not_at_all():
    shown = Shown()

    def seen(counts: tuple[int, ...]) -> object:
        item = Durations(
            function="a",
            queue="q",
            since=NOW,
            run_time_counts=counts,
            run_time=float(sum(counts)),
            queue_wait_counts=(0, 0),
            queue_wait=0.0,
        )
        return shown.values(dataclasses.replace(EMPTY, durations=(item,)))["async_tracker_job_duration_seconds"]["q", "a"]

    assert [seen(counts) for counts in ((6, 4), (6, 3), (7, 4), (0, 1))] == [
        Distribution((6, 10), 10.0),
        Distribution((6, 10), 10.0),
        Distribution((7, 11), 11.0),
        Distribution((0, 1), 1.0),
    ]
