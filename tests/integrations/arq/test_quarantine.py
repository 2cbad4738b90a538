"""A quarantine takes what the dead run still holds and nothing else."""

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus

from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.integrations.arq.names import IN_PROGRESS, JOB, RETRY
from async_tracker.namespace import Namespace
from async_tracker.store.run_record import RunRecord


@pytest.fixture
def adapter(pool: ArqRedis, namespace: str) -> ArqAdapter:
    return ArqAdapter(pool, receipt_key=Namespace(pool, namespace).full_key)


@pytest.fixture
async def run(pool: ArqRedis, queue: str) -> RunRecord:
    """A run that died, and holds its job."""
    assert await pool.enqueue_job("job", _job_id="42") is not None
    record = RunRecord(job_id="42", instance_id="host:1:ab", token="f00d", queue=queue, library="arq", started_at_ms=1)
    await pool.set(IN_PROGRESS + "42", record.claim)
    await pool.set(RETRY + "42", 1)
    return record


@pytest.mark.parametrize("claim", [b"1", b"host:2:cd:beef", b"host:1:ab:beef"], ids=["nobody's", "another worker's", "a later run's"])
async def test_a_job_whose_claim_is_another_ones_by_now_is_not_quarantined(
    pool: ArqRedis, adapter: ArqAdapter, run: RunRecord, claim: bytes
):
    await pool.set(IN_PROGRESS + "42", claim)
    assert await adapter.quarantine(run, error="it kills") is None
    assert await pool.get(IN_PROGRESS + "42") == claim
    assert await pool.exists(JOB + "42", RETRY + "42") == 2
    assert await Job("42", pool, _queue_name=pool.default_queue_name).status() is JobStatus.in_progress


async def test_a_job_that_was_taken_off_its_queue_is_not_quarantined(pool: ArqRedis, adapter: ArqAdapter, run: RunRecord):
    await pool.zrem(pool.default_queue_name, "42")
    assert await adapter.quarantine(run, error="it kills") is None
    assert await pool.exists(JOB + "42", IN_PROGRESS + "42", RETRY + "42") == 3
    assert await pool.exists("arq:result:42") == 0


async def test_a_job_that_the_dead_run_still_holds_is_quarantined(pool: ArqRedis, adapter: ArqAdapter, run: RunRecord):
    kept = await adapter.quarantine(run, error="it kills")
    assert kept is not None
    assert await pool.exists(JOB + "42", IN_PROGRESS + "42", RETRY + "42") == 0
    assert await pool.zcard(pool.default_queue_name) == 0
