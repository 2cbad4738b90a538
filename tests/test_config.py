"""What a tracker is told, and what it refuses at construction with a text that says what to write."""

import asyncio
import decimal
import socket
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode

from async_tracker import ConfigError, Tracker, TrackerError
from async_tracker.config import SETTING_NAMES, Settings, settings_from_env
from async_tracker.connections.access import describe


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"namespace": ""}, 'write namespace="my_app"'),
        ({"namespace": "a\nb"}, 'write namespace="my_app"'),
        ({"namespace": None}, 'write namespace="my_app"'),
        ({"namespce": "x"}, "did you mean 'namespace'"),
        ({"instance_id": ""}, "a pod name for example"),
        ({"instance_id": "pod\x007"}, "a pod name for example"),
        ({"heartbeat_interval": 10, "heartbeat_ttl": 15}, "write heartbeat_ttl=20"),
        ({"heartbeat_interval": 0}, "must be more than 0 s"),
        ({"heartbeat_interval": "5"}, "must be a number of seconds"),
        ({"heartbeat_ttl": float("nan")}, "must be a number of seconds"),
        ({"linger": -0.1}, "must be at least 0 s"),
        ({"gather": -0.1}, "must be at least 0 s"),
        ({"hook_timeout": True}, "must be a number of seconds"),
        ({"silence_limit": 3}, "must not be shorter than heartbeat_ttl (15.0 s)"),
        ({"stall_limit": 3}, "must not be shorter than heartbeat_ttl (15.0 s)"),
        ({"max_recoveries": -1}, "must be a whole number, 0 or more"),
        ({"max_recoveries": 2.5}, "must be a whole number, 0 or more"),
        ({"tags": "blue"}, "write tags=('blue', 'eu-west')"),
        ({"recovery_window": float("inf")}, "must be at most 3.1536e+08 s"),
        ({"recovery_window": 1e18}, "write recovery_window=3.1536e+08 or less"),
        ({"recovery_window": 10**5000}, "must be at most"),
        ({"recovery_window": 1e-9}, "must be at least 0.001 s"),
        ({"heartbeat_interval": 1e-9}, "must be at least 0.01 s"),
        ({"heartbeat_ttl": -1}, "must be more than 0 s"),
        ({"sweep_interval": None}, "must be a number of seconds"),
        ({"disconnect_grace": [1]}, "must be a number of seconds"),
        ({"stall_limit": float("inf")}, "write stall_limit=None for never"),
        ({"stall_limit": "never"}, "must be a number of seconds"),
        ({"linger": 3600}, "must be at most 60 s"),
        ({"recover": "no"}, "write recover=False"),
        ({"watchdog": "off"}, "write watchdog=False"),
        ({"durable": 0}, "write durable=False"),
        ({"record_args": None}, "write record_args=False"),
        ({"max_recoveries": True}, "must be a whole number, 0 or more"),
        ({"keep_tries": -1}, "must be True, False or a whole number from 0 to 1000"),
        ({"keep_tries": "yes"}, "write keep_tries=True for 20 tries of one job"),
        ({"max_recoveries": 10**30}, "must be a whole number, 0 or more"),
        ({"max_recoveries": "3"}, "must be a whole number, 0 or more"),
        ({"instance_id": 7}, "a pod name for example"),
        ({"queue": b"mail"}, "write queue='mail'"),
        ({"redact": "yes"}, "write redact=lambda text: ..."),
        ({"redact": asyncio.sleep}, "write redact=lambda text: ..."),
        ({"version": ""}, "write what your team calls the deploy"),
        ({"version": 7}, "write what your team calls the deploy"),
        ({"version": "1.0\n"}, "without control characters"),
        ({"version": "x" * 201}, "at most 200 characters"),
        ({"tags": None}, "write tags=('blue', 'eu-west')"),
        ({"tags": ("blue", 7)}, "write tags=('blue', 'eu-west')"),
        ({"namespace": b"app"}, 'write namespace="my_app"'),
        ({"namespace": "app\udcff"}, 'write namespace="my_app"'),
        ({"redis_options": "redis://:secret@x"}, 'write redis_options={"url"'),
        ({"redis_options": {7: "x"}}, "unknown redis option 7"),
        ({"redis_options": {"hst": "x"}}, "did you mean 'host'"),
        ({"redis_options": {"url": "http://x"}}, "write redis://host:6379/0"),
        ({"redis_options": {"url": 7}}, "write redis://host:6379/0"),
        ({"redis": "redis://x"}, "write redis.asyncio.Redis(...), or redis_options={...}"),
        ({"arq_redis": 7}, "redis.asyncio client"),
    ],
)
async def test_a_setting_that_cannot_work_is_refused_with_what_to_write(arguments, says):
    with pytest.raises(ConfigError) as refusal:
        Tracker(**arguments)
    assert says in str(refusal.value)
    assert isinstance(refusal.value, ValueError)
    assert isinstance(refusal.value, TrackerError)


