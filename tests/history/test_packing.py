"""Packed records: what is written is read back, and what this version cannot read is said to be so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_tracker.history.histogram import TOP, Histogram
from async_tracker.history.packing import Span, entries, entry, pack, unpack
from async_tracker.store.counters import COUNTERS

numbers = st.integers(min_value=1, max_value=2**40)
histograms = st.builds(Histogram, st.dictionaries(st.integers(min_value=0, max_value=TOP), numbers), st.integers(0, 2**40))
spans = st.builds(Span, st.dictionaries(st.sampled_from(COUNTERS), numbers), histograms, histograms, st.booleans())


@given(spans)
def test_what_is_packed_is_read_back(span: Span):
    assert unpack(pack(span)) == span


@given(st.binary(max_size=80))
def test_bytes_of_any_kind_are_a_span_or_a_value_error(raw: bytes):
    try:
        unpack(raw)
    except ValueError:
        return


@given(st.lists(st.tuples(st.integers(0, 59), st.binary(max_size=300)), max_size=60))
def test_the_records_of_a_string_are_found_with_their_places(records):
    assert list(entries(b"".join(entry(place, record) for place, record in records))) == records


def test_a_span_with_more_taken_back_than_counted_packs_as_nothing():
    assert unpack(pack(Span({"started": -1}, Histogram({3: -1})))) == Span()


def test_a_record_of_another_schema_is_refused():
    with pytest.raises(ValueError, match="schema 9"):
        unpack(b"\x09" + pack(Span())[1:])
