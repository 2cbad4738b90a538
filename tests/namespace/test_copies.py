"""A namespace can be copied as its client can, and says why it cannot be sent anywhere."""

import copy
import pickle

import pytest
import redis
import redis.asyncio

from async_tracker.namespace import Namespace, SyncNamespace


async def test_a_copy_is_another_view_of_the_same_client(redis_client, namespace):
    ns = Namespace(redis_client, namespace)
    twin = copy.copy(ns)
    await twin.set("k", "v")
    assert await ns.get("k") == b"v"
    assert (twin.namespace, twin.redis) == (namespace, redis_client)
    assert twin is not ns
    assert isinstance(twin, redis.asyncio.Redis)


def test_so_is_that_of_a_synchronous_one(redis_url, namespace):
    with redis.Redis.from_url(redis_url) as client:
        twin = copy.copy(SyncNamespace(client, namespace))
        twin.set("k", "v")
        assert client.get(f"{namespace}:k") == b"v"


@pytest.mark.parametrize("move", [copy.deepcopy, pickle.dumps])
def test_what_cannot_be_sent_says_what_to_do(move):
    for ns in (Namespace(redis.asyncio.Redis(), "a"), SyncNamespace(redis.Redis(), "a")):
        with pytest.raises(TypeError, match=r"make another one there: Namespace\(client, name\)"):
            move(ns)
