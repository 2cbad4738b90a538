"""The facade: settings, connections, hooks, questions, recovery. It composes the rest and decides nothing itself."""

import asyncio
import dataclasses
import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, Literal, Self, TypeVar, overload

from async_tracker.arguments import (
    check_argument_names,
    check_argument_place,
    check_argument_seconds,
    check_argument_texts,
    check_argument_truth,
    check_argument_whole,
    check_nothing_beside_count,
)
from async_tracker.config import SETTING_NAMES, Settings, settings_from_env, unknown_names
from async_tracker.connections.access import Access
from async_tracker.control.aborting import Meant, abort, refused
from async_tracker.control.aim import Aim
from async_tracker.control.caller import caller
from async_tracker.control.control import Control
from async_tracker.control.orders import BEYOND_SECONDS
from async_tracker.control.stacks import ask_stacks
from async_tracker.errors import TrackerError, WrongArgument
from async_tracker.events.encoding import EVENT_ID, EVENT_TYPES
from async_tracker.events.listeners import Listener, Listeners
from async_tracker.events.stream import EventStream
from async_tracker.history.histogram import upper_bound_ms
from async_tracker.history.reader import HistoryReader
from async_tracker.history.series import Trends
from async_tracker.instance.duty import AskedOnly, Duty
from async_tracker.instance.host import host_id
from async_tracker.instance.runs import CurrentJob, current, handle_of
from async_tracker.instance.runtimes import Runtimes
from async_tracker.integrations.footing import Footing
from async_tracker.integrations.known import KNOWN, redis_arguments
from async_tracker.integrations.registry import Ctx, Registry
from async_tracker.logs import on_one_line
from async_tracker.namespace import Namespace, SyncNamespace
from async_tracker.policy import InstanceState
from async_tracker.queries.depths import Depths
from async_tracker.queries.function_lists import FunctionLists
from async_tracker.queries.questions import Fleet, LeftBehind, Overdue, Queries
from async_tracker.records import (
    Abort,
    Answer,
    Event,
    History,
    Instance,
    Job,
    Measures,
    Orphan,
    Quarantined,
    QueueDepth,
    Recovery,
    Snapshot,
    Stacks,
    StandingOrder,
    Stats,
)
from async_tracker.recovery.by_hand import RecoveryByHand
from async_tracker.recovery.quarantine import Quarantine
from async_tracker.store.commands import Store
from async_tracker.store.counters import BOUNDS
from async_tracker.store.instance_record import StoredInstance
from async_tracker.store.reading import Reading
from async_tracker.telemetry.tracing import load_tracing

T = TypeVar("T")
Ids = list[str] | tuple[str, ...] | set[str] | frozenset[str]
"""Several ids of instances."""


