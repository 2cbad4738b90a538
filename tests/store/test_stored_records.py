"""Records come back as they were written, and nothing else comes back at all."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_tracker.errors import CorruptRecord
from async_tracker.policy import Limits
from async_tracker.store.instance_record import Description, decode_instance, encode_description
from async_tracker.store.observation import Connections
from async_tracker.store.run_record import RunRecord, decode_run, encode_run

texts = st.text(max_size=30)
times = st.integers(0, 10**14)
records = st.builds(
    RunRecord,
    job_id=texts,
    instance_id=texts,
    token=texts,
    job_try=st.integers(1, 99),
    function=st.none() | texts.filter(bool),
    queue=st.none() | texts.filter(bool),
    library=texts,
    enqueued_at_ms=st.none() | times.filter(bool),
    started_at_ms=times,
    timeout=st.none() | st.floats(0.1, 1e6),
    progress=st.none() | st.floats(0, 1),
    progress_message=st.none() | texts.filter(bool),
    args=st.none() | texts.filter(bool),
    superseded=st.integers(0, 9),
)


@given(records)
def test_a_run_comes_back_as_it_was(record: RunRecord):
    raw = encode_run(record)
    assert raw.isascii()
    assert decode_run("job:x", record.job_id, raw) == record
    assert decode_run("job:x", record.job_id, raw.decode()) == record


anything = st.recursive(st.none() | st.booleans() | st.integers() | texts, lambda inner: st.dictionaries(texts, inner))


@given(st.binary(max_size=60) | anything.map(lambda value: json.dumps(value).encode()))
def test_whatever_else_stands_there_is_corrupt_and_nothing_worse(raw: bytes):
    with pytest.raises(CorruptRecord) as corrupt:
        decode_run("job:x", "x", raw)
    assert corrupt.value.key == "job:x"


@given(
    records,
    st.sampled_from(["schema", "instance", "run", "try", "started_at_ms", "library"]),
    st.none() | st.booleans() | st.lists(texts, max_size=2),
)
def test_a_field_of_the_wrong_kind_is_corrupt(record: RunRecord, name: str, wrong: object):
    stored = {**json.loads(encode_run(record)), name: wrong}
    with pytest.raises(CorruptRecord):
        decode_run("job:x", record.job_id, json.dumps(stored))


DESCRIPTION = Description(
    library="arq", host="h", host_id="0f", pid=7, queue="mail", functions=("a", "b"), tags=("blue",), versions={"redis": "5"}
)


@pytest.mark.parametrize("limits", [Limits(), Limits(stall_limit=90.0, silence_limit=61.0)])
def test_an_instance_comes_back_as_it_described_itself(limits: Limits):
    fields = {name: str(value) for name, value in encode_description(DESCRIPTION, limits).items()}
    stored = decode_instance("instance:w", "w", {**fields, "started_at_ms": "5"})
    assert (stored.description, stored.limits, stored.started_at_ms) == (DESCRIPTION, limits, 5)


@given(
    st.dictionaries(st.sampled_from([item.name for item in dataclasses.fields(Description)] + ["schema", "limits", "started_at_ms"]), texts)
)
def test_an_instance_that_makes_no_sense_is_corrupt_and_nothing_worse(fields: dict[str, str]):
    with pytest.raises(CorruptRecord):
        decode_instance("instance:w", "w", fields)


@given(texts)
def test_connections_that_cannot_be_read_are_no_evidence(text: str):
    assert Connections.decode(text).ids == {}
