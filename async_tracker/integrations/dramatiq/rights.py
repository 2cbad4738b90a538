"""What a user must be allowed in the broker's Redis so that dramatiq's messages can be recovered, asked about a queue that is not used."""

import secrets
from collections.abc import Callable, Sequence

from async_tracker.integrations.dramatiq.holds import Broker
from async_tracker.integrations.dramatiq.names import dead_letters_key
from async_tracker.integrations.rights import Rights, commands_of
from async_tracker.store import keys
from async_tracker.store.instance_record import Description

# What is written is taken out again, at the end of it at the latest; a list that may not be deleted is gone by itself after ten seconds.
RECOVERING = """
INFO server
TIME
EVAL return 0
EVALSHA 0 0
SMEMBERS acks
SISMEMBER acks m
SREM acks m
RPUSH queue m
PEXPIRE queue 10000
LLEN queue
LINDEX queue 0
DEL queue
HSET messages m 0
HSETNX messages m 0
HEXISTS messages m
HGET messages m
HMGET messages m
HLEN messages
HSCAN messages 0
HDEL messages m
HSET marks 0 m
EXPIRE marks 10
HVALS marks
DEL marks
ZADD dead 0 m
ZREM dead m
EXISTS receipt
HGET receipt payload
HSET receipt payload 0
PEXPIRE receipt 10000
DEL receipt
SET receipt 0 XX PX 1
GET receipt
"""


def rights(described: Sequence[Description], *, queue: str | None, full_key: Callable[[str], bytes]) -> Rights | None:
    """Give what recovery needs beside a queue of one of these workers; None where no broker of theirs is Redis.

    A user may be allowed only some queues, so the one that is asked about begins with the name of one that is worked on. ``queue`` is
    what people call a worker's queues, and no name in Redis.
    """
    found = next(((broker, item) for item in described if (broker := Broker.of(item.broker)) is not None), None)
    if found is None:
        return None
    broker, description = found
    nonce = f"async-tracker-doctor-{secrets.token_hex(8)}"
    asked = f"{next(iter(description.queues), 'default')}.{nonce}"
    hold = Broker(broker_id=nonce, namespace=broker.namespace).hold(asked, nonce)
    names: dict[str, str | bytes] = {"acks": hold.acks, "queue": hold.queue(asked), "messages": hold.messages(asked), "m": nonce}
    names["dead"] = dead_letters_key(broker.namespace, asked)
    names |= {"marks": full_key(keys.marks(nonce)), "receipt": full_key(keys.receipt(nonce))}
    return Rights(keys=f"{broker.namespace}:*", commands=tuple(commands_of(RECOVERING, names)))
