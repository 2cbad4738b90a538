"""No part of a credential is ever shown, whatever the url looks like; and what is shown can be given back."""

import traceback

import pytest
import redis
import redis.asyncio

from async_tracker import ConfigError, StorageError, Tracker
from async_tracker.connections.access import describe, redis_options
from async_tracker.connections.calls import translated

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
    assert "redis://" in shown or "did you mean" in shown or "known are" in shown


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
]


@pytest.mark.parametrize(("url", "shown"), READABLE)
async def test_a_url_is_shown_without_its_credentials_and_can_be_given_back(url, shown):
    options = redis_options({"url": url})
    assert "s3c" in str(options.get("password") or "s3c")
    assert describe(redis.asyncio.Redis(**options)) == shown
    assert describe(redis.asyncio.Redis(**redis_options({"url": shown}))) == shown


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
