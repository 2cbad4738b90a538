"""dramatiq's messages as they stand in Redis. Only JSON is read, dramatiq's own encoding; any other stays opaque bytes.

Pure: bytes in, facts or bytes out.
"""

import json
from dataclasses import dataclass
from typing import Any

from async_tracker.integrations.dramatiq.names import DELAYED


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFacts:
    """What a message says of itself."""

    message_id: str
    actor: str | None = None
    waits_since_ms: int | None = None
    """When it was last enqueued, by the clock of the process that enqueued it."""


def read_message(raw: bytes | None) -> MessageFacts | None:
    """Read a message; None when it is gone or in an encoding of the user's own.

    >>> read_message(b'{"message_id":"m","actor_name":"mail","options":{"requeue_timestamp":9},"message_timestamp":5}')
    MessageFacts(message_id='m', actor='mail', waits_since_ms=9)
    >>> read_message(b"pickled") is None
    True
    """
    message = _decode(raw)
    if message is None:
        return None
    since_ms = message["options"].get("requeue_timestamp", message.get("message_timestamp"))
    actor = message.get("actor_name")
    return MessageFacts(
        message_id=message["message_id"],
        actor=actor if isinstance(actor, str) else None,
        waits_since_ms=since_ms if isinstance(since_ms, int) else None,
    )


def put_off(raw: bytes | None, *, queue: str, due_at_ms: int) -> bytes | None:
    """Write a message as dramatiq writes one into the delay queue of ``queue``; None when it cannot be read.

    >>> put_off(b'{"queue_name":"q","message_id":"m","options":{}}', queue="q", due_at_ms=7)
    b'{"queue_name":"q.DQ","message_id":"m","options":{"eta":7}}'
    """
    message = _decode(raw)
    if message is None:
        return None
    return _encode({**message, "queue_name": queue + DELAYED, "options": {**message["options"], "eta": due_at_ms}})


def with_all_tries(raw: bytes) -> bytes:
    """Write a message as if it had never been tried; one that cannot be read stays as it is.

    >>> with_all_tries(b'{"message_id":"m","options":{"retries":20,"max_retries":20}}')
    b'{"message_id":"m","options":{"max_retries":20}}'
    """
    message = _decode(raw)
    if message is None:
        return raw
    return _encode({**message, "options": {name: value for name, value in message["options"].items() if name != "retries"}})


def _decode(raw: bytes | None) -> dict[str, Any] | None:
    try:
        message = json.loads(raw or b"")
    except ValueError:
        return None
    if not isinstance(message, dict) or not isinstance(message.get("message_id"), str) or not isinstance(message.get("options"), dict):
        return None
    return message


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
