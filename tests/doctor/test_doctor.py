"""What ``doctor`` finds, and that it says how to mend it."""

import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
import redis.asyncio

import async_tracker
from async_tracker import Tracker
from async_tracker.doctor.permissions import ASKING, WORKING
from async_tracker.integrations.arq.rights import RECOVERING as RECOVERING_ARQ
from async_tracker.integrations.dramatiq.holds import Broker, other_broker
from async_tracker.integrations.dramatiq.rights import RECOVERING as RECOVERING_DRAMATIQ
from async_tracker.store.instance_record import Note
from tests.harness.settings import KNOWN, QUIET
from tests.harness.wait import wait_until

SCRIPTS = Path(async_tracker.__file__).parent
ADOPTING = SCRIPTS.parent / "docs" / "adopting.md"


async def examined(cli, *arguments, **options):
    return await cli.within("doctor", *arguments, **options)


def finding(document, subject):
    (found,) = [item for item in document["findings"] if item["subject"] == subject]
    return found


@asynccontextmanager
async def registered(redis_client, namespace, **settings):
    async with Tracker(namespace=namespace, redis=redis_client, **{**KNOWN, **settings}) as tracker, tracker.register(queue="mail"):
        yield tracker


async def keys_beside_the_sweep(client):
    """All keys except those that a live instance writes when its first sweep comes, be that before the doctor's visit or after."""
    of_a_sweep = (b":lease:", b":samples:", b":hours", b":server")
    return {key async for key in client.scan_iter() if not any(part in key for part in of_a_sweep)}


async def test_all_is_well_says_what_it_looked_at_and_leaves_nothing_behind(cli, redis_client, namespace, no_leaks):
    async with registered(redis_client, namespace) as tracker:
        keys = await keys_beside_the_sweep(redis_client)
        answer = await examined(cli, "--json")
        after = await keys_beside_the_sweep(redis_client)
        assert finding(answer.document, f"redis of {tracker.instance_id}")["says"].startswith("unix://")
    assert answer.code == 0
    assert answer.document["healthy"] is True
    assert [item["says"] for item in answer.document["findings"] if item["status"] != "ok"] == []
    assert re.match(r"(Valkey|Redis) \d+\.\d+", finding(answer.document, "server")["says"])
    assert after == keys


async def test_an_empty_namespace_is_a_warning_that_says_what_to_ask(cli):
    answer = await examined(cli)
    assert answer.code == 0
    assert "another namespace, or another Redis" in answer.out


async def test_a_user_without_client_list_is_warned_of_and_one_without_streams_is_a_problem(make_cli, make_server, namespace):
    server = make_server(tcp=True)
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "blind", "on", ">pw", "~*", "&*", "+@all", "-client|list", "-acl|dryrun")
        client.execute_command("ACL", "SETUSER", "mute", "on", ">pw", "~*", "&*", "+@all", "-xadd")
    blind = await examined(make_cli(url=f"redis://blind:pw@127.0.0.1:{server.port}/0", namespace=namespace), "--json")
    mute = await examined(make_cli(url=f"redis://mute:pw@127.0.0.1:{server.port}/0", namespace=namespace), "--json")
    asked_for = await examined(make_cli(url=server.url, namespace=namespace), "--json", "--user", "mute")
    assert blind.code == 0
    assert finding(blind.document, "user blind")["status"] == "warning"
    assert finding(blind.document, "user blind")["remedy"].endswith("+client|list")
    for answer in (mute, asked_for):
        assert answer.code == 1
        assert finding(answer.document, "user mute")["status"] == "problem"
        assert "+xadd" in finding(answer.document, "user mute")["remedy"]


@pytest.fixture
def url_of(make_server, namespace):
    """The url of a server for each of the users that the adopting page describes."""
    server = make_server(tcp=True)
    with redis.Redis.from_url(server.url) as client:
        for line in re.findall(r"^ACL SETUSER .*$", ADOPTING.read_text(), re.MULTILINE):
            client.execute_command(*line.replace("my_app", namespace).split())
    return lambda name: f"redis://{name}:secret@127.0.0.1:{server.port}/0"


