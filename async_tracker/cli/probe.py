"""``check``: the probe for a container. It answers within a second, whatever Redis does."""

import os
import sys
from collections.abc import Sequence

from anyio import fail_after

from async_tracker.cli.endings import Ending
from async_tracker.cli.instances import blocked_remark
from async_tracker.cli.reach import make_tracker, redis_of
from async_tracker.cli.target import Target
from async_tracker.cli.wording import remark, say, say_document, shown
from async_tracker.errors import StorageUnavailable
from async_tracker.instance.host import host_id
from async_tracker.policy import InstanceState
from async_tracker.queries.wording import duration, matching
from async_tracker.records import Instance

_THERE = (InstanceState.ALIVE, InstanceState.DRAINING, InstanceState.STALLED_BLOCKED)


async def check(target: Target, *, instance: str | None, blocked_limit: float | None, timeout: float) -> int:
    """Tell whether the instance that is meant is alive; all of them, where it is several."""
    tracker = make_tracker(target, timeout=timeout)
    try:
        with fail_after(timeout):
            asked = await tracker.instances()
    except (TimeoutError, StorageUnavailable) as exc:
        why = f"Redis did not answer within {timeout:g} s" if isinstance(exc, TimeoutError) else str(exc)
        remark(f"async-tracker: {' '.join(why.split())} ({await redis_of(tracker)})")
        sys.stdout.flush()
        os._exit(Ending.UNREACHABLE)  # a name that is still being looked up in a thread would hold up the answer
    finally:
        await tracker.aclose()
    meant = matching(asked, instance) if instance is not None else [item for item in asked if item.host_id == host_id()]
    is_alive, why = verdict(meant, blocked_limit=blocked_limit, whose="of this host" if instance is None else shown(instance))
    if target.as_json:
        say_document({"alive": is_alive, "why": why, "instances": meant})
    else:
        say(why)
    return Ending.OK if is_alive else Ending.BAD_ANSWER


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
