"""arq and dramatiq in one namespace."""

from pathlib import Path

import pytest
import redis.asyncio

from tests.harness.ledger import Ledger
from tests.harness.wait import wait_until
from tests.harness.workers import Workers
from tests.integrations.conformance import drivers
from tests.integrations.conformance.stage import SECONDS, Stage


@pytest.fixture
def driver() -> drivers.Driver:
    return drivers.arq()


async def test_an_id_that_arq_and_dramatiq_share_is_two_jobs_and_both_are_recovered(
    stage: Stage, workers: Workers, redis_client: redis.asyncio.Redis, redis_url: str, namespace: str, tmp_path: Path
):
    beside = Stage(
        driver=drivers.dramatiq(),
        workers=workers,
        ledger=Ledger(tmp_path / "ledger-of-dramatiq"),
        client=redis_client,
        redis_url=redis_url,
        namespace=namespace,
        tracker=stage.tracker,
        told=stage.told,
    )
    await stage.start_ready(2)
    await beside.start_ready(2)
    for one in (stage, beside):
        await one.hold(job_id="the-same")

    async def holders() -> dict[str, str]:
        found = {job.library: job.instance_id for job in await stage.tracker.jobs() if job.job_id == "the-same"}
        return found if len(found) == 2 else {}

    first = await wait_until(holders, timeout=SECONDS, description="both jobs are in flight")
    assert first is not None
    await stage.kill(first["arq"])
    await beside.kill(first["dramatiq"])

    async def elsewhere() -> bool:
        found = await holders()
        return bool(found) and all(found[library] != first[library] for library in found)

    await wait_until(elsewhere, timeout=SECONDS, description="both jobs run again")
    stage.tell()
    for one in (stage, beside):
        account = await one.succeeded()
        assert len(account.runs_of("the-same")) == 2
    beside.leave()
    await stage.close()
