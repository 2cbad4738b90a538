"""Everything that is kept in Redis: one method per transition, one Lua file each."""

from async_tracker.store.store import Ended, Judged, Reply, Settled, Settlement, Status, Store

__all__ = ["Ended", "Judged", "Reply", "Settled", "Settlement", "Status", "Store"]
