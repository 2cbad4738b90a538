"""A broker's own sign of life, while its worker is quiet: without it the other workers run once more what this one has in hand."""

import asyncio
import logging
import time
from typing import Any

from async_tracker.connections.calls import call
from async_tracker.errors import StorageError
from async_tracker.integrations.dramatiq.holds import Broker
from async_tracker.integrations.dramatiq.names import heartbeats_key

logger = logging.getLogger("async_tracker")

_TIMES = 4
"""How often within dramatiq's ``heartbeat_timeout`` it is renewed. dramatiq itself renews it with whatever it sends, fetches above all."""


class BrokerPresence:
    """Renews the broker's entry among dramatiq's heartbeats, by the clock of this process, as dramatiq does. Lives in one event loop."""

    def __init__(self, client: Any, broker: Broker, *, timeout: float) -> None:
        """``timeout`` is the broker's ``heartbeat_timeout`` in seconds."""
        self._client = client
        self._broker = broker
        self._interval = timeout / _TIMES
        self._renewed_at = float("-inf")
        self._renewing: asyncio.Task[None] | None = None
        self._has_failed = False

    def keep(self) -> None:
        """Renew it if that is due; called a few times a second while the worker fetches nothing."""
        is_due = time.monotonic() - self._renewed_at >= self._interval
        if is_due and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        key = heartbeats_key(self._broker.namespace)
        try:
            # An entry that is gone was taken for a dead worker's, and what it held is queued again: it must not come back empty-handed.
            await call(self._client, "ZADD", key, "XX", int(time.time() * 1000), self._broker.broker_id)
        except StorageError as exc:
            if not self._has_failed:
                logger.warning("dramatiq's heartbeat of this quiet worker is not renewed: %s", exc)
            self._has_failed = True
            return
        self._has_failed = False
        self._renewed_at = time.monotonic()
