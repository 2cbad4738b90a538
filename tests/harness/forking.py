"""Programs of the tests, started in a tenth of the time that an interpreter needs to import what they all import.

Most of what a test of a worker costs is the start of the worker. ``start(command, ...)`` forks it from a process that has imported
redis-py and the tracker already (``forked``), where that is the same: on Linux, for a command of this interpreter, and with no
variable that changes the interpreter itself. Anything else is started as ever.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from async_tracker.embedded import end_with_parent
from tests.harness.forked import MESSAGE_BYTES, PRELOADED_FOR

ROOT = Path(__file__).resolve().parents[2]

_OWN_FOLDERS = {str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}


class Process(Protocol):
    """What a test does with a process that it has started: what ``subprocess.Popen`` can do."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class ForkedProcess:
    """A forked program. ``wait`` and ``poll`` give the exit code, negative for the signal that ended it, and go on giving it."""

    def __init__(self, pid: int, report: int, command: Sequence[str]) -> None:
        self.pid = pid
        self._report = report
        self._command = command
        self._exit_code: int | None = None
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, report)

    def poll(self) -> int | None:
        """Give the exit code, or None while it lives."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Block until it has ended. Raises ``subprocess.TimeoutExpired`` after ``timeout`` seconds."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self._command, timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal; nothing where it has ended, as its number may be another process's by now."""
        if self.poll() is None:
            try:
                os.kill(self.pid, sig)
            except ProcessLookupError:
                pass  # it ended meanwhile

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        told = select.poll()
        told.register(self._report, select.POLLIN)
        if told.poll(None if timeout is None else timeout * 1000):
            with self._lock:  # a test may wait for it in a thread and look at it in another
                if self._exit_code is None:
                    # Nothing to read: the process that it was forked from has been killed, and it with it.
                    self._exit_code = int(os.read(self._report, 20) or -signal.SIGKILL)
        return self._exit_code


class ForkServer:
    """One process that forks others. It ends, and they with it, when the process that made this object ends.

    ``program`` is the module that all of them run, where it has imports of its own (``forked.PRELOADED_FOR``).
    """

    def __init__(self, program: str = "") -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.harness.forked", str(theirs.fileno()), *filter(None, [program])],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        assert self._control.recv(10) == b"ready"
        atexit.register(self._end)

    def start(self, arguments: Sequence[str], *, cwd: str, env: Mapping[str, str], streams: tuple[int, int, int]) -> ForkedProcess:
        """Fork a program: what stands behind ``python`` on a command line."""
        request = json.dumps({"arguments": arguments, "cwd": cwd, "env": dict(env)}).encode()
        assert len(request) < MESSAGE_BYTES, "a request fits into one message"
        ours, theirs = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._control, [request], [*streams, theirs])
                pid = int(self._control.recv(20))
        finally:
            os.close(theirs)
        return ForkedProcess(pid, ours, [sys.executable, *arguments])

    def _end(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()


_servers: dict[str, ForkServer] = {}
_making = threading.Lock()


def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | str = ROOT,
    stdout: IO[bytes],
    stderr: IO[bytes] | None = None,
) -> Process:
    """Start a program with exactly this environment, in a session of its own and with nothing to read. The caller ends it.

    ``stderr`` goes where ``stdout`` goes unless it is given.

    It is killed when this process dies, where that can be had (``embedded.end_with_parent``).
    """
    if command[0] == sys.executable and _can_be_forked(command[1:], env):
        program = command[2] if command[1] == "-m" and command[2] in PRELOADED_FOR else ""
        with _making:
            server = _servers.get(program) or _servers.setdefault(program, ForkServer(program))
        with open(os.devnull, "rb") as nothing:
            streams = (nothing.fileno(), stdout.fileno(), (stderr or stdout).fileno())
            return server.start(command[1:], cwd=str(cwd), env=env, streams=streams)
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT if stderr is None else stderr,
        start_new_session=True,
        preexec_fn=end_with_parent(),
    )


def _can_be_forked(arguments: Sequence[str], env: Mapping[str, str]) -> bool:
    """Tell whether an interpreter that is already up is the same: no options, nothing that changes it, no other tracker."""
    if not hasattr(os, "pidfd_open") or not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-m", "-c")):
        return False
    folders = [Path(folder) for folder in env.get("PYTHONPATH", "").split(os.pathsep) if folder and folder not in _OWN_FOLDERS]
    if any((folder / name).exists() for folder in folders for name in ("async_tracker", "sitecustomize.py")):
        return False
    ours = {"PYTHONPATH", "PYTHONUNBUFFERED"}
    changing = {name for name in {*env, *os.environ} if name.startswith(("PYTHON", "LC_", "LANG", "TZ")) and name not in ours}
    return all(env.get(name) == os.environ.get(name) for name in changing) and env.get("PYTHONUNBUFFERED") == "1"
