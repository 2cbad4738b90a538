"""Everything that is kept in Redis: one method per transition, one Lua file each."""

from async_tracker.store.store import Beat, Ended, Judged, Reply, Settled, Settlement, Status, Store, Write

__all__ = ["Beat", "Ended", "Judged", "Reply", "Settled", "Settlement", "Status", "Store", "Write"]
