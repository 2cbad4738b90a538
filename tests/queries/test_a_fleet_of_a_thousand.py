"""A question about few things costs as little in a fleet of a thousand instances as in a small one: counted at the server."""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
import redis.asyncio

from async_tracker import ConfigError, Tracker
from async_tracker.embedded import EmbeddedServer
from async_tracker.policy import Limits
from async_tracker.queries.answers import instance_of
from async_tracker.queries.turns import in_turns, sorted_in_turns
from async_tracker.store.instance_record import Description, encode_description, encode_queues
from async_tracker.store.observation import Connections
from async_tracker.store.run_record import RunRecord, encode_run
from benchmarks.queries import count_round_trips
from tests.harness.turns import most_in_a_turn

NAMESPACE, INSTANCES, JOBS_EACH = "fleet", 1_000, 10
DESCRIPTION = Description(library="arq", host="h", host_id="0f", pid=7, queue="mail", functions=("send", "sync"), versions={"arq": "0.28"})


@pytest.fixture(scope="module")
def url(server_binary) -> Iterator[str]:
    """A server with the whole fleet in it, of which no test changes anything that another one reads."""
    with EmbeddedServer(binary=server_binary) as server, redis.Redis.from_url(server.url, single_connection_client=True) as client:
        write_fleet(client)
        yield server.url


def write_fleet(client: Any) -> None:
    now_ms = client.time()[0] * 1000
    own = Connections(server=client.info("server")["run_id"], ids={client.client_id(): ""}).encode()
    pipe = client.pipeline(transaction=False)
    fields = {**encode_description(DESCRIPTION, Limits(heartbeat_ttl=3_600.0)), "started_at_ms": now_ms, "state": "alive"}
    for number in range(INSTANCES):
        name = f"h:{number:04}:ab"
        pipe.hset(f"{NAMESPACE}:instance:{name}", mapping=fields)
        pipe.zadd(f"{NAMESPACE}:instances", {name: now_ms})
        pipe.hset(f"{NAMESPACE}:connections", name, own)
        pipe.sadd(f"{NAMESPACE}:jobs:{name}", *(f"{number:04}-{job:02}" for job in range(JOBS_EACH)))
        for job in range(JOBS_EACH):
            record = RunRecord(job_id=f"{number:04}-{job:02}", instance_id=name, token="r", function="send", started_at_ms=now_ms)
            pipe.set(f"{NAMESPACE}:job:{record.job_id}", encode_run(record))
    pipe.zadd(f"{NAMESPACE}:queues", {encode_queues(DESCRIPTION): now_ms, "": now_ms + 100_000})
    pipe.execute()


@pytest.fixture
async def client(url):
    async with redis.asyncio.Redis.from_url(url) as found:
        yield found


@pytest.fixture
async def fleet(client, url):
    async with Tracker(namespace=NAMESPACE, redis=client, arq_redis=url) as tracker:
        yield tracker


@dataclass(frozen=True)
class Cost:
    trips: int
    read: int
    """Commands, those in scripts included."""
    kilobytes: float


async def cost_of(client: redis.asyncio.Redis, question: Callable[[], Awaitable[Any]]) -> tuple[Cost, Any]:
    answer = await question()  # connected, scripts known
    await client.config_resetstat()
    await question()
    sent = (await client.info("stats"))["total_net_output_bytes"]
    read = sum(found["calls"] for name, found in (await client.info("commandstats")).items() if name not in NOT_COUNTED)
    return Cost(await count_round_trips(client, question), read, sent / 1000), answer


NOT_COUNTED = {"cmdstat_info", "cmdstat_config|resetstat", "cmdstat_time"}
ONE = "h:0500:ab"


@pytest.mark.parametrize(
    ("ask", "rows"),
    [
        pytest.param(lambda fleet: fleet.job("0500-03"), 1, id="job"),
        pytest.param(lambda fleet: fleet.instance(ONE), 1, id="instance"),
        pytest.param(lambda fleet: fleet.jobs(ONE), JOBS_EACH, id="jobs of one instance"),
        pytest.param(lambda fleet: fleet.queues(), 1, id="queues"),
        pytest.param(lambda fleet: fleet.instances(count=True), INSTANCES, id="how many instances"),
        pytest.param(lambda fleet: fleet.jobs(ONE, count=True), JOBS_EACH, id="how many jobs on one"),
    ],
)
async def test_a_question_about_few_things_reads_these(client, fleet, ask, rows):
    cost, answer = await cost_of(client, lambda: ask(fleet))
    assert (answer if isinstance(answer, int) else len(answer) if isinstance(answer, list) else 1) == rows
    assert cost.trips <= 4
    assert cost.read <= 30
    assert cost.kilobytes <= 12  # the whole fleet is some 4,500