async def test_a_number_of_another_kind_is_kept_as_a_plain_one():
    given: dict[str, Any] = {"heartbeat_interval": decimal.Decimal("0.5"), "recovery_window": 7}
    settings = Settings(**given)
    assert (settings.heartbeat_interval, type(settings.heartbeat_interval)) == (0.5, float)
    assert type(settings.recovery_window) is int


async def test_a_client_and_options_exclude_each_other():
    with pytest.raises(ConfigError, match="write one of them"):
        Tracker(redis=redis.asyncio.Redis(), redis_options={"host": "x"})


async def test_a_synchronous_client_is_refused():
    with pytest.raises(ConfigError, match=r"write redis\.asyncio\.Redis"):
        Tracker(redis=redis.Redis())


async def test_a_cluster_needs_a_namespace_that_is_in_one_slot_and_serves_no_worker_library():
    cluster = redis.asyncio.RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", 7000)])
    with pytest.raises(ConfigError, match=r"namespace 'app' may be in several slots of the cluster: write namespace='\{app\}'"):
        Tracker(namespace="app", redis=cluster)
    with pytest.raises(ConfigError, match="arq_redis: a worker library keeps its jobs in a single Redis"):
        Tracker(namespace="{app}", arq_redis=cluster)
    async with Tracker(namespace="{app}", redis=cluster).redis() as namespaced:
        assert describe(namespaced.redis) == "redis+cluster://127.0.0.1:7000"


async def test_a_pipeline_is_no_client():
    with pytest.raises(ConfigError, match=r"must be a redis\.asyncio client, not Pipeline"):
        Tracker(redis=redis.asyncio.Redis().pipeline())


async def test_the_defaults_are_those_that_the_contract_names():
    settings = Tracker().settings
    expected = {
        "namespace": "async_tracker",
        "instance_id": None,
        "queue": None,
        "heartbeat_interval": 5.0,
        "heartbeat_ttl": 15.0,
        "sweep_interval": 0.5,
        "disconnect_grace": 1.0,
        "silence_limit": 60.0,
        "stall_limit": None,
        "watchdog": True,
        "linger": 0.002,
        "gather": 0.05,
        "durable": False,
        "version": None,
        "telemetry": False,
        "hook_timeout": 0.25,
        "control": True,
        "keep_tries": 0,
        "recover": True,
        "max_recoveries": 3,
        "recovery_window": 259_200.0,
        "record_args": False,
        "redact": None,
        "tags": (),
    }
    assert {name: getattr(settings, name) for name in SETTING_NAMES} == expected


