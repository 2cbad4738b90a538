"""The border to redis-py: whatever the driver raises arrives as an error of ours, with the driver's own attached."""

import asyncio
import inspect
from typing import Any

import pytest
import redis.exceptions

from async_tracker.connections.calls import bounded, call, call_many, load_script, run_script, run_scripts, translated
from async_tracker.errors import LeaseLost, StorageError, StorageUnavailable
from async_tracker.store.scripts import SCRIPTS

DRIVERS = sorted(
    {found for _, found in inspect.getmembers(redis.exceptions, inspect.isclass) if issubclass(found, redis.exceptions.RedisError)},
    key=lambda found: found.__name__,
)
FORGOTTEN = SCRIPTS["lease"]


def error_of(kind: type[Exception]) -> Exception:
    """Make one of these as the driver would, whatever its constructor asks for."""
    error = kind.__new__(kind)
    error.args = ("as it was said",)
    return error


@pytest.mark.parametrize("kind", [*DRIVERS, OSError, TimeoutError], ids=lambda kind: kind.__name__)
def test_whatever_the_driver_raises_is_a_storage_error_with_its_cause(kind: type[Exception]):
    with pytest.raises(StorageError) as caught, translated():
        raise error_of(kind)
    assert type(caught.value.__cause__) is kind


@pytest.mark.parametrize(
    ("kind", "ours"),
    [
        (redis.exceptions.ConnectionError, StorageUnavailable),
        (redis.exceptions.TimeoutError, StorageUnavailable),
        (redis.exceptions.BusyLoadingError, StorageUnavailable),
        (ConnectionResetError, StorageUnavailable),
        (redis.exceptions.AuthenticationError, StorageError),
        (redis.exceptions.NoPermissionError, StorageError),
        (redis.exceptions.ReadOnlyError, StorageError),
        (redis.exceptions.OutOfMemoryError, StorageError),
    ],
)
def test_a_redis_that_is_away_is_told_from_one_that_refuses(kind: type[Exception], ours: type[StorageError]):
    with pytest.raises(StorageError) as caught, translated():
        raise error_of(kind)
    assert type(caught.value) is ours


def test_our_own_errors_and_a_cancellation_pass_as_they_are():
    for error in (LeaseLost("no longer ours"), asyncio.CancelledError()):
        with pytest.raises(type(error)) as caught, translated():
            raise error
        assert caught.value is error


async def test_replies_are_bytes_whatever_the_client_decodes(redis_url: str):
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True, encoding="latin-1") as client:
        await call(client, "SET", "greeting", "grüß dich")
        assert await call(client, "GET", "greeting") == "grüß dich".encode()


async def test_what_the_server_refuses_among_many_is_its_own_reply(redis_client: Any):
    await redis_client.hset("a hash", "field", "1")
    replies = await call_many(redis_client, [("GET", "a hash"), ("HGET", "a hash", "field")])
    assert isinstance(replies[0], redis.exceptions.ResponseError)
    assert replies[1] == b"1"


async def test_a_script_that_the_server_has_forgotten_is_sent_again_in_the_same_call(redis_client: Any):
    for _ in range(2):
        await redis_client.script_flush()
        ours, *_ = await run_script(redis_client, FORGOTTEN, ["lease", "instances"], ["me", 1_000, ""])
        assert ours == 1
        await redis_client.script_flush()
        [[ours, *_]] = await run_scripts(redis_client, [(FORGOTTEN, ["lease", "instances"], ["me", 1_000, ""])])
        assert ours == 1


async def test_work_that_takes_longer_than_its_bound_is_cancelled_and_said_to_have_run_out_of_time():
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(asyncio.TimeoutError):
        await bounded(endless(), 0.0)
    await ended.wait()


def test_a_script_is_known_by_the_digest_of_its_text():
    again = load_script("async_tracker.store", "lease")
    assert again == FORGOTTEN
    assert len(again.sha) == 40
