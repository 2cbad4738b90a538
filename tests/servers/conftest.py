"""Three sentinels, without TLS and with it, and a cluster, each for all tests of one file: the tests put right what they have changed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.ways import Cluster, Sentinels


@pytest.fixture(scope="module")
def sentinels(server_binary: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with Sentinels(tmp_path_factory.mktemp("sentinels"), binary=server_binary) as made:
        yield made


@pytest.fixture(scope="module")
def tls_sentinels(server_binary: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """The same, with sentinels and servers that are reached with TLS alone."""
    with Sentinels(tmp_path_factory.mktemp("sentinels-with-tls"), binary=server_binary, tls=True) as made:
        yield made


@pytest.fixture(scope="module")
def tls_cluster(server_binary: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(binary=server_binary, tag="app", tls_folder=tmp_path_factory.mktemp("cluster-with-tls")) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(server_binary: Path | None) -> Iterator[Cluster]:
    with Cluster(binary=server_binary, tag="app") as made:
        yield made
