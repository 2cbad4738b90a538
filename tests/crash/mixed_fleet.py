"""Workers of an older version of this package and of this one in one namespace: each recovers what the other leaves when it is killed.

``python -m tests.crash.mixed_fleet [COMMIT]``. The older version is taken from the history of this repository, which a shallow checkout
does not have: so this is a program and no test.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from arq import create_pool
from arq.connections import RedisSettings

from async_tracker.embedded import EmbeddedServer

ROOT = Path(__file__).resolve().parents[2]
OLDER = "3270c752ba63891eafb76ce43361f5c8f6c0a0fa"
"""The last commit before sweeps went by what has changed."""
JOBS, SLOTS, WITHIN_SECONDS = 6, 4, 30.0

APP = """
import asyncio, os, pathlib
from arq.connections import RedisSettings
from async_tracker import Tracker

LOG = pathlib.Path(os.environ["MIXED_LOG"])
tracker = Tracker(namespace="mixed")

async def hold(ctx):
    with LOG.open("a") as log:
        log.write(f"{ctx['job_id']} {os.getpid()}\\n")
    while not LOG.with_name("over").exists():
        await asyncio.sleep(0.05)

@tracker.install
class WorkerSettings:
    functions = [hold]
    redis_settings = RedisSettings.from_dsn(os.environ["MIXED_REDIS"])
    max_jobs = int(os.environ["MIXED_SLOTS"])
    job_timeout = 7_200
"""


def main() -> int:
    """Play all four scenes; returns 0 when each killed worker's jobs ran on the other."""
    commit = sys.argv[1] if len(sys.argv) > 1 else OLDER
    with tempfile.TemporaryDirectory(prefix="async-tracker-mixed-") as folder:
        older = Path(folder, "older")
        older.mkdir()
        archive = subprocess.run(["git", "archive", commit, "async_tracker"], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "x", "-C", str(older)], input=archive.stdout, check=True)
        Path(folder, "mixed_app.py").write_text(APP)
        failed = 0
        for killed, first in (("older", "older"), ("older", "newer"), ("newer", "older"), ("newer", "newer")):
            seconds = _play(Path(folder), {"older": older, "newer": ROOT}, killed=killed, first=first)
            failed += seconds is None
            outcome = "NOT recovered" if seconds is None else f"recovered after {seconds:.2f} s"
            print(f"the {killed} one is killed, the {first} one was first: {outcome}", flush=True)
    return 1 if failed else 0


def _play(folder: Path, packages: dict[str, Path], *, killed: str, first: str) -> float | None:
    log = folder / "log"
    over = folder / "over"
    log.write_text("")
    over.unlink(missing_ok=True)
    other = "newer" if killed == "older" else "older"
    with EmbeddedServer(tcp=True) as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        workers: dict[str, subprocess.Popen[bytes]] = {}
        try:
            for version in (first, "newer" if first == "older" else "older"):
                env = {
                    **os.environ,
                    "MIXED_LOG": str(log),
                    "MIXED_REDIS": url,
                    "MIXED_SLOTS": str(SLOTS),
                    "PYTHONPATH": f"{packages[version]}:{folder}",
                }
                command = [sys.executable, "-m", "arq", "mixed_app.WorkerSettings"]
                workers[version] = subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.DEVNULL)
                time.sleep(3.0)
            asyncio.run(_enqueue(url))
            _wait(lambda: len(_lines(log)) == JOBS)
            held = {job for job, pid in _lines(log) if pid == workers[killed].pid}
            workers[killed].kill()
            began = time.monotonic()
            over.touch()  # what the other one holds ends, and leaves room
            try:
                _wait(lambda: held <= {job for job, pid in _lines(log)[JOBS:] if pid == workers[other].pid})
            except TimeoutError:
                return None
            return time.monotonic() - began
        finally:
            for worker in workers.values():
                worker.kill()
                worker.wait()


async def _enqueue(url: str) -> None:
    pool = await create_pool(RedisSettings.from_dsn(url))
    for number in range(JOBS):
        await pool.enqueue_job("hold", _job_id=f"job-{number}")
    await pool.aclose()


def _lines(log: Path) -> list[tuple[str, int]]:
    return [(line.split()[0], int(line.split()[1])) for line in log.read_text().splitlines()]


def _wait(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + WITHIN_SECONDS
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
