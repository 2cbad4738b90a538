"""What the tests of the namespace share: a synchronous client, and what the server says of its commands."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.harness.servers import Server
from tests.namespace.forms import HAND_WRITTEN, Form, documented_forms
from tests.namespace.oracle import Oracle, documentation
from tests.namespace.record_forms import recorded_forms


@pytest.fixture
def raw(redis_url: str) -> Iterator["redis.Redis"]:
    """A client without a namespace, on an empty database."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def oracle(server: Server) -> Iterator[Oracle]:
    with redis.Redis.from_url(server.url, decode_responses=True, protocol=2) as client:
        yield Oracle(client)


@pytest.fixture(scope="session")
def forms(oracle: Oracle) -> tuple[Form, ...]:
    """Every form of every command: from the server's own documentation, or as another wrote them down for one that has none."""
    docs = documentation(oracle.client)
    return (*(documented_forms(docs) if docs else recorded_forms()), *HAND_WRITTEN)


NEEDS = {"test_arq.py": "arq", "test_types.py": "mypy"}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what is about something that is not here: arq, with the newest redis-py; modules, on a server without them."""
    if collection_path.name == "test_modules.py":
        binary = config.getoption("--server-binary")
        return None if binary and (Path(binary).parent.parent / "lib" / "rejson.so").exists() else True
    needed = NEEDS.get(collection_path.name)
    return True if needed is not None and importlib.util.find_spec(needed) is None else None
