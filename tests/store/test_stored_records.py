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
from async_tracker.store.run_record import RunRecord, decode_run, encode_run, glance_at_run, read_run

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


def read_whole(raw: bytes) -> tuple[str, str | None, str | None]:
    stored = read_run(raw)
    return stored["instance"], stored.get("function"), stored.get("queue")


@given(records)
def test_a_glance_at_a_run_tells_what_reading_it_tells(record: RunRecord):
    raw = encode_run(record)
    assert glance_at_run(raw) in (None, read_whole(raw))


def test_a_glance_is_enough_for_a_run_whose_texts_need_no_escape():
    plain = RunRecord(
        job_id="42",
        instance_id="web:1:ab",
        token="f00d",
        function="send",
        queue="arq:queue",
        library="arq",
        started_at_ms=5,
        enqueued_at_ms=4,
        timeout=300.0,
        progress=0.25,
        progress_message="half way",
        args="(1, 2)",
        superseded=1,
        scope="s",
        hold="h",
        max_tries=5,
        keep_tries=2,
        traceparent="00-1-2-01",
    )
    assert glance_at_run(encode_run(plain)) == ("web:1:ab", "send", "arq:queue")
    assert glance_at_run(encode_run(dataclasses.replace(plain, function="envoyé"))) is None


@given(records, st.integers(0, 400), st.binary(max_size=3) | st.sampled_from([b'"', b"}", b",", b"9", b".", b"e5", b"0", b"-"]))
def test_a_glance_at_what_is_no_run_tells_nothing_or_what_reading_it_tells(record: RunRecord, at: int, rubbish: bytes):
    raw = encode_run(record)
    for changed in (raw[:at], raw[:at] + rubbish + raw[at:], raw[:at] + rubbish + raw[at + 1 :]):
        seen = glance_at_run(changed)
        if seen is not None:
            assert seen == read_whole(changed), "what is not read raises here"


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
