"""No part of a credential is ever shown, whatever the url looks like; and what is shown can be given back."""

import re
import traceback

import pytest
import redis
import redis.asyncio
from hypothesis import example, given
from hypothesis import strategies as st

from async_tracker import ConfigError, StorageError, Tracker
from async_tracker.connections.access import Access, describe, redis_options, way_to
from async_tracker.connections.calls import translated
from async_tracker.connections.counterparts import async_counterpart

SECRETS = [
    "redis://:s3cret/x@localhost:6379/0",
    "redis://:s3cret#x@localhost:6379/0",
    "redis://:s3cret?x@localhost:6379/0",
    "redis://:s3cret?x=1@localhost:6379/0",
    "redis://:12/s3cret@localhost:6379/0",
    "redis://s3cret:12/x@localhost:6379/0",
    "redis://:[s3cret@localhost:6379/0",
    "redis://:s3cret]x@localhost:6379/0",
    "redis://:x@s3cret/@localhost",
    "redis://localhost:bad/0?password=s3cret",
    "redis://localhost:6379/0?password=x&s3cret=1",
    "redis://localhost:6379/s3cret",
    "redis://localhost:6379/0?db=s3cret",
    "redis://localhost:6379/0?socket_timeout=s3cret",
    "redis://:s3cret@:bad",
    "redis://:s3cret@[::1",
    "redis://:s3cret@localhost:99999999",
    ":s3cret@localhost:6379",
    "s3cret",
    "s3cret@localhost",
    "//:s3cret@localhost",
    "redis:/:s3cret@localhost",
    "redis:s3cret@localhost",
    "redi://:s3cret@localhost",
    "http://:s3cret@localhost/0",
    "unix://:s3/cret@/run/redis.sock",
    "unix:///run/redis.sock#s3cret",
    "unix://s3cret",
    "redis+sentinel://:s3cret@s1,s2:bad/main",
    "redis+sentinel://:s3cret@s1,s2",
    "redis+sentinel://:s3cret@s1,s2/",
    "redis+sentinel://:s3cret@s1,:s3cret@s2/main",
    "redis+sentinel://:s3cret/x@s1/main",
    "redis+sentinel://:s3cret?x@s1/main",
    "redis+sentinel://:s3cret#x@s1/main",
    "redis+sentinel://:s3cret@x@s1/main",
    "redis+sentinel://s1/main/s3cret",
    "redis+sentinel://s1/main/0/s3cret",
    "redis+sentinel://s1/main?sentinel_passwort=s3cret",
    "redis+sentinel://s1/main?password=x&s3cret=1",
    "redis+sentinel://s1:s3cret/main",
    "redis+sentinel://:%ffs3cret@s1/main",
    "redis+cluster://:s3cret@n1,n2:99999",
    "redis+cluster://:s3cret@n1/1",
    "redis+cluster://:s3cret@n1?db=1",
    "redis+cluster://:s3cret@n1/s3cret",
    "redis+cluster://n1?sentinel_password=s3cret",
    "redis-sentinel://:s3cret@s1/main",
    "sentinel://:s3cret@s1/main",
    "rediss-cluster://:s3cret@n1",
    "valkey://:s3cret@localhost",
    "redis+sentinels://:s3cret@s1/main",
    b"redis://:s3cret@localhost:6379/0",
    ["redis://:s3cret@localhost:6379/0"],
]


@pytest.mark.parametrize("url", SECRETS, ids=str)
@pytest.mark.parametrize("make", [lambda url: redis_options({"url": url}), lambda url: Tracker(redis_options={"url": url})])
def test_a_url_that_cannot_be_read_is_not_shown_nor_is_what_a_parser_says_of_it(make, url):
    with pytest.raises(ConfigError) as refused:
        make(url)
    shown = "".join(traceback.format_exception_only(refused.value))
    exc: BaseException | None = refused.value
    while exc is not None:
        shown += f"{exc!r} {exc}"
        exc = exc.__cause__ or exc.__context__
    assert "s3cret" not in shown
    assert "cret" not in shown.replace("async_tracker", "")
    assert "://" in shown or "did you mean" in shown or "known are" in shown


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("redis-sentinel://s1/main", "redis+sentinel://host:26379,host2:26379/mymaster/0"),
        ("sentinel://s1/main", "redis+sentinel://host:26379,host2:26379/mymaster/0"),
        ("rediss-sentinel://s1/main", "rediss+sentinel://host:26379,host2:26379/mymaster/0"),
        ("redis-cluster://n1", "redis+cluster://host:6379,host2:6379"),
        ("redis+sentinel://s1", "redis+sentinel://host:26379,host2:26379/mymaster/0"),
        ("redis+cluster://n1/3", "redis+cluster://host:6379,host2:6379"),
        ("valkeys://h", "rediss://host:6379/0"),
        ("memcached://h", "redis+cluster://host:6379"),
    ],
)
def test_a_url_that_is_written_otherwise_elsewhere_is_refused_with_what_to_write(url, right):
    with pytest.raises(ConfigError, match=re.escape(right)):
        redis_options({"url": url})


