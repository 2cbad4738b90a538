"""An instance that leaves in order, alone: a runtime's ``leave`` does more than that in its one round trip."""

from async_tracker.connections.calls import run_script
from async_tracker.store.commands import Store
from async_tracker.store.scripts import SCRIPTS, deregister_call


async def deregister(store: Store, instance_id: str) -> int:
    """End an instance. Returns how many runs it left, which are orphans now; -1 when it was not registered."""
    return int(await run_script(store.redis, SCRIPTS["deregister"], *deregister_call(instance_id)))
