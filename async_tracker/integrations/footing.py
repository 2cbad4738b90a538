"""What a tracker gives an integration to stand on."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from async_tracker.config import Settings
from async_tracker.connections.access import Access, describe
from async_tracker.connections.link import Link
from async_tracker.instance.duty import Controls
from async_tracker.instance.host import host_id, hostname, versions
from async_tracker.instance.runtime import Runtime
from async_tracker.integrations.registry import Registry
from async_tracker.policy import NO_LIBRARY
from async_tracker.recovery.adapter import Adapter
from async_tracker.store.instance_record import Description, Note
from async_tracker.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True, kw_only=True)
class Footing:
    """The settings and the Redis of a tracker, and the making of the instances that it speaks for in this process."""

    settings: Settings
    access: Access
    registry: Registry
    """The libraries whose jobs this process can recover: ``footing.registry.add(Library(...))`` for one more."""
    on_runtime: Callable[[Runtime], None]
    """Told of each instance that is composed."""
    on_left: Callable[[Runtime], None]
    """Told of each that has left."""
    on_event: Callable[[str], None]
    tracing: Tracing | None = None
    """What traces runs, with ``telemetry=True``."""

    def describe(
        self,
        library: str = NO_LIBRARY,
        *,
        queue: str | None = None,
        queues: tuple[str, ...] = (),
        functions: Collection[str] = (),
        concurrency: int | None = None,
        claim_seconds: float | None = None,
        claims_server: str | None = None,
        broker: str | None = None,
        notes: tuple[Note, ...] = (),
    ) -> Description:
        """Describe a worker of ``library`` in this process: what every instance says of itself is added to what is said of this one.

        ``queue`` is its name for people, ``queues`` are the library's own names, ``broker`` is what the adapter must know to find the
        claims, ``claim_seconds`` how long they live where it must know that. To be called in the event loop in which the instance will
        live.
        """
        return Description(
            library=library,
            host=hostname(),
            host_id=host_id(),
            pid=os.getpid(),
            label=self.settings.instance_id,
            queue=queue,
            queues=queues,
            functions=tuple(functions),
            concurrency=concurrency,
            claim_seconds=claim_seconds,
            tags=self.settings.tags,
            version=self.settings.version,
            versions=versions(*(() if library == NO_LIBRARY else (library,))),
            redis=describe(self.access.client()),
            claims_server=claims_server,
            broker=broker,
            notes=notes,
        )

    def runtime(
        self,
        description: Description,
        *,
        make_adapter: Callable[[Link], Adapter | None],
        main_task: asyncio.Task[Any] | None = None,
        is_draining: Callable[[], bool] | None = None,
        on_pulse: Callable[[], None] | None = None,
        on_closed: Callable[[], None] | None = None,
        on_renamed: Callable[[], None] | None = None,
        controls: Controls | None = None,
    ) -> Runtime:
        """Compose an instance, in the event loop that it will live in; ``await runtime.start()`` registers it.

        ``make_adapter`` is given the instance's own connection. When ``main_task`` is done the worker counts as over, and
        ``is_draining`` is asked a few times a second whether shutdown has begun; without it, call ``runtime.drain()``. ``on_pulse``
        is called as often, to see what has become of jobs, ``on_closed`` when no more runs may be started, and ``on_renamed`` when the
        instance has taken another id, since it was declared dead. ``controls`` tells the worker what people order: to take no more jobs,
        to take them again, to end.
        """
        runtime = Runtime(
            settings=self.settings,
            client=self.access.client(),
            description=description,
            make_adapter=make_adapter,
            on_event=self.on_event,
            main_task=main_task,
            is_draining=is_draining,
            on_pulse=on_pulse,
            on_closed=on_closed,
            on_renamed=on_renamed,
            controls=controls,
        )
        self.on_runtime(runtime)
        return runtime

    async def leave(self, runtime: Runtime, *, within: float | None = None, first: Callable[[], Awaitable[None]] | None = None) -> None:
        """End an instance in order: what is left in the journal is written, and runs still in flight become orphans at once.

        ``first`` is awaited once its loops have ended; all of it takes ``within`` seconds at most, by default a few times
        ``hook_timeout``.
        """
        try:
            await runtime.stop(within=within, first=first)
        finally:
            self.on_left(runtime)


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
