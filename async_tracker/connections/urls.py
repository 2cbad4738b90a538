"""The urls of a Redis: read without showing them, and shown without their credentials.

No text in here, and no exception, holds any part of a url that was given: whatever is wrong with it, a part of a password may stand
where another part belongs. redis-py's own reading of a url is not trusted with one that can be read in two ways.
"""

import difflib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode, urlsplit

import redis.asyncio as async_redis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from async_tracker.errors import ConfigError

KNOWN_OPTIONS = set(inspect.signature(async_redis.Redis.__init__).parameters) - {"self", "connection_pool", "event_dispatcher"}

_SCHEMES = ("redis", "rediss", "unix")
_ROUTES = {"redis+sentinel": 26379, "rediss+sentinel": 26379, "redis+cluster": 6379, "rediss+cluster": 6379}
"""The schemes of urls that name servers to ask, each with the port where none is written."""
_OTHERWISE = {
    "sentinel": "redis+sentinel",
    "redis-sentinel": "redis+sentinel",
    "rediss-sentinel": "rediss+sentinel",
    "cluster": "redis+cluster",
    "redis-cluster": "redis+cluster",
    "rediss-cluster": "rediss+cluster",
    "valkey": "redis",
    "valkeys": "rediss",
    "valkey+sentinel": "redis+sentinel",
    "valkeys+sentinel": "rediss+sentinel",
    "valkey+cluster": "redis+cluster",
    "valkeys+cluster": "rediss+cluster",
    "redis+socket": "unix",
}
"""Schemes that others use, and what is written here."""
_FORMS = {
    "redis": "redis://host:6379/0",
    "rediss": "rediss://host:6379/0",
    "unix": "unix:///path?db=0",
    "redis+sentinel": "redis+sentinel://host:26379,host2:26379/mymaster/0",
    "rediss+sentinel": "rediss+sentinel://host:26379,host2:26379/mymaster/0",
    "redis+cluster": "redis+cluster://host:6379,host2:6379",
    "rediss+cluster": "rediss+cluster://host:6379,host2:6379",
}
_EVERY_FORM = f"{_FORMS['redis']}, rediss://…, {_FORMS['unix']}, {_FORMS['redis+sentinel']} or {_FORMS['redis+cluster']}"
_OF_SENTINELS = {"sentinel_username": "username", "sentinel_password": "password"}
_QUOTED = 'in user and password each of / # ? @ : % must be quoted, as urllib.parse.quote(password, safe="") does'
_HOST = re.compile(r"[\w.\-]+")
_ADDRESS = re.compile(r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(%[\w.\-]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The servers to ask which server to connect to: sentinels, for the primary of a ``service``; without one, nodes of a cluster."""

    seeds: tuple[tuple[str, int], ...]
    service: str | None = None
    asking: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Keywords of a connection to a sentinel: its user and its password."""


def read_url(url: object) -> tuple[Route | None, dict[str, Any]]:
    """Turn a url into a route, None where it names the server itself, and keywords of ``redis.asyncio.Redis``.

    Raises ConfigError, which shows nothing of the url.

    >>> route, options = read_url("redis+sentinel://me:se%2Fcret@s1,[::1]:7000/main/2?sentinel_password=x&socket_timeout=5")
    >>> route.seeds, route.service, dict(route.asking)
    ((('s1', 26379), ('::1', 7000)), 'main', {'password': 'x'})
    >>> sorted(options.items())
    [('db', 2), ('password', 'se/cret'), ('socket_timeout', 5.0), ('username', 'me')]
    >>> read_url("redis+cluster://n1,n2:7001")
    (Route(seeds=(('n1', 6379), ('n2', 7001)), service=None), {})
    """
    scheme = _normal(url).partition("://")[0] if isinstance(url, str) else ""
    if scheme not in _ROUTES:
        return None, options_of_url(url)
    parts = _RouteParts(_normal(str(url)))
    wrong = parts.fault()
    if wrong is not None:
        raise ConfigError(f"the redis url cannot be read ({wrong}): write {_FORMS[scheme]}")
    user, colon, password = parts.credentials.partition(":")
    options = options_of_url(f"{scheme.partition('+')[0]}://host/{parts.database or 0}?{urlencode(parts.options)}".rstrip("?"))
    for name in ("host", "port"):
        options.pop(name, None)
    if not parts.database and "db" not in dict(parts.options):
        options.pop("db", None)
    credentials = {"username": user, "password": password if colon else ""}
    options |= {name: _unquoted(value) for name, value in credentials.items() if value}
    seeds = tuple((str(host), port or _ROUTES[scheme]) for host, port in parts.hosts)
    asking = {_OF_SENTINELS[name]: value for name, value in parts.asking}
    return Route(seeds=seeds, service=_unquoted(parts.service) if parts.service else None, asking=asking), options


class _RouteParts:
    """The parts of a url that names servers to ask, as they are written."""

    def __init__(self, url: str) -> None:
        self.url = url
        scheme, _, rest = url.partition("://")
        self.is_of_cluster = scheme.endswith("+cluster")
        body, _, query = rest.partition("?")
        place, _, self.path = body.partition("/")
        self.credentials, _, hosts = place.rpartition("@")
        self.hosts = [_host_and_port(part) for part in hosts.split(",")]
        self.service, _, self.database = ("", "", self.path) if self.is_of_cluster else self.path.partition("/")
        self.query = query
        pairs = parse_qsl(query, keep_blank_values=True)
        self.asking = [(name, value) for name, value in pairs if name in _OF_SENTINELS]
        self.options = [(name, value) for name, value in pairs if name not in _OF_SENTINELS]

    def fault(self) -> str | None:
        """Tell what is wrong, in words that hold nothing of the url."""
        if "#" in self.url:
            return f"it holds a #; {_QUOTED}"
        has_odd_query = "@" in self.query and not _has_only_options(self.query, KNOWN_OPTIONS | set(_OF_SENTINELS))
        if "@" in self.path or "@" in self.credentials or has_odd_query:
            return f"there is an @ behind the host, or a second one; user and password stand once, before the first host, and {_QUOTED}"
        if any(host is None for host, _ in self.hosts):
            return f"one of its hosts or ports is none; {_QUOTED}"
        if self.is_of_cluster:
            if self.asking:
                return "sentinel_username and sentinel_password are for sentinels"
            return None if self.database in ("", "0") and _is_first(dict(self.options).get("db", "0")) else "a cluster has database 0 alone"
        if not self.service or not _is_text(self.service):
            return "it does not name the service, under which sentinels know the primary"
        if self.database and not self.database.isdecimal():
            return f"behind the service stands what is no number of a database; {_QUOTED}"
        return None if all(map(_is_text, self.credentials.split(":"))) else _QUOTED


def _is_first(database: str) -> bool:
    return database.isdecimal() and int(database) == 0


def _host_and_port(part: str) -> tuple[str | None, int | None]:
    """Read one host of a list; None in its place where it is none, or its port is.

    >>> [_host_and_port(part) for part in ("db", "db:7000", "[::1]:7000", "[fe80::1%25eth0]", "db:", "::1", "db:0", "")]
    [('db', None), ('db', 7000), ('::1', 7000), ('fe80::1%eth0', None), (None, None), (None, None), (None, None), (None, None)]
    """
    found = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]+))(?::(\d{1,5}))?", part)
    if found is None:
        return None, None
    literal, name, digits = found.groups()
    host = literal.replace("%25", "%") if literal is not None else name.lower()
    is_one = _ADDRESS.fullmatch(host) is not None if literal is not None else _HOST.fullmatch(host) is not None
    if not is_one or (digits is not None and not 0 < int(digits) < 65_536):
        return None, None
    return host, int(digits) if digits is not None else None


