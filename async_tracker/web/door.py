"""Who is let in: by what the app around the page says, or by the token of `async-tracker serve`."""

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Protocol
from urllib.parse import parse_qsl, urlencode

import anyio
from starlette.requests import Request
from starlette.responses import Response

from async_tracker.errors import ConfigError
from async_tracker.web.access import ACTIONS, Authorize, Identify, Reached, Viewer, actions_of, is_loopback, why_not_same_origin
from async_tracker.web.answers import Problem

SESSION_SECONDS = 12 * 3600
WRONG_TOKEN_COSTS = 1.0
_WAITING_MOST = 10
_LEAST_TOKEN = 22
"""Characters of a token that hold 128 bits, where each is one of 64."""

logger = logging.getLogger("async_tracker")

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Door(Protocol):
    """Decides about each request before it is answered."""

    async def admit(self, request: Request, path: str) -> Viewer | Response:
        """Tell who asks, or answer at once. Raises Problem for a request that is refused."""
        ...

    def why_no_actions(self) -> str:
        """Say what to write so that actions are allowed."""
        ...


class MountedDoor:
    """The door of a page in another app: ``authorize`` decides, and without it every request is refused."""

    def __init__(self, *, authorize: Authorize | None, identify: Identify | None, reached: Reached) -> None:
        self._authorize = authorize
        self._identify = identify
        self._reached = reached
        if authorize is None:
            logger.warning("the page of async-tracker is mounted without authorize, so every request is refused: %s", _WRITE_AUTHORIZE)

    async def admit(self, request: Request, path: str) -> Viewer | Response:
        _check_host(request, self._reached, option="public_urls")
        if self._authorize is None:
            raise Problem(403, "forbidden", _WRITE_AUTHORIZE)
        actions = actions_of(await self._authorize(request))
        if actions is None:
            raise Problem(403, "forbidden", "authorize does not let this request in")
        is_bearer = _bearer(request) is not None
        if not is_bearer:
            _check_origin(request, self._reached, option="public_urls")
        return Viewer(actions=actions, name=self._name(request), peer=peer_of(request), is_bearer=is_bearer)

    def _name(self, request: Request) -> str:
        if self._identify is not None:
            return self._identify(request) or "-"
        user = request.scope.get("user")
        return str(getattr(user, "display_name", None) or getattr(user, "username", None) or "-")

    def why_no_actions(self) -> str:
        return "authorize grants this request no actions: return Access.ACT, or a set with its name"


_WRITE_AUTHORIZE = (
    "write create_app(tracker, authorize=who), with `async def who(request) -> Access`; on a machine for development, authorize=local_only"
)


