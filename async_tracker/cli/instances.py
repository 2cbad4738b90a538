"""Which instances are meant, and what is to be said of one."""

from collections.abc import Iterable, Sequence

from async_tracker.cli.wording import counted, duration, shown
from async_tracker.records import Instance

_NOT_THEIR_OWN = ("/lib/python", "/site-packages/", "/dist-packages/", "<frozen ")


def matching(instances: Iterable[Instance], wanted: str) -> list[Instance]:
    """Find the instances that are meant by an id, a label, or a beginning of either; what fits better hides what fits worse."""
    every = list(instances)
    for fits in (_is_named, _is_labelled, _begins_a_part, _begins):
        found = [item for item in every if fits(item, wanted)]
        if found:
            return found
    return []


def _is_named(item: Instance, wanted: str) -> bool:
    return item.instance_id == wanted


def _is_labelled(item: Instance, wanted: str) -> bool:
    return item.label == wanted


def _begins_a_part(item: Instance, wanted: str) -> bool:
    return item.instance_id.startswith(f"{wanted}:")


def _begins(item: Instance, wanted: str) -> bool:
    return item.instance_id.startswith(wanted) or (item.label or "").startswith(wanted)


def instance_remark(item: Instance) -> str:
    """Say why an instance is in its state, and where it is blocked."""
    return "; ".join(part for part in (shown(item.reason), blocked_remark(item), _dropped_remark(item)) if part)


def blocked_remark(item: Instance) -> str:
    """Say which line blocks an instance's loop, and since when; '' when none does."""
    if not item.blocked_at:
        return ""
    since = f" for {duration(item.blocked_for)}" if item.blocked_for is not None else ""
    return f"blocked{since} at {shown(blocking_line(item.blocked_at))}"


def blocking_line(frames: Sequence[str]) -> str:
    """Choose, of a stack with the innermost frame first, the line that a person can change: their own, and what it is in.

    >>> blocking_line(["/usr/lib/python3.12/ssl.py:1103 read", "/app/jobs.py:41 send", "/app/main.py:7 main"])
    '/app/jobs.py:41 send, in ssl.py:1103 read'
    >>> blocking_line(["/app/jobs.py:41 send"])
    '/app/jobs.py:41 send'
    """
    own = next((frame for frame in frames if not any(part in frame for part in _NOT_THEIR_OWN)), frames[0])
    return own if own == frames[0] else f"{own}, in {frames[0].rsplit('/', 1)[-1]}"


def _dropped_remark(item: Instance) -> str:
    return f"{counted(item.dropped, 'write')} dropped" if item.dropped else ""
