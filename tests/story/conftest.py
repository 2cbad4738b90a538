"""What every story needs: the snippets of a document as modules, and a Redis that they find as a user's program would."""

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType

import pytest
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings

from tests.harness.workers import WorkerProcess, Workers
from tests.story.snippets import snippet


@pytest.fixture
def as_a_user(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> str:
    """Let everything that reads REDIS_URL find the server of the test; returns its url."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    return redis_url


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., ModuleType]:
    """``load("README.md", "web.py")``: the snippet, run as a module. Names given as keywords are there before it runs."""

    def run(document: str, name: str, **names: object) -> ModuleType:
        block = snippet(document, name)
        path = tmp_path / name
        path.write_text(block.text)
        module = ModuleType(path.stem)
        module.__file__ = str(path)
        module.__dict__.update(names)
        exec(compile(block.text, str(path), "exec"), module.__dict__)
        return module

    return run


@pytest.fixture
def start_worker(tmp_path: Path, workers: Workers) -> Callable[..., WorkerProcess]:
    """``start_worker("README.md", "tasks.py", env={...})``: write the snippet as a file and start arq on its WorkerSettings."""

    def start(document: str, name: str, *, env: dict[str, str]) -> WorkerProcess:
        path = tmp_path / name
        path.write_text(snippet(document, name).text)
        command = [sys.executable, "-m", "arq", f"{path.stem}.WorkerSettings"]
        return workers.start_program(command, env={"PYTHONPATH": str(tmp_path), **env})

    return start


@pytest.fixture
async def pool(redis_url: str) -> AsyncIterator[ArqRedis]:
    pool = await create_pool(RedisSettings.from_dsn(redis_url))
    yield pool
    await pool.aclose()
