"""The page as a process of its own: where it listens, who is let in, and how it ends at once."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from async_tracker.errors import ConfigError
from async_tracker.tracker import Tracker
from async_tracker.web.access import reached_at
from async_tracker.web.app import Page
from async_tracker.web.door import ServedDoor, check_token, needs_token_file

_BACKLOG = 128
_ENDS_WITHIN = 1
"""Seconds that open connections are given when the process is told to end; streams are ended at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A page that is being served. ``url`` is how people reach it, with its token; ``address`` where it listens."""

    url: str
    address: str
    task: "asyncio.Task[None]"
    """Ends when the server does."""


class Prefixed:
    """Serves an app below a prefix, whether or not the proxy before it takes the prefix off."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "root_path": self._prefix}
        await self._app(scope, receive, send)


class _Server(uvicorn.Server):
    """A server that ends the streams of the page before it waits for its connections."""

    def __init__(self, config: uvicorn.Config, page: Page, *, handles_signals: bool) -> None:
        super().__init__(config)
        self._page = page
        self._handles_signals = handles_signals

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._page.stop()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        if not self._handles_signals:
            yield
            return
        with super().capture_signals():
            yield


@asynccontextmanager
async def served(
    tracker: Tracker,
    *,
    host: str = "127.0.0.1",
    port: int = 8686,
    root_path: str = "",
    public_urls: Sequence[str] = (),
    allows_actions: bool = False,
    token_file: Path | None = None,
    title: str | None = None,
    environment: str | None = None,
    handles_signals: bool = True,
) -> AsyncIterator[Serving]:
    """Serve the page while the block runs.

    ``port`` 0 takes a free one. Raises ConfigError where it may not listen like this, and OSError where it cannot.
    """
    if token_file is None and needs_token_file([host]):
        raise ConfigError(
            f"--host {host} lets other machines in: write --token-file FILE with a token of your own, made with "
            'python -c "import secrets; print(secrets.token_urlsafe(32))" > FILE'
        )
    token = _read_token(token_file) if token_file is not None else secrets.token_urlsafe(32)
    listening = _listening(host, port)
    port = listening.getsockname()[1]
    reached = reached_at(public_urls, host=host, port=port, root_path=root_path)
    door = ServedDoor(token=token, reached=reached, allows_actions=allows_actions, cookie_suffix=_name_of(public_urls, port))
    page = Page(tracker, door=door, title=title, environment=environment, streams_end_after=None)
    app: ASGIApp = Prefixed(page, reached.prefix) if reached.prefix else page
    config = uvicorn.Config(
        app,
        lifespan="off",
        access_log=False,  # an address may hold the token
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_ENDS_WITHIN,
    )
    server = _Server(config, page, handles_signals=handles_signals)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        shown = "127.0.0.1" if host in ("0.0.0.0", "localhost", "127.0.0.1") else f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{port}{reached.prefix}/"
        first = public_urls[0].rstrip("/") + "/" if public_urls else address
        yield Serving(url=f"{first}?token={token}", address=address, task=task)
    finally:
        page.stop()
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)
        await page.aclose()
        listening.close()


def _name_of(public_urls: Sequence[str], port: int) -> str:
    """Name the cookie after where the page is reached: cookies know no ports."""
    if not public_urls:
        return str(port)
    return "".join(character if character.isalnum() else "_" for character in public_urls[0])


def _read_token(path: Path) -> str:
    try:
        return check_token(path.read_text(encoding="utf-8").strip())
    except OSError as exc:
        raise ConfigError(f"the token file {path} cannot be read: {exc.strerror}") from exc


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as exc:
        made.close()
        raise ConfigError(f"cannot listen at {host} port {port}: {exc.strerror}; write another --port, or --port 0 for a free one") from exc
    made.listen(_BACKLOG)  # from now on a browser may come, even before the server has begun
    return made
