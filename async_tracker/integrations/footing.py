"""What a tracker gives an integration to stand on."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from async_tracker.config import Settings
from async_tracker.connections.access import Access
from async_tracker.connections.link import Link
from async_tracker.instance.runtime import Runtime
from async_tracker.integrations.registry import Registry
from async_tracker.recovery.adapter import Adapter
from async_tracker.store.instance_record import Description


@dataclass(frozen=True, slots=True, kw_only=True)
class Footing:
    """The settings and the Redis of a tracker, and the making of the instance that it speaks for in this process."""

    settings: Settings
    access: Access
    registry: Registry
    """The libraries whose jobs this process can recover: ``footing.registry.add(Library(...))`` for one more."""
    on_runtime: Callable[[Runtime | None], None]
    on_event: Callable[[str], None]

    def runtime(
        self,
        description: Description,
        *,
        make_adapter: Callable[[Link], Adapter | None],
        main_task: asyncio.Task[Any] | None = None,
        is_draining: Callable[[], bool] | None = None,
    ) -> Runtime:
        """Compose the instance of this process, in the event loop that it will live in; ``await runtime.start()`` registers it.

        ``make_adapter`` is given the instance's own connection. When ``main_task`` is done the worker counts as over, and
        ``is_draining`` is asked a few times a second whether shutdown has begun; without it, call ``runtime.drain()``.
        """
        runtime = Runtime(
            settings=self.settings,
            client=self.access.client(),
            description=description,
            make_adapter=make_adapter,
            on_event=self.on_event,
            main_task=main_task,
            is_draining=is_draining,
        )
        self.on_runtime(runtime)
        return runtime

    async def leave(self, runtime: Runtime) -> None:
        """End the instance in order: what is left in the journal is written, and runs still in flight become orphans at once."""
        await runtime.stop()
        self.on_runtime(None)


class HasFooting(Protocol):
    """A `Tracker`, as far as an integration knows it."""

    @property
    def settings(self) -> Settings:
        """Its settings."""
        ...

    @property
    def footing(self) -> Footing:
        """What an integration stands on."""
        ...
