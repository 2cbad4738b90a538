"""The urls of a Redis: read without showing them, and shown without their credentials.

No text in here, and no exception, holds any part of a url that was given: whatever is wrong with it, a part of a password may stand
where another part belongs. redis-py's own reading of a url is not trusted with one that can be read in two ways.
"""

import difflib
import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from async_tracker.connections.counterparts import KNOWN_OPTIONS
from async_tracker.errors import ConfigError

_SCHEMES = ("redis", "rediss", "unix")
_QUOTED = 'in user and password each of / # ? @ : % must be quoted, as urllib.parse.quote(password, safe="") does'
_HOST = re.compile(r"[\w.\-]+")
_ADDRESS = re.compile(r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(%[\w.\-]+)?")


def options_of_url(url: object) -> dict[str, Any]:
    """Turn a url into keywords of ``redis.asyncio.Redis``. Raises ConfigError, which shows nothing of the url.

    >>> sorted(options_of_url("redis://:secret@[::1]:7000/3").items())
    [('db', 3), ('host', '::1'), ('password', 'secret'), ('port', 7000)]
    >>> options_of_url("redis://:sec/ret@host:6379/0")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    async_tracker.errors.ConfigError: the redis url cannot be read (its host or its port is none; in user and password ...
    """
    wrong = _fault(url)
    parsed: dict[str, Any] = {}
    if wrong is None:
        try:
            parsed = dict(parse_url(_normal(str(url))))
        except (ValueError, TypeError, AttributeError):  # its text may hold a part of the url, and so may the chain behind ours
            wrong = "the value of one of its options is none"
    if wrong is not None:
        raise ConfigError(f"the redis url cannot be read ({wrong}): write redis://host:6379/0, rediss://… or unix:///path?db=0")
    kind = parsed.pop("connection_class", None)
    if kind is not None and issubclass(kind, UnixDomainSocketConnection):
        parsed["unix_socket_path"] = parsed.pop("path")
    elif kind is not None and issubclass(kind, SSLConnection):
        parsed["ssl"] = True
    if unknown := set(parsed) - KNOWN_OPTIONS:
        near = sorted({name for given in unknown for name in difflib.get_close_matches(given, list(KNOWN_OPTIONS), n=1)})
        hint = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(sorted(KNOWN_OPTIONS))}"
        raise ConfigError(f"unknown option in the redis url: {hint}")
    return parsed


def _normal(url: str) -> str:
    scheme, separator, rest = url.strip().partition("://")
    return f"{scheme.lower()}{separator}{rest}"


def _fault(url: object) -> str | None:
    """Tell what is wrong with a url, in words that hold nothing of it; None where redis-py reads it as it is meant.

    >>> wrong = [_fault(url) for url in ("redis://me:12/34@host/0", "redis://:a#b@host", ":secret@host:6379", b"redis://x")]
    >>> [text.partition(";")[0] for text in wrong]
    ['there is an @ behind the host', 'it holds a #', 'it does not begin with redis://, rediss://, unix://', 'it is no text']
    >>> _fault("redis://:p@ss:word@host:6379/0")
    """
    if not isinstance(url, str):
        return "it is no text"
    normal = _normal(url)
    if not normal.startswith(tuple(f"{scheme}://" for scheme in _SCHEMES)):
        return f"it does not begin with {', '.join(f'{scheme}://' for scheme in _SCHEMES)}"
    if "#" in normal:
        return f"it holds a #; {_QUOTED}"
    try:
        parts = urlsplit(normal)
        host, port = parts.hostname, parts.port
    except ValueError:
        return f"its host or its port is none; {_QUOTED}"
    if "@" in parts.path or ("@" in parts.query and not _has_only_options(parts.query)):
        return f"there is an @ behind the host; {_QUOTED}"
    if parts.scheme != "unix" and (not is_host(host or "localhost") or port == 0):
        return f"its host or its port is none; {_QUOTED}"
    if parts.scheme != "unix" and parts.path not in ("", "/") and not parts.path[1:].isdecimal():
        return f"behind the host stands what is no number of a database; {_QUOTED}"
    return None


def _has_only_options(query: str) -> bool:
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    return len(names) == query.count("=") == query.count("&") + 1 and set(names) <= KNOWN_OPTIONS


def is_host(host: str) -> bool:
    """Tell whether this can be the name or the address of a host, and so may be shown.

    >>> [is_host(host) for host in ("db-1.example", "::1", "fe80::1%eth0", "me:secret@db", "redis://:secret@db", "")]
    [True, True, True, False, False, False]
    """
    return _HOST.fullmatch(host) is not None or _ADDRESS.fullmatch(host) is not None


def shown_address(scheme: str, host: object, port: object, database: object) -> str:
    """Write an address as a url that can be given back. What can be no host, port or database is not shown.

    >>> shown_address("redis", "::1", 7000, 3), shown_address("redis", "redis://:secret@db", "6379", None)
    ('redis://[::1]:7000/3', 'redis://?:6379/0')
    """
    name = str(host)
    name = "?" if not is_host(name) else f"[{name.replace('%', '%25')}]" if ":" in name else name
    return f"{scheme}://{name}:{_digits(port)}/{_digits(database or 0)}"


def shown_socket(path: object, database: object) -> str:
    """Write the path of a unix socket as a url.

    >>> shown_socket("/run/a b.sock", 1)
    'unix:///run/a%20b.sock?db=1'
    """
    return f"unix://{quote(path if isinstance(path, bytes) else str(path))}?db={_digits(database or 0)}"


def shown_service(service: object, database: object) -> str:
    """Write the master that a Sentinel manages.

    >>> shown_service("main", None)
    'sentinel://main/0'
    """
    return f"sentinel://{quote(service if isinstance(service, bytes) else str(service), safe='')}/{_digits(database or 0)}"


def _digits(number: object) -> str:
    return str(number) if str(number).isdecimal() else "?"
