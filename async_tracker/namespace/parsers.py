"""The commands whose keys no slice of the arguments can describe: one small function for each way of writing them.

A parser takes the arguments (the command's words first) and the names that the namespace gives, and returns new arguments. Each
reads its command the way the server does, from left to right: looking for a word anywhere would take a destination that
is named STORE, or a group that is named STREAMS, for the option of that name.

>>> from async_tracker.namespace.naming import Naming
>>> sort(["SORT", "k", "BY", "w_*", "GET", "#", "STORE", "STORE"], Naming("app", str.encode))
['SORT', 'app:k', 'BY', 'app:w_*', 'GET', '#', 'STORE', 'app:STORE']
"""

from collections.abc import Callable, Mapping
from typing import Any

from async_tracker.errors import UnsupportedCommand
from async_tracker.namespace.naming import Naming, word

Parser = Callable[[list[Any], Naming], list[Any]]


def sort(args: list[Any], names: Naming) -> list[Any]:
    """``SORT key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC|DESC] [ALPHA] [STORE destination]``.

    The key is at 1. From 2 on: LIMIT takes two values; BY and GET a pattern of key names; STORE a key. The server puts the
    element in the place of a pattern's first ``*`` and looks up nothing where there is none (``BY nosort``, ``GET #``). So a
    namespace that holds one cannot be written before a pattern: refused.
    """
    if len(args) > 1:
        args[1] = names.add(args[1])
    at = 2
    while at + 1 < len(args):
        option = word(args[at])
        if option == b"LIMIT":
            at += 3
        elif option in (b"BY", b"GET"):
            if b"*" in word(args[at + 1]):
                args[at + 1] = _lookup_pattern(args[at + 1], names)
            at += 2
        elif option == b"STORE":
            args[at + 1] = names.add(args[at + 1])
            at += 2
        else:
            at += 1
    return args


def _lookup_pattern(pattern: Any, names: Naming) -> Any:
    if "*" in names.text:
        raise UnsupportedCommand(
            f"SORT with BY or GET cannot be confined to the namespace {names.text[:-1]!r}: the server would put the element in the place "
            "of the '*' in its name; use a namespace without '*'"
        )
    return names.add(pattern)


def georadius(args: list[Any], names: Naming) -> list[Any]:
    """``GEORADIUS key longitude latitude radius unit [options]``: the key is at 1, options start at 6."""
    return _georadius(args, names, 6)


def georadiusbymember(args: list[Any], names: Naming) -> list[Any]:
    """``GEORADIUSBYMEMBER key member radius unit [options]``: the key is at 1, options start at 5."""
    return _georadius(args, names, 5)


def _georadius(args: list[Any], names: Naming, at: int) -> list[Any]:
    """Options: STORE and STOREDIST take a key, COUNT a number, all others nothing."""
    if len(args) > 1:
        args[1] = names.add(args[1])
    while at + 1 < len(args):
        option = word(args[at])
        if option in (b"STORE", b"STOREDIST"):
            args[at + 1] = names.add(args[at + 1])
            at += 2
        else:
            at += 2 if option == b"COUNT" else 1
    return args


STREAM_OPTION_LENGTHS: Mapping[bytes, int] = {
    b"GROUP": 3,
    b"COUNT": 2,
    b"BLOCK": 2,
    b"CLAIM": 2,
    b"MAXCOUNT": 2,
    b"MAXSIZE": 2,
    b"NOACK": 1,
}


def xread(args: list[Any], names: Naming) -> list[Any]:
    """``XREAD|XREADGROUP [GROUP group consumer] [COUNT n] [BLOCK ms] [NOACK] STREAMS key ... id ...``.

    GROUP takes two values, COUNT, BLOCK, CLAIM, MAXCOUNT and MAXSIZE one, NOACK none; after STREAMS the first half are keys.
    An option that is not known could hide where the keys begin: refused.
    """
    at = 1
    while at < len(args):
        option = word(args[at])
        if option == b"STREAMS":
            first, last = at + 1, at + 1 + (len(args) - at - 1) // 2
            args[first:last] = [names.add(key) for key in args[first:last]]
            return args
        length = STREAM_OPTION_LENGTHS.get(option)
        if length is None:
            raise UnsupportedCommand(f"{args[0]!r} has an option that is not known here, {args[at]!r}: its keys cannot be found")
        at += length
    return args


