"""dramatiq, as a tracker knows it. Nothing of dramatiq is imported: processes without it can look and recover."""

from collections.abc import Callable
from typing import Any

from async_tracker.integrations.dramatiq.adapter import DramatiqAdapter
from async_tracker.integrations.dramatiq.holds import Broker
from async_tracker.integrations.dramatiq.names import LIBRARY
from async_tracker.integrations.dramatiq.rights import rights
from async_tracker.integrations.footing import HasFooting
from async_tracker.integrations.registry import Library
from async_tracker.store.instance_record import Description


def library(tracker: HasFooting) -> Library:
    """Describe dramatiq. A worker of it in this process recovers by itself, with a client of its broker's Redis."""
    return Library(
        name=LIBRARY,
        scope=DramatiqAdapter.scope,
        make_adapter=_make_adapter,
        own_client=lambda: None,
        claims_at=_claims_at,
        recovers=lambda description: Broker.of(description.broker) is not None,
        rights=rights,
    )


def _make_adapter(client: Any, full_key: Callable[[str], bytes]) -> DramatiqAdapter:
    return DramatiqAdapter(client, full_key=full_key)


def _claims_at(description: Description) -> str | None:
    broker = Broker.of(description.broker)
    return broker.at if broker is not None else None
