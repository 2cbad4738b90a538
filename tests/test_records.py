"""A job that a query made is a job like any other, however it was made."""

import copy
import dataclasses
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_tracker.clock import from_ms
from async_tracker.policy import InstanceState
from async_tracker.queries.answers import job_of
from async_tracker.records import OUTCOMES, FunctionStats, Job, Stats
from async_tracker.store.counters import COUNTERS
from async_tracker.store.run_record import RunRecord, encode_run, read_run

NOW_MS = 1_795_000_000_000
texts = st.text(max_size=20)
times = st.integers(1, 2 * NOW_MS)
runs = st.builds(
    RunRecord,
    job_id=texts,
    instance_id=texts,
    token=texts,
    job_try=st.integers(0, 99),
    function=st.none() | texts.filter(bool),
    queue=st.none() | texts.filter(bool),
    library=texts,
    enqueued_at_ms=st.none() | times,
    started_at_ms=times,
    timeout=st.none() | st.floats(0.1, 1e6),
    progress=st.none() | st.floats(0, 1),
    progress_message=st.none() | texts.filter(bool),
    args=st.none() | texts.filter(bool),
    superseded=st.integers(0, 9),
    scope=st.sampled_from(["", "dramatiq"]),
)


def asked_for(run: RunRecord) -> Job:
    return job_of(run.ref, read_run(encode_run(run)), NOW_MS, InstanceState.DRAINING)


def written_out(run: RunRecord) -> Job:
    return Job(
        job_id=run.job_id,
        instance_id=run.instance_id,
        run=run.token,
        job_try=run.job_try,
        function=run.function,
        queue=run.queue,
        library=run.library,
        enqueued_at=from_ms(run.enqueued_at_ms) if run.enqueued_at_ms is not None else None,
        started_at=from_ms(run.started_at_ms),
        running_for=max(NOW_MS - run.started_at_ms, 0) / 1000.0,
        timeout=run.timeout,
        progress=run.progress,
        progress_message=run.progress_message,
        args=run.args,
        superseded=run.superseded,
        instance_state=InstanceState.DRAINING,
    )


@given(runs)
def test_a_job_that_was_asked_for_equals_the_one_that_its_constructor_makes(run: RunRecord):
    asked, made = asked_for(run), written_out(run)
    assert type(asked) is Job
    assert asked == made
    assert (repr(asked), hash(asked), dataclasses.asdict(asked)) == (repr(made), hash(made), dataclasses.asdict(made))
    assert json.dumps(asked.to_dict()) == json.dumps(made.to_dict())


@given(runs)
def test_it_can_be_copied_pickled_and_replaced(run: RunRecord):
    asked = asked_for(run)
    assert copy.copy(asked) == copy.deepcopy(asked) == pickle.loads(pickle.dumps(asked)) == asked
    assert dataclasses.replace(asked, queue="other") == dataclasses.replace(written_out(run), queue="other")


def test_it_is_frozen_and_has_no_room_for_more():
    asked = asked_for(RunRecord(job_id="42", instance_id="w", token="r", started_at_ms=NOW_MS))
    with pytest.raises(dataclasses.FrozenInstanceError):
        asked.queue = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        del asked.queue
    assert not hasattr(asked, "__dict__")


PERCENTILES = [f"{what}_{part}" for what in ("run_time", "queue_wait") for part in ("p50", "p95", "p99", "max")]


@pytest.mark.parametrize(
    ("record", "first", "last"),
    [(FunctionStats, ["function", "queue"], [*PERCENTILES, "per_minute"]), (Stats, ["functions"], ["window"])],
)
def test_the_counters_of_a_record_are_every_outcome_and_no_other(record: type, first: list[str], last: list[str]):
    assert [field.name for field in dataclasses.fields(record)] == [*first, "started", *OUTCOMES, "run_time", "queue_wait", *last]
    assert [name for name in COUNTERS if not name.endswith("_ms")] == ["started", *OUTCOMES]
