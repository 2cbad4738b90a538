"""A question about one instance or one job reads that one, and answers as the question about all of them does."""

import re

import pytest

from async_tracker.namespace import Namespace
from async_tracker.queries.questions import Queries
from tests.harness.kinds import KINDS, one_of_each_kind


@pytest.fixture
def queries(redis_client, namespace) -> Queries:
    return Queries(Namespace(redis_client, namespace))


def timeless(instance) -> dict[str, object]:
    """Give what does not change from one question to the next: all but ages."""
    return {**instance.to_dict(), "heartbeat_age": None, "reason": re.sub(r"[\d.]+ s", "", instance.reason)}


async def test_one_instance_is_what_it_is_among_all_of_them(queries, redis_url, namespace):
    async with one_of_each_kind(redis_url, namespace):
        among_all = {instance.instance_id: timeless(instance) for instance in await queries.instances()}
        assert {name: timeless(await queries.instance(name)) for name in KINDS} == among_all
        assert {name: found["state"] for name, found in among_all.items()} == {name: kind.state for name, kind in KINDS.items()}
        assert await queries.instance("unheard of") is None


async def test_one_job_has_the_state_of_its_instance(queries, redis_url, namespace):
    async with one_of_each_kind(redis_url, namespace):
        assert {name: (await queries.job(name)).instance_state for name in KINDS} == {name: kind.state for name, kind in KINDS.items()}
        live = {name for name, kind in KINDS.items() if kind.state != "dead"}
        assert {job.job_id for job in await queries.jobs()} == live
        assert {orphan.job_id for orphan in await queries.orphans()} == KINDS.keys() - live


async def test_an_instance_that_cannot_be_read_is_none_and_its_job_is_shown(queries, redis_client, redis_url, namespace):
    async with one_of_each_kind(redis_url, namespace):
        await redis_client.hset(f"{namespace}:instance:fresh", "schema", 99)
        assert await queries.instance("fresh") is None
        assert (await queries.job("fresh")).job_id == "fresh"


async def records_read(redis_client, question) -> int:
    await redis_client.config_resetstat()
    await question
    return int((await redis_client.info("commandstats"))["cmdstat_hgetall"]["calls"])


async def test_others_are_read_only_where_the_verdict_rests_on_them(queries, redis_client, redis_url, namespace):
    async with one_of_each_kind(redis_url, namespace):
        every = await records_read(redis_client, queries.instances())
        one = every - len(KINDS) + 1
        assert await records_read(redis_client, queries.instance("fresh")) == one
        with_their_connections = one + 1  # what another instance reports too would be no evidence
        assert await records_read(redis_client, queries.job("gone")) == with_their_connections
        assert await records_read(redis_client, queries.instance("declared dead")) == one
        assert await records_read(redis_client, queries.instance("silent beside another")) > every
