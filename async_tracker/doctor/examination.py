"""What the doctor looks at, one question each. Every finding says what was found, and one that is not ok says what to do."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from async_tracker.connections.access import check_mode, describe
from async_tracker.connections.calls import bounded, call
from async_tracker.connections.replies import info_of, run_id_of, text
from async_tracker.doctor.findings import Finding, Status
from async_tracker.doctor.permissions import judged, judged_for_recovery, own_name, refusals, tracker_commands
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.integrations.known import is_presumed, redis_argument, redis_option, redis_variable
from async_tracker.integrations.registry import Library, Registry, has_claims
from async_tracker.namespace import Namespace
from async_tracker.policy import InstanceState
from async_tracker.queries.wording import blocking_line, counted, duration, standing_remark
from async_tracker.records import Instance, Snapshot
from async_tracker.recovery.lease import instance_in, lease_name
from async_tracker.store import keys
from async_tracker.store.instance_record import Description, StoredInstance
from async_tracker.store.reading import Reading
from async_tracker.store.run_record import job_ref
from async_tracker.tracker import Tracker

_OLDEST_REDIS, _OLDEST_VALKEY = (6, 2), (7, 2)
_PINGS = 5
_SLOW_PING = 0.05
_FULL_SHARE = 0.9
ANSWER_SECONDS = 5.0
"""How long the Redis of a worker library may take to answer, where that is not the tracker's."""


async def examine(tracker: Tracker, *, user: str | None = None, answer_within: float = ANSWER_SECONDS) -> list[Finding]:
    """Examine the set-up of a tracker: its Redis, its namespace, and the Redis of each worker library that it was told of.

    ``user`` judges the permissions of that user of the server instead of the tracker's own. The Redis of a library has
    ``answer_within`` seconds to answer; that it does not is a finding. Nothing is left behind in Redis.
    Raises StorageUnavailable when the tracker's Redis cannot be reached.
    """
    async with tracker.redis() as namespaced:
        return await Examination(tracker=tracker, namespaced=namespaced, user=user, answer_within=answer_within).findings()


