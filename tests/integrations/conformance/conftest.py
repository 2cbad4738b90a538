"""``stage``: workers of one integration, jobs for them, and the account of it. Every test of this folder runs once per integration."""

import importlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio

from async_tracker import Tracker
from tests.harness.ledger import Ledger
from tests.harness.workers import Workers
from tests.integrations.conformance import drivers
from tests.integrations.conformance.drivers import Driver
from tests.integrations.conformance.stage import Stage
from tests.story.snippets import snippets

PAGE = "docs/integrations.md"


@pytest.fixture(scope="session")
def listq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """The library that the page on integrations adds, as the page has it."""
    folder = tmp_path_factory.mktemp("listq")
    scripts = folder / "listq_scripts"
    (scripts / "lua").mkdir(parents=True)
    (scripts / "__init__.py").touch()
    for snippet in snippets(PAGE):
        name = snippet.text.split("\n", 1)[0].lstrip("#- ")
        place = scripts / "lua" if name.endswith(".lua") else folder
        (place / name).write_text(snippet.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield drivers.listq(folder, [importlib.import_module("listq"), importlib.import_module("tracked_listq")])


@pytest.fixture(params=["arq", "dramatiq", "asyncio", "listq"])
def driver(request: pytest.FixtureRequest) -> Driver:
    if request.param == "listq":
        found: Driver = request.getfixturevalue("listq")
        return found
    return {"arq": drivers.arq, "dramatiq": drivers.dramatiq, "asyncio": drivers.plain}[request.param]()


@pytest.fixture
async def stage(
    driver: Driver, workers: Workers, ledger: Ledger, redis_client: redis.asyncio.Redis, redis_url: str, namespace: str, tmp_path: Path
) -> AsyncIterator[Stage]:
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as tracker:
        driver.make_known(tracker)
        yield Stage(
            driver=driver,
            workers=workers,
            ledger=ledger,
            client=redis_client,
            redis_url=redis_url,
            namespace=namespace,
            tracker=tracker,
            told=tmp_path / "told",
        )
