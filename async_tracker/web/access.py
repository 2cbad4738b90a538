"""Who may do what: what `authorize` answers, who is local, and which requests may change something."""

import ipaddress
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from starlette.requests import Request

from async_tracker.errors import ConfigError

ORDERS = ("quiet", "resume", "stop")
ACTIONS = ("recover", "retry", "drop", *ORDERS, "stacks", "abort")
"""What the page can do, by the names that `authorize` may return."""


class Access(StrEnum):
    """What a viewer may do. ``authorize`` may also return a set of action names: READ, and these actions."""

    NONE = "none"
    READ = "read"
    ACT = "act"


Authorize = Callable[[Request], Awaitable[Access | Collection[str]]]
Identify = Callable[[Request], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """One request's sender: which actions it may do, and what the events call it."""

    actions: frozenset[str]
    name: str
    peer: str
    is_bearer: bool = False
    """It gave a token in a header, which no other site can make a browser do."""


def actions_of(granted: Access | Collection[str]) -> frozenset[str] | None:
    """Read what `authorize` returned: the actions that are allowed; None where the viewer may not even look.

    >>> actions_of(Access.NONE), sorted(actions_of(Access.ACT)), actions_of(Access.READ), actions_of({"retry"})
    (None, ['abort', 'drop', 'quiet', 'recover', 'resume', 'retry', 'stacks', 'stop'], frozenset(), frozenset({'retry'}))

    Raises ConfigError for anything else: a mistake in there must not open a door.
    """
    if isinstance(granted, Access):
        return {Access.NONE: None, Access.READ: frozenset[str](), Access.ACT: frozenset(ACTIONS)}[granted]
    if isinstance(granted, Collection) and not isinstance(granted, str) and all(name in ACTIONS for name in granted):
        return frozenset(granted)
    raise ConfigError(f"authorize returned {granted!r}: return Access.NONE, Access.READ, Access.ACT or a set of {', '.join(ACTIONS)}")


_FORWARDED = ("forwarded", "via", "x-real-ip")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


async def local_only(request: Request) -> Access:
    """Let in, to read, requests from this very machine and no others: for ``create_app(tracker, authorize=local_only)``.

    For development only. A proxy on the same machine that adds no header of its own (a bare nginx does not) looks like a
    browser on this machine, and every request through it is then let in.
    """
    version = str(request.scope.get("http_version", "1.0"))
    peer = request.client.host if request.client is not None else None
    return Access.READ if is_local(peer, http_version=version, headers=request.headers) else Access.NONE


def is_local(peer: str | None, *, http_version: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a request comes from this machine, as far as that can be told.

    >>> is_local("127.0.0.1", http_version="1.1", headers={"host": "localhost:8000"})
    True
    >>> is_local("127.0.0.1", http_version="1.1", headers={"host": "tracker.example.com"})
    False
    >>> is_local("127.0.0.1", http_version="1.1", headers={"host": "localhost", "x-forwarded-for": "10.0.0.1"})
    False
    >>> is_local(None, http_version="1.1", headers={"host": "localhost"}), is_local("127.0.0.1", http_version="1.0", headers={})
    (False, False)
    """
    if not is_loopback(peer) or http_version in ("0.9", "1.0"):
        return False
    if any(name.lower() in _FORWARDED or name.lower().startswith("x-forwarded-") for name in headers):
        return False
    return host_name(headers.get("host", "")) in _LOOPBACK_NAMES


def is_loopback(address: str | None) -> bool:
    """Tell whether an address is literally one of this machine's loopback.

    >>> is_loopback("127.8.0.1"), is_loopback("::1"), is_loopback("10.0.0.1"), is_loopback("localhost"), is_loopback(None)
    (True, True, False, False, False)
    """
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """Take the port off a Host header.

    >>> host_name("localhost:8686"), host_name("[::1]:8686"), host_name("Example.com")
    ('localhost', '::1', 'example.com')
    """
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Where the page is reached: the origins and Host headers that are its own, and the prefix that its cookie is for."""

    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    """None of these: any Host will do, which is then the affair of the app that the page is mounted in."""
    prefix: str = ""
    is_secure: bool = False


def public(url: str) -> tuple[str, str, str]:
    """Read a public url: its origin, its host as a browser sends it, and its prefix. Raises ConfigError for anything else.

    >>> public("https://Ops.example.com/tracker/"), public("http://ops:8080")
    (('https://ops.example.com', 'ops.example.com', '/tracker'), ('http://ops:8080', 'ops:8080', ''))
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"public url {url!r} cannot be read ({exc}): write https://ops.example.com/tracker") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"public url {url!r}: write a scheme, a host and perhaps a prefix, as https://ops.example.com/tracker")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    host = name if port in (None, {"http": 80, "https": 443}[parts.scheme]) else f"{name}:{port}"
    return f"{parts.scheme}://{host}", host, parts.path.rstrip("/")


def reached_at(public_urls: Sequence[str], *, host: str | None = None, port: int | None = None, root_path: str = "") -> Reached:
    """Put together where the page is reached: by its public urls, and where it listens by itself at ``host`` and ``port`` there too."""
    read = [public(url) for url in public_urls]
    prefixes = {prefix for _, _, prefix in read} | ({root_path.rstrip("/")} if root_path.strip("/") else set())
    if len(prefixes) > 1:
        raise ConfigError(f"the prefixes {', '.join(sorted(map(repr, prefixes)))} differ: the page has one; run another for another")
    names = set()
    if port is not None:
        own = {"localhost", "127.0.0.1", "[::1]"}
        if host and host not in ("0.0.0.0", "::"):
            own.add(f"[{host}]" if ":" in host else host)
        names = {f"{name}:{port}" for name in own} | (own if port == 80 else set())
    return Reached(
        origins=frozenset(origin for origin, _, _ in read) | frozenset(f"http://{name}" for name in names),
        hosts=frozenset(name for _, name, _ in read) | frozenset(names),
        prefix=next(iter(prefixes), ""),
        is_secure=bool(read) and all(origin.startswith("https:") for origin, _, _ in read),
    )


def why_not_same_origin(headers: Mapping[str, str], origins: Collection[str], *, option: str) -> str | None:
    """Say why a request that would change something is refused; None where it comes from a page of ours.

    >>> ours = {"https://ops"}
    >>> why_not_same_origin({"sec-fetch-site": "same-origin"}, ours, option="public_urls") is None
    True
    >>> why_not_same_origin({"sec-fetch-site": "same-site", "origin": "https://ops"}, ours, option="public_urls")
    'the request comes from another site (Sec-Fetch-Site: same-site)'
    >>> why_not_same_origin({"origin": "https://ops"}, ours, option="public_urls") is None
    True
    >>> why_not_same_origin({}, ours, option="public_urls")
    'the request says neither Sec-Fetch-Site nor Origin: programs send Authorization: Bearer'
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return None if site == "same-origin" else f"the request comes from another site (Sec-Fetch-Site: {site})"
    origin = headers.get("origin")
    if origin is None:
        return "the request says neither Sec-Fetch-Site nor Origin: programs send Authorization: Bearer"
    return None if origin in origins else f"the origin {origin} is none of this page's: if it is, name it in {option}"