async def test_a_page_costs_its_rows_and_the_pages_together_are_all_there_is(client, fleet):
    cost, page = await cost_of(client, lambda: fleet.jobs(limit=20, after=(ONE, "0500-03")))
    assert [job.job_id for job in page] == [f"{500 + job // 10:04}-{job % 10:02}" for job in range(4, 24)]
    assert cost.kilobytes <= 60  # the ids of a thousand instances among them
    found, after = [], None
    while page := await fleet.jobs(limit=777, after=after):
        found += page
        after = (page[-1].instance_id, page[-1].job_id)
    assert len(found) == await fleet.jobs(count=True) == INSTANCES * JOBS_EACH
    assert {job.job_id for job in found} == {job.job_id for job in await fleet.jobs()}
    instances = await fleet.instances(limit=300)
    while page := await fleet.instances(limit=300, after=instances[-1].instance_id):
        instances += page
    assert [item.instance_id for item in instances] == [f"h:{number:04}:ab" for number in range(INSTANCES)]


async def test_orphans_come_by_the_page_too(url, client):
    namespace, now_ms = "orphaned", (await client.time())[0] * 1000
    for number in range(3):
        name = f"dead:{number}"
        await client.zadd(f"{namespace}:dead", {name: now_ms})
        await client.hset(f"{namespace}:instance:{name}", mapping={**encode_description(DESCRIPTION, Limits()), "started_at_ms": now_ms})
        for job in range(4):
            record = RunRecord(job_id=f"{number}-{job}", instance_id=name, token="r", started_at_ms=now_ms - job)
            await client.sadd(f"{namespace}:jobs:{name}", record.job_id)
            await client.set(f"{namespace}:job:{record.job_id}", encode_run(record))
    async with Tracker(namespace=namespace, redis=client) as tracker:
        assert await tracker.orphans(count=True) == len(await tracker.orphans()) == 12
        assert [item.job_id for item in await tracker.orphans(limit=3, after=("dead:0", "0-2"))] == ["0-3", "1-0", "1-1"]
        assert await tracker.jobs(limit=100) == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda tracker: tracker.jobs(limit=0),
        lambda tracker: tracker.jobs(after="0500-03"),
        lambda tracker: tracker.instances(after=7),
        lambda tracker: tracker.orphans(limit=True),
        lambda tracker: tracker.jobs(limit=1, count=True),
    ],
)
async def test_a_page_that_cannot_be_is_refused(tracker, wrong):
    with pytest.raises(ConfigError):
        await wrong(tracker)


async def test_a_list_of_queues_that_no_sweep_has_renewed_is_not_relied_on(redis_client, namespace):
    """As in a fleet in which instances of an older version sweep."""
    now_ms = (await redis_client.time())[0] * 1000
    await redis_client.zadd(f"{namespace}:instances", {"w": now_ms})
    await redis_client.hset(f"{namespace}:instance:w", mapping={**encode_description(DESCRIPTION, Limits()), "started_at_ms": now_ms})
    async with Tracker(namespace=namespace, redis=redis_client, arq_redis=redis_client) as tracker:
        assert [depth.queue for depth in await tracker.queues()] == ["mail"]
        await redis_client.zadd(f"{namespace}:queues", {'["arq",null,["other"]]': now_ms, "": now_ms})
        assert [depth.queue for depth in await tracker.queues()] == ["other"]
        await redis_client.zadd(f"{namespace}:queues", {"": now_ms - 600_000})
        assert [depth.queue for depth in await tracker.queues()] == ["mail"]
        await redis_client.set(f"{namespace}:queues", "not ours")
        assert [depth.queue for depth in await tracker.queues()] == ["mail"]


async def test_while_a_thousand_instances_are_made_others_have_a_turn(fleet):
    found, most = await most_in_a_turn(fleet.instances(), instance_of)
    assert len(found) == INSTANCES
    assert most == 200


async def test_what_is_sorted_in_turns_is_sorted():
    items = [(number * 7_919) % 1_000 for number in range(1_000)]
    assert await sorted_in_turns(items, lambda item: -item, 64) == sorted(items, reverse=True)
    assert [part async for part in in_turns(range(5), 2)] == [[0, 1], [2, 3], [4]]
    assert json.dumps(await sorted_in_turns([], str, 64)) == "[]"
