"""The server's time as a process knows it: right after each reply, and not led astray by one that was long under way."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_tracker.clock import ServerClock, from_ms, to_ms

MINUTE_MS = 60_000.0


@given(ms=st.integers(min_value=0, max_value=4_102_444_800_000))
def test_a_stored_time_comes_back_as_it_was(ms: int):
    assert abs(to_ms(from_ms(ms)) - ms) <= 1  # a float of this size holds microseconds, and not exactly


def test_a_naive_time_is_taken_as_local_time():
    naive = datetime.fromisoformat("2024-07-01T12:00:00")
    assert to_ms(naive) == to_ms(naive.astimezone())


@given(offset=st.floats(-1e12, 1e12), there=st.floats(0.0, 1e4), back=st.floats(0.0, 1e4))
def test_one_reply_sets_it_right_to_half_of_the_time_that_the_reply_was_under_way(offset: float, there: float, back: float):
    clock = ServerClock(offset_ms=0.0)
    served_at = 1e6 + there
    clock.correct(int(served_at + offset), sent_at_ms=1e6, received_at_ms=served_at + back)
    error = clock.at_ms(served_at) - (served_at + offset)
    assert abs(error) <= (there + back) / 2 + 2  # two milliseconds are cut off on the way


@pytest.mark.parametrize(("later_ms", "follows"), [(MINUTE_MS / 2, False), (MINUTE_MS * 2, True)])
def test_a_slow_reply_is_believed_only_where_no_quick_one_came_within_the_minute(later_ms: float, follows: bool):
    clock = ServerClock(offset_ms=0.0)
    clock.correct(1_000, sent_at_ms=0.0, received_at_ms=2.0)
    known = clock.offset_ms
    clock.correct(900_000, sent_at_ms=later_ms, received_at_ms=later_ms + 5_000.0)
    assert (clock.offset_ms != known) is follows
