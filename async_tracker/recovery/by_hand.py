"""Recovery now, because a person asks for it: in any process, also where no instance runs."""

import asyncio
import dataclasses
from collections.abc import Callable, Collection

from async_tracker.config import Settings
from async_tracker.policy import InstanceState
from async_tracker.queries.questions import Queries
from async_tracker.records import Recovery
from async_tracker.recovery.adapter import Adapter
from async_tracker.recovery.sweeper import make_sweeper
from async_tracker.store.commands import Store


class RecoveryByHand:
    """Sweeps once, out of turn. Each method raises StorageError when Redis refuses or is away.

    ``settings`` are those of the tracker that is asked; that it may not recover by itself (``recover=False``) does not count here.
    ``on_event`` is called with each event of which a sweep is the cause, as JSON.
    """

    def __init__(self, *, settings: Settings, store: Store, queries: Queries, on_event: Callable[[str], None]) -> None:
        self._settings = dataclasses.replace(settings, recover=True)
        self._store = store
        self._queries = queries
        self._on_event = on_event

    async def plan(self, adapter: Adapter, *, only: Collection[str] | None = None) -> list[Recovery]:
        """Tell what `recover` would do for the workers of the adapter's library. Nothing is changed.

        Those count as dead that questions show as dead.
        """
        found = [item for item in await self._queries.instances() if item.library == adapter.library]
        dead = [item.instance_id for item in found if item.state is InstanceState.DEAD]
        living = [item.instance_id for item in found if item.state is not InstanceState.DEAD]
        sweeper = make_sweeper(self._settings, self._store, adapter, library=adapter.library, on_event=self._on_event)
        return await sweeper.plan(dead, living, only=only)

    async def recover(self, adapter: Adapter, *, only: Collection[str] | None = None) -> list[Recovery]:
        """Look for dead instances of the adapter's library, and recover what they left, the oldest orphan first; ``only`` these jobs.

        Takes ``disconnect_grace`` seconds longer when the connection of an instance is gone and no sweep has noted it before.
        """
        sweeper = make_sweeper(self._settings, self._store, adapter, library=adapter.library, on_event=self._on_event)
        run_id = await self._queries.server_run_id()
        _, verdicts = await sweeper.judge_all(run_id)
        if any(verdict.state is not InstanceState.DEAD for verdict in verdicts.values()):
            await asyncio.sleep(await self._grace())
        return list((await sweeper.sweep(run_id, only=only)).done)

    async def _grace(self) -> float:
        """Seconds after which an instance may be declared dead whose connection has just been noted as gone; 0 where there is none."""
        observation = await self._store.observe("")
        return self._settings.disconnect_grace if any(name in observation.instances for name in observation.gone) else 0.0
