"""Workers of an older version of this package and of this one in one namespace: each recovers what the other leaves when it is killed.

The older one is taken out of the history of this repository, and runs on the libraries that are installed here.
"""

import io
import os
import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.crash.fleet import SWIFT, Fleet
from tests.harness.wait import wait_until
from tests.harness.workers import WorkerProcess

ROOT = Path(__file__).resolve().parents[2]
OLDER = "eda1be8215c01caa3ddd09b641c7b489de2b0f19"
"""The last commit before sweeps went by what has changed, orders, histories, and instances that say what they take."""
SLOTS = 2


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the package as it was."""
    command = ["git", "archive", "--format=zip", OLDER, "async_tracker"]
    try:
        archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as exc:
        said = exc.stderr.decode().strip() if isinstance(exc, subprocess.CalledProcessError) else str(exc)
        pytest.skip(
            f"did not run: two versions in one fleet, killed and recovered by each other. The older one is commit {OLDER}, which this "
            f"checkout does not have ({said}); a shallow clone gets it by: git fetch --unshallow"
        )
    folder = tmp_path_factory.mktemp("older")
    with ZipFile(io.BytesIO(archive)) as packed:
        packed.extractall(folder)
    return folder


class TwoVersions:
    """A fleet, and what its workers of either version are started with."""

    def __init__(self, fleet: Fleet, older: Path, folder: Path) -> None:
        self._fleet = fleet
        self._folder = folder
        # The package of the older version stands before that of this checkout, and the working directory before neither.
        self._of_older = {"PYTHONPATH": f"{older}{os.pathsep}{ROOT}", "PYTHONSAFEPATH": "1"}

    async def start(self, *, is_older: bool) -> WorkerProcess:
        """Start a worker, and make sure that it is of that version: the older one does not say which orders it takes."""
        worker = self._fleet.start(tracker=SWIFT, worker={"max_jobs": SLOTS}, env=self._of_older if is_older else None)
        instance = await self._fleet.registered(worker)
        async with self._fleet.tracker.redis() as namespaced:
            assert await namespaced.hexists(f"instance:{instance.instance_id}", "takes") != is_older
        return worker

    async def sweeps(self, worker: WorkerProcess) -> None:
        """Wait until this worker holds the lease, which it keeps as long as it lives."""
        instance = await self._fleet.registered(worker)
        async with self._fleet.tracker.redis() as namespaced:

            async def holds() -> bool:
                return (await namespaced.get("lease:sweep:arq") or b"").decode().startswith(f"{instance.instance_id} ")

            await wait_until(holds, timeout=60, description=f"{worker.name} sweeps")

    async def kill(self, victim: WorkerProcess, *, beside: WorkerProcess, sweeper: WorkerProcess) -> None:
        """Have both run as much as they can while that one sweeps, and kill one: the other one runs again what that one ran."""
        fleet, told = self._fleet, self._folder / f"told-{victim.pid}"
        await self.sweeps(sweeper)
        jobs = await fleet.enqueue_many(2 * SLOTS, "until_told", str(told))
        held = [job_id for job_id in jobs if await fleet.running(job_id) is victim]
        assert len(held) == SLOTS
        victim.kill()
        told.touch()
        account = await fleet.succeeded(*jobs)
        for job_id in jobs:
            expected = [victim.pid, beside.pid] if job_id in held else [beside.pid]
            assert [run.pid for run in account.runs_of(job_id)] == expected


async def test_workers_of_two_versions_recover_each_other_whichever_of_them_sweeps(fleet: Fleet, older: Path, tmp_path: Path):
    both = TwoVersions(fleet, older, tmp_path)
    first = await both.start(is_older=True)
    await both.sweeps(first)  # before another one can
    newer = await both.start(is_older=False)
    await both.kill(first, beside=newer, sweeper=first)
    await both.sweeps(newer)
    second = await both.start(is_older=True)
    await both.kill(second, beside=newer, sweeper=newer)
    third = await both.start(is_older=True)
    await both.kill(newer, beside=third, sweeper=newer)
    await both.sweeps(third)
    last = await both.start(is_older=False)
    await both.kill(last, beside=third, sweeper=third)
    await fleet.close()
