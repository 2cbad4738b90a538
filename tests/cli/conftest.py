"""The command line as a process of its own, with an environment that holds nothing of a tracker."""

import fcntl
import io
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import IO, Any
from unittest import mock

import anyio
import pytest

from async_tracker.cli import program
from tests.harness import forking

_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document that stdout must be, and nothing beside it."""
        found: dict[str, Any] = json.loads(self.out)
        return found


class Cli:
    """Runs ``async-tracker``. Without ``--redis-url`` and ``--namespace`` of its own a command is given those of the test."""

    def __init__(self, *, url: str | None = None, namespace: str | None = None) -> None:
        self._url = url
        self._namespace = namespace
        self._started: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str, env: Mapping[str, str] | None = None) -> Answer:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = forking.start(self._command(arguments), env=environment(env), stdout=out, stderr=err)
            try:
                code = process.wait(_TIMEOUT)
            finally:
                process.kill()
            return Answer(code=code, out=_all_of(out), err=_all_of(err))

    async def within(self, *arguments: str, env: Mapping[str, str] | None = None) -> Answer:
        """Run the command in a thread of this process: the same answer, without the time that an interpreter takes to start."""
        return await anyio.to_thread.run_sync(self._run_here, arguments, env)

    def _run_here(self, arguments: tuple[str, ...], env: Mapping[str, str] | None) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), mock.patch.dict(os.environ, env or {}):
            code = program.run(self._command(arguments)[3:])
        return Answer(code=code, out=out.getvalue(), err=err.getvalue())

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command that goes on; it is killed at the end of the test."""
        process = subprocess.Popen(
            self._command(arguments),
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def on_terminal(self, columns: int, *arguments: str, typed: str = "", env: Mapping[str, str] | None = None) -> str:
        """Run a command on a terminal of that width, with this typed ahead; returns what it showed, without colours."""
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.write(ours, typed.encode())
        given = environment({"TERM": "xterm-256color", **(env or {})})
        with subprocess.Popen(self._command(arguments), env=given, stdin=theirs, stdout=theirs, stderr=theirs):
            os.close(theirs)
            shown = b"".join(iter(lambda: _read(ours), b""))
        os.close(ours)
        return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())

    def end_all(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        given = []
        if self._url is not None and "--redis-url" not in arguments:
            given += ["--redis-url", self._url]
        if self._namespace is not None and "--namespace" not in arguments:
            given += ["--namespace", self._namespace]
        return [sys.executable, "-m", "async_tracker.cli", *given, *arguments]


def _all_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end is closed: that is how a terminal ends
        return b""


def environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    return {**kept, "PYTHONUNBUFFERED": "1", **(extra or {})}


@pytest.fixture
def make_cli() -> Iterator[Callable[..., Cli]]:
    """Make a command line for another Redis or namespace than the test's."""
    made: list[Cli] = []

    def make(**options: Any) -> Cli:
        made.append(Cli(**options))
        return made[-1]

    yield make
    for cli in made:
        cli.end_all()


@pytest.fixture
def cli(make_cli: Callable[..., Cli], redis_url: str, namespace: str) -> Cli:
    return make_cli(url=redis_url, namespace=namespace)
