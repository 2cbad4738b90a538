"""Asking an instance for its stacks, from the side of the person who asks."""

from async_tracker.control.control import Control
from async_tracker.control.orders import BEYOND_SECONDS
from async_tracker.errors import OrderFailed
from async_tracker.records import OrderOutcome, Stacks
from async_tracker.store.stacks_record import read_stacks


async def ask_stacks(control: Control, instance_id: str, *, job_id: str | None, beyond: float = BEYOND_SECONDS) -> Stacks:
    """Have an instance tell what its threads do and where its jobs wait; with ``job_id``, the runs of that job alone.

    It is given its own heartbeat interval and ``beyond`` seconds. Raises OrderFailed where it does not tell.
    """
    arguments = {"job_id": job_id} if job_id is not None else {}
    (answer,) = await control.ask([instance_id], "stacks", arguments=arguments, beyond=beyond)
    if answer.outcome is not OrderOutcome.DONE:
        raise OrderFailed(f"{instance_id}: {answer.says}", answer.outcome)
    return read_stacks(f"the answer of {instance_id}", answer.details)
