"""What the page shares with the command line: the examination behind `doctor`, and which line of a stack blocks."""

from collections.abc import Sequence

from async_tracker.cli.examination import Examination
from async_tracker.cli.findings import Finding
from async_tracker.cli.instances import blocking_line
from async_tracker.cli.target import Target
from async_tracker.tracker import Tracker

__all__ = ["Finding", "blocks_at", "examine"]


async def examine(tracker: Tracker) -> Sequence[Finding]:
    """Examine the set-up, as ``async-tracker doctor`` does. Raises StorageUnavailable when Redis is away."""
    async with tracker.redis() as namespaced:
        return await Examination(tracker=tracker, namespaced=namespaced, target=Target(), user=None).findings()


def blocks_at(frames: Sequence[str]) -> str | None:
    """Choose the line of a stack that blocks; None of no stack."""
    return blocking_line(frames) if frames else None