class Tracker:
    """Tracks the jobs of one worker process, and answers questions about all of them. Make it anywhere, before any loop even.

    ``redis`` is any ``redis.asyncio`` client, whose pool is then shared and never closed; ``redis_options`` makes a pool of its
    own (``url`` plus any keyword of ``redis.asyncio.Redis``). Without either: ``TRACKER_REDIS_URL``, then inside arq the worker's
    pool, then ``REDIS_URL``, then ``redis://localhost:6379/0``.

    The other keywords are the settings, with durations in seconds, and the Redis of each known worker library, as a client or a url:
    ``arq_redis``, ``dramatiq_redis``. Those are needed only in processes that are no worker, where the library's Redis is not the
    tracker's. Raises ConfigError for a keyword that does not exist and for a value that cannot work.
    """

    def __init__(
        self,
        *,
        redis: Any = None,
        redis_options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        library_of = redis_arguments()
        unknown_names(settings, {*SETTING_NAMES, "redis", "redis_options", *library_of}, what="setting")
        library_redis = {library: settings.pop(argument, None) for argument, library in library_of.items()}
        self.settings = Settings(**settings)
        self._tracing = load_tracing(is_wanted=self.settings.telemetry)
        logging.getLogger("async_tracker").addFilter(on_one_line)  # the same one twice counts once
        tracker_url = os.environ.get("TRACKER_REDIS_URL") or None
        if redis is None and redis_options is None and tracker_url is not None:
            redis_options = {"url": tracker_url}
        fallback_url = os.environ.get("REDIS_URL") or None
        self._access = Access(client=redis, options=redis_options, fallback_url=fallback_url, namespace=self.namespace)
        self._listeners = Listeners()
        self._function_lists = FunctionLists()
        self._runtimes = Runtimes()
        self._sync: Any = None
        self._sync_lock = threading.Lock()
        self._registry = Registry(access=self._access, namespace=self.namespace, given=library_redis)
        for known in KNOWN:
            self._registry.add(known.library(self))
        self._depths = Depths(self._registry.by_library)
        installable = self._registry.installable
        self._hooks, self._install = installable.hooks, installable.install

    @classmethod
    def from_env(cls, **arguments: Any) -> Self:
        """Make a tracker of the ``TRACKER_…`` variables; an argument wins over its variable."""
        return cls(**{**settings_from_env(os.environ), **arguments})

    @property
    def namespace(self) -> str:
        """What all keys begin with, without the colon."""
        return self.settings.namespace

    @property
    def instance_id(self) -> str | None:
        """The id of the instance that runs in this process; None when none does.

        Of several it is the one whose job asks, else the newest of this event loop, else the newest.
        """
        runtime = self._runtimes.asked
        return runtime.instance_id if runtime is not None else None

    @property
    def footing(self) -> Footing:
        """What the integration of a worker library is built on; the page on integrations shows how."""
        return Footing(
            settings=self.settings,
            access=self._access,
            registry=self._registry,
            on_runtime=self._runtimes.add,
            on_left=self._runtimes.remove,
            on_event=self._listeners.announce,
            tracing=self._tracing,
        )

    @property
    def is_behind(self) -> bool:
        """Whether Redis did not take the last heartbeat or write of this process's instance: jobs run on, unseen. False without one."""
        runtime = self._runtimes.asked
        return runtime is not None and runtime.is_behind

    # a worker whose settings name our hooks

    @overload
    def install(self, settings: T, /, *, only: Collection[str] | None = ..., ignore: Collection[str] | None = ...) -> T: ...

    @overload
    def install(
        self, settings: None = ..., /, *, only: Collection[str] | None = ..., ignore: Collection[str] | None = ...
    ) -> Callable[[T], T]: ...

    def install(self, settings: Any = None, /, *, only: Collection[str] | None = None, ignore: Collection[str] | None = None) -> Any:
        """Track everything that an arq worker does: our hooks around its own, functions and cron jobs wrapped when it starts.

        Decorates a WorkerSettings class, with or without arguments, or takes a dict of Worker arguments and returns a new one. Only the
        five hooks are set; all else is read from arq's Worker when that starts. ``only`` or ``ignore`` are names of functions; where a
        worker has none by one of these names, all its functions are tracked, without arguments, and an error is logged. Installing
        twice changes nothing. Raises ConfigError for what is no settings and for names that are no texts.
        """
        if settings is None:
            return lambda later: self._install(later, only=only, ignore=ignore)
        return self._install(settings, only=only, ignore=ignore)

    async def on_startup(self, ctx: Ctx) -> None:
        """Arq hook: register this worker. Never raises; waits for Redis for at most ``hook_timeout`` seconds."""
        await self._hooks.on_startup(ctx)

    async def on_shutdown(self, ctx: Ctx) -> None:
        """Arq hook: deregister this worker. Never raises."""
        await self._hooks.on_shutdown(ctx)

    async def on_job_start(self, ctx: Ctx) -> None:
        """Arq hook: a run starts. Never raises and, unless ``durable``, awaits nothing."""
        await self._hooks.on_job_start(ctx)

    async def on_job_end(self, ctx: Ctx) -> None:
        """Arq hook: a run ends. Never raises, awaits nothing."""
        await self._hooks.on_job_end(ctx)

    async def after_job_end(self, ctx: Ctx) -> None:
        """Arq hook: arq has written what became of the job. Never raises, awaits nothing."""
        await self._hooks.after_job_end(ctx)

    # any asyncio code

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what this tracker has opened. A shared client stays open, and so does the instance of a worker in other threads."""
        await self._runtimes.stop_here()
        with self._sync_lock:
            sync, self._sync = self._sync, None
        if sync is not None:
            sync.close()
        await self._access.aclose()
        await self._registry.aclose()

    @asynccontextmanager
    async def register(
        self, *, queue: str | None = None, concurrency: int | None = None, functions: Collection[str] = ()
    ) -> AsyncIterator[str]:
        """Be an instance while the block runs: registered, beating, sweeping. Gives the instance id.

        Raises TrackerError when this tracker has an instance in this loop already, and ConfigError, a TypeError too, for an argument
        that cannot work.
        """
        check_argument_texts("register", queue=queue)
        check_argument_names("register", functions=functions if functions is not None else ())
        check_argument_whole("register", least=1, concurrency=concurrency)
        running = self._runtimes.running
        if running is not None:
            raise TrackerError(f"this tracker runs instance {running.instance_id} already: make another Tracker for another instance")
        footing = self.footing
        description = footing.describe(queue=queue or self.settings.queue, concurrency=concurrency, functions=functions or ())
        runtime = footing.runtime(description, make_adapter=lambda link: None, controls=AskedOnly())
        try:
            await runtime.start()
            yield runtime.instance_id
        finally:
            await footing.leave(runtime)

    @asynccontextmanager
    async def track(
        self, job_id: str, *, function: str | None = None, queue: str | None = None, job_try: int = 1, timeout: float | None = None
    ) -> AsyncIterator[CurrentJob]:
        """Have a job in flight until the block ends; what the block raises passes through and is its outcome.

        Raises TrackerError outside of `register` and of a tracked worker, and ConfigError, a TypeError too, for an argument that cannot
        work: a function that is no name, an id that cannot be written as UTF-8. An id that is a number or a UUID becomes text.
        """
        if job_id is None or isinstance(job_id, bytes | bytearray):
            raise WrongArgument(f"track(job_id={job_id!r:.80}): write the id of the job, as text")
        check_argument_texts("track", job_id=str(job_id), function=function, queue=queue)
        check_argument_whole("track", least=0, job_try=job_try)
        check_argument_seconds("track", timeout=timeout)
        runtime = self._runtimes.asked
        if runtime is None or not runtime.is_running:
            raise TrackerError("track() needs an instance: write it inside `async with tracker.register(...)`")
        run = runtime.start_run(
            str(job_id), job_try=1 if job_try is None else job_try, function=function, queue=queue or self.settings.queue, timeout=timeout
        )
        token = current.set(run)
        traced = self._tracing.begin(run) if self._tracing is not None else None
        run.traceparent = traced.traceparent if traced is not None else None
        try:
            await runtime.wait_stored(run)
            yield handle_of(run)
        except BaseException as exc:
            outcome = "cancelled" if isinstance(exc, asyncio.CancelledError) else "failed"
            runtime.finish_run(run, outcome)
            if traced is not None:
                traced.end(outcome, exc)
            raise
        else:
            runtime.finish_run(run, "succeeded")
            if traced is not None:
                traced.end("succeeded")
        finally:
            current.reset(token)

    # queries

    def _namespaced(self) -> Namespace:
        return Namespace(self._access.client(), self.namespace)

    def _store(self) -> Store:
        return Store(self._namespaced())

    def _queries(self) -> Queries:
        return Queries(self._namespaced(), scopes=self._registry.scopes, function_lists=self._function_lists)

    async def _ask(self, question: Callable[[Queries], Awaitable[T]]) -> T:
        """Ask a question; once more where Redis says that another server is to be asked."""
        scopes, lists, is_own = self._registry.scopes, self._function_lists, self._access.is_own
        return await self._access.asked(
            lambda client: question(Queries(Namespace(client, self.namespace), scopes=scopes, function_lists=lists, is_own=is_own(client)))
        )

    async def snapshot(self) -> Snapshot:
        """Read instances, jobs and orphans, in at most four round trips; in six when instances have very many jobs each."""
        return await self._ask(lambda queries: queries.snapshot())

    @overload
    async def instances(self, *, limit: int | None = ..., after: str | None = ..., count: Literal[False] = ...) -> list[Instance]: ...

    @overload
    async def instances(self, *, count: Literal[True]) -> int: ...

    async def instances(self, *, limit: int | None = None, after: str | None = None, count: bool = False) -> list[Instance] | int:
        """List every instance, and the dead whose orphans are not yet recovered; the longest running first.

        With ``limit`` a page of at most so many, in the order of their ids, and ``after`` begins it after that id; only they are read.
        ``count=True`` gives how many there are, and reads none. Raises ConfigError for a ``limit`` that is no whole number from 1 on.
        """
        check_argument_whole("instances", least=1, limit=limit)
        check_argument_texts("instances", after=after)
        if count:
            check_nothing_beside_count("instances", limit, after)
            return await self._ask(lambda queries: queries.count_instances())
        return await self._ask(lambda queries: queries.instances(limit=limit, after=after))

    async def instances_here(self, *, primary: bool = False) -> list[Instance]:
        """List the instances of this host, which is this container where there is one; the longest running first.

        Only they are read, so that a probe in each container costs the same in a fleet of any size. Where none of them lives, the dead
        of this host are listed whose orphans are not yet recovered. ``primary=True`` takes no replica's answer, which may be of a while
        ago: it raises StorageError.
        """
        return await self._ask(lambda queries: queries.instances_on(host_id(), primary=primary))

    async def fleet(self, known: Fleet | None = None) -> Fleet:
        """List every instance as `instances` does, and beside them the keys of those that this version cannot read.

        For programs that ask again and again and must pass over nothing, as the page: ``known`` is the fleet that was read before. It
        saves a round trip while no instance is new, and the decoding of those that say what they said then. Another version of this
        package, or another program, wrote what cannot be read.
        """
        return await self._ask(lambda queries: queries.fleet(known))

    async def instance(self, instance_id: str) -> Instance | None:
        """Give one instance, or None."""
        return await self._ask(lambda queries: queries.instance(instance_id))

    @overload
    async def jobs(
        self,
        instance_id: str | None = ...,
        function: str | None = ...,
        *,
        limit: int | None = ...,
        after: tuple[str, str] | None = ...,
        count: Literal[False] = ...,
    ) -> list[Job]: ...

    @overload
    async def jobs(self, instance_id: str | None = ..., function: str | None = ..., *, count: Literal[True]) -> int: ...

    async def jobs(
        self,
        instance_id: str | None = None,
        function: str | None = None,
        *,
        limit: int | None = None,
        after: tuple[str, str] | None = None,
        count: bool = False,
    ) -> list[Job] | int:
        """List the jobs in flight, the oldest first, of one instance or function if given. Of one instance, only that is read.

        With ``limit`` a page of at most so many, in the order of instances' ids and jobs' ids, and ``after`` begins it after this
        instance id and job id, those of the last job of the page before; only the instances of the page are read. ``count=True`` gives
        how many jobs Redis lists and reads none; of a function it reads all. Raises ConfigError for what is no such argument.
        """
        check_argument_whole("jobs", least=1, limit=limit)
        check_argument_place("jobs", after)
        if count:
            check_nothing_beside_count("jobs", limit, after)
            if function is None:
                return await self._ask(lambda queries: queries.count_jobs(instance_id))
            return len(await self._ask(lambda queries: queries.jobs(instance_id, function)))
        if limit is None and after is None:
            return await self._ask(lambda queries: queries.jobs(instance_id, function))
        return await self._ask(lambda queries: queries.page_of_jobs(instance_id, function, limit=limit, after=after))

    async def job(self, job_id: str) -> Job | None:
        """Give the newest run in flight of one job, or None. Raises CorruptRecord when its record cannot be read."""
        return await self._ask(lambda queries: queries.job(job_id))

    @overload
    async def orphans(
        self, *, limit: int | None = ..., after: tuple[str, str] | None = ..., count: Literal[False] = ...
    ) -> list[Orphan]: ...

    @overload
    async def orphans(self, *, count: Literal[True]) -> int: ...

    async def orphans(self, *, limit: int | None = None, after: tuple[str, str] | None = None, count: bool = False) -> list[Orphan] | int:
        """List the jobs whose instance is dead and that are not yet recovered, the oldest first.

        ``limit`` and ``after`` give a page, as those of `jobs` do. ``count=True`` gives how many jobs are listed for instances that a
        sweep has declared dead. Raises ConfigError for what is no such argument.
        """
        check_argument_whole("orphans", least=1, limit=limit)
        check_argument_place("orphans", after)
        if count:
            check_nothing_beside_count("orphans", limit, after)
            return await self._ask(lambda queries: queries.count_orphans())
        return await self._ask(lambda queries: queries.orphans(limit=limit, after=after))

    async def overdue(self, instances: Iterable[Instance], *, most: int = 10) -> Overdue:
        """Find the jobs in flight on these instances that run for longer than their timeout allows: how many, and the ``most`` worst.

        For programs that ask again and again and have ``instances`` from `fleet`, as the page: the server looks at the records, and of
        those that are in time none is read. Jobs of dead instances are orphans and do not count.
        """
        states = {item.instance_id: item.state for item in instances if item.state is not InstanceState.DEAD}
        return await self._ask(lambda queries: queries.overdue(states, most=most))

    async def left_behind(self) -> LeftBehind:
        """List the orphans as `orphans` does, and beside them the keys of what this version cannot read of dead instances and their jobs.

        For programs that must pass over nothing, as the page. Another version of this package, or another program, wrote what cannot be
        read; a sweep of this version leaves it alone.
        """
        return await self._ask(lambda queries: queries.left_behind())

    async def quarantined(self) -> list[Quarantined]:
        """List the poison pills, the longest quarantined first."""
        return await self._ask(lambda queries: queries.quarantined())

    async def stats(self, function: str | None = None, queue: str | None = None, window: float | None = None) -> Stats:
        """Read the counters, of one function or queue or of all: the totals, or those of the last ``window`` seconds with percentiles.

        A window covers whole minutes of the server, the running one included; beyond a day, whole hours. Raises ConfigError for one
        that is not more than 0 or is longer than what is kept, 30 days.
        """
        if window is not None:
            seconds = window
            return await self._ask_history(lambda reader: reader.window(seconds, function=function, queue=queue))
        return await self._ask(lambda queries: queries.stats(function, queue))

    async def trends(self, *, window: float, step: float) -> Trends:
        """Read what `stats` gives of the last ``window`` seconds and, in the same two round trips, how runs have started in its course.

        ``started`` tells of each function and queue how many runs have started a minute in each ``step`` of the window, the oldest first;
        None stands for a step of which nothing is known. Raises ConfigError as `history` does.
        """
        return await self._ask_history(lambda reader: reader.trends(window, step))

    async def history(self, function: str | None = None, queue: str | None = None, since: float = 3600.0, step: float = 60.0) -> History:
        """Tell what was in the last ``since`` seconds, one point for each ``step`` of whole minutes; the last step is not over.

        Beyond a day a step is of whole hours, and one of whole hours begins with an hour of the server's clock. Counters and
        percentiles are those of the functions and queues that were asked for; ``busy`` and ``slots`` are the fleet's.
        Raises ConfigError for a ``since`` or a ``step`` that is not more than 0 or is longer than what is kept, 30 days.
        """
        return await self._ask_history(lambda reader: reader.history(since=since, step=step, function=function, queue=queue))

    async def _ask_history(self, question: Callable[[HistoryReader], Awaitable[T]]) -> T:
        return await self._access.asked(lambda client: question(HistoryReader(Reading(Namespace(client, self.namespace)))))

    @overload
    def events(
        self, since: str | datetime | None = ..., *, limit: int | None = ..., count: Literal[False] = ...
    ) -> AsyncIterator[Event]: ...

    @overload
    def events(self, *, count: Literal[True]) -> Awaitable[int]: ...

    def events(
        self, since: str | datetime | None = None, *, limit: int | None = None, count: bool = False
    ) -> AsyncIterator[Event] | Awaitable[int]:
        """Follow what happens, for ever: ``async for event in tracker.events()``.

        ``since`` replays: what came after an event id, or from a moment on; None is what comes from now on.
        With ``limit`` it ends: at most so many of the events that the stream keeps, after ``since`` or from the oldest one on.
        ``await tracker.events(count=True)`` gives how many the stream keeps, and reads none.
        Raises StorageUnavailable when Redis goes away, and ConfigError for what is no such argument.
        """
        check_argument_whole("events", least=1, limit=limit)
        is_id = isinstance(since, str) and EVENT_ID.fullmatch(since) is not None
        if since is not None and not isinstance(since, datetime) and not is_id:
            raise WrongArgument(f"events(since={since!r:.80}): write the id of an event, as '1700000000000-0', or a datetime")
        if count:
            check_nothing_beside_count("events", limit, since, named="limit and since")
            return self._access.asked(lambda client: EventStream(Namespace(client, self.namespace)).count())
        stream = EventStream(self._namespaced())
        return stream.follow(since) if limit is None else stream.page(since, limit=limit)

    async def recent_events(self, count: int = 100, *, before: str | None = None, unread: bool = False) -> list[Event]:
        """Give the newest ``count`` events, the oldest of them first; the stream keeps those of 30 days, about 100,000 at most.

        ``before`` is the id of an event: then those before it, which is the next page backwards. Events that another version wrote are
        left out; with ``unread`` they are of the type ``another_version``, and tell no more than their moment, their schema and type, and
        which job and instance they are about. Raises ConfigError for a ``before`` that is no id.
        """
        check_argument_whole("recent_events", least=1, count=count)
        if before is not None and not (isinstance(before, str) and EVENT_ID.fullmatch(before)):
            raise WrongArgument(f"recent_events(before={before!r:.80}): write the id of an event, as '1700000000000-0'")
        return await self._access.asked(
            lambda client: EventStream(Namespace(client, self.namespace)).newest(count, before=before, unread=unread)
        )

    async def stored_instances(self) -> list[StoredInstance]:
        """Give what every instance says of itself, as it is stored: for integrations, and for programs that examine a set-up.

        `instances` gives the same instances judged, and is what most callers want.
        """
        return await self._ask(lambda queries: queries.stored_instances())

    async def queues(self) -> list[QueueDepth]:
        """Tell how full the queues are that instances work on, of every library whose Redis this process can reach."""
        listed = await self._access.asked(lambda client: Reading(Namespace(client, self.namespace)).queues())
        if listed is None:
            listed = [stored.description for stored in await self.stored_instances()]
        return await self._depths.of(listed)

    async def measures(self, *, queues_within: float = 1.0) -> Measures:
        """Count everything there is, in three round trips, and two for the queues of each worker library: what metrics are made of.

        The queues are those on which an instance worked when this was asked within the last day: one that has lost its workers is told.
        Those of a library whose Redis does not answer within ``queues_within`` seconds are left out, and it is named in ``unread``.
        Raises StorageError when the tracker's own Redis refuses or is away.
        """
        measures, stored = await self._ask(lambda queries: queries.measures())
        depths, unread = await self._depths.of_the_last_day(stored, within=queues_within)
        bounds = tuple(upper_bound_ms(bucket) / 1000.0 for bucket in BOUNDS)
        return dataclasses.replace(measures, queues=tuple(depths), unread=tuple(unread), bounds=bounds)

    @asynccontextmanager
    async def elsewhere(self) -> AsyncIterator[Self]:
        """Let the running event loop ask too, while the block runs: with clients of its own, which are closed at the end.

        A client that was given to the tracker, and those of workers in this process, belong to the loops that use them.
        """
        async with self._registry.elsewhere():
            yield self

    def on(self, *event_types: str) -> Callable[[Listener], Listener]:
        """Have a function, or coroutine function, called with every such event of which this process is the cause.

        Raises ConfigError for an event that does not exist, and for none: it is written ``@tracker.on("recovered")``.
        """
        if not event_types or not all(isinstance(name, str) for name in event_types):
            raise WrongArgument('on() takes the names of events: write @tracker.on("recovered")')
        unknown_names(dict.fromkeys(event_types), EVENT_TYPES, what="event")

        def decorate(listener: Listener) -> Listener:
            if not callable(listener):
                raise WrongArgument(f"on() is given {listener!r:.80}: write a function, or a coroutine function, that takes an event")
            self._listeners.add(event_types, listener)
            return listener

        return decorate

    # recovery

    async def recover(self, dry_run: bool = False, *, only: Collection[str] | None = None) -> list[Recovery]:
        """Look for dead instances now and recover their orphans, the oldest first; with ``dry_run``, only tell what would be done.

        ``only`` are the ids of the jobs that are recovered, by default all; where an instance recovers by itself, it recovers the others
        meanwhile. An id that is no orphan's is passed over: the answer names what was done.

        Takes ``disconnect_grace`` seconds longer when the connection of an instance is gone and no sweep has noted it before.
        Raises StorageError when the Redis of the worker library is not the one that the workers use, and where a replica is asked.
        Raises ConfigError for an ``only`` that is no collection of ids.
        """
        if only is not None:
            check_argument_names("recover", only=only)
            only = frozenset(only)
        await self._ask(lambda queries: queries.server_run_id())
        stored = await self.stored_instances()
        queries = self._queries()
        by_hand = RecoveryByHand(settings=self.settings, store=self._store(), queries=queries, on_event=self._listeners.announce)
        done: list[Recovery] = []
        for adapter, _ in self._registry.by_library(item.description for item in stored):
            await self._registry.check(adapter, stored)
            done += await (by_hand.plan(adapter, only=only) if dry_run else by_hand.recover(adapter, only=only))
        return done

    async def retry_quarantined(self, job_id: str) -> bool:
        """Let a quarantined job run again, with all its tries. Returns False when its id was enqueued anew meanwhile: then it stays.

        A call that dies after the job is queued leaves it on the list; the next call takes it off, and does not queue it again.
        Raises TrackerError when no such job is quarantined, and when its library is not known here.
        """
        return await self._quarantine().retry(job_id)

    async def drop_quarantined(self, job_id: str) -> bool:
        """Forget a quarantined job, its payload included. Raises TrackerError when no such job is quarantined."""
        return await self._quarantine().drop(job_id)

    def _quarantine(self) -> Quarantine:
        reading = Reading(self._namespaced())
        return Quarantine(store=self._store(), reading=reading, adapter_of=self._registry.adapter, on_event=self._listeners.announce)

    # orders

    @overload
    async def quiet(self, instance_id: str, *, cron: bool = ..., wait: float | None = ..., by: str | None = ...) -> Answer: ...

    @overload
    async def quiet(
        self,
        instance_id: Ids | None = ...,
        *,
        queue: str | None = ...,
        everywhere: bool = ...,
        cron: bool = ...,
        stands_for: float = ...,
        wait: float | None = ...,
        by: str | None = ...,
    ) -> list[Answer]: ...

    async def quiet(
        self,
        instance_id: str | Ids | None = None,
        *,
        queue: str | None = None,
        everywhere: bool = False,
        cron: bool = True,
        stands_for: float = 3600.0,
        wait: float | None = None,
        by: str | None = None,
    ) -> Answer | list[Answer]:
        """Have instances take no more jobs and run those that they have: one, several ids, those of a ``queue``, or all ``everywhere``.

        With ``queue`` or ``everywhere`` the order stands for ``stands_for`` seconds, one hour by default: an instance that registers
        meanwhile begins quiet. When it is over, those that it has made quiet take jobs again by themselves, except where they were made
        quiet by id as well. ``cron=False`` has arq workers queue no cron jobs meanwhile. Each instance is given its own heartbeat
        interval and ``wait`` seconds, by default 2, to answer; an order that is not answered is taken back. ``by`` is who asks, by
        default the user and host of this process.

        One id gives its `Answer`, and raises UnsupportedControl where its library cannot do it; several give a list of answers.
        """
        check_argument_truth("quiet", cron=cron)
        arguments: dict[str, Any] = {"cron": cron}
        aim = Aim("quiet", instance_id, queue=queue, everywhere=everywhere)
        if aim.is_standing:
            check_argument_seconds("quiet", stands_for=stands_for)
            arguments = await self._control(by).stand("quiet", queue=queue, seconds=stands_for, arguments=arguments)
        return await self._order(aim, arguments, wait=wait, by=by)

    @overload
    async def resume(self, instance_id: str, *, wait: float | None = ..., by: str | None = ...) -> Answer: ...

    @overload
    async def resume(
        self,
        instance_id: Ids | None = ...,
        *,
        queue: str | None = ...,
        everywhere: bool = ...,
        wait: float | None = ...,
        by: str | None = ...,
    ) -> list[Answer]: ...

    async def resume(
        self,
        instance_id: str | Ids | None = None,
        *,
        queue: str | None = None,
        everywhere: bool = False,
        wait: float | None = None,
        by: str | None = None,
    ) -> Answer | list[Answer]:
        """Have quiet instances take jobs again; to be called like `quiet`. An instance that is shutting down refuses.

        With ``queue`` the standing order of that queue is withdrawn, with ``everywhere`` every one.
        """
        aim = Aim("resume", instance_id, queue=queue, everywhere=everywhere)
        if aim.is_standing:
            await self._control(by).withdraw(queue=queue)
        return await self._order(aim, {}, wait=wait, by=by)

    @overload
    async def stop(self, instance_id: str, *, group: bool = ..., wait: float | None = ..., by: str | None = ...) -> Answer: ...

    @overload
    async def stop(
        self,
        instance_id: Ids | None = ...,
        *,
        queue: str | None = ...,
        everywhere: bool = ...,
        group: bool = ...,
        wait: float | None = ...,
        by: str | None = ...,
    ) -> list[Answer]: ...

    async def stop(
        self,
        instance_id: str | Ids | None = None,
        *,
        queue: str | None = None,
        everywhere: bool = False,
        group: bool = False,
        wait: float | None = None,
        by: str | None = None,
    ) -> Answer | list[Answer]:
        """Have workers end in order, as their library ends them; to be called like `quiet`. The answer says what ends.

        No signal is sent to the process, which may be more than the worker. With ``group`` a dramatiq process ends together with all
        others of its master; without it, one of several raises UnsupportedControl. The order does not stand.
        """
        aim = Aim("stop", instance_id, queue=queue, everywhere=everywhere)
        check_argument_truth("stop", group=group)
        return await self._order(aim, {"group": group}, wait=wait, by=by)

    async def wait_until_idle(self, instance_id: str | Ids, timeout: float = 50.0) -> list[Answer]:
        """Wait until quiet instances have nothing in hand, for ``timeout`` seconds at most; the answer of each that is not is ``failed``.

        An instance that ends meanwhile is ``gone``.
        """
        check_argument_seconds("wait_until_idle", timeout=timeout)
        names = [instance_id] if isinstance(instance_id, str) else list(instance_id)
        return await self._control(None).ask(names, "idle", arguments={"seconds": timeout}, beyond=timeout + BEYOND_SECONDS)

    async def stacks(self, instance_id: str, job_id: str | None = None, *, wait: float | None = None, by: str | None = None) -> Stacks:
        """Tell what every thread of an instance does, and at which line each of its jobs in flight waits; no values of variables.

        With ``job_id``, the runs of that job alone. The instance is given its own heartbeat interval and ``wait`` seconds, by default 2;
        one whose event loop is blocked answers by its watchdog. ``by`` is who asks, by default the user and host of this process.

        Raises OrderFailed where no such instance is registered, or it does not answer, or takes no such order.
        """
        check_argument_texts("stacks", instance_id=instance_id, job_id=job_id)
        check_argument_seconds("stacks", wait=wait)
        return await ask_stacks(self._control(by), instance_id, job_id=job_id, beyond=BEYOND_SECONDS if wait is None else wait)

    async def abort(self, job_id: str, wait: float = 10.0, *, by: str | None = None) -> Abort:
        """End the run of a job for good: its function is cancelled, and the job is over. It does not run again.

        The function's ``except`` and ``finally`` run, and the caller who awaits the job gets what its library's own abort gives. Waits
        ``wait`` seconds at most for the run's end, beside the heartbeat interval of its instance; the newest run is meant, and no other.
        Threads of `asyncio.to_thread` go on, and the answer names them. A job that does not run is ``refused``.

        Raises UnsupportedControl where its library cannot do it, and OrderFailed where its instance does not answer, or takes no such
        order. ``by`` is who asks, by default the user and host of this process.
        """
        check_argument_texts("abort", job_id=job_id)
        check_argument_seconds("abort", wait=wait)
        job = await self.job(job_id)
        if job is not None:
            return await abort(self._control(by), job_id, Meant(job.instance_id, job.run), wait=wait)
        located = await self._registry.locate(job_id, await self.stored_instances())
        if located is not None and located.claimed is not None:
            return await abort(self._control(by), job_id, Meant(*located.claimed), wait=wait)
        return refused(job_id, located.says if located is not None else "")

    async def standing_orders(self) -> list[StandingOrder]:
        """Give the orders that stand for instances that register now."""
        return await self._control(None).standing()

    def _control(self, by: str | None) -> Control:
        check_argument_texts("control", by=by)
        return Control(self._store(), by=by or caller(), on_event=self._listeners.announce)

    async def _order(self, aim: Aim, arguments: Mapping[str, Any], *, wait: float | None, by: str | None) -> Answer | list[Answer]:
        check_argument_seconds(aim.order, wait=wait)
        beyond = BEYOND_SECONDS if wait is None else wait
        return await self._control(by).give(aim, arguments, instances=self.instances, beyond=beyond)

    @property
    def is_quiet(self) -> bool:
        """Whether this process's instance was told to take no more jobs, or to stop. A program of its own asks before it takes one."""
        runtime = self._runtimes.asked
        return runtime is not None and runtime.duty.is_quiet

    @property
    def is_stopping(self) -> bool:
        """Whether this process's instance was told to stop. A program of its own ends then."""
        runtime = self._runtimes.asked
        return runtime is not None and runtime.duty.is_stopping

    async def wait_quiet(self) -> None:
        """Return when this process's instance is told to take no more jobs; at once where it is. Raises TrackerError without one."""
        await self._duty("wait_quiet").quieted.wait()

    async def wait_resumed(self) -> None:
        """Return when this process's instance may take jobs; at once where it may. Raises TrackerError without one."""
        await self._duty("wait_resumed").resumed.wait()

    async def wait_stopping(self) -> None:
        """Return when this process's instance is told to stop; at once where it was. Raises TrackerError without one."""
        await self._duty("wait_stopping").stopping.wait()

    def _duty(self, method: str) -> Duty:
        runtime = self._runtimes.asked
        if runtime is None or not runtime.lives_here:
            raise TrackerError(f"{method}() needs an instance in this event loop: write it inside `async with tracker.register(...)`")
        return runtime.duty

    # Redis

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[Namespace]:
        """Give the Namespace proxy over the tracker's client: ``async with tracker.redis() as r``. Nothing is closed at the end."""
        yield self._namespaced()

    @contextmanager
    def redis_sync(self) -> Iterator[SyncNamespace]:
        """Give the synchronous proxy, for synchronous code and threads. Its pool is kept until `aclose`."""
        with self._sync_lock:
            if self._sync is None:
                self._sync = self._access.sync_client()
            client = self._sync
        yield SyncNamespace(client, self.namespace)
