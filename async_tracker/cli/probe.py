"""``check``: the probe for a container. It answers within a second, whatever Redis does."""

import os
from collections.abc import Sequence
from contextlib import suppress

from anyio import fail_after

from async_tracker.cli.endings import Ending
from async_tracker.cli.instances import blocked_remark
from async_tracker.cli.reach import make_tracker, redis_of, role_asked
from async_tracker.cli.streams import let_go
from async_tracker.cli.target import Target
from async_tracker.cli.wording import remark, say, say_document, shown
from async_tracker.connections.replies import REPLICA
from async_tracker.errors import StorageError, TrackerError
from async_tracker.instance.host import host_id
from async_tracker.policy import InstanceState
from async_tracker.queries.questions import OF_REPLICA, Queries
from async_tracker.queries.wording import duration, matching
from async_tracker.records import Instance
from async_tracker.tracker import Tracker

_THERE = (InstanceState.ALIVE, InstanceState.QUIET, InstanceState.DRAINING, InstanceState.STALLED_BLOCKED)


async def check(target: Target, *, instance: str | None, blocked_limit: float | None, timeout: float) -> int:
    """Tell whether the instance that is meant is alive; all of them, where it is several."""
    tracker = make_tracker(target, timeout=timeout, is_brief=True)
    try:
        with fail_after(timeout):
            meant, why_not = await meant_instances(tracker, instance), None
            if not meant:
                why_not = await _unread(tracker, instance)
            why_not = why_not or _unknown(meant)
    except TimeoutError:
        why_not = f"Redis did not answer within {timeout:g} s"
    except Exception as exc:  # the edge of the probe: what it does not know of must not restart a worker
        why_not = str(exc) if isinstance(exc, TrackerError) else f"{type(exc).__name__} in the probe: {exc}"
    if why_not is not None:
        remark(f"async-tracker: {' '.join(why_not.split())} ({await redis_of(tracker)})")
        os._exit(Ending.UNREACHABLE)  # a name that is still being looked up in a thread would hold up the answer
    with suppress(StorageError, OSError):
        await tracker.aclose()
    is_alive, why = verdict(meant, blocked_limit=blocked_limit, whose="of this host" if instance is None else shown(instance))
    try:
        if target.as_json:
            say_document({"alive": is_alive, "why": why, "instances": meant})
        else:
            say(why)
    except OSError:  # closed, full, or not read: the exit code is the answer
        let_go()
    return Ending.OK if is_alive else Ending.BAD_ANSWER


async def meant_instances(tracker: Tracker, instance: str | None) -> list[Instance]:
    """Ask for the instances that are meant, and for no others where it is this host's, or one id.

    Raises StorageError where Redis refuses, and where it is a replica: what it has may be of long ago.
    """
    if instance is None:
        return await tracker.instances_here(primary=True)
    if await role_asked(tracker) == REPLICA:
        raise StorageError(OF_REPLICA)
    one = await tracker.instance(instance)
    return [one] if one is not None else matching(await tracker.instances(), instance)


async def _unread(tracker: Tracker, instance: str | None) -> str | None:
    """Tell which record of an instance cannot be read: it may be the one that is meant."""
    async with tracker.redis() as namespaced:
        unread = await Queries(namespaced).unreadable_instances(host_id=host_id() if instance is None else None)
    return f"{shown(unread[0])} cannot be read: another version or another program wrote it" if unread else None


def _unknown(meant: Sequence[Instance]) -> str | None:
    """Tell which instance is not known to be alive or dead, as Redis has just become another server; None where each is known."""
    found = next((item for item in meant if item.state is InstanceState.RETURNING), None)
    return f"{shown(found.instance_id)} is {found.state}: {shown(found.reason)}" if found is not None else None


def verdict(meant: Sequence[Instance], *, blocked_limit: float | None, whose: str) -> tuple[bool, str]:
    """Judge the instances that are meant: one at least must be there, and each that is there must answer.

    The dead do not count: a successor in their place is what matters.
    """
    there = [item for item in meant if item.state is not InstanceState.DEAD]
    if not there:
        dead = f"; {len(meant)} dead" if meant else ""
        return False, f"no instance {whose} is registered{dead}"
    for item in there:
        if item.state not in _THERE:
            return False, f"{shown(item.instance_id)} is {item.state}: {shown(item.reason)}"
        if blocked_limit is not None and (item.blocked_for or 0.0) > blocked_limit:
            return False, f"{shown(item.instance_id)} is {item.state}, longer than {duration(blocked_limit)}: {blocked_remark(item)}"
    return True, "; ".join(f"{shown(item.instance_id)} is {item.state}: {shown(item.reason)}" for item in there)
