"""Everything that is kept in Redis: one method per transition, one Lua file each."""

from async_tracker.store.store import Reply, Store

__all__ = ["Reply", "Store"]