READABLE = [
    ("redis://:s3cret@localhost:6379/0", "redis://localhost:6379/0"),
    ("REDISS://me:s3cret@Db.Example:7000/3", "rediss://db.example:7000/3"),
    ("redis://:s3cr%2Fet@[::1]:7000/3", "redis://[::1]:7000/3"),
    ("redis://:s3cret@[fe80::1%25eth0]:7000", "redis://[fe80::1%25eth0]:7000/0"),
    ("redis://:s3c@ret:x@localhost", "redis://localhost:6379/0"),
    ("redis://localhost:6379/2?password=s3cret", "redis://localhost:6379/2"),
    ("redis://localhost?password=s3c@ret", "redis://localhost:6379/0"),
    (" redis://:s3cret@localhost:6379/0\n", "redis://localhost:6379/0"),
    ("unix://:s3cret@/run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
    ("unix:///run/redis%401.sock", "unix:///run/redis%401.sock?db=0"),
    ("redis+sentinel://me:s3c%40ret@s1,S2:7000/main/3", "redis+sentinel://s1:26379,s2:7000/main/3"),
    ("rediss+sentinel://[::1],[fe80::1%25eth0]:7000/a%20b", "rediss+sentinel://[::1]:26379,[fe80::1%25eth0]:7000/a%20b/0"),
    ("redis+sentinel://s1/main?sentinel_password=s3cret&db=2", "redis+sentinel://s1:26379/main/2"),
    ("redis+cluster://:s3cret@n1,n2:7000/0", "redis+cluster://n1:6379,n2:7000"),
    ("REDISS+CLUSTER://n1?password=s3cret", "rediss+cluster://n1:6379"),
]


@pytest.mark.parametrize(("url", "shown"), READABLE)
async def test_a_url_is_shown_without_its_credentials_and_can_be_given_back(url, shown):
    options = redis_options({"url": url})
    assert "s3c" in str(options.get("password") or "s3c")
    for written in (url, shown):
        assert describe(Access(options={"url": written}, namespace="{app}").client()) == shown
        with Access(options={"url": written}, namespace="{app}").sync_client() as sync:
            assert describe(async_counterpart(sync)) == shown


def test_every_part_of_a_url_that_names_servers_to_ask_arrives_where_it_belongs():
    url = "rediss+sentinel://me:s%3A3%2F%40c@s1,[::1]:7000/my%20main/2?sentinel_username=w&sentinel_password=%3F%26&socket_timeout=2.5"
    route, options = way_to({"url": url})
    assert route is not None
    assert (route.seeds, route.service, route.asking) == (
        (("s1", 26379), ("::1", 7000)),
        "my main",
        {"username": "w", "password": "?&"},
    )
    assert options == {"username": "me", "password": "s:3/@c", "db": 2, "socket_timeout": 2.5, "ssl": True}
    assert "?&" not in repr(route)
    with pytest.raises(ConfigError, match="host beside a url"):
        way_to({"url": url, "host": "elsewhere"})


@pytest.mark.parametrize("url", ["redis+cluster://n1", "rediss+cluster://n1,n2:7000"])
def test_a_cluster_needs_a_namespace_that_is_in_one_slot(url):
    for refused in ("app", "{}app", "app}{"):
        with pytest.raises(ConfigError, match="in YAML TRACKER_NAMESPACE: "):
            Tracker(namespace=refused, redis_options={"url": url})
    Tracker(namespace="eu{app}", redis_options={"url": url})
    with pytest.raises(ConfigError, match="keeps its jobs in a single Redis"):
        Tracker(namespace="{app}", arq_redis=url)
    with pytest.raises(ConfigError, match="database 0 alone"):
        Tracker(namespace="{app}", redis_options={"url": url, "db": 1})


pieces = st.lists(
    st.sampled_from([*":/@?#[],%&=. ", "%40", "%2F", "redis", "rediss", "+", "sentinel", "cluster", "unix", "://", "host", "main", "6379"]),
    max_size=12,
).map("".join)
schemes = st.sampled_from(["redis://", "rediss+sentinel://", "redis+sentinel://", "redis+cluster://", "unix://", "sentinel://", ""])


@given(schemes, pieces, pieces, pieces, st.sampled_from(["", ":", "@", "/", "?", "&", "=", "%"]))
@example("redis+sentinel://", ":", "@s1,s2/main/", "", "")
@example("redis+sentinel://", "s1/main?sentinel_password=", "", "", "")
@example("redis+cluster://", "me:", "@n1/x", "", "")
def test_no_password_is_shown_wherever_it_stands_in_whatever_url(scheme, before, after, rest, between):
    """Where the url can be read, nothing of what is shown of it, or of its parts, may hold the password either."""
    url = f"{scheme}{before}{between}S3CRETpass{after}{rest}"
    shown = ""
    try:
        route, options = way_to({"url": url})
    except ConfigError as refused:
        shown = f"{refused!r} {refused} {refused.__cause__!r} {refused.__context__!r}"
    else:
        credentials = [options.get("password"), options.get("username"), *(route.asking.values() if route else ())]
        if "S3CRETpass" in str(credentials):  # else it stands where a host or a path belongs, and is none
            shown = f"{describe(Access(options={'url': url}, namespace='{app}').sync_client())} {route!r}"
    assert "s3cretpass" not in shown.lower()


@pytest.mark.parametrize(
    "options", [{"host": "redis://:s3cret@db:6379"}, {"host": "me:s3cret@db"}, {"port": "s3cret@6379"}, {"db": "s3cret"}], ids=str
)
async def test_a_host_or_a_port_that_is_none_is_not_shown(options):
    assert "s3cret" not in describe(redis.asyncio.Redis(**options))


def test_a_server_that_repeats_what_it_was_sent_is_not_quoted():
    said = "unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `s3cret`, "
    with pytest.raises(StorageError) as refused, translated():
        raise redis.ResponseError(said)
    assert "HELLO" in str(refused.value)
    assert (
        "s3cret"
        not in "".join(traceback.format_exception(refused.value)).replace(repr(said), "").replace(said, "").split("raise redis")[-1]
    )