def migrate(args: list[Any], names: Naming) -> list[Any]:
    """``MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH password] [AUTH2 user password] [KEYS key ...]``.

    The key is at 3. From 6 on: AUTH takes one value, AUTH2 two, COPY and REPLACE none; all that follows KEYS are keys, and then
    an empty key at 3 is no key.
    """
    at = 6
    while at < len(args):
        option = word(args[at])
        if option == b"KEYS":
            args[at + 1 :] = [names.add(key) for key in args[at + 1 :]]
            if word(args[3]):
                args[3] = names.add(args[3])
            return args
        at += {b"AUTH": 2, b"AUTH2": 3}.get(option, 1)
    if len(args) > 3:
        args[3] = names.add(args[3])
    return args


def scan(args: list[Any], names: Naming) -> list[Any]:
    """``SCAN cursor [MATCH pattern] [COUNT n] [TYPE type]``: options come in pairs from 2 on.

    Each MATCH is confined to the namespace; without one, one is added that lets through nothing else.
    """
    matched = False
    for at in range(2, len(args) - 1, 2):
        if word(args[at]) == b"MATCH":
            args[at + 1] = names.add_to_pattern(args[at + 1])
            matched = True
    if not matched and len(args) > 1:
        args += ["MATCH", names.add_to_pattern("*")]
    return args


def keys(args: list[Any], names: Naming) -> list[Any]:
    """``KEYS pattern``: the pattern is confined to the namespace."""
    return [args[0], *map(names.add_to_pattern, args[1:])]


def subscribe(args: list[Any], names: Naming) -> list[Any]:
    """``SUBSCRIBE|UNSUBSCRIBE channel ...``: every channel; of keyspace notifications, the key in the channel's name."""
    return [args[0], *map(names.add_to_channel, args[1:])]


def psubscribe(args: list[Any], names: Naming) -> list[Any]:
    """``PSUBSCRIBE|PUNSUBSCRIBE pattern ...``: every pattern; of keyspace notifications, the key in the pattern."""
    return [args[0], *map(names.add_to_channel_pattern, args[1:])]


def pubsub_channels(args: list[Any], names: Naming) -> list[Any]:
    """``PUBSUB CHANNELS|SHARDCHANNELS [pattern]``: without a pattern one is added, so that only our own are listed."""
    return [*args[:2], *map(names.add_to_pattern, args[2:] or ["*"])]


def client_tracking(args: list[Any], names: Naming) -> list[Any]:
    """``CLIENT TRACKING ON|OFF [REDIRECT id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]``.

    From 3 on: each PREFIX takes a prefix, REDIRECT a number. BCAST without a PREFIX would tell of all keys: the namespace is
    added as the prefix.
    """
    at, broadcast, prefixed = 3, False, False
    while at < len(args):
        option = word(args[at])
        if option == b"PREFIX" and at + 1 < len(args):
            args[at + 1] = names.add(args[at + 1])
            prefixed = True
        broadcast = broadcast or option == b"BCAST"
        at += 2 if option in (b"PREFIX", b"REDIRECT") else 1
    return [*args, "PREFIX", names.text] if broadcast and not prefixed else args


def stralgo(args: list[Any], names: Naming) -> list[Any]:
    """``STRALGO LCS KEYS key key | STRINGS text text [LEN] [IDX] [MINMATCHLEN n] [WITHMATCHLEN]`` (Redis 6.2 only)."""
    at = 2
    while at < len(args):
        option = word(args[at])
        if option == b"KEYS":
            args[at + 1 : at + 3] = [names.add(key) for key in args[at + 1 : at + 3]]
        at += {b"KEYS": 3, b"STRINGS": 3, b"MINMATCHLEN": 2}.get(option, 1)
    return args


PARSERS: Mapping[str, Parser] = {
    "sort": sort,
    "georadius": georadius,
    "georadiusbymember": georadiusbymember,
    "xread": xread,
    "migrate": migrate,
    "scan": scan,
    "keys": keys,
    "subscribe": subscribe,
    "psubscribe": psubscribe,
    "pubsub_channels": pubsub_channels,
    "client_tracking": client_tracking,
    "stralgo": stralgo,
}
