"""The page as people reach it: served by itself in a process of its own, mounted in an app, looked at with a real browser."""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from async_tracker import Tracker
from async_tracker.web import Access, create_app
from async_tracker.web.serving import served
from tests.crash.fleet import Fleet, open_fleet
from tests.harness.ledger import Ledger
from tests.harness.settings import KNOWN
from tests.harness.workers import WorkerProcess, Workers
from tests.web.browser import browser, eyes

__all__ = ["browser", "eyes"]


async def lets_act(request: Any) -> Access:
    return Access.ACT


async def lets_read(request: Any) -> Access:
    return Access.READ


@dataclass(frozen=True, kw_only=True)
class Served:
    """A page that is served as ``async-tracker serve`` serves it."""

    url: str
    """The printed address, with its token."""
    listening: str

    @property
    def base(self) -> str:
        """Where it listens; ends with a slash."""
        return self.listening

    @property
    def token(self) -> str:
        return self.url.partition("token=")[2]

    def at(self, path: str) -> str:
        """Give the address of a screen, with the token."""
        return f"{self.base}{path}{'&' if '?' in path else '?'}token={self.token}"

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Make a client that gives no token."""
        return httpx.AsyncClient(base_url=self.base, timeout=20.0, **options)

    def program(self) -> httpx.AsyncClient:
        """Make a client as a program has it, which gives the token in a header."""
        return self.client(headers={"authorization": f"Bearer {self.token}"})


@dataclass(frozen=True, kw_only=True)
class ServedAlone(Served):
    """A page that ``async-tracker serve`` serves: a process of its own."""

    process: WorkerProcess


@pytest.fixture
async def serve_here(make_tracker: Callable[..., Tracker]) -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """``await serve_here(allows_actions=True)``: the page as ``async-tracker serve`` serves it, by this very process.

    That costs no start of a process: where a test does not stop or end the server, this will do. ``url`` is another way to Redis.
    """
    async with AsyncExitStack() as stack:

        async def start(*, url: str | None = None, **options: Any) -> Served:
            tracker = make_tracker(**({"redis_options": {"url": url}} if url is not None else {}))
            serving = await stack.enter_async_context(served(tracker, port=0, handles_signals=False, **options))
            return Served(url=serving.url, listening=serving.address)

        yield start


@pytest.fixture
def serve(workers: Workers, redis_url: str, namespace: str) -> Callable[..., ServedAlone]:
    """``serve("--allow-actions")``: start ``async-tracker serve`` on a free port, and wait until it tells its address."""

    def start(*arguments: str, url: str | None = None) -> ServedAlone:
        command = [sys.executable, "-m", "async_tracker.cli", "serve", "--redis-url", url or redis_url, "--namespace", namespace, "--json"]
        process = workers.start_program([*command, *(() if "--port" in arguments else ("--port", "0")), *arguments])
        process.wait_for_output('"url"')
        line = next(line for line in process.output().splitlines() if line.startswith("{"))
        told = json.loads(line)
        return ServedAlone(process=process, url=told["url"], listening=told["listening"])

    return start


@pytest.fixture
async def make_tracker(redis_url: str, namespace: str) -> AsyncIterator[Callable[..., Tracker]]:
    made: list[Tracker] = []

    def make(**settings: Any) -> Tracker:
        given = {"namespace": namespace, "redis_options": {"url": redis_url}, **KNOWN, **settings}
        made.append(Tracker(**given))
        return made[-1]

    yield make
    for tracker in made:
        await tracker.aclose()


@pytest.fixture
def tracker(make_tracker: Callable[..., Tracker]) -> Tracker:
    return make_tracker()


@pytest.fixture
async def mount(tracker: Tracker) -> AsyncIterator[Callable[..., httpx.AsyncClient]]:
    """``mount(authorize=...)``: the page of the test's tracker, and a client on this machine that asks it without a network."""
    pages: list[Any] = []
    clients: list[httpx.AsyncClient] = []

    def make(
        *, peer: str = "127.0.0.1", base_url: str = "http://localhost:8000", of: Tracker | None = None, **options: Any
    ) -> httpx.AsyncClient:
        pages.append(create_app(of or tracker, **options))
        transport = httpx.ASGITransport(app=pages[-1], client=(peer, 5000))
        clients.append(httpx.AsyncClient(transport=transport, base_url=base_url))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()
    for page in pages:
        await page.aclose()


@pytest.fixture
async def fleet(workers: Workers, ledger: Ledger, redis_url: str, namespace: str) -> AsyncIterator[Fleet]:
    fleet = await open_fleet(workers, ledger, redis_url, namespace)
    yield fleet
    await fleet.aclose()
