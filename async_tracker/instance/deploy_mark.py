"""That an instance of this version is here: said once, so that the first of a deploy stands in the history."""

import logging
from collections.abc import Callable

from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.events.encoding import encode_event
from async_tracker.store.commands import Store

logger = logging.getLogger("async_tracker")

_REFUSED = "the deploy of version %s is not in the history: %s"


class DeployMark:
    """What one instance says of its version, which is None where it has none."""

    def __init__(self, *, version: str | None, queue: str | None, on_event: Callable[[str], None]) -> None:
        """``on_event`` is given the event, encoded, where this instance is the first of a deploy."""
        self._version = version
        self._queue = queue
        self._on_event = on_event
        self._is_said = version is None

    def say_again(self) -> None:
        """Redis may have lost it."""
        self._is_said = self._version is None

    async def say(self, store: Store, instance_id: str) -> None:
        """Say it unless it is said. Raises StorageUnavailable; what Redis refuses is logged, and costs the mark."""
        if self._is_said or self._version is None:
            return
        event = encode_event("deployed", instance_id=instance_id, queue=self._queue, version=self._version)
        try:
            if await store.mark_deploy(self._version, event):
                self._on_event(event)
        except StorageUnavailable:
            raise
        except StorageError as exc:
            logger.warning(_REFUSED, self._version, exc, extra={"instance_id": instance_id})
        self._is_said = True
