"""How fast counters grow: over the last span, and anew where what is counted begins anew."""

from async_tracker.queries.rates import Rates


def rates(*samples: tuple[float, dict[str, int]]) -> dict[str, float]:
    made = Rates[str](over=30.0)
    for at, counters in samples:
        made.add(counters, at=at)
    return made.per_minute()


def test_a_rate_begins_anew_where_a_counter_goes_back():
    assert rates(*((at, {"send": started}) for at, started in [(0.0, 100), (10.0, 110), (20.0, 3), (30.0, 8)])) == {"send": 30.0}


def test_a_rate_is_that_of_the_last_half_minute():
    assert rates(*((float(at), {"send": 1_000 * min(at, 100) + at}) for at in range(0, 200, 2))) == {"send": 60.0}


def test_a_counter_that_is_new_has_grown_from_0_and_one_that_is_gone_is_no_0():
    assert rates((0.0, {"old": 7}), (10.0, {}), (20.0, {"new": 5})) == {"new": 15.0}


def test_a_counter_that_was_gone_for_a_while_and_begins_anew_does_not_shrink():
    assert rates((0.0, {"send": 900}), (10.0, {}), (20.0, {"send": 4})) == {"send": 12.0}


def test_nothing_is_told_of_a_time_in_which_nothing_was_read_nor_of_too_short_a_one():
    assert rates((0.0, {"send": 1}), (31.0, {"send": 90})) == {}
    assert rates((0.0, {"send": 1}), (2.0, {"send": 2})) == {}
    assert rates((5.0, {"send": 1}), (2.0, {"send": 2})) == {}