async def test_the_users_of_the_adopting_page_are_told_apart_and_each_can_ask_everything(make_cli, url_of, namespace):
    for name, code, status in (("worker", 0, "ok"), ("reader", 0, "warning"), ("tracker", 1, "ok")):
        cli = make_cli(url=url_of(name), namespace=namespace)
        answer = await examined(cli, "--json")
        assert (answer.code, finding(answer.document, f"user {name}")["status"]) == (code, status)
        for command in ("ps", "jobs", "orphans", "stats"):
            assert ((await cli.within(command)).code, (await cli.within(command)).err) == (0, "")


async def test_a_queue_that_a_user_may_not_look_at_is_said_to_be_unknown_and_not_empty(make_cli, url_of, workers, namespace):
    env = {"TEST_REDIS_URL": url_of("worker"), "TRACKER_NAMESPACE": namespace, "TEST_QUEUE": f"arq:queue:{namespace}"}
    workers.start("tests.cli.app.WorkerSettings", env=env)
    cli = make_cli(url=url_of("reader"), namespace=namespace)
    await wait_until(lambda: has_instance(cli), timeout=30.0, description="the worker is registered", poll_interval=0.1)
    answer = await cli.within("ps", "--json")
    assert answer.code == 0
    assert answer.document["queues"] == []
    assert "permission" in answer.document["queues_error"]


async def has_instance(cli):
    return (await cli.within("ps", "--json")).document["instances"]


async def test_a_replica_is_a_problem(make_cli, make_server, namespace):
    master, replica = make_server(tcp=True), make_server(tcp=True)
    with redis.Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", master.port)
        await wait_until(lambda: client.info()["role"] == "slave", description="the server is a replica")
    answer = await examined(make_cli(url=replica.url, namespace=namespace), "--json")
    assert answer.code == 1
    assert "master" in finding(answer.document, "server")["remedy"]


async def test_a_server_that_evicts_is_warned_of(make_cli, make_server, namespace):
    server = make_server(extra_args=("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"))
    answer = await examined(make_cli(url=server.url, namespace=namespace), "--json")
    assert answer.code == 0
    assert finding(answer.document, "memory")["remedy"].endswith("maxmemory-policy noeviction")


async def test_claims_in_another_redis_are_a_problem_until_that_redis_is_named(
    cli, make_server, workers, redis_url, redis_client, namespace
):
    other = make_server()
    env = {"TEST_REDIS_URL": other.url, "TRACKER_REDIS_URL": redis_url, "TRACKER_NAMESPACE": namespace}
    workers.start("tests.cli.app.WorkerSettings", env=env)
    tracker = Tracker(namespace=namespace, redis=redis_client)
    await wait_until(tracker.instances, timeout=30.0, description="the worker is registered")
    unnamed = await examined(cli, "--json")
    assert unnamed.code == 1
    assert "TRACKER_ARQ_REDIS_URL" in finding(unnamed.document, "arq's Redis")["remedy"]
    listed = await cli.within("ps")
    assert listed.code == 0
    assert "--arq-redis-url" in listed.err
    named = await examined(cli, "--json", "--arq-redis-url", other.url)
    assert named.code == 0
    assert finding(named.document, "arq's Redis")["status"] == "ok"
    wrong = await examined(cli, "--json", env={"TRACKER_ARQ_REDIS_URL": redis_url})
    assert wrong.code == 1
    assert "not the one" in finding(wrong.document, "arq's Redis")["says"]