async def test_every_setting_that_a_string_can_hold_has_a_variable(monkeypatch):
    written = {
        "NAMESPACE": "shop",
        "INSTANCE_ID": "pod-7",
        "QUEUE": "mail",
        "HEARTBEAT_INTERVAL": "1.5",
        "HEARTBEAT_TTL": "9",
        "SWEEP_INTERVAL": "2",
        "DISCONNECT_GRACE": "3",
        "SILENCE_LIMIT": "90",
        "STALL_LIMIT": "120",
        "WATCHDOG": "off",
        "LINGER": "0",
        "GATHER": "0.1",
        "DURABLE": "yes",
        "VERSION": "2026-07-29.1",
        "TELEMETRY": "on",
        "HOOK_TIMEOUT": "1",
        "CONTROL": "quiet, resume",
        "KEEP_TRIES": "7",
        "RECOVER": "0",
        "MAX_RECOVERIES": "7",
        "RECOVERY_WINDOW": "60",
        "RECORD_ARGS": "TRUE",
        "TAGS": "blue, eu-west",
    }
    for name, value in written.items():
        monkeypatch.setenv(f"TRACKER_{name}", value)
    assert {name.lower() for name in written} == set(SETTING_NAMES) - {"redact"}
    assert Tracker.from_env().settings == Settings(
        namespace="shop",
        instance_id="pod-7",
        queue="mail",
        heartbeat_interval=1.5,
        heartbeat_ttl=9.0,
        sweep_interval=2.0,
        disconnect_grace=3.0,
        silence_limit=90.0,
        stall_limit=120.0,
        watchdog=False,
        linger=0.0,
        gather=0.1,
        durable=True,
        version="2026-07-29.1",
        telemetry=True,
        hook_timeout=1.0,
        control=frozenset({"quiet", "resume"}),
        keep_tries=7,
        recover=False,
        max_recoveries=7,
        recovery_window=60.0,
        record_args=True,
        tags=("blue", "eu-west"),
    )


async def test_an_argument_wins_over_its_variable_and_without_from_env_none_is_read(monkeypatch):
    monkeypatch.setenv("TRACKER_NAMESPACE", "from_environment")
    assert Tracker.from_env(namespace="argument").namespace == "argument"
    assert Tracker.from_env().namespace == "from_environment"
    assert Tracker().namespace == "async_tracker"


@pytest.mark.parametrize(
    ("variable", "value"), [("TRACKER_HEARTBEAT_INTERVAL", "soon"), ("TRACKER_RECOVER", "maybe"), ("TRACKER_MAX_RECOVERIES", "1.5")]
)
async def test_a_variable_that_cannot_be_read_is_named(variable, value):
    with pytest.raises(ConfigError, match=variable):
        settings_from_env({variable: value})


async def named(tracker):
    """Which server and database the tracker's client leads to."""
    async with tracker.redis() as proxy:
        kwargs = proxy.redis.connection_pool.connection_kwargs
        return kwargs.get("host"), kwargs.get("port"), kwargs.get("db")


async def test_which_redis_in_order_of_precedence(monkeypatch):
    assert await named(Tracker()) == ("localhost", 6379, 0)
    monkeypatch.setenv("REDIS_URL", "redis://general:1/1")
    assert await named(Tracker()) == ("general", 1, 1)
    monkeypatch.setenv("TRACKER_REDIS_URL", "redis://tracker:2/2")
    assert await named(Tracker()) == ("tracker", 2, 2)
    assert await named(Tracker(redis_options={"host": "options", "port": 3, "db": 3})) == ("options", 3, 3)
    assert await named(Tracker(redis=redis.asyncio.Redis(host="client", port=4, db=4))) == ("client", 4, 4)


async def test_an_explicit_option_wins_over_the_same_part_of_the_url():
    assert await named(Tracker(redis_options={"url": "redis://a:1/1", "db": 2})) == ("a", 1, 2)
    assert await named(Tracker(redis_options={"url": "redis://a:1/1", "host": "b", "port": 9})) == ("b", 9, 1)


async def test_construction_connects_to_nothing():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        tracker = Tracker(redis_options={"host": "127.0.0.1", "port": listener.getsockname()[1]})
        await tracker.aclose()
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize(("text", "tries"), [("yes", 20), ("1", 1), ("0", 0), ("off", 0), ("35", 35)])
def test_how_many_tries_are_kept_may_be_a_yes_or_a_number_in_its_variable(text, tries):
    assert Settings(**settings_from_env({"TRACKER_KEEP_TRIES": text})).keep_tries == tries


def test_a_number_of_kept_tries_that_cannot_be_read_is_refused():
    with pytest.raises(ConfigError, match=r"TRACKER_KEEP_TRIES='often' must be a yes, a no or a whole number: write yes for 20 tries"):
        settings_from_env({"TRACKER_KEEP_TRIES": "often"})
