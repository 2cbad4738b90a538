"""What the demo runs on: a server, worker processes, a folder; and how nothing of it is left afterwards."""

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from async_tracker.cli.demo.crews import Crew, make_crews
from async_tracker.cli.demo.ledger import Ledger
from async_tracker.cli.demo.worker import CONFIGURATION
from async_tracker.cli.endings import Misused
from async_tracker.cli.target import Target
from async_tracker.connections.calls import call, call_many, translated
from async_tracker.embedded import EmbeddedServer, end_with_parent
from async_tracker.errors import TrackerError
from async_tracker.policy import InstanceState
from async_tracker.records import Instance
from async_tracker.tracker import Tracker

WORKERS = 3
"""Of the only library; of each, where there are two, one less."""

_START_TIMEOUT = 60.0
_LEAVE_TIMEOUT = 8.0
_KILL_TIMEOUT = 10.0
_CLEAN_TIMEOUT = 10.0
_POLL_INTERVAL = 0.1
_LOG_TAIL_LINES = 15


@dataclass(slots=True, kw_only=True)
class Worker:
    """One worker of the demo."""

    name: str
    crew: Crew
    process: subprocess.Popen[bytes]
    log_path: Path
    instance_pid: int | None = None
    """The process that runs its jobs, once it is registered: dramatiq's is a child of the one that was started."""

    @property
    def pid(self) -> int:
        """Its process id, also after its end."""
        return self.instance_pid or self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it lives."""
        return self.process.poll() is None

    def hold_still(self) -> None:
        """Stop the process that runs its jobs where it stands: what it has in hand does not change any more."""
        os.kill(self.pid, signal.SIGSTOP)

    def kill(self) -> None:
        """End the process that runs its jobs with SIGKILL, and return when it is dead."""
        os.kill(self.pid, signal.SIGKILL)
        if self.pid == self.process.pid:
            self.process.wait(_KILL_TIMEOUT)
        else:
            _wait_until_dead(self.pid)  # its master takes a second to see it, and then ends as well

    def end(self) -> None:
        """End it at once, with all its processes, and return when they are dead."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(_KILL_TIMEOUT)
        deadline = time.monotonic() + _KILL_TIMEOUT
        while _lives(self.process.pid) and time.monotonic() < deadline:
            time.sleep(0.005)


@dataclass(slots=True, kw_only=True)
class Stage:
    """Everything that the demo has started."""

    url: str
    namespace: str
    crews: list[Crew]
    folder: Path
    is_given: bool
    """The server was given to the demo: what the demo wrote there must be deleted."""
    tracker: Tracker
    ledger: Ledger
    workers: list[Worker] = field(default_factory=list)

    def start_workers(self) -> None:
        """Start the processes; they end with this one, however it ends."""
        numbers = itertools.count(1)
        for crew in self.crews:
            for _ in range(WORKERS - len(self.crews) + 1):
                self.workers.append(self._started(f"worker-{next(numbers)}", crew))

    def _started(self, name: str, crew: Crew) -> Worker:
        log_path = self.folder / f"{name}.log"
        configuration = {"name": name, "url": self.url, "namespace": self.namespace, "queue": crew.queue, "ledger": str(self.ledger.path)}
        environment = {key: value for key, value in os.environ.items() if key != "REDIS_URL" and not key.startswith("TRACKER_")}
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                crew.command(),
                env={**environment, CONFIGURATION: json.dumps(configuration)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal is for the demo, which then ends its workers
                preexec_fn=end_with_parent(),
            )
        return Worker(name=name, crew=crew, process=process, log_path=log_path)

    def name_of(self, pid: int) -> str:
        """Name the worker with this process id."""
        return next((worker.name for worker in self.workers if worker.pid == pid), f"pid {pid}")

    async def wait_until_registered(self) -> list[Instance]:
        """Wait until every worker is an instance that is alive. Raises TrackerError with a worker's log when one ends before."""
        async with asyncio.timeout(_START_TIMEOUT):
            while True:
                alive = [item for item in await self.tracker.instances() if item.state is InstanceState.ALIVE]
                pids = {item.label: item.pid for item in alive}
                if pids.keys() >= {worker.name for worker in self.workers}:
                    for worker in self.workers:
                        worker.instance_pid = pids[worker.name]
                    return alive
                for worker in self.workers:
                    if not worker.is_running:
                        raise TrackerError(f"{worker.name} ended with {worker.process.returncode} while it was starting: {_tail(worker)}")
                await asyncio.sleep(_POLL_INTERVAL)

    def ask_workers_to_leave(self) -> None:
        """Send SIGTERM to all, and wait for a while: an orderly end."""
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)
        for worker in self.workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(_LEAVE_TIMEOUT)

    def end_workers(self) -> None:
        """End whatever still runs, at once."""
        for worker in self.workers:
            worker.end()

    async def remove_traces(self) -> None:
        """Delete from a server that was given to the demo what the demo has written there."""
        async with asyncio.timeout(_CLEAN_TIMEOUT), self.tracker.redis() as namespaced:
            with translated():
                await namespaced.clear()
            job_ids = sorted(self.ledger.read().enqueued)
            for crew in self.crews:
                names = await crew.traces(namespaced.redis, job_ids)
                await call_many(namespaced.redis, [("UNLINK", name) for name in names])


