"""The scripts do not parse a record, they look for marks in it: each stands where it should in what the encoder writes, and only there."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from async_tracker.store.run_record import ANY_MARK, BEFORE_START, RunRecord, encode_run, instance_mark, run_mark

HOSTILE = ['"', "\\", '","run":"r2"', '"run":"r2"', '\\","instance":"', '"instance":"w"', '"started_at_ms":7', "\x00", "\ud800", "é", ""]
texts = st.one_of(st.sampled_from(HOSTILE), st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join), st.text(max_size=9))
filled = texts.filter(bool)
records = st.builds(
    RunRecord,
    job_id=texts,
    instance_id=texts,
    token=texts,
    job_try=st.integers(0, 99),
    function=st.none() | filled,
    queue=st.none() | filled,
    library=texts,
    enqueued_at_ms=st.none() | st.integers(0, 2**53),
    started_at_ms=st.integers(0, 2**53),
    timeout=st.none() | st.floats(0, 1e6),
    progress=st.none() | st.floats(0, 1),
    progress_message=st.none() | filled,
    args=st.none() | filled,
    superseded=st.integers(0, 9),
    scope=texts,
    hold=st.none() | filled,
)


@given(records, texts)
@example(RunRecord(job_id="42", instance_id='w","run":"r2', token="r1", started_at_ms=5, args='"run":"r2"'), "r2")
def test_every_record_carries_its_own_marks_once_and_no_others(record: RunRecord, other: str):
    written = encode_run(record).decode("ascii")
    assert [written.count(mark) for mark in (ANY_MARK, BEFORE_START, run_mark(record.token), instance_mark(record.instance_id))] == [1] * 4
    assert written.count(run_mark(other)) == (other == record.token)
    assert written.count(instance_mark(other)) == (other == record.instance_id)
    _, after = written.split(BEFORE_START)
    assert json.loads(after.split(",")[0].rstrip("}")) == record.started_at_ms
    assert instance_mark(record.instance_id).startswith(ANY_MARK)
