"""What stands between us and Redis may answer in its place: that is a refusal, for questions and for the history alike."""

import pytest
import redis.asyncio

from async_tracker.errors import StorageError
from async_tracker.namespace import Namespace
from async_tracker.store.reading import Reading
from tests.harness.wire import WireProxy


@pytest.mark.parametrize("question", ["instance_ids", "names", "instances"])
async def test_an_answer_of_another_shape_is_a_refusal(question: str, wire: WireProxy, namespace: str):
    async with redis.asyncio.Redis.from_url(wire.url) as client:
        reading = Reading(Namespace(client, namespace))
        rule = wire.reply_with_error("", to={"ZRANGE", "EVAL", "EVALSHA"})
        rule.reply = b"$4\r\nwhat\r\n"
        arguments = [["one", "two"]] if question == "instances" else []
        with pytest.raises(StorageError, match="never returns"):
            await getattr(reading, question)(*arguments)
