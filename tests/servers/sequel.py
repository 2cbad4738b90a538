"""What must be so once Redis has gone over to another server."""

from typing import Any, Protocol

from async_tracker import StorageError, Tracker
from tests.crash.fleet import Fleet
from tests.harness.ledger import Ledger
from tests.harness.wait import wait_until

BEATING: dict[str, Any] = {"heartbeat_interval": 0.5, "heartbeat_ttl": 3.0, "sweep_interval": 0.2}
"""So quick that a switch takes longer than the heartbeats last."""


class Scene(Protocol):
    """Workers of any library, who write what they do to a ledger; the tracker is the test's own."""

    ledger: Ledger
    tracker: Tracker


async def right_again(fleet: Scene, ids: set[str]) -> None:
    """Wait until what is listed is what runs, on the instances that there were."""

    async def is_right() -> bool:
        try:
            snapshot = await fleet.tracker.snapshot()
        except StorageError:
            return False  # the failover is under way
        at_work = {run.job_id for run in fleet.ledger.read().runs if run.ended_at_ns is None}
        assert {item.instance_id for item in snapshot.instances} <= ids, "no instance was taken for dead"
        is_listed = {job.job_id for job in snapshot.jobs} == at_work
        return is_listed and {item.instance_id for item in snapshot.instances if item.heartbeat_age < 3.0} == ids

    await wait_until(is_right, timeout=60, description="what is listed is what runs", poll_interval=0.1)


async def counts_whole(fleet: Fleet, runs: int) -> None:
    """Wait until so many runs are counted, none of them twice, and none was taken for an orphan."""

    async def is_whole() -> bool:
        stats = await fleet.tracker.stats()
        assert (stats.orphaned, stats.started <= runs, stats.succeeded <= runs) == (0, True, True)
        return (stats.started, stats.succeeded) == (runs, runs)

    await wait_until(is_whole, timeout=60, description="all runs are counted", poll_interval=0.1)
