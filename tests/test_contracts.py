"""The import contracts let in the rooms that are to come, and keep every room on its floor."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.copies import copy_package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package with an empty web page, and a command that serves it."""
    package = copy_package(tmp_path)
    write(package / "web" / "__init__.py", '"""The page."""\n')
    write(package / "web" / "app.py", '"""The page as an application."""\n\nimport starlette  # noqa: F401\n')
    serve = '"""``serve``: the page."""\n\nimport uvicorn  # noqa: F401\n\nfrom async_tracker.web import app  # noqa: F401\n'
    write(package / "cli" / "serve.py", serve)
    return package


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def append(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text()}\n{line}  # noqa: E402, F401\n")


def broken(package: Path) -> str | None:
    """What the contracts say of this package where one is broken; None where all are kept."""
    lint = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    env = {**os.environ, "PYTHONPATH": str(package.parent), "COLUMNS": "200"}
    done = subprocess.run(lint, cwd=package.parent, env=env, capture_output=True, text=True, check=False)
    assert "Contracts: " in done.stdout, done.stdout + done.stderr
    return None if done.returncode == 0 else done.stdout


def test_a_web_page_and_the_command_that_serves_it_are_let_in_and_so_are_the_other_rooms_to_come(package: Path):
    append(package / "web" / "app.py", "from async_tracker.doctor.examination import examine\nfrom async_tracker.tracker import Tracker")
    for room in ("metrics", "telemetry", "control", "history"):
        write(package / room / "__init__.py", '"""To come."""\n')
    assert broken(package) is None


REFUSED = [
    ("tracker.py", "from async_tracker.web import app", "async_tracker.tracker is not allowed to import async_tracker.web"),
    ("web/app.py", "from async_tracker.cli import wording", "async_tracker.web is not allowed to import async_tracker.cli"),
    ("doctor/findings.py", "from async_tracker.cli import wording", "async_tracker.doctor is not allowed to import async_tracker.cli"),
    ("doctor/examination.py", "import rich", "async_tracker.doctor.examination -> rich"),
    ("web/app.py", "import click", "async_tracker.web.app -> click"),
    ("cli/lists.py", "import uvicorn", "async_tracker.cli.lists -> uvicorn"),
    ("cli/serve.py", "import starlette", "async_tracker.cli.serve -> starlette"),
    ("cli/reach.py", "import arq", "async_tracker.cli.reach -> arq"),
    ("tracker.py", "import prometheus_client", "async_tracker.tracker -> prometheus_client"),
    ("instance/runtime.py", "import opentelemetry", "async_tracker.instance.runtime -> opentelemetry"),
]


def test_every_import_from_the_wrong_room_is_refused(package: Path):
    for file, line, _ in REFUSED:
        append(package / file, line)
    found = broken(package)
    assert found is not None
    assert [says for _, _, says in REFUSED if says not in " ".join(found.split())] == []


def test_a_room_without_a_floor_is_refused(package: Path):
    write(package / "attic.py", '"""A room that stands on no floor."""\n')
    found = broken(package)
    assert found is not None
    assert "async_tracker.attic" in found