def check_token(token: str) -> str:
    """Give a token that is hard enough to guess. Raises ConfigError for any other.

    >>> check_token("0123456789abcdef0123456789abcdef")
    '0123456789abcdef0123456789abcdef'
    """
    if len(token) < _LEAST_TOKEN or len(set(token)) < 8 or not re.fullmatch(r"[!-~]+", token):
        raise ConfigError(
            f"the token must be at least {_LEAST_TOKEN} characters, none of them a space, made by chance: "
            'write one with python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return token


class ServedDoor:
    """The door of a page that runs by itself: a token, exchanged for a session in a cookie; or the token in a header, for programs."""

    def __init__(self, *, token: str, reached: Reached, allows_actions: bool, cookie_suffix: str) -> None:
        self._token = check_token(token).encode()
        self._reached = reached
        self._allows_actions = allows_actions
        self._cookie = f"async_tracker_{cookie_suffix}"
        self._seal_key = hashlib.sha256(b"session of async-tracker\0" + self._token).digest()
        self._waiting: dict[str, int] = {}
        self._locks: dict[str, anyio.Lock] = {}

    async def admit(self, request: Request, path: str) -> Viewer | Response:
        _check_host(request, self._reached, option="--public-url")
        peer = peer_of(request)
        given = request.query_params.get("token")
        if given is not None and request.method in SAFE_METHODS:
            await self._check_token(given, peer)
            return self._exchanged(request, path)
        actions = frozenset(ACTIONS) if self._allows_actions else frozenset()
        bearer = _bearer(request)
        if bearer is not None:
            await self._check_token(bearer, peer)
            return Viewer(actions=actions, name="bearer of the token", peer=peer, is_bearer=True)
        session = self._session(request)
        if session is None:
            raise Problem(401, "unauthorized", _OPEN_THE_URL, headers={"www-authenticate": "Bearer"})
        _check_origin(request, self._reached, option="--public-url")
        return Viewer(actions=actions, name=f"session {session.hex()[:6]}", peer=peer)

    def why_no_actions(self) -> str:
        return "actions are switched off: start async-tracker serve with --allow-actions"

    async def _check_token(self, given: str, peer: str) -> None:
        """Compare in constant time; a wrong one waits, one after the other of the same peer, and delays no right one."""
        if hmac.compare_digest(hashlib.sha256(given.encode("utf-8", "replace")).digest(), hashlib.sha256(self._token).digest()):
            return
        if self._waiting.get(peer, 0) >= _WAITING_MOST:
            raise Problem(429, "too_many_attempts", "too many wrong tokens from your address: wait", headers={"retry-after": "10"})
        self._waiting[peer] = self._waiting.get(peer, 0) + 1
        try:
            async with self._locks.setdefault(peer, anyio.Lock()):
                await anyio.sleep(WRONG_TOKEN_COSTS)
        finally:
            self._waiting[peer] -= 1
            if not self._waiting[peer]:
                del self._waiting[peer], self._locks[peer]
        raise Problem(401, "wrong_token", f"this token is not the one of this process: {_OPEN_THE_URL}")

    def _exchanged(self, request: Request, path: str) -> Response:
        """Take the token out of the address, and give a session for it."""
        rest = urlencode([pair for pair in parse_qsl(request.url.query, keep_blank_values=True) if pair[0] != "token"])
        target = "./" + path.rsplit("/", 1)[-1] + (f"?{rest}" if rest else "")
        response = Response(status_code=303, headers={"location": target, "cache-control": "no-store"})
        response.set_cookie(
            self._cookie,
            self._new_session(),
            max_age=SESSION_SECONDS,
            path=self._reached.prefix or "/",
            secure=self._reached.is_secure,
            httponly=True,
            samesite="lax",
        )
        return response

    def _new_session(self) -> str:
        """Make a session: chance, when it ends, and a seal that only a process with the same token can make.

        So a page that is open comes back by itself when its server is started again with its token, and with another one it does not.
        """
        said = f"{secrets.token_urlsafe(16)}.{int(time.time()) + SESSION_SECONDS}"
        return f"{said}.{self._seal(said)}"

    def _seal(self, said: str) -> str:
        return hmac.new(self._seal_key, f"{self._cookie}\0{said}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def _is_good(self, session: str) -> bool:
        said, _, seal = session.rpartition(".")
        if not hmac.compare_digest(seal.encode("utf-8", "replace"), self._seal(said).encode()):
            return False
        return int(said.rpartition(".")[2]) > time.time()

    def _session(self, request: Request) -> bytes | None:
        """Find the session that the cookie gives: a cookie of that name may have been sent more than once."""
        for header in request.headers.getlist("cookie"):
            try:
                morsel = SimpleCookie(header).get(self._cookie)
            except CookieError:
                continue
            if morsel is not None and self._is_good(morsel.value):
                return hashlib.sha256(morsel.value.encode()).digest()
        return None


_OPEN_THE_URL = "open the address that async-tracker serve has printed, with its token; programs send Authorization: Bearer"


def peer_of(request: Request) -> str:
    """Name where a request comes from."""
    return request.client.host if request.client is not None else "unix socket"


def _bearer(request: Request) -> str | None:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _check_origin(request: Request, reached: Reached, *, option: str) -> None:
    if request.method not in SAFE_METHODS:
        why_not = why_not_same_origin(request.headers, reached.origins, option=option)
        if why_not is not None:
            raise Problem(403, "forbidden", why_not)


def _check_host(request: Request, reached: Reached, *, option: str) -> None:
    hosts = request.headers.getlist("host")
    if reached.hosts and (len(hosts) != 1 or hosts[0].lower() not in reached.hosts):
        raise Problem(421, "wrong_host", f"this page is not reached as {', '.join(hosts) or 'no host'!r}: name it in {option}")


def needs_token_file(hosts: Sequence[str]) -> bool:
    """Tell whether listening there lets others than this machine in.

    >>> needs_token_file(["127.0.0.1"]), needs_token_file(["localhost"]), needs_token_file(["0.0.0.0"])
    (False, False, True)
    """
    return any(not is_loopback(host) and host != "localhost" for host in hosts)
