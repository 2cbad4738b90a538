"""What a person can do about orphans and poison pills, shown with workers that are really killed."""

import anyio
import pytest
from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import Job, JobStatus

from async_tracker import Tracker
from tests.harness.wait import wait_until

ALONE = {"TRACKER_RECOVER": "no", "TRACKER_HEARTBEAT_INTERVAL": "0.5", "TRACKER_HEARTBEAT_TTL": "1"}
QUARANTINE_AT_ONCE = {"TRACKER_MAX_RECOVERIES": "0"}


@pytest.fixture
def queue(namespace):
    return f"arq:queue:{namespace}"


@pytest.fixture
async def pool(redis_url, queue):
    made = await create_pool(RedisSettings.from_dsn(redis_url), default_queue_name=queue)
    yield made
    await made.aclose()


@pytest.fixture
async def orphan(workers, pool, redis_url, redis_client, namespace, queue):
    """The id of a job whose worker was killed, in a fleet that does not recover by itself."""
    env = {"TEST_REDIS_URL": redis_url, "TRACKER_NAMESPACE": namespace, "TEST_QUEUE": queue, **ALONE}
    worker = workers.start("tests.cli.app.WorkerSettings", env=env)
    job_id = "pill [red]1"
    await pool.enqueue_job("hold", 600.0, _job_id=job_id)
    await anyio.to_thread.run_sync(lambda: worker.wait_for_output(f"holding {job_id}"))
    tracker = Tracker(namespace=namespace, redis=redis_client)
    await wait_until(tracker.jobs, description="the job is in flight")
    worker.kill()
    await wait_until(tracker.orphans, timeout=60.0, description="the job is an orphan")
    return job_id


async def test_an_orphan_is_listed_told_of_and_recovered(cli, orphan, pool, redis_client):
    listed = await cli.within("orphans")
    told = await cli.within("recover", "--dry-run")
    assert (listed.code, told.code) == (0, 0)
    assert orphan in listed.out
    assert orphan in told.out
    assert await redis_client.exists(f"arq:in-progress:{orphan}") == 1

    nobody = await cli.within("recover")
    assert (nobody.code, nobody.out) == (2, "")
    assert "--yes" in nobody.err
    assert await redis_client.exists(f"arq:in-progress:{orphan}") == 1

    asked = await anyio.to_thread.run_sync(lambda: cli.on_terminal(100, "recover", typed="n\n"))
    assert orphan in asked
    assert await redis_client.exists(f"arq:in-progress:{orphan}") == 1

    done = await cli.within("recover", "--yes", "--json")
    assert done.code == 0
    assert [(item["job_id"], item["action"]) for item in done.document["recoveries"]] == [(orphan, "recovered")]
    assert await Job(orphan, pool, _queue_name=pool.default_queue_name).status() is JobStatus.queued
    assert (await cli.within("orphans", "--json")).document["orphans"] == []

    events = (await cli.within("events", "--json")).document["events"]
    assert [event["type"] for event in events] == ["instance_dead", "orphaned", "recovered"]
    since = (await cli.within("events", "--json", "--since", events[1]["event_id"])).document["events"]
    assert [event["type"] for event in since] == ["recovered"]
    of_type = await cli.within("events", "--type", "orphaned", "--since", "10m")
    assert orphan in of_type.out
    assert len(of_type.out.splitlines()) == 1


async def test_a_quarantined_job_is_listed_shown_and_retried(cli, orphan, pool):
    assert (await cli.within("recover", "--yes", env=QUARANTINE_AT_ONCE)).code == 0
    listed = await cli.within("quarantine", "list")
    shown = await cli.within("quarantine", "show", orphan)
    document = (await cli.within("quarantine", "show", orphan, "--json")).document["quarantined"]
    assert orphan in listed.out
    assert shown.code == 0
    assert "never unpickled" in shown.out
    assert (document["job_id"], document["deaths"]) == (orphan, 1)
    assert await Job(orphan, pool, _queue_name=pool.default_queue_name).status() is JobStatus.complete

    retried = await cli.within("quarantine", "retry", orphan)
    assert (retried.code, retried.err) == (0, "")
    assert await Job(orphan, pool, _queue_name=pool.default_queue_name).status() is JobStatus.queued
    assert (await cli.within("quarantine", "retry", orphan)).code == 4


async def test_a_quarantined_job_whose_id_was_enqueued_anew_stays_and_can_be_dropped(cli, orphan, pool, redis_client):
    assert (await cli.within("recover", "--yes", env=QUARANTINE_AT_ONCE)).code == 0
    await redis_client.delete(f"arq:result:{orphan}")
    assert await pool.enqueue_job("hold", 600.0, _job_id=orphan) is not None
    stays = await cli.within("quarantine", "retry", orphan, "--json")
    assert stays.code == 1
    assert stays.document["stayed"] == [orphan]
    assert (await cli.within("quarantine", "drop", orphan)).code == 2
    await anyio.to_thread.run_sync(lambda: cli.on_terminal(100, "quarantine", "drop", orphan, typed="n\n"))
    assert (await cli.within("quarantine", "show", orphan)).code == 0
    await anyio.to_thread.run_sync(lambda: cli.on_terminal(100, "quarantine", "drop", orphan, typed="y\n"))
    assert (await cli.within("quarantine", "drop", orphan, "--yes")).code == 4
    assert (await cli.within("quarantine", "list", "--json")).document["quarantined"] == []


@pytest.mark.parametrize("verb", ["show", "retry", "drop"])
def test_a_job_that_is_not_quarantined_is_not_found(cli, verb: str):
    answer = cli("quarantine", verb, "no[b]body")
    assert answer.code == 4
    assert answer.err == "async-tracker: not in quarantine: no[b]body\n"
