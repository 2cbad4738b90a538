"""Help is there for every command, and does not wait for what it does not need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import async_tracker
from tests.cli.conftest import Cli

COMMANDS = [
    "demo",
    "ps",
    "jobs",
    "orphans",
    "stats",
    "history",
    "top",
    "events",
    "recover",
    "quarantine",
    "quiet",
    "resume",
    "stop",
    "check",
    "doctor",
    "metrics",
    "serve",
]
DEEPER = ["quarantine list", "quarantine show", "quarantine retry", "quarantine drop"]

SAY_WHAT_HELP_LOADS = """
import sys
from async_tracker.cli.program import run
commands = [line.split() for line in sys.argv[1].split(",")]
codes = {run([*command, "--help"]) for command in commands}
print()
print(codes, *sorted({"redis", "rich", "arq", "asyncio", "anyio"} & set(sys.modules)))
"""


def test_the_help_of_no_command_loads_redis_or_rich_or_an_event_loop():
    commands = ",".join(["", *COMMANDS, *DEEPER])
    done = subprocess.run([sys.executable, "-c", SAY_WHAT_HELP_LOADS, commands], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "{0}"
    for command in [*COMMANDS, *DEEPER]:
        assert f"async-tracker {command} " in done.stdout


def test_the_help_names_every_command_and_every_exit_code(make_cli):
    answer = make_cli()("--help")
    assert answer.code == 0
    assert [command for command in COMMANDS if f"\n  {command} " not in answer.out] == []
    assert [
        code for code in ("0 ok", "1 the", "2 usage", "3 Redis", "4 not", "5 some", "130") if code not in " ".join(answer.out.split())
    ] == []


@pytest.mark.parametrize("arguments", [["nonsense"], ["ps", "--nonsense"], ["quarantine", "show"], ["check", "--timeout", "soon"], []])
def test_a_command_line_that_cannot_be_read_is_a_matter_of_usage(make_cli, arguments: list[str]):
    cli: Cli = make_cli()
    answer = cli(*arguments)
    assert answer.code == 2
    assert "Traceback" not in answer.err


def test_the_version_is_that_of_the_package(make_cli):
    answer = make_cli()("--version")
    assert answer.code == 0
    assert answer.out.startswith("async-tracker, version ")


def test_what_type_checkers_are_told_of_the_package_is_what_it_loads():
    stub = ast.parse(Path(async_tracker.__file__).with_suffix(".pyi").read_text())
    told = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    homes = vars(async_tracker)["_HOMES"]
    loaded = {name: home for name in async_tracker.__all__ if (home := homes.get(name)) is not None}
    assert told == homes == loaded
