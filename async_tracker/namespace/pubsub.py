"""Publish and subscribe in a namespace.

The PubSub that the client makes is kept: only what it sends and what it reads goes through the namespace. So its own lists of
channels and handlers hold the names that the user gave, and when it reconnects it subscribes to them again by the same way.
"""

from collections.abc import Callable, Mapping
from typing import Any

from async_tracker.namespace.cluster import ShardLookup
from async_tracker.namespace.naming import KEYEVENT, KEYSPACE, Naming
from async_tracker.namespace.parsers import psubscribe, subscribe

REWRITES: Mapping[str, Callable[[list[Any], Naming], list[Any]]] = {
    "SUBSCRIBE": subscribe,
    "UNSUBSCRIBE": subscribe,
    "PSUBSCRIBE": psubscribe,
    "PUNSUBSCRIBE": psubscribe,
    "SSUBSCRIBE": lambda args, names: [args[0], *map(names.add, args[1:])],
    "SUNSUBSCRIBE": lambda args, names: [args[0], *map(names.add, args[1:])],
}


def rewrite_subscription(args: tuple[Any, ...], names: Naming) -> list[Any]:
    """Write what a PubSub sends (subscriptions and pings, nothing else) into the namespace."""
    rewrite = REWRITES.get(str(args[0]).upper())
    return list(args) if rewrite is None else rewrite(list(args), names)


def strip_frame(frame: Any, names: Naming) -> Any:
    """Take the namespace off a message; None for a notification of a key outside the namespace.

    >>> names = Naming("app", str.encode)
    >>> strip_frame([b"pmessage", b"app:n*", b"app:news", b"app:x"], names)
    [b'pmessage', b'n*', b'news', b'app:x']
    >>> strip_frame([b"message", b"__keyevent@0__:del", b"other:k"], names) is None
    True
    """
    if not isinstance(frame, (list, tuple)) or len(frame) < 2:
        return frame
    kind = frame[0].decode() if isinstance(frame[0], bytes) else frame[0]
    if kind in ("message", "smessage"):
        return _message(list(frame), 1, names)
    if kind == "pmessage":
        stripped = _message(list(frame), 2, names)
        return stripped and [stripped[0], names.strip_pattern(stripped[1]), *stripped[2:]]
    if kind in ("subscribe", "unsubscribe", "ssubscribe", "sunsubscribe"):
        return [frame[0], names.strip_channel(frame[1]), *frame[2:]]
    if kind in ("psubscribe", "punsubscribe"):
        return [frame[0], names.strip_pattern(frame[1]), *frame[2:]]
    if kind == "invalidate" and isinstance(frame[1], (list, tuple)):
        return [frame[0], [names.strip(key) for key in frame[1]]]
    return frame


def _message(frame: list[Any], at: int, names: Naming) -> list[Any] | None:
    channel = frame[at].decode("latin-1") if isinstance(frame[at], bytes) else str(frame[at])
    if channel.startswith(KEYEVENT):
        name = frame[at + 1]
        frame[at + 1] = names.strip(name)
        return None if frame[at + 1] == name else frame
    frame[at] = names.strip_channel(frame[at])
    if channel.startswith(KEYSPACE) and len(frame[at]) == len(channel):
        return None
    return frame


def confined_handler(handler: Any, names: Naming) -> Any:
    """Give a push handler what a PubSub in the namespace gives."""
    return handler and (lambda frame: handler(strip_frame(frame, names)))


def confine_async_pubsub(make: Callable[..., Any], names: Naming, options: dict[str, Any]) -> Any:
    """Make a client's PubSub and put it into the namespace."""
    if options.get("push_handler_func"):
        options["push_handler_func"] = confined_handler(options["push_handler_func"], names)
    return _confine_async(make(**options), names)


def _confine_async(pubsub: Any, names: Naming) -> Any:
    send, read = pubsub.execute_command, pubsub.parse_response

    async def execute_command(*args: Any, **options: Any) -> Any:
        return await send(*rewrite_subscription(args, names), **options)

    async def parse_response(*args: Any, **options: Any) -> Any:
        return strip_frame(await read(*args, **options), names)

    pubsub.execute_command, pubsub.parse_response = execute_command, parse_response
    _confine_shards(pubsub, names, _confine_async)
    return pubsub


def confine_sync_pubsub(make: Callable[..., Any], names: Naming, options: dict[str, Any]) -> Any:
    """Make a synchronous client's PubSub and put it into the namespace."""
    if options.get("push_handler_func"):
        options["push_handler_func"] = confined_handler(options["push_handler_func"], names)
    return _confine_sync(make(**options), names)


def _confine_sync(pubsub: Any, names: Naming) -> Any:
    send, read = pubsub.execute_command, pubsub.parse_response

    def execute_command(*args: Any, **options: Any) -> Any:
        return send(*rewrite_subscription(args, names), **options)

    def parse_response(*args: Any, **options: Any) -> Any:
        return strip_frame(read(*args, **options), names)

    pubsub.execute_command, pubsub.parse_response = execute_command, parse_response
    _confine_shards(pubsub, names, _confine_sync)
    return pubsub


def _confine_shards(pubsub: Any, names: Naming, confine: Callable[[Any, Naming], Any]) -> None:
    """A cluster's PubSub hears sharded channels through one PubSub for each node, which it makes itself."""
    if not hasattr(pubsub, "_get_node_pubsub"):
        return
    make, confined = pubsub._get_node_pubsub, set()

    def get_node_pubsub(node: Any) -> Any:
        made = make(node)
        if id(made) not in confined:
            confined.add(id(made))
            confine(made, names)
        return made

    pubsub._get_node_pubsub = get_node_pubsub
    pubsub.cluster = ShardLookup(pubsub.cluster, names)
