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


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what is about a package that this environment does not have: that with the newest redis-py has no arq."""
    needed = NEEDS.get(collection_path.name)
    return True if needed is not None and importlib.util.find_spec(needed) is None else None