async def test_a_dramatiq_worker_whose_messages_are_in_another_redis_is_named_with_the_option_to_give(cli, redis_client, namespace):
    broker = Broker(broker_id="ab", namespace="dramatiq", at="redis://mail:6379/1")
    said = {"library": "dramatiq", "claims_server": "f00d", "broker": broker.encode()}
    async with registered(redis_client, namespace) as tracker:
        await redis_client.hset(f"{namespace}:instance:{tracker.instance_id}", mapping=said)
        listed = await cli.within("ps")
        answer = await examined(cli, "--json")
    assert listed.code == 0
    assert "dramatiq keeps its jobs in another Redis, redis://mail:6379/1: give it as --dramatiq-redis-url" in listed.err
    assert answer.code == 1
    assert "TRACKER_DRAMATIQ_REDIS_URL" in finding(answer.document, "dramatiq's Redis")["remedy"]


@asynccontextmanager
async def mail_worker(client, namespace, **said):
    """An instance that says that it is one of dramatiq's, on a broker with a namespace of its own."""
    broker = Broker(broker_id="ab", namespace="mail", at="redis://mail:6379/1")
    async with registered(client, namespace) as tracker:
        said = {"library": "dramatiq", "broker": broker.encode(), "queues": '["urgent"]', **said}
        await client.hset(f"{namespace}:instance:{tracker.instance_id}", mapping=said)
        yield


async def test_a_user_is_told_what_the_recovery_of_dramatiq_s_messages_needs_and_leaves_nothing_behind(make_cli, make_server, namespace):
    server = make_server(tcp=True)
    async with redis.asyncio.Redis.from_url(server.url) as client:
        for name, rights in {"able": "~mail:urgent* ~mail:__acks__.* +@all", "mute": "~mail:* +@all -rpush -keys -llen"}.items():
            await client.execute_command("ACL", "SETUSER", name, "on", ">pw", f"~{namespace}:*", *rights.split())
        async with mail_worker(client, namespace):
            keys = await keys_beside_the_sweep(client)
            answers = {}
            for name in ("able", "mute"):
                url = f"redis://{name}:pw@127.0.0.1:{server.port}/0"
                answers[name] = finding(
                    (await examined(make_cli(url=url, namespace=namespace), "--json")).document, f"user {name}, dramatiq"
                )
            cli = make_cli(url=server.url, namespace=namespace)
            answers["asked for"] = finding((await examined(cli, "--json", "--user", "mute")).document, "user mute, dramatiq")
            assert await keys_beside_the_sweep(client) == keys
    assert answers["able"]["status"] == "ok"
    for answer in (answers["mute"], answers["asked for"]):
        assert answer["status"] == "problem"
        assert answer["remedy"].endswith("~mail:* +rpush +llen")


async def test_the_rights_for_arq_are_asked_for_the_queue_that_arq_knows_and_not_for_what_it_is_called(make_cli, make_server, namespace):
    server = make_server(tcp=True)
    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.execute_command("ACL", "SETUSER", "able", "on", ">pw", f"~{namespace}:*", "~arq:*", "+@all")
        async with registered(client, namespace) as tracker:
            said = {"library": "arq", "broker": "redis://", "queue": "mail", "queues": '["arq:queue:mail"]'}
            await client.hset(f"{namespace}:instance:{tracker.instance_id}", mapping=said)
            cli = make_cli(url=f"redis://able:pw@127.0.0.1:{server.port}/0", namespace=namespace)
            answer = await examined(cli, "--json", env={"TRACKER_QUEUE": "mail"})
    assert finding(answer.document, "user able, arq")["status"] == "ok"


async def test_a_library_that_is_not_there_is_not_asked_about_and_arq_s_is_where_nobody_is(cli, redis_client, namespace):
    nobody = await examined(cli, "--json")
    async with mail_worker(redis_client, namespace):
        mail = await examined(cli, "--json")
    async with registered(redis_client, namespace):
        plain = await examined(cli, "--json")
    subjects = [{item["subject"] for item in answer.document["findings"]} for answer in (nobody, mail, plain)]
    judged = [{library for library in ("arq", "dramatiq") if f"user default, {library}" in found} for found in subjects]
    assert judged == [{"arq"}, {"dramatiq"}, {"arq"}]


