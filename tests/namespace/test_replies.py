"""No reply of any command tells a key by its full name, but for what scripts and functions return."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from async_tracker.namespace import SyncNamespace
from tests.namespace.forms import KEY_NAMES, Form
from tests.namespace.oracle import Oracle, command_name

OPAQUE = ("EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO")
WAITING = ("BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BLMPOP", "BZMPOP", "BZPOPMIN", "BZPOPMAX", "MIGRATE", "MOVE", "WATCH")
"""They wait, change the connection or reach another database: elsewhere tried one by one."""

FILLINGS: dict[str, Callable[[Any, str], Any]] = {
    "lists": lambda client, key: client.rpush(key, "1", "2", "v"),
    "sets": lambda client, key: client.sadd(key, "1", "2", "v"),
    "sorted sets": lambda client, key: client.zadd(key, {"1": 1, "2": 2, "v": 3}),
    "hashes": lambda client, key: client.hset(key, mapping={"1": 1, "v": 2}),
    "strings": lambda client, key: client.set(key, "1"),
    "streams": lambda client, key: client.xadd(key, {"v": 1}, id="1-1"),
}


@pytest.mark.parametrize("filling", FILLINGS)
def test_no_reply_tells_a_full_name(raw: "redis.Redis", oracle: Oracle, forms: tuple[Form, ...], filling: str):
    ns = SyncNamespace(raw, "zq")
    answered = set()
    for form in oracle.keyed_forms(forms):
        if command_name(form) in OPAQUE or form[0] in WAITING or "BLOCK" in form or "DB" in form:
            continue
        for key in KEY_NAMES:
            if not ns.exists(key):
                FILLINGS[filling](ns, key)
        try:
            reply = ns.execute_command(form[0].encode(), *form[1:])
        except redis.ResponseError:
            continue
        answered.add(command_name(form))
        assert not [part for part in parts(reply) if part.startswith(b"zq:")], form

    assert len(answered) > 25
    assert all(key.startswith(b"zq:") for key in raw.scan_iter())


def parts(reply: Any) -> Iterator[bytes]:
    """Return every text in a reply, however deep."""
    if isinstance(reply, (bytes, str)):
        yield reply if isinstance(reply, bytes) else reply.encode()
    elif isinstance(reply, dict):
        for name, value in reply.items():
            yield from parts(name)
            yield from parts(value)
    elif isinstance(reply, (list, tuple, set)):
        for part in reply:
            yield from parts(part)
