"""``check``: what a container's probe is told."""

import socket
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
import redis
import redis.asyncio

from async_tracker import InstanceState, Tracker
from async_tracker.cli.probe import verdict
from async_tracker.instance.host import host_id
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.records import Instance
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until


@asynccontextmanager
async def registered(redis_client, namespace, label):
    async with Tracker(namespace=namespace, redis=redis_client, instance_id=label, **KNOWN) as tracker, tracker.register():
        yield tracker


async def checked(cli, *arguments):
    """Probe, and give Redis more time than a probe does: a busy machine needs it."""
    return await anyio.to_thread.run_sync(lambda: cli("check", "--timeout", "20", *arguments))


async def test_this_hosts_instance_is_alive_and_then_it_is_not(cli, redis_client, namespace):
    assert (await checked(cli)).code == 1
    async with registered(redis_client, namespace, "web") as tracker:
        answer = await checked(cli)
        assert answer.code == 0
        assert f"{tracker.instance_id} is alive" in answer.out
    assert (await checked(cli)).code == 1


async def test_an_instance_is_found_by_id_by_label_and_by_the_beginning_of_either(cli, redis_client, namespace):
    async with registered(redis_client, namespace, "web-1") as tracker:
        for wanted in (tracker.instance_id, "web-1", "web", tracker.instance_id[:-2]):
            assert (await checked(cli, "--instance", wanted)).code == 0
        assert (await checked(cli, "--instance", "mail")).code == 1
        assert (await checked(cli, "--instance", "eb-1")).code == 1


async def test_a_label_hides_longer_labels_that_begin_alike(cli, redis_client, namespace):
    async with registered(redis_client, namespace, "web-1"), registered(redis_client, namespace, "web-10"):
        document = (await checked(cli, "--instance", "web-1", "--json")).document
    assert [item["label"] for item in document["instances"]] == ["web-1"]


async def test_an_instance_of_another_host_is_not_this_hosts(cli, redis_client, namespace):
    async with registered(redis_client, namespace, "elsewhere") as tracker:
        await redis_client.hset(f"{namespace}:instance:{tracker.instance_id}", "host_id", "another")
        await wait_until(lambda: is_elsewhere(tracker), description="the instance is said to be elsewhere")
        assert (await checked(cli)).code == 1
        assert (await checked(cli, "--instance", "elsewhere")).code == 0


async def is_elsewhere(tracker):
    return [item.host_id for item in await tracker.instances()] == ["another"]


def test_a_server_that_accepts_and_says_nothing_is_given_up_soon(make_cli):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60.0)
        asking = make_cli().start("check", "--redis-url", f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        connection, _ = silent.accept()
        connection.settimeout(60.0)
        with connection:
            while connection.recv(4096):
                pass
    _, err = asking.communicate(timeout=60.0)
    assert asking.returncode == 3
    assert len(err.splitlines()) == 1
    assert "did not answer within 0.5 s" in err


def refusing(admin: Any, how: str) -> str:
    """Have the server refuse in this way; returns the user and the password to ask with."""
    if how == "a password that has changed":
        admin.config_set("requirepass", "new")
    elif how == "keys that may not be read":
        admin.acl_setuser("probe", enabled=True, passwords=["+p"], keys=["other:*"], commands=["+@all"])
        return "probe:p"
    elif how == "a command that may not be run":
        admin.acl_setuser("probe", enabled=True, passwords=["+p"], keys=["*"], commands=["+@all", "-eval", "-evalsha"])
        return "probe:p"
    elif how == "no room for a client":
        admin.config_set("maxclients", admin.info("clients")["connected_clients"])
    elif how == "a key of another type":
        admin.delete("app:instances")
        admin.set("app:instances", "theirs")
    elif how == "a record of another type":
        (name,) = admin.zrange("app:instances", 0, -1)
        admin.delete(f"app:instance:{name.decode()}")
        admin.set(f"app:instance:{name.decode()}", "theirs")
    elif how == "a replica that has lost its primary":
        admin.replicaof("127.0.0.1", 1)
        admin.config_set("replica-serve-stale-data", "no")
    elif how == "a replica":
        admin.replicaof("127.0.0.1", 1)
    return ":old"


@pytest.mark.parametrize(
    "how",
    [
        "a password that has changed",
        "keys that may not be read",
        "a command that may not be run",
        "no room for a client",
        "a key of another type",
        "a record of another type",
        "a replica that has lost its primary",
        "a replica",
    ],
)
async def test_what_keeps_the_probe_from_asking_says_nothing_of_the_worker(make_cli, make_server, how):
    server = make_server(tcp=True, extra_args=("--requirepass", "old"))
    url = f"redis://{{user}}@127.0.0.1:{server.port}/0"
    tracker = Tracker(namespace="app", redis_options={"url": url.format(user=":old")})
    with redis.Redis(port=server.port, password="old") as admin:
        async with tracker, tracker.register():
            cli = make_cli(namespace="app")
            await wait_until(tracker.instances, description="it is registered")
            healthy = await checked(cli, "--redis-url", url.format(user=":old"))
            assert healthy.code == 0
            user = refusing(admin, how)
            answer = await checked(cli, "--redis-url", url.format(user=user))
            assert answer.code == 3
            assert len(answer.err.splitlines()) == 1
            assert f"127.0.0.1:{server.port}" in answer.err


async def test_after_a_change_of_server_nothing_is_said_of_a_worker_that_has_not_come_back(cli, redis_client, redis_url, namespace):
    rare = {**KNOWN, "heartbeat_interval": 60.0, "heartbeat_ttl": 120.0, "silence_limit": 200.0}
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}, **rare) as tracker, tracker.register() as instance_id:
        await wait_until(lambda: redis_client.exists(f"{namespace}:server"), description="a sweep has noted the server")
        await redis_client.hset(f"{namespace}:connections", instance_id, '{"server":"before","ids":{}}')
        await redis_client.hset(f"{namespace}:server", "run_id", "before")
        answer = await checked(cli)
        assert (answer.code, f"{instance_id} is returning: Redis restarted or failed over" in answer.err) == (3, True), answer
        shown = await cli.within("ps")
        assert (shown.code, "1 instance of these may live, and may be dead" in shown.err) == (0, True), shown