@dataclass(slots=True, kw_only=True)
class Examination:
    """One examination. Raises StorageUnavailable when the tracker's Redis cannot be reached."""

    tracker: Tracker
    namespaced: Namespace
    user: str | None = None
    answer_within: float = ANSWER_SECONDS
    _found: list[Finding] = field(default_factory=list)

    async def findings(self) -> list[Finding]:
        """Ask everything: first what the later questions depend on."""
        self._found.clear()
        info = await self._server()
        self._memory(info)
        self._connections(info)
        try:
            stored = await self.tracker.stored_instances()
            await self._permissions(stored)
            await self._inside(stored, info)
        except StorageUnavailable:
            raise
        except StorageError as exc:
            await self._permissions([])
            self._problem("namespace", f"it cannot be read: {exc}", "see the finding about the user's permissions")
        return self._found

    async def _inside(self, stored: list[StoredInstance], info: Mapping[str, str]) -> None:
        snapshot = await self.tracker.snapshot()
        await self._namespace(snapshot)
        self._instances(snapshot.instances)
        await self._standing()
        self._notes(stored)
        self._whose_redis(stored, snapshot.instances)
        await self._sweeper(snapshot.instances)
        await self._claims(stored, info)
        self._shared_claims(stored)
        self._corrupt(snapshot)
        await self._unfit(snapshot)

    def _ok(self, subject: str, says: str) -> None:
        self._found.append(Finding(subject=subject, status=Status.OK, says=says))

    def _warn(self, subject: str, says: str, remedy: str) -> None:
        self._found.append(Finding(subject=subject, status=Status.WARNING, says=says, remedy=remedy))

    def _problem(self, subject: str, says: str, remedy: str) -> None:
        self._found.append(Finding(subject=subject, status=Status.PROBLEM, says=says, remedy=remedy))

    @property
    def _client(self) -> Any:
        return self.namespaced.redis

    async def _server(self) -> dict[str, str]:
        started = time.monotonic()
        for _ in range(_PINGS):
            await call(self._client, "PING")
        round_trip = (time.monotonic() - started) / _PINGS
        connected = f"{describe(self._client)}, {duration(round_trip)} for a round trip"
        if round_trip > _SLOW_PING:
            self._warn("connection", connected, "the network or the server is slow: run workers near their Redis")
        else:
            self._ok("connection", connected)
        try:
            info = info_of(await call(self._client, "INFO"))
        except StorageError as exc:
            self._problem("server", f"INFO is refused: {exc}", "allow +info: the tracker needs the server's run id to judge connections")
            return {}
        self._version(info)
        return info

    def _version(self, info: Mapping[str, str]) -> None:
        kind, oldest = ("Valkey", _OLDEST_VALKEY) if "valkey_version" in info else ("Redis", _OLDEST_REDIS)
        version = info.get("valkey_version") or info.get("redis_version", "?")
        says = f"{kind} {version}, {info.get('redis_mode') or info.get('server_mode', 'standalone')}, {info.get('role', '?')}"
        try:
            check_mode(self._client, info)
        except StorageError as exc:
            self._problem("server", says, str(exc))
            return
        if info.get("role") == "slave":
            self._problem("server", says, "a replica refuses writes: give the url of its master")
        elif version_of(version) < oldest:
            self._problem("server", says, f"{kind} {'.'.join(map(str, oldest))} or newer is needed")
        else:
            self._ok("server", says)

    def _memory(self, info: Mapping[str, str]) -> None:
        policy, limit = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory", "0"))
        says = f"{info.get('used_memory_human', '?')} used, " + (f"limit {info.get('maxmemory_human')}, {policy}" if limit else "no limit")
        if limit and policy != "noeviction":
            self._warn(
                "memory",
                says,
                "a full server evicts the tracker's records, and jobs and claims of worker libraries: set maxmemory-policy noeviction",
            )
        elif limit and int(info.get("used_memory", "0")) > _FULL_SHARE * limit:
            self._warn("memory", says, "raise maxmemory: a full server refuses writes, and then the tracker falls behind while jobs go on")
        else:
            self._ok("memory", says)

    @property
    def _registry(self) -> Registry:
        return self.tracker.footing.registry

    def _is_here(self, library: Library, stored: list[StoredInstance]) -> bool:
        """Whether the library's jobs are, or may be, where the tracker's records are."""
        workers = _workers(stored, library.name)
        if self._registry.is_apart(library.name) or any(item.claims_server is not None for item in workers):
            return False
        has_other_workers = any(has_claims(item.description.library) for item in stored)
        return bool(workers) or (is_presumed(library.name) and not has_other_workers)

    async def _permissions(self, stored: list[StoredInstance]) -> None:
        """Judge what the user may do. A user who may not write for the tracker cannot recover anything either, so is not asked more."""
        whom = self.user or await own_name(self._client)
        asking, working = tracker_commands(self.namespaced)
        refused_asking = await refusals(self._client, asking, user=self.user)
        refused_working = await refusals(self._client, working, user=self.user)
        settings = self.tracker.settings
        finding = judged(
            f"user {whom}",
            refused_asking,
            refused_working,
            namespace=settings.namespace,
            heartbeat_ttl=settings.heartbeat_ttl,
            writes=len(working),
        )
        self._found.append(finding)
        writes = len(refused_working) < len(working)
        for library in self._registry.libraries if writes else ():
            if self._is_here(library, stored):
                await self._rights(library.name, _workers(stored, library.name), self._client, user=self.user)

    async def _rights(self, library: str, workers: list[Description], client: Any, *, user: str | None) -> None:
        rights = self._registry.rights(library, workers, client=client, queue=self.tracker.settings.queue)
        if rights is not None:
            subject = f"user {user or await own_name(client)}, {library}"
            self._found.append(judged_for_recovery(subject, rights, await refusals(client, rights.commands, user=user)))

    def _connections(self, info: Mapping[str, str]) -> None:
        pool = self._client.connection_pool
        says = f"this examination uses 1 connection of a {type(pool).__name__}; the server has {info.get('connected_clients', '?')}"
        most = int(info.get("maxclients", "0"))
        if most and int(info.get("connected_clients", "0")) > _FULL_SHARE * most:
            self._warn("connections", f"{says} of {most}", "raise maxclients: at that limit Redis refuses new workers")
        else:
            self._ok("connections", says + (f" of {most}" if most else ""))

    async def _namespace(self, snapshot: Snapshot) -> None:
        quarantined = await self.tracker.quarantined()
        says = ", ".join(
            (
                f"{self.tracker.namespace}: {counted(len(snapshot.instances), 'instance')}",
                f"{counted(len(snapshot.jobs), 'job')} in flight",
                counted(len(snapshot.orphans), "orphan"),
                f"{len(quarantined)} in quarantine, read in {duration(snapshot.duration)}",
            )
        )
        if not snapshot.instances:
            self._warn("namespace", says, "no worker is registered here: do your workers use another namespace, or another Redis?")
        elif quarantined:
            self._warn("namespace", says, "decide about these jobs: async-tracker quarantine list shows them")
        else:
            self._ok("namespace", says)

    def _instances(self, instances: tuple[Instance, ...]) -> None:
        for item in instances:
            says = f"{item.state}: {item.reason}"
            if item.state is InstanceState.DEAD:
                self._warn(
                    item.instance_id,
                    says,
                    "its orphans are not recovered yet: does a worker with recover=True run? async-tracker recover does it now",
                )
            elif item.state is InstanceState.STALLED_BLOCKED:
                where = f", at {blocking_line(item.blocked_at)}" if item.blocked_at else ""
                self._warn(item.instance_id, says + where, "move what blocks the loop into asyncio.to_thread or a process pool")
            elif item.state is InstanceState.RETURNING:
                self._warn(item.instance_id, says, "ask again in a few seconds: an instance that lives comes back with its next beat")
            elif item.state is InstanceState.STALLED_SILENT:
                self._warn(item.instance_id, says, "check its host: the process may be stopped, out of memory, or cut off from the network")
            elif item.state is InstanceState.QUIET:
                self._warn(item.instance_id, says, "it takes no more jobs, by an order: async-tracker resume when that is over")
            elif item.failing:
                self._warn(item.instance_id, f"a loop of its tracker fails: {item.failing}", "see the log of its worker; its jobs run on")
            elif item.dropped:
                self._warn(
                    item.instance_id,
                    f"{counted(item.dropped, 'write')} dropped",
                    "Redis was unreachable or too slow until the journal was full: check Redis and the network",
                )
        versions = Counter(item.versions.get("async-tracker", "?") for item in instances)
        if len(versions) > 1:
            says = ", ".join(f"{version} on {counted(number, 'instance')}" for version, number in sorted(versions.items()))
            self._ok("versions", f"{says}: normal during a roll-out")

    async def _standing(self) -> None:
        for order in await self.tracker.standing_orders():
            whom = "--all" if order.queue is None else f"--queue {order.queue}"
            self._warn("orders", standing_remark(order), f"if that is over: async-tracker resume {whom}")

    def _notes(self, stored: list[StoredInstance]) -> None:
        """What the instances themselves have to say of their set-up."""
        for item in stored:
            for note in item.description.notes:
                tell = self._problem if note.is_error else self._warn
                tell(item.instance_id, note.says, note.remedy)

    def _whose_redis(self, stored: list[StoredInstance], instances: tuple[Instance, ...]) -> None:
        ours = describe(self._client)
        connections = {item.instance_id: len(item.connection_ids) for item in instances}
        for item in stored:
            theirs, broker = item.description.redis or "?", self._registry.claims_at(item.description)
            says = f"{theirs}, {counted(connections.get(item.instance_id, 0), 'connection')}"
            if item.description.claims_server is not None:
                says += f"; its jobs are in {broker}"
            elif self._registry.recovers(item.description):
                says += "; its jobs are there too"
            self._ok(f"redis of {item.instance_id}", says + ("" if theirs == ours else f"; this examination reaches it as {ours}"))

    async def _sweeper(self, instances: tuple[Instance, ...]) -> None:
        for library in sorted({item.library for item in instances if item.state is not InstanceState.DEAD and has_claims(item.library)}):
            holder = await call(self.namespaced, "GET", keys.lease(lease_name(library, recovers=True)))
            watcher = await call(self.namespaced, "GET", keys.lease(lease_name(library, recovers=False)))
            if holder is not None:
                self._ok(f"sweep, {library}", f"by {instance_in(text(holder))}")
            elif watcher is not None:
                remedy = "give at least one worker recover=True; until then run async-tracker recover"
                says = f"{instance_in(text(watcher))} only watches: no worker recovers orphans"
                self._warn(f"sweep, {library}", says, remedy)
            else:
                self._warn(f"sweep, {library}", "no instance sweeps right now", "ask again in a few seconds: the instances elect one")

    async def _claims(self, stored: list[StoredInstance], info: Mapping[str, str]) -> None:
        """Claims must be where recovery looks for them, and all claims of a namespace must be in one Redis."""
        for library in sorted({item.description.library for item in stored if has_claims(item.description.library)}):
            described = _workers(stored, library)
            for broker in sorted({item.broker or "?" for item in described if not self._registry.recovers(item)}):
                self._ok(f"{library}'s broker", f"{broker}: the tracker has nothing to recover")
            workers = [item for item in described if self._registry.recovers(item)]
            if workers:
                await self._where_claims_are(library, workers, info.get("run_id", ""))

    async def _where_claims_are(self, library: str, workers: list[Description], run_id: str) -> None:
        servers = {item.claims_server or run_id for item in workers}
        where = ", ".join(sorted({self._registry.claims_at(item) for item in workers}))
        subject = f"{library}'s Redis"
        if len(servers) > 1:
            self._problem(subject, f"workers of this namespace use several: {where}", "give the workers of each Redis their own namespace")
        elif self._registry.is_apart(library):
            await self._claims_apart(library, servers, workers)
        elif servers != {run_id}:
            self._problem(subject, f"claims are in another Redis: {where}", _url_remedy(library))
        else:
            self._ok(subject, f"{where}: claims are on the tracker's own server")

    def _shared_claims(self, stored: list[StoredInstance]) -> None:
        for names in self._registry.sharing(stored):
            says = f"{' and '.join(sorted(names))} share their claims: no job of one is recovered while another lives"
            self._problem("claims", says, "make the broker in each process, after the fork, so that each has its own id")

    async def _claims_apart(self, library: str, servers: set[str], workers: list[Description]) -> None:
        client = self._registry.client_apart(library)
        subject, where = f"{library}'s Redis", describe(client)
        try:
            await bounded(self._ask_apart(client, library, servers, workers), self.answer_within)
        except TimeoutError:
            self._problem(subject, f"{where} did not answer within {self.answer_within:g} s", _url_remedy(library))
        except StorageError as exc:
            self._problem(subject, f"{where}: {exc}", _url_remedy(library))

    async def _ask_apart(self, client: Any, library: str, servers: set[str], workers: list[Description]) -> None:
        subject, where = f"{library}'s Redis", describe(client)
        run_id = run_id_of(await call(client, "INFO", "server"))
        if run_id not in servers:
            self._problem(subject, f"{where} is not the one that the workers use", _url_remedy(library))
            return
        self._ok(subject, f"{where}: claims are there, and not on the tracker's server")
        await self._rights(library, workers, client, user=None)

    def _corrupt(self, snapshot: Snapshot) -> None:
        for key in snapshot.corrupt:
            self._warn(
                "corrupt record",
                key,
                "it is skipped: another version or another program wrote it. Does only the tracker use this namespace?",
            )

    async def _unfit(self, snapshot: Snapshot) -> None:
        """Name the keys of another type: what a dead instance left is not recovered over them, nor a live one's runs written."""
        refs = sorted({ref for orphan in snapshot.orphans for ref in (orphan.job_id, job_ref(orphan.library, orphan.job_id))})
        for key in await Reading(self.namespaced).unfit([item.instance_id for item in snapshot.instances], refs):
            full = text(self.namespaced.full_key(key))
            self._problem(
                "key of another type",
                f"{full}: the jobs of its instance cannot be tracked or recovered over it",
                f"another program wrote it: delete it (redis-cli DEL {full!r}), and the next sweep goes on",
            )


def _url_remedy(library: str) -> str:
    return (
        f"in processes that are no worker, set {redis_variable(library)}, "
        f"give {redis_option(library)}, or write Tracker({redis_argument(library)}=...)"
    )


def _workers(stored: list[StoredInstance], library: str) -> list[Description]:
    return [item.description for item in stored if item.description.library == library]


def version_of(version: str) -> tuple[int, ...]:
    """Read the numbers of a version; a version without any counts as new enough.

    >>> version_of("7.2.4"), version_of("255.255.255"), version_of("?")
    ((7, 2, 4), (255, 255, 255), (999,))
    """
    numbers = [int(part) for part in version.split(".") if part.isdigit()]
    return tuple(numbers) or (999,)
