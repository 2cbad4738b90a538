"""The server that arq and the tracker share has no room for a further connection: nobody fares worse than without the tracker."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from arq.connections import ArqRedis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NoConnection

from async_tracker.embedded import EmbeddedServer
from tests.harness.wait import wait_until
from tests.integrations.arq.running import FOR_A_COMMAND, open_pool
from tests.integrations.arq.with_and_without_tracker import HOOK_TIMEOUT, Company, has_met_the_fault, sees, story_of

BEAT = 1.0
RIGHT_AGAIN = 2 * BEAT + 1.0
"""Two beats, and a second for a machine that is busy with other tests."""

CONNECTIONS_OF_ARQ = 16
"""More than the jobs of a story ever use at a time: arq has what it needs before the server is full."""


async def job(ctx):
    return "done"


@pytest.fixture
def server(make_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    """A server of the test's own, for it is configured."""
    return make_server()


@pytest.fixture
def tracker(make_tracker):
    return make_tracker(heartbeat_interval=BEAT, hook_timeout=HOOK_TIMEOUT)


@asynccontextmanager
async def no_room(redis_client: Redis) -> AsyncIterator[None]:
    """Let the server refuse everybody who comes; who is connected stays."""
    limit = (await redis_client.config_get("maxclients"))["maxclients"]
    await redis_client.config_set("maxclients", 1)
    try:
        yield
    finally:
        await redis_client.config_set("maxclients", limit)


async def refused_connections(redis_client: Redis) -> int:
    count: int = (await redis_client.info("stats"))["rejected_connections"]
    return count


async def open_wide(redis_url: str, queue: str) -> ArqRedis:
    """Open a pool of arq's that has all its connections already."""
    wide = await open_pool(redis_url, queue=queue)
    connections = [await wide.connection_pool.get_connection(*FOR_A_COMMAND) for _ in range(CONNECTIONS_OF_ARQ)]
    for connection in connections:
        await wide.connection_pool.release(connection)
    return wide


async def test_a_tracker_whose_connection_cannot_come_back_is_no_fault_of_a_job(
    tracker, observer, run_worker, pool, redis_client, redis_url, queue
):
    refused: list[int] = []

    @asynccontextmanager
    async def full() -> AsyncIterator[None]:
        instances = await observer.instances()
        async with no_room(redis_client):
            for connection_id in [connection_id for instance in instances for connection_id in instance.connection_ids]:
                assert await redis_client.client_kill_filter(_id=str(connection_id)) == 1
            yield
            refused.append(await refused_connections(redis_client))

    async def right_again() -> None:
        await wait_until(lambda: sees(observer, tracker, "b-hold"), timeout=RIGHT_AGAIN, description="the tracker is right again")

    untouched, company = Company(), Company()
    plain = await run_worker(untouched.settings(dict), pool=await open_wide(redis_url, queue))
    expected = await story_of(untouched, plain, pool, prefix="a-", weather=full)
    worker = await run_worker(company.settings(tracker.install), pool=await open_wide(redis_url, queue))
    met = partial(has_met_the_fault, tracker)
    assert await story_of(company, worker, pool, prefix="b-", weather=full, has_met_it=met, on_change=right_again) == expected
    company.assert_hooks_kept_their_time()
    assert refused[0] == 0, "arq had all the connections that it needed"
    assert refused[1] > 1, "the tracker tried, and tried again"
    assert (await observer.instances(), await observer.orphans()) == ([], [])


async def test_a_claim_for_which_the_server_has_no_room_ends_the_worker_as_without_us(
    tracker, observer, run_worker, pool, redis_client, monkeypatch
):
    """arq has read what is queued and lost its connection since: the claim is what has to connect, and alone."""

    async def story(install):
        worker = await run_worker(install({"functions": [job]}))
        inner = worker.worker
        start_jobs = inner.start_jobs

        async def start_without_a_connection(job_ids):
            if not job_ids:
                return await start_jobs(job_ids)
            refused = await refused_connections(redis_client)
            async with no_room(redis_client):
                await inner.pool.connection_pool.disconnect()
                try:
                    return await start_jobs(job_ids)
                finally:
                    seen.append([instance.state for instance in await observer.instances()])
                    refusals.append(await refused_connections(redis_client) - refused)

        if install is not dict:  # it is connected, and known, before the server is full
            await wait_until(observer.instances, description="the instance is registered")
        seen: list[list[str]] = []
        refusals: list[int] = []
        monkeypatch.setattr(inner, "start_jobs", start_without_a_connection)
        await pool.enqueue_job("job", _job_id="the job")
        await wait_until(lambda: worker.task.done(), description="the worker has ended")
        assert isinstance(worker.error, NoConnection), worker.error
        assert refusals == [1], "the claim, and nobody else, was refused"
        assert seen == ([[]] if install is dict else [["alive"]])
        await worker.end()
        keys = sorted([key async for key in redis_client.scan_iter("arq:*")])
        queued = await redis_client.zrange(pool.default_queue_name, 0, -1)
        await redis_client.delete(pool.default_queue_name, *keys)
        return inner.jobs_complete, inner.jobs_failed, keys, queued

    assert await observer.instances() == []  # it is connected before the server is full
    expected = await story(dict)
    assert expected == (0, 0, [b"arq:job:the job"], [b"the job"])
    assert await story(tracker.install) == expected
    assert (await observer.jobs(), await observer.instances()) == ([], [])