def _unquoted(part: str) -> str:
    return unquote_to_bytes(part).decode()


def _is_text(part: str) -> bool:
    try:
        return _unquoted(part).isprintable()
    except UnicodeDecodeError:
        return False


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
        raise ConfigError(f"the redis url cannot be read ({wrong}): write {_form_for(url)}")
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


def _form_for(url: object) -> str:
    """Write an example of the url that was meant; only its scheme is looked at."""
    meant = _OTHERWISE.get(_normal(url).partition("://")[0]) if isinstance(url, str) else None
    return _FORMS[meant] if meant is not None else _EVERY_FORM


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
    scheme = normal.partition("://")[0]
    if scheme in _OTHERWISE:
        return f"what begins with {scheme}:// is written {_OTHERWISE[scheme]}:// here"
    if not normal.startswith(tuple(f"{scheme}://" for scheme in _SCHEMES)):
        return f"it does not begin with {', '.join(f'{scheme}://' for scheme in _SCHEMES)}"
    if "#" in normal:
        return f"it holds a #; {_QUOTED}"
    try:
        parts = urlsplit(normal)
        host, port = parts.hostname, parts.port
    except ValueError:
        return f"its host or its port is none; {_QUOTED}"
    if "@" in parts.path or ("@" in parts.query and not _has_only_options(parts.query, KNOWN_OPTIONS)):
        return f"there is an @ behind the host; {_QUOTED}"
    if parts.scheme == "unix" and not parts.path:
        return f"it names no path; {_QUOTED}"
    if parts.scheme != "unix" and (not is_host(host or "localhost") or port == 0):
        return f"its host or its port is none; {_QUOTED}"
    if parts.scheme != "unix" and parts.path not in ("", "/") and not parts.path[1:].isdecimal():
        return f"behind the host stands what is no number of a database; {_QUOTED}"
    return None


def _has_only_options(query: str, known: set[str]) -> bool:
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    return len(names) == query.count("=") == query.count("&") + 1 and set(names) <= known


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


def shown_route(route: Route, database: object, *, is_tls: bool) -> str:
    """Write a route as a url that can be given back.

    >>> shown_route(Route(seeds=(("s1", 26379), ("::1", 7000)), service="main"), None, is_tls=False)
    'redis+sentinel://s1:26379,[::1]:7000/main/0'
    >>> shown_route(Route(seeds=(("n1", 6379),)), 0, is_tls=True)
    'rediss+cluster://n1:6379'
    """
    scheme = "rediss" if is_tls else "redis"
    hosts = ",".join(shown_address("x", host, port, 0)[len("x://") : -len("/0")] for host, port in route.seeds)
    if route.service is None:
        return f"{scheme}+cluster://{hosts}"
    return f"{scheme}+sentinel://{hosts}/{quote(route.service, safe='')}/{_digits(database or 0)}"


def _digits(number: object) -> str:
    return str(number) if str(number).isdecimal() else "?"
