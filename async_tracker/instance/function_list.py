"""The long list of functions of an instance: kept in Redis once for all that have the same, and renewed by each of them now and then."""

import logging
import time

from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, stored_functions
from async_tracker.store.scripts import FUNCTIONS_SECONDS

logger = logging.getLogger("async_tracker")

_REFUSED = "the list of this worker's functions is not in Redis, which names only the first of them: %s"


class FunctionList:
    """What one instance does for the list of its functions; nothing where all their names stand in its own hash."""

    def __init__(self, *, renewed_every: float = FUNCTIONS_SECONDS / 4) -> None:
        """``renewed_every`` so many seconds the list is given another lifetime."""
        self._renewed_every = renewed_every
        self._due_at = float("-inf")
        self.has_listed = False
        """There was a list: where the functions are fewer by now, the hash of the instance must not name it any longer."""

    def keep_again(self) -> None:
        """Redis may have lost it."""
        self._due_at = float("-inf")

    async def keep(self, store: Store, description: Description, instance_id: str) -> None:
        """Write or renew the list if that is due. Raises StorageUnavailable; what Redis refuses is logged, and costs the list."""
        now = time.monotonic()
        if now < self._due_at:
            return
        functions = stored_functions(description.functions)
        try:
            if functions.digest:
                self.has_listed = True
                await store.list_functions(functions)
        except StorageUnavailable:
            raise
        except StorageError as exc:
            logger.warning(_REFUSED, exc, extra={"instance_id": instance_id})
        self._due_at = now + self._renewed_every
