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
    footing = tracker.footing
    return arq_library(
        ArqHooks(
            settings=footing.settings, access=footing.access, tracker=tracker, on_runtime=footing.on_runtime, on_event=footing.on_event
        )
    )


def arq_library(hooks: ArqHooks) -> Library:
    """Describe arq; ``hooks`` know the pool and the serializer of a worker in this process, if there is one."""

    def make_adapter(client: Any, full_key: Callable[[str], bytes]) -> ArqAdapter:
        return ArqAdapter(client, receipt_key=full_key, serializer=hooks.facts.serializer)

    return Library(
        name=LIBRARY,
        scope=ArqAdapter.scope,
        make_adapter=make_adapter,
        own_client=lambda: hooks.pool,
        rights=rights,
        installable=Installable(hooks=hooks, install=partial(installed, hooks)),
    )
