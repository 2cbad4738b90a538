"""The histogram: exact in count, merged by addition, its quantiles right within a tenth."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from async_tracker.history.histogram import ERROR, TOP, Histogram, bucket_of, middle_ms, upper_bound_ms

DAY_MS = 86_400_000.0
durations = st.lists(st.floats(min_value=1.0, max_value=DAY_MS), min_size=1, max_size=300)


def of(values) -> Histogram:
    histogram = Histogram()
    histogram.add(values)
    return histogram


@given(durations, st.floats(min_value=0.0, max_value=1.0))
def test_each_quantile_is_right_within_a_tenth_from_a_millisecond_to_a_day(values, q):
    exact = sorted(values)[math.floor(q * (len(values) - 1))]
    assert abs(of(values).quantiles_ms([q])[0] - exact) <= ERROR * exact * 1.000001


@given(durations, durations, durations)
def test_a_sum_of_histograms_is_the_histogram_of_all_in_whatever_order(one, two, three):
    left, right = of(one), of(three)
    left.merge(of(two))
    left.merge(of(three))
    right.merge(of(one))
    right.merge(of(two))
    assert left == right == of([*one, *two, *three])


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=100))
def test_whatever_is_counted_counts_once_in_a_bucket_that_exists(values):
    histogram = of(values)
    assert histogram.count == len(values)
    assert histogram.buckets == Counter(map(bucket_of, values))
    assert all(0 <= bucket <= TOP for bucket in histogram.buckets)


@given(st.floats(min_value=1.000001, max_value=DAY_MS))
def test_a_duration_lies_between_the_bounds_of_its_bucket(ms):
    bucket = bucket_of(ms)
    assert upper_bound_ms(bucket - 1) * 0.999999 <= ms <= upper_bound_ms(bucket) * 1.000001
    assert abs(middle_ms(bucket) - ms) <= ERROR * ms * 1.000001


def test_the_longest_is_known_and_no_quantile_is_longer():
    histogram = of([10.0, 11.5])
    assert histogram.max_ms == 12
    assert (histogram.quantiles_ms([1.0])[0] or 99) <= 12


def test_a_histogram_of_nothing_has_no_quantile():
    assert Histogram().quantiles_ms([0.5, 0.99]) == [None, None]
    assert Histogram().count == 0
