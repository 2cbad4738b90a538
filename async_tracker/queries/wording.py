"""How every program puts answers into words: durations, numbers of things, the line that blocks; and the ids that people type."""

from collections.abc import Iterable, Sequence

from async_tracker.records import Instance, StandingOrder

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_NOT_THE_USERS_CODE = ("/lib/python", "/site-packages/", "/dist-packages/", "<frozen ")


def duration(seconds: float | None) -> str:
    """Write a duration with the two units that matter; ``-`` for None.

    >>> duration(0.0004), duration(0.0123), duration(4.25), duration(75), duration(7_500), duration(90_000), duration(None)
    ('0.4 ms', '12 ms', '4.2 s', '1 min 15 s', '2 h 5 min', '1 d 1 h', '-')
    """
    if seconds is None:
        return "-"
    if 0 < seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)} min {int(seconds % _MINUTE)} s"
    if seconds < _DAY:
        return f"{int(seconds // _HOUR)} h {int(seconds % _HOUR // _MINUTE)} min"
    return f"{int(seconds // _DAY)} d {int(seconds % _DAY // _HOUR)} h"


def counted(number: int, noun: str) -> str:
    """Write a number of things.

    >>> counted(1, "job"), counted(0, "orphan")
    ('1 job', '0 orphans')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def blocking_line(frames: Sequence[str]) -> str:
    """Choose the line of a blocked loop's stack that its owner can change, and add the line that it waits in.

    ``frames`` has the innermost frame first, and at least one.

    >>> blocking_line(["/usr/lib/python3.12/ssl.py:1103 read", "/app/jobs.py:41 send", "/app/main.py:7 main"])
    '/app/jobs.py:41 send, in ssl.py:1103 read'
    >>> blocking_line(["/app/jobs.py:41 send"])
    '/app/jobs.py:41 send'
    """
    own = next((frame for frame in frames if not any(part in frame for part in _NOT_THE_USERS_CODE)), frames[0])
    return own if own == frames[0] else f"{own}, in {frames[0].rsplit('/', 1)[-1]}"


def standing_remark(order: StandingOrder) -> str:
    """Say which order stands, for whom and for how long."""
    whose = "every instance" if order.queue is None else f"each instance of {order.queue}"
    return f"{order.order} stands for {whose}, those that register meanwhile included, for {duration(order.left)}, by {order.by}"


def matching(instances: Iterable[Instance], wanted: str) -> list[Instance]:
    """Find the instances that an id, a label, or the beginning of either stands for; a closer match hides the others."""
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
