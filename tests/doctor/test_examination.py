"""The doctor needs a tracker alone: that is what a web page has."""

import pytest
import redis.asyncio

from async_tracker import StorageUnavailable, Tracker
from async_tracker.doctor.examination import examine
from async_tracker.doctor.findings import Status
from async_tracker.integrations.dramatiq.holds import Broker
from tests.harness.settings import KNOWN


def by_subject(findings):
    return {finding.subject: finding for finding in findings}


@pytest.fixture
async def tracker(redis_client, namespace):
    async with Tracker(namespace=namespace, redis=redis_client, **KNOWN) as tracker:
        yield tracker


@pytest.fixture
async def mail_worker(redis_client, namespace):
    """An instance that says that it is one of dramatiq's, with its broker on another server."""
    async with Tracker(namespace=namespace, redis=redis_client, **KNOWN) as tracker, tracker.register():
        key = f"{namespace}:instance:{tracker.instance_id}"

        async def say(run_id):
            broker = Broker(broker_id="ab", namespace="mail", at="redis://mail:6379/1").encode()
            await redis_client.hset(key, mapping={"library": "dramatiq", "broker": broker, "claims_server": run_id})

        yield say


async def test_a_tracker_is_all_that_an_examination_needs(tracker):
    async with tracker.register():
        findings = await examine(tracker)
    assert {"connection", "server", "memory", "namespace", "user default"} <= set(by_subject(findings))
    assert [finding for finding in findings if finding.status is not Status.OK] == []


async def test_a_finding_that_is_not_ok_says_what_to_do(tracker):
    found = by_subject(await examine(tracker))["namespace"]
    assert found.status is Status.WARNING
    assert found.remedy


async def test_a_redis_that_cannot_be_reached_is_told_as_an_error(wire, namespace):
    wire.refuse()
    async with Tracker(namespace=namespace, redis_options={"url": wire.url}) as tracker:
        with pytest.raises(StorageUnavailable):
            await examine(tracker)


async def test_the_redis_of_a_library_is_the_one_that_the_tracker_was_given(make_server, redis_client, namespace, mail_worker):
    other = make_server()
    async with redis.asyncio.Redis.from_url(other.url) as client:
        await mail_worker((await client.info("server"))["run_id"])
        statuses = {}
        for name, given in {"none": None, "url": other.url, "client": client}.items():
            async with Tracker(namespace=namespace, redis=redis_client, dramatiq_redis=given) as tracker:
                statuses[name] = by_subject(await examine(tracker))["dramatiq's Redis"].status
        assert statuses == {"none": Status.PROBLEM, "url": Status.OK, "client": Status.OK}
        assert await client.ping(), "a client that was given stays open"


async def test_a_library_s_redis_that_does_not_answer_is_a_finding_and_no_error(wire, redis_client, namespace, mail_worker):
    await mail_worker("f00d")
    wire.stall()
    async with Tracker(namespace=namespace, redis=redis_client, dramatiq_redis=wire.url) as tracker:
        found = by_subject(await examine(tracker, answer_within=0.2))["dramatiq's Redis"]
    assert found.status is Status.PROBLEM
    assert "did not answer within 0.2 s" in found.says
