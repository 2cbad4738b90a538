"""What only newer versions of redis-py have: with an older one it is not there, and says so."""

from typing import Any

import pytest
import redis
import redis.asyncio

from async_tracker.namespace import Namespace
from tests.harness.wait import wait_until

MAJOR = int(redis.__version__.split(".")[0])


@pytest.fixture
async def notifying(make_server):
    client = redis.asyncio.Redis.from_url(make_server(extra_args=("--notify-keyspace-events", "KEA")).url)
    yield client
    await client.aclose()


async def test_keyspace_notifications_are_of_the_namespace(notifying):
    ns: Any = Namespace(notifying, "app")
    if not hasattr(notifying, "keyspace_notifications"):
        with pytest.raises(AttributeError, match="redis-py 8"):
            ns.keyspace_notifications()
        return
    notifications = ns.keyspace_notifications()
    await notifications.subscribe_keyspace("k*", db=0)
    heard: list[Any] = []

    async def listen() -> bool:
        await notifying.set("k0", 1)
        await ns.set("k1", 1)
        message = await notifications.get_message(timeout=0.05)
        if message is not None:
            heard.append(message)
        return len(heard) >= 2

    await wait_until(listen, timeout=5, description="a notification was heard")
    await notifications.aclose()
    assert {message.key for message in heard} <= {"k1", b"k1"}


async def test_vector_sets_are_in_the_namespace(redis_client, raw, oracle):
    if "VADD" not in oracle.commands:  # Redis 8 has them
        return
    ns = Namespace(redis_client, "app")

    await ns.execute_command("VADD", "k", "VALUES", 2, 1, 1, "element")

    assert raw.keys() == [b"app:k"]
    assert await ns.execute_command("VCARD", "k") == 1
    if MAJOR >= 7:
        assert await ns.vset().vcard("k") == 1