async def test_a_broker_that_gives_back_by_itself_is_named_and_nothing_is_asked_for_it(cli, redis_client, namespace):
    async with mail_worker(redis_client, namespace, broker=other_broker("RabbitmqBroker")):
        answer = await examined(cli, "--json")
    assert finding(answer.document, "dramatiq's broker")["says"].startswith("RabbitmqBroker, which gives back itself")
    subjects = {item["subject"] for item in answer.document["findings"]}
    assert subjects & {"dramatiq's Redis", "user default, dramatiq", "user default, arq"} == set()
    assert [item["says"] for item in answer.document["findings"] if "its jobs are there too" in item["says"]] == []


async def test_the_rights_for_dramatiq_are_asked_of_its_own_redis_where_that_is_named(cli, make_server, redis_client, namespace):
    other = make_server(tcp=True)
    async with redis.asyncio.Redis.from_url(other.url) as client:
        await client.execute_command("ACL", "SETUSER", "mute", "on", ">pw", "~*", "+@all", "-rpush")
        run_id = (await client.info("server"))["run_id"]
        async with mail_worker(redis_client, namespace, claims_server=run_id):
            url = f"redis://mute:pw@127.0.0.1:{other.port}/0"
            answer = await examined(cli, "--json", "--dramatiq-redis-url", url)
        assert [key async for key in client.scan_iter()] == []
    assert finding(answer.document, "user mute, dramatiq")["remedy"].endswith("+rpush")
    assert "user default, dramatiq" not in {item["subject"] for item in answer.document["findings"]}


async def test_a_corrupt_record_is_named(cli, redis_client, namespace):
    async with registered(redis_client, namespace) as tracker, tracker.track("bad"):
        await wait_until(tracker.jobs, description="the job is in flight")
        await redis_client.set(f"{namespace}:job:bad", "rubbish")
        answer = await examined(cli, "--json")
    assert finding(answer.document, "corrupt record")["says"] == "job:bad"


def test_every_command_of_every_script_is_asked_for():
    assert commands_in("store/lua") - (asked(ASKING) | asked(WORKING)) == set()
    assert commands_in("integrations/arq/lua") - asked(RECOVERING_ARQ) == set()
    assert commands_in("integrations/dramatiq/lua") - asked(RECOVERING_DRAMATIQ) == set()


def commands_in(folder):
    return {name for path in (SCRIPTS / folder).glob("*.lua") for name in re.findall(r"redis\.p?call\('(\w+)'", path.read_text())}


def asked(table):
    return {line.split()[0] for line in table.strip().splitlines()}


@pytest.mark.parametrize(("is_error", "status"), [(False, "warning"), (True, "problem")])
async def test_what_is_not_as_it_was_meant_in_an_instance_is_shown_with_what_to_do(cli, redis_client, namespace, is_error, status):
    """arq's integration notes it: a function that it could not wrap, a name that it does not know."""
    tracker = Tracker(namespace=namespace, redis=redis_client, **KNOWN)
    note = Note(says="a function is not wrapped: late", remedy="put it into functions", is_error=is_error)
    runtime = tracker.footing.runtime(tracker.footing.describe("arq", notes=(note,)), make_adapter=lambda link: None)
    await runtime.start()
    answer = await examined(cli, "--json")
    found = finding(answer.document, runtime.instance_id)
    assert (found["status"], found["says"], found["remedy"]) == (status, note.says, note.remedy)
    await tracker.footing.leave(runtime)


async def test_what_a_journal_had_to_drop_is_shown_by_ps_and_doctor(cli, redis_client, namespace):
    """An outage in which more runs ended than are remembered leaves it so, and the next beat says it; here the next is a minute away."""
    async with registered(redis_client, namespace, **QUIET) as tracker:
        await redis_client.hset(f"{namespace}:instance:{tracker.instance_id}", "dropped", 2_001)
        listed = await cli.within("ps")
        assert "2001 writes dropped" in listed.out.replace(",", "")
        answer = await examined(cli, "--json")
        found = finding(answer.document, tracker.instance_id)
        assert (found["status"], found["says"].replace(",", "")) == ("warning", "2001 writes dropped")
