"""One dramatiq worker between its boot and its shutdown: the instance that it is, in an event loop of its own."""

import asyncio
import contextlib
import logging
from functools import partial
from typing import Any

from dramatiq.broker import Broker as DramatiqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import Worker

from async_tracker.connections.access import describe
from async_tracker.connections.counterparts import async_counterpart, lone_connection
from async_tracker.connections.link import Link
from async_tracker.errors import StorageError
from async_tracker.instance.order_taker import Handler
from async_tracker.instance.runtime import Runtime
from async_tracker.integrations.dramatiq.aborts import Aborts, refuse
from async_tracker.integrations.dramatiq.adapter import DramatiqAdapter
from async_tracker.integrations.dramatiq.controls import DramatiqControls
from async_tracker.integrations.dramatiq.description import broker_of, describe_worker
from async_tracker.integrations.dramatiq.loop_thread import LoopThread
from async_tracker.integrations.dramatiq.marks import Marks
from async_tracker.integrations.dramatiq.presence import BrokerPresence
from async_tracker.integrations.dramatiq.tallies import Tallies
from async_tracker.integrations.footing import Footing
from async_tracker.store.instance_record import Description

logger = logging.getLogger("async_tracker")


class TrackedWorker:
    """One worker. It begins when it is made, which waits for Redis for about ``hook_timeout`` seconds at most; may raise anything.

    ``may_abort``: whether its messages can be aborted; their actors are called within brackets then.
    """

    def __init__(self, footing: Footing, broker: DramatiqBroker, worker: Worker, *, may_abort: bool = False) -> None:
        self._footing = footing
        self.settings = footing.settings
        self.tracing = footing.tracing
        self.worker = worker
        self.broker = broker_of(broker)
        self.marks: Marks | None = None
        self.controls = DramatiqControls(worker)
        self._presence: BrokerPresence | None = None
        self._may_abort = may_abort
        self.aborts: Aborts | None = None
        self._claims_server: str | None = None
        self._lent: Any = None
        self._claims_link: Link | None = None
        """To the broker's Redis, where that is not the tracker's; the samples of the history ask there how full the queues are."""
        self.thread = LoopThread()
        self.thread.start()
        try:
            self.runtime: Runtime = self.thread.call(self._register, broker)
        except BaseException:
            self.thread.stop()
            footing.access.unshare(self._lent)
            raise
        self.tallies = Tallies(self.runtime.journal, self.runtime.clock)
        if isinstance(broker, RedisBroker):
            make_connection = partial(lone_connection, broker.client, timeout=self.settings.hook_timeout)
            marks = Marks(make_connection, full_key=self.runtime.link.redis.full_key, instance_id=self.runtime.instance_id)
            marks.open()
            self.marks = marks

    async def _register(self, broker: DramatiqBroker) -> Runtime:
        access = self._footing.access
        if isinstance(broker, RedisBroker) and not access.is_explicit:
            self._lent = async_counterpart(broker.client)
            access.share(self._lent)  # another worker in this process may be another broker's
        apart = self._broker_apart(broker)
        self._claims_server = await self._server_of(apart) if apart is not None else None
        runtime = self._footing.runtime(
            self._describe(),
            make_adapter=lambda link: self._adapter(link, apart),
            on_pulse=self._at_pulse,
            on_renamed=self._rename_marks,
            controls=self.controls,
        )
        if isinstance(broker, RedisBroker) and self.broker is not None:
            client = self._claims_link.client if self._claims_link is not None else runtime.link.client
            self._presence = BrokerPresence(client, self.broker, timeout=broker.heartbeat_timeout / 1000.0)
        if self._may_abort:
            adapter = runtime.adapter if self.broker is not None and isinstance(runtime.adapter, DramatiqAdapter) else None
            self.aborts = Aborts(journal=runtime.journal, adapter=adapter, patience=self.settings.hook_timeout)
        carry_out = self.aborts.carry_out if self.aborts is not None else refuse
        runtime.orders.handle("abort", Handler(carry_out=carry_out, goes_over=False))
        await runtime.start()
        return runtime

    def _at_pulse(self) -> None:
        if self.marks is not None:
            self.marks.look()
        if self.controls.is_quiet:
            self.controls.keep_quiet()
            if self._presence is not None:
                self._presence.keep()

    def _rename_marks(self) -> None:
        if self.marks is not None:
            self.marks.rename(self.runtime.instance_id)

    def _broker_apart(self, broker: DramatiqBroker) -> Any:
        """Give a client of the broker's Redis where that is not the tracker's, else None."""
        if not isinstance(broker, RedisBroker):
            return None
        client = async_counterpart(broker.client)
        return client if describe(client) != describe(self._footing.access.client()) else None

    async def _server_of(self, client: Any) -> str | None:
        try:
            async with asyncio.timeout(self.settings.hook_timeout):
                return await DramatiqAdapter(client, full_key=str.encode).claims_server()
        except (StorageError, TimeoutError) as exc:
            logger.warning("dramatiq's Redis does not tell its run id: %s", exc)
            return None
        finally:
            await client.connection_pool.disconnect()

    def _adapter(self, link: Link, apart: Any) -> DramatiqAdapter:
        client = link.client
        if apart is not None:
            self._claims_link = Link(apart, namespace=self.settings.namespace, name=f"{link.name}:claims")
            client = self._claims_link.client
        return DramatiqAdapter(client, full_key=link.redis.full_key)

    def _describe(self) -> Description:
        return describe_worker(self._footing, self.worker, broker=self.broker, claims_server=self._claims_server)

    def describe_anew(self) -> None:
        """What the worker says of itself has changed: said again soon, and not waited for."""
        self.thread.post(self._describe_anew)

    async def _describe_anew(self) -> None:
        self.runtime.describe_anew(self._describe())

    def drain(self) -> None:
        """Shutdown has begun; the instance beats until its last message is processed."""
        self.thread.post(self.runtime.drain)

    def leave(self) -> None:
        """Deregister the instance and end its loop."""
        if self.marks is not None:
            self.marks.close()
        self.thread.call(self._leave)
        self.thread.stop()

    async def _leave(self) -> None:
        await self._footing.leave(self.runtime)
        if self._claims_link is not None:
            with contextlib.suppress(OSError):  # it is closed either way
                await self._claims_link.aclose()
        if self._lent is not None:
            self._footing.access.unshare(self._lent)
            await self._lent.aclose()
