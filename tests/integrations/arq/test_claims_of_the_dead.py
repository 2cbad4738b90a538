"""What the adapter makes of a dead worker's claims: which of them had a try of their own, and which were only claims."""

import pytest
import redis.asyncio

from async_tracker.integrations.arq.adapter import RETRY_MS, ArqAdapter
from async_tracker.store.instance_record import Description

CLAIM_SECONDS = 310.0
DEAD = Description(library="arq", host="h", host_id="h", pid=1, queue="arq:queue", claim_seconds=CLAIM_SECONDS)


@pytest.mark.parametrize(
    ("since_claim_ms", "since_try_ms", "has_started"),
    [
        pytest.param(500, 400, True, id="tried after it was claimed"),
        pytest.param(500, 500, True, id="tried in the same millisecond"),
        pytest.param(500, 60_000, False, id="tried a minute ago, under another claim"),
        pytest.param(500, None, False, id="never tried"),
    ],
)
async def test_a_claim_whose_own_try_was_not_counted_was_never_started(
    redis_client: redis.asyncio.Redis, since_claim_ms: int, since_try_ms: int | None, has_started: bool
):
    await redis_client.zadd("arq:queue", {"42": 1})
    await redis_client.psetex("arq:in-progress:42", int(CLAIM_SECONDS * 1000) - since_claim_ms, "dead:r")
    if since_try_ms is not None:
        await redis_client.psetex("arq:retry:42", RETRY_MS - since_try_ms, "1")
    adapter = ArqAdapter(redis_client, receipt_key=str.encode)
    [claim] = [claim async for claim in adapter.claims_of({"dead": DEAD}) if claim is not None]
    assert (claim.job_id, claim.run, claim.started) == ("42", "r", has_started)


async def test_of_a_worker_that_does_not_say_how_long_its_claims_live_every_try_counts(redis_client: redis.asyncio.Redis):
    await redis_client.zadd("arq:queue", {"42": 1})
    await redis_client.psetex("arq:in-progress:42", 10_000, "dead:r")
    await redis_client.psetex("arq:retry:42", 60_000, "1")
    adapter = ArqAdapter(redis_client, receipt_key=str.encode)
    [claim] = [
        claim async for claim in adapter.claims_of({"dead": Description(library="arq", host="h", host_id="h", pid=1)}) if claim is not None
    ]
    assert claim.started