@asynccontextmanager
async def stage(target: Target, *, workers: str) -> AsyncIterator[Stage]:
    """Set the stage: on the server that was given, if its namespace and queues are empty, else on one of our own."""
    namespace = target.namespace or f"demo_{secrets.token_hex(4)}"
    with _server(target.redis_url) as (url, folder):
        crews = make_crews(workers, url=url, namespace=namespace)
        tracker = Tracker(namespace=namespace, redis_options={"url": url, "socket_connect_timeout": 3.0}, arq_redis=url)
        async with tracker:
            is_given = target.redis_url is not None
            if is_given:
                await _refuse_unless_empty(tracker, [crew.queue for crew in crews])
            made = Stage(
                url=url,
                namespace=namespace,
                crews=crews,
                folder=folder,
                is_given=is_given,
                tracker=tracker,
                ledger=Ledger(folder / "ledger"),
            )
            try:
                yield made
            finally:
                made.end_workers()
                if is_given:
                    await made.remove_traces()


@contextmanager
def _server(url: str | None) -> Iterator[tuple[str, Path]]:
    """Give a url and a folder that is removed at the end."""
    if url is not None:
        with tempfile.TemporaryDirectory(prefix="atrk-demo-") as folder:
            yield url, Path(folder)
        return
    with EmbeddedServer() as server:
        yield server.url, server.folder


async def _refuse_unless_empty(tracker: Tracker, queues: Sequence[str]) -> None:
    async with tracker.redis() as namespaced:
        with translated():
            found: int = await namespaced.count()
        queued = int(await call(namespaced.redis, "EXISTS", *queues))
    if found or queued:
        what = f"namespace {tracker.namespace!r} holds {found} keys" if found else f"queue {' or '.join(map(repr, queues))} is not empty"
        raise Misused(f"{what}: the demo refuses a namespace or a queue that is in use; give it another --namespace, or none")


def _lives(group: int) -> bool:
    """Tell whether a process of this group is there that is no zombie: those that its leader has started may die after it."""
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()[:3]
        except OSError:  # it has just ended
            continue
        if its_group == str(group) and state != "Z":
            return True
    return False


def _wait_until_dead(pid: int) -> None:
    """Wait until a process that is no child of ours is gone, or a zombie."""
    deadline = time.monotonic() + _KILL_TIMEOUT
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:  # gone; or there is no /proc to ask, and a SIGKILL takes no time that a person would see
            return
        if stat.rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.001)


def _tail(worker: Worker) -> str:
    return " | ".join(worker.log_path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