async def test_a_probe_is_one_connection_three_round_trips_and_eight_commands(make_cli, make_server):
    server = make_server(tcp=True)
    cli = make_cli(url=server.tcp_url, namespace="app")
    description = Description(library="asyncio", host="h", host_id=host_id(), pid=7)
    async with redis.asyncio.Redis.from_url(server.url, client_name="w") as admin:
        own = Connections(server=(await admin.info("server"))["run_id"], ids={await admin.client_id(): "w"})
        fields = {**encode_description(description, Limits()), "state": "alive"}
        await Store(Namespace(admin, "app")).register("w", 1, own.encode(), fields)
        assert (await cli.within("check", "--timeout", "20")).code == 0
        await admin.config_resetstat()
        assert (await cli.within("check", "--timeout", "20")).out.startswith("w is alive: ")
        called = Counter[str]()
        for name, found in (await admin.info("commandstats")).items():
            called[name.removeprefix("cmdstat_").partition("|")[0]] += found["calls"]  # of scripts, what they call counts as well
        made = (await admin.info("stats"))["total_connections_received"]
    first, evidence, connections = ("zrange", "zcard"), ("info", "evalsha"), ("client",)
    assert ([called[name] for name in (*first, *evidence, *connections)], made) == ([1, 2, 2, 2, 1], 1), called


def instance(state: InstanceState, *, blocked_for: float | None = None) -> Instance:
    moment = datetime.now(UTC)
    return Instance(
        instance_id="web:1:ab",
        state=state,
        reason="because",
        library="arq",
        host="web",
        pid=1,
        started_at=moment,
        heartbeat_at=moment,
        heartbeat_age=0.0,
        blocked_for=blocked_for,
        blocked_at=("app.py:7 count",) if blocked_for is not None else (),
    )


@pytest.mark.parametrize(
    ("states", "is_alive"),
    [
        (["alive"], True),
        (["draining"], True),
        (["stalled_blocked"], True),
        (["stalled_silent"], False),
        (["dead"], False),
        (["dead", "alive"], True),
        (["alive", "stalled_silent"], False),
        ([], False),
    ],
)
def test_what_still_works_on_its_jobs_is_alive(states: list[str], is_alive: bool):
    meant = [instance(InstanceState(state)) for state in states]
    assert verdict(meant, blocked_limit=None, whose="of this host")[0] is is_alive


def test_a_loop_that_is_blocked_for_longer_than_it_may_is_not_alive_and_its_line_is_named():
    meant = [instance(InstanceState.STALLED_BLOCKED, blocked_for=40.0)]
    assert verdict(meant, blocked_limit=60.0, whose="of this host")[0]
    is_alive, why = verdict(meant, blocked_limit=30.0, whose="of this host")
    assert not is_alive
    assert "app.py:7 count" in why
