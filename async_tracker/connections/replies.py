"""What goes to Redis and what comes back, as bytes: the one place that knows the shapes of replies. Knows no driver.

redis-py gives the same reply in several shapes: as the server sent it or as a callback of its own made it, by RESP2 or by RESP3.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Argument = str | bytes | int | float


def packed(value: Argument) -> bytes | int | float:
    """Make UTF-8 bytes of text, whatever it is; numbers are left to the driver.

    One name that is no text must not keep the others of its batch from being written.

    >>> packed("é"), packed("\\udcff"), packed("\\ud800")
    (b'\\xc3\\xa9', b'\\xff', b'\\xed\\xa0\\x80')
    """
    if not isinstance(value, str):
        return value
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")


def text(value: bytes | str) -> str:
    """Read what `packed` wrote; anything else that is no UTF-8 comes back with surrogates instead of an error."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def pairs(reply: Any) -> dict[str, str]:
    """Read a hash, or a sorted set with its scores that a script returned, as texts. What is not there is empty.

    >>> pairs([b"a", b"1", b"b", b"2"]), pairs({b"a": b"1"}), pairs(None)
    ({'a': '1', 'b': '2'}, {'a': '1'}, {})
    """
    texts = iter([part.decode("utf-8", "surrogateescape") if isinstance(part, bytes) else part for part in _flat(reply)])
    return dict(zip(texts, texts, strict=True))


def hash_of(reply: Any) -> dict[str, bytes]:
    """Read a hash whose values are opaque: names as texts, values as bytes.

    >>> hash_of([b"payload", b"\\xff"]), hash_of({b"payload": b"\\xff"})
    ({'payload': b'\\xff'}, {'payload': b'\\xff'})
    """
    parts = iter(_flat(reply))
    return {text(name): value for name, value in zip(parts, parts, strict=True)}


def _flat(reply: Any) -> list[Any]:
    """Make a hash flat: redis-py gives a dict where its callback ran, and a list where it did not."""
    return [part for pair in reply.items() for part in pair] if isinstance(reply, Mapping) else list(reply or ())


def info_of(reply: Any) -> dict[str, str]:
    """Read the reply of INFO; what is no answer to it (a refusal, None) has no facts.

    >>> info_of(b"# Server\\r\\nredis_version:7.2.4\\r\\n"), info_of({"maxmemory": 0}), info_of(None)
    ({'redis_version': '7.2.4'}, {'maxmemory': '0'}, {})
    """
    if isinstance(reply, Mapping):
        return {text(name): str(value) for name, value in reply.items()}
    lines = text(reply).splitlines() if isinstance(reply, bytes | str) else []
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def run_id_of(reply: Any) -> str:
    """Read from the reply of INFO which run of a server answered; '' where it does not tell.

    >>> run_id_of(b"# Server\\r\\nrun_id:5f\\r\\n"), run_id_of({"run_id": "5f"}), run_id_of(None)
    ('5f', '5f', '')
    """
    return info_of(reply).get("run_id", "")


REPLICA = "replica"


def role_of(reply: Any) -> str:
    """Read from the reply of INFO whether a ``primary`` answered or a ``replica``, whose data may be behind; '' where it does not tell.

    >>> role_of(b"# Replication\\r\\nrole:slave\\r\\n"), role_of({"role": "master"}), role_of(None)
    ('replica', 'primary', '')
    """
    return {"slave": REPLICA, "master": "primary"}.get(info_of(reply).get("role", ""), "")


def members_of(reply: Sequence[Any]) -> list[bytes]:
    """Read the members of a sorted set from a reply with scores: of ZSCAN, or of ZRANGE with WITHSCORES.

    >>> members_of([b"a", b"1", b"b", b"2"]), members_of([(b"a", 1.0), (b"b", 2.0)]), members_of([])
    ([b'a', b'b'], [b'a', b'b'], [])
    """
    return [pair[0] for pair in reply] if _is_paired(reply) else list(reply[::2])


def scores_of(reply: Sequence[Any]) -> list[float]:
    """Read the scores from a reply of the kind that `members_of` reads the members of.

    >>> scores_of([b"a", b"1", b"b", b"2.5"]), scores_of([[b"a", 1.0]])
    ([1.0, 2.5], [1.0])
    """
    return [float(pair[1]) for pair in reply] if _is_paired(reply) else [float(score) for score in reply[1::2]]


def _is_paired(reply: Sequence[Any]) -> bool:
    return bool(reply) and isinstance(reply[0], tuple | list)


StreamEntry = tuple[str, dict[str, str]]
"""The id of an entry in a stream, and its fields."""


def stream_entries(reply: Any) -> list[StreamEntry]:
    """Read the entries of a stream from the reply of XRANGE or XREVRANGE.

    >>> stream_entries([(b"1-0", {b"event": b"{}"})]), stream_entries([[b"1-0", [b"event", b"{}"]]]), stream_entries(None)
    ([('1-0', {'event': '{}'})], [('1-0', {'event': '{}'})], [])
    """
    return [(text(entry[0]), pairs(entry[1])) for entry in reply or ()]


def read_entries(reply: Any) -> list[StreamEntry]:
    """Read the entries from the reply of an XREAD that asked for one stream: RESP2, RESP3, and RESP3 without redis-py's callback.

    >>> entry = [b"1-0", [b"event", b"{}"]]
    >>> read_entries([[b"events", [entry]]]) == read_entries({b"events": [[entry]]}) == read_entries({b"events": [entry]})
    True
    >>> read_entries([[b"events", [entry]]]), read_entries(None)
    ([('1-0', {'event': '{}'})], [])
    """
    if not reply:
        return []
    streams: Sequence[Any] = list(reply.values()) if isinstance(reply, Mapping) else [stream[1] for stream in reply]
    entries = streams[0]
    if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], tuple | list):
        entries = entries[0]
    return stream_entries(entries)
