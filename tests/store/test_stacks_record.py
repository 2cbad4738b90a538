"""Stacks as JSON: read back as they were, never longer than their limit, and what was left out is said."""

import json
from datetime import UTC, datetime

import pytest

from async_tracker.errors import CorruptRecord
from async_tracker.records import Chain, Stacks, ThreadStack, WaitingJobs
from async_tracker.store.stacks_record import encode_stacks, read_stacks

DEEP = Chain(
    frames=("/app/a.py:1 f", "/app/b.py:2 gé\udcff"),
    branches=(Chain(frames=("/x.py:3 h",), ends="Future", times=7), Chain(thread="pool_0", branches=(Chain(frames=("/t.py:9 w",)),))),
    left_out=3,
)


def stacks(*, jobs=(), threads=()):
    return Stacks(
        instance_id="w:1:ab",
        taken_at=datetime(2026, 1, 1, tzinfo=UTC),
        took=0.01,
        is_blocked=True,
        threads=tuple(threads),
        jobs=tuple(jobs),
    )


def group(number: int, *, count: int = 1, chain: Chain = DEEP) -> WaitingJobs:
    return WaitingJobs(count=count, job_ids=tuple(f"{number:08d}-{one:024d}" for one in range(count)), function="send", chain=chain)


def test_they_are_read_back_as_they_were():
    whole = stacks(jobs=[group(1, count=3), group(2)], threads=[ThreadStack(name="MainThread", frames=("/a.py:1 main",))])
    written = encode_stacks(whole)
    assert read_stacks("answer", json.loads(written)) == whole
    assert json.loads(written) == whole.to_dict()


@pytest.mark.parametrize(
    ("whole", "said"),
    [
        (stacks(jobs=[group(1, count=100_000)]), "ids of jobs"),
        (
            stacks(jobs=[group(one, chain=Chain(frames=(f"/app/{'x' * 100}.py:{one} f",) * 20)) for one in range(5_000)]),
            "that wait elsewhere",
        ),
        (stacks(threads=[ThreadStack(name=str(one), frames=("/a.py:1 work" * 20,) * 64) for one in range(500)]), "of 500 threads"),
        (stacks(jobs=[group(1, chain=Chain(branches=tuple(Chain(frames=(f"/{one}.py:1 f",) * 64) for one in range(200))))]), "branch into"),
    ],
)
def test_they_are_never_longer_than_their_limit_and_say_what_was_left_out(whole, said):
    written = encode_stacks(whole)
    assert len(written) <= 256_000
    read = read_stacks("answer", json.loads(written))
    assert said in read.cut
    assert "256 kB" in read.cut
    if whole.jobs:
        assert read.jobs[0].count == whole.jobs[0].count
        assert set(read.jobs[0].job_ids) <= set(whole.jobs[0].job_ids)


@pytest.mark.parametrize(
    "raw", ["[]", "{}", "null", '{"instance_id":1}', encode_stacks(stacks(jobs=[group(1)])).replace('"frames":[', '"frames":[1,', 1)]
)
def test_what_is_no_such_record_is_reported_as_corrupt(raw):
    with pytest.raises(CorruptRecord, match="answer"):
        read_stacks("answer", json.loads(raw))
