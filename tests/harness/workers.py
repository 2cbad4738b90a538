"""Real worker processes, to be killed, suspended and asked to leave; none outlives the test.

worker = workers.start("tests.crash.app.WorkerSettings", env={"TEST_REDIS_URL": redis_url})
worker.kill()
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness.alive import is_suspended
from tests.harness.forking import Process, start
from tests.harness.ledger import Ledger
from tests.harness.wait import wait_until_sync

_KILL_TIMEOUT = 10.0  # a SIGKILL needs no time, but a loaded machine may
_LEAVE_TIMEOUT = 30.0


class WorkerProcess:
    """One process and what it printed. ``pid`` stays readable after its end."""

    def __init__(self, process: Process, *, name: str, output_path: Path, ledger: Ledger | None) -> None:
        self._process = process
        self._ledger = ledger
        self.name = name
        self.output_path = output_path

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it lives; negative for the signal that ended it."""
        return self._process.poll()

    def output(self) -> str:
        """Return everything that it printed so far, errors included."""
        return self.output_path.read_text(errors="replace")

    def wait_for_output(self, text: str, *, timeout: float = 20.0) -> None:
        """Block until it has printed ``text``. Fails after ``timeout`` seconds, or at once where it ended without."""

        def printed_or_ended() -> bool:
            return text in self.output() or self.exit_code is not None

        wait_until_sync(printed_or_ended, timeout=timeout, description=f"{self.name} prints {text!r}")
        assert text in self.output(), f"{self.name} ended with {self.exit_code} and never printed {text!r}:\n{self.output()}"

    def kill(self) -> None:
        """End it with SIGKILL, itself alone, and return when it is dead; the ledger is told."""
        self._process.kill()
        self._process.wait(_KILL_TIMEOUT)
        if self._ledger is not None:
            self._ledger.killed(self.pid)

    def suspend(self) -> None:
        """Stop it where it stands (SIGSTOP), and return once it stands: it lives, and does nothing."""
        self._process.send_signal(signal.SIGSTOP)
        # Until then it may still act on a signal sent later.
        wait_until_sync(lambda: self.exit_code is not None or is_suspended(self.pid), description=f"{self.name} stands still")

    def resume(self) -> None:
        """End ``suspend()``."""
        self._process.send_signal(signal.SIGCONT)

    def ask_to_leave(self) -> None:
        """Send SIGTERM, as an orderly shutdown does, and do not wait."""
        self._process.terminate()

    def wait(self, timeout: float = _LEAVE_TIMEOUT) -> int:
        """Block until it has ended, and return its exit code. Fails with what it printed after ``timeout`` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout} s:\n{self.output()}") from None

    def end_with_children(self) -> None:
        """End it, suspended or not, and whatever it has forked."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it and its children are gone already
        self._process.wait(_KILL_TIMEOUT)


class Workers:
    """Starts worker processes whose output goes to files in ``folder``, and ends them all at its own end.

    Started from the main thread of a Linux process they also end with it when it is killed.
    """

    def __init__(self, folder: Path, *, ledger: Ledger | None = None) -> None:
        self._folder = folder
        self._ledger = ledger
        self._started: list[WorkerProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        for worker in self._started:
            worker.end_with_children()
        for worker in self._started:
            print(f"--- {worker.name}, ended with {worker.exit_code}, printed:\n{worker.output()}")  # pytest shows it where the test failed

    def start(self, settings: str, *, env: Mapping[str, str] | None = None, arguments: Sequence[str] = ()) -> WorkerProcess:
        """Start ``arq`` with the dotted path of a WorkerSettings, in our environment less every TRACKER_ variable, plus ``env``."""
        return self.start_program([sys.executable, "-m", "arq", settings, *arguments], env=env)

    def start_program(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> WorkerProcess:
        """Start any other worker, with its working directory at the root of the checkout."""
        name = f"worker-{len(self._started) + 1}"
        output_path = self._folder / f"{name}.log"
        inherited = {key: value for key, value in os.environ.items() if key != "REDIS_URL" and not key.startswith("TRACKER_")}
        with output_path.open("wb") as output:
            process = start(command, env={**inherited, "PYTHONUNBUFFERED": "1", **(env or {})}, stdout=output)
        worker = WorkerProcess(process, name=name, output_path=output_path, ledger=self._ledger)
        self._started.append(worker)
        return worker
