"""The replies that carry names of keys or channels, and how each is given back without the namespace.

Only the commands in ``REPLIES`` are touched; what scripts and functions return is opaque. A reply is read by its kind, after the
client's own callbacks: RESP2 and RESP3, decoded or not, give lists, tuples, sets or dicts.

>>> from async_tracker.namespace.naming import Naming
>>> names = Naming("app", str.encode)
>>> REPLIES["BLPOP"]([b"app:queue", b"app:value"], names), REPLIES["XREAD"]({b"app:s": []}, names)
([b'queue', b'app:value'], {b's': []})
"""

from collections.abc import Callable, Mapping
from typing import Any

from async_tracker.namespace.naming import Naming

Strip = Callable[[Any, Naming], Any]


def _like(reply: Any, items: list[Any]) -> Any:
    kind: Any = type(reply)
    return items if kind is list else kind(items)


def names_in(reply: Any, names: Naming) -> Any:
    """Every element is a name."""
    if isinstance(reply, (list, tuple, set, frozenset)):
        return _like(reply, [names.strip(name) for name in reply])
    return reply


def name_first(reply: Any, names: Naming) -> Any:
    """``[name, ...]``, or nothing at all."""
    if isinstance(reply, (list, tuple)) and reply:
        return _like(reply, [names.strip(reply[0]), *reply[1:]])
    return reply


def names_second(reply: Any, names: Naming) -> Any:
    """``[cursor, [name, ...]]``."""
    if isinstance(reply, (list, tuple)) and len(reply) == 2:
        return _like(reply, [reply[0], names_in(reply[1], names)])
    return reply


def by_name(reply: Any, names: Naming) -> Any:
    """``{name: ...}`` or ``[[name, ...], ...]``."""
    if isinstance(reply, dict):
        return {names.strip(name): value for name, value in reply.items()}
    if isinstance(reply, (list, tuple)):
        return _like(reply, [name_first(entry, names) for entry in reply])
    return reply


def counts_by_name(reply: Any, names: Naming) -> Any:
    """``{name: count}``, ``[(name, count), ...]`` or ``[name, count, ...]``."""
    if isinstance(reply, list) and reply and not isinstance(reply[0], (list, tuple)):
        return [names.strip(item) if at % 2 == 0 else item for at, item in enumerate(reply)]
    return by_name(reply, names)


REPLIES: Mapping[str, Strip] = {
    "KEYS": names_in,
    "SCAN": names_second,
    **dict.fromkeys(("BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX", "LMPOP", "BLMPOP", "ZMPOP", "BZMPOP"), name_first),
    **dict.fromkeys(("XREAD", "XREADGROUP"), by_name),
    **dict.fromkeys(("PUBSUB CHANNELS", "PUBSUB SHARDCHANNELS"), names_in),
    **dict.fromkeys(("PUBSUB NUMSUB", "PUBSUB SHARDNUMSUB"), counts_by_name),
}
