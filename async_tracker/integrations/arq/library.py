"""arq, as a tracker knows it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.integrations.arq.hooks import ArqHooks
from async_tracker.integrations.arq.install import installed
from async_tracker.integrations.arq.names import LIBRARY
from async_tracker.integrations.arq.rights import rights
from async_tracker.integrations.footing import HasFooting
from async_tracker.integrations.registry import Installable, Library


def library(tracker: HasFooting) -> Library:
    """Describe arq to a tracker, with the hooks that track a worker of it in this process."""
    return arq_library(ArqHooks(tracker))


def arq_library(hooks: ArqHooks) -> Library:
    """Describe arq; ``hooks`` know the pools and the serializers of the workers in this process, if there are any."""

    def make_adapter(client: Any, full_key: Callable[[str], bytes]) -> ArqAdapter:
        workers = hooks.workers
        own = workers[-1].serializer if workers else None
        return ArqAdapter(
            client,
            receipt_key=full_key,
            serializer=own,
            serializer_of=hooks.serializer_of,
            recovery_window=hooks.settings.recovery_window,
        )

    return Library(
        name=LIBRARY,
        scope=ArqAdapter.scope,
        make_adapter=make_adapter,
        own_client=lambda: hooks.pool,
        rights=rights,
        installable=Installable(hooks=hooks, install=partial(installed, hooks)),
    )
