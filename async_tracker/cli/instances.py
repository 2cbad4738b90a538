"""What is to be said of an instance, for a terminal."""

from async_tracker.cli.wording import shown
from async_tracker.queries.wording import blocking_line, counted, duration
from async_tracker.records import Instance


def instance_remark(item: Instance) -> str:
    """Say why an instance is in its state, and where it is blocked."""
    return "; ".join(part for part in (shown(item.reason), blocked_remark(item), _failing_remark(item), _dropped_remark(item)) if part)


def blocked_remark(item: Instance) -> str:
    """Say which line blocks an instance's loop, and since when; '' when none does."""
    if not item.blocked_at:
        return ""
    since = f" for {duration(item.blocked_for)}" if item.blocked_for is not None else ""
    return f"blocked{since} at {shown(blocking_line(item.blocked_at))}"


def _failing_remark(item: Instance) -> str:
    return f"its tracker fails: {shown(item.failing)}" if item.failing else ""


def _dropped_remark(item: Instance) -> str:
    return f"{counted(item.dropped, 'write')} dropped" if item.dropped else ""
