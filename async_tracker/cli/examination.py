"""What `doctor` looks at, one question each; every finding says what is, and a bad one how to mend it."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from async_tracker.cli.findings import Finding, Status
from async_tracker.cli.instances import blocking_line
from async_tracker.cli.permissions import judged, judged_for_recovery, own_name, refusals, tracker_commands
from async_tracker.cli.reach import CONNECT_TIMEOUT, library_url
from async_tracker.cli.target import Target
from async_tracker.cli.wording import counted, duration
from async_tracker.connections.access import SOCKET_TIMEOUT, Access, describe, redis_options
from async_tracker.connections.calls import call
from async_tracker.connections.replies import text
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.integrations.registry import Library, Registry, has_claims
from async_tracker.namespace import Namespace
from async_tracker.policy import InstanceState
from async_tracker.queries.questions import Queries
from async_tracker.records import Instance, Snapshot
from async_tracker.store import keys
from async_tracker.store.instance_record import Description, StoredInstance
from async_tracker.tracker import Tracker

_OLDEST_REDIS, _OLDEST_VALKEY = (6, 2), (7, 2)
_PINGS = 5
_SLOW_PING = 0.05
_FULL_SHARE = 0.9


@dataclass(slots=True, kw_only=True)
class Examination:
    """All questions to one namespace. Raises StorageUnavailable when its Redis is away."""

    tracker: Tracker
    namespaced: Namespace
    target: Target
    user: str | None
    _found: list[Finding] = field(default_factory=list)

    async def findings(self) -> list[Finding]:
        """Ask everything, in the order in which one thing rests on another."""
        self._found.clear()
        info = await self._server()
        self._memory(info)
        self._connections(info)
        try:
            stored = await Queries(self.namespaced).stored_instances()
            await self._permissions(stored)
            await self._inside(stored, info)
        except StorageUnavailable:
            raise
        except StorageError as exc:
            await self._permissions([])
            self._problem("namespace", f"it cannot be read: {exc}", "see what the user may do")
        return self._found

    async def _inside(self, stored: list[StoredInstance], info: Mapping[str, str]) -> None:
        snapshot = await self.tracker.snapshot()
        await self._namespace(snapshot)
        self._instances(snapshot.instances)
        self._notes(stored)
        self._whose_redis(stored, snapshot.instances)
        await self._sweeper(snapshot.instances)
        await self._claims(stored, info)
        self._shared_claims(stored)
        self._corrupt(snapshot)

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
            self._warn("connection", connected, "the network or the server is slow: instances should be near their Redis")
        else:
            self._ok("connection", connected)
        try:
            info = info_of(await call(self._client, "INFO"))
        except StorageError as exc:
            self._problem("server", f"it does not tell what it is: {exc}", "allow +info: connections cannot be judged without the run id")
            return {}
        self._version(info)
        return info

    def _version(self, info: Mapping[str, str]) -> None:
        kind, oldest = ("Valkey", _OLDEST_VALKEY) if "valkey_version" in info else ("Redis", _OLDEST_REDIS)
        version = info.get("valkey_version") or info.get("redis_version", "?")
        says = f"{kind} {version}, {info.get('redis_mode') or info.get('server_mode', 'standalone')}, {info.get('role', '?')}"
        if info.get("cluster_enabled") == "1":
            self._problem(
                "server", says, "the tracker does not run on a cluster yet: give it a single Redis of its own by TRACKER_REDIS_URL"
            )
        elif info.get("role") == "slave":
            self._problem("server", says, "a replica takes no writes: give the url of its master")
        elif version_of(version) < oldest:
            self._problem("server", says, f"{kind} {'.'.join(map(str, oldest))} or newer is needed")
        else:
            self._ok("server", says)

    def _memory(self, info: Mapping[str, str]) -> None:
        policy, limit = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory", "0"))
        says = f"{info.get('used_memory_human', '?')} used, " + (f"limit {info.get('maxmemory_human')}, {policy}" if limit else "no limit")
        if limit and policy != "noeviction":
            self._warn(
                "memory", says, "a full server would evict records, and arq's jobs and claims with them: set maxmemory-policy noeviction"
            )
        elif limit and int(info.get("used_memory", "0")) > _FULL_SHARE * limit:
            self._warn("memory", says, "it is nearly full: then writes are refused, and the tracker falls behind while jobs run on")
        else:
            self._ok("memory", says)

    @property
    def _registry(self) -> Registry:
        return self.tracker.footing.registry

    def _is_here(self, library: Library, stored: list[StoredInstance]) -> bool:
        """Whether the library's jobs are, or may be, where the tracker's records are."""
        workers = _workers(stored, library.name)
        if library_url(self.target, library.name) is not None or any(item.claims_server is not None for item in workers):
            return False
        is_anybody_here = any(has_claims(item.description.library) for item in stored)
        return bool(workers) or (library.is_presumed and not is_anybody_here)

    async def _permissions(self, stored: list[StoredInstance]) -> None:
        """Tell what the user may do; who may not even write for the tracker recovers nothing of any library either."""
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
        says = f"this command: a pool of its own ({type(pool).__name__}), 1 connection; the server has {info.get('connected_clients', '?')}"
        most = int(info.get("maxclients", "0"))
        if most and int(info.get("connected_clients", "0")) > _FULL_SHARE * most:
            self._warn("connections", f"{says} of {most}", "raise maxclients before workers are turned away")
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
            self._warn("namespace", says, "no worker is registered here: does it have another namespace, or another Redis?")
        elif quarantined:
            self._warn("namespace", says, "see async-tracker quarantine list: these jobs wait for a decision")
        else:
            self._ok("namespace", says)

    def _instances(self, instances: tuple[Instance, ...]) -> None:
        for item in instances:
            says = f"{item.state}: {item.reason}"
            if item.state is InstanceState.DEAD:
                self._warn(
                    item.instance_id, says, "its orphans are not recovered: does any instance sweep? async-tracker recover does it now"
                )
            elif item.state is InstanceState.STALLED_BLOCKED:
                where = f", at {blocking_line(item.blocked_at)}" if item.blocked_at else ""
                self._warn(item.instance_id, says + where, "move what blocks the loop into asyncio.to_thread or a process pool")
            elif item.state is InstanceState.STALLED_SILENT:
                self._warn(item.instance_id, says, "look at its host: stopped, out of memory, or cut off from the network")
            elif item.dropped:
                self._warn(
                    item.instance_id, f"{counted(item.dropped, 'write')} dropped", "Redis was away or too slow for longer than its journal"
                )
        versions = Counter(item.versions.get("async-tracker", "?") for item in instances)
        if len(versions) > 1:
            says = ", ".join(f"{version} on {counted(number, 'instance')}" for version, number in sorted(versions.items()))
            self._ok("versions", f"{says}: fine while a roll-out lasts")

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
                says += f"; its worker's is {broker}"
            elif self._registry.recovers(item.description):
                says += "; its worker's as well"
            self._ok(f"redis of {item.instance_id}", says + ("" if theirs == ours else f"; this command calls it {ours}"))

    async def _sweeper(self, instances: tuple[Instance, ...]) -> None:
        for library in sorted({item.library for item in instances if item.state is not InstanceState.DEAD and has_claims(item.library)}):
            holder = await call(self.namespaced, "GET", keys.lease(library))
            watcher = await call(self.namespaced, "GET", keys.lease(f"{library}-watch"))
            if holder is not None:
                self._ok(f"sweep, {library}", f"by {text(holder).rsplit(' ', 1)[0]}")
            elif watcher is not None:
                remedy = "at least one worker should have recover=True; until then: async-tracker recover"
                self._warn(f"sweep, {library}", f"{text(watcher).rsplit(' ', 1)[0]} only watches: nobody recovers", remedy)
            else:
                self._warn(
                    f"sweep, {library}", "nobody sweeps at this moment", "ask again in some seconds: instances elect one by themselves"
                )

    async def _claims(self, stored: list[StoredInstance], info: Mapping[str, str]) -> None:
        """Claims must be where recovery looks for them, and all of a namespace in one place."""
        for library in sorted({item.description.library for item in stored if has_claims(item.description.library)}):
            described = _workers(stored, library)
            for broker in sorted({item.broker or "?" for item in described if not self._registry.recovers(item)}):
                self._ok(f"{library}'s broker", f"{broker}: there is nothing to recover")
            workers = [item for item in described if self._registry.recovers(item)]
            if workers:
                await self._where_claims_are(library, workers, info.get("run_id", ""))

    async def _where_claims_are(self, library: str, workers: list[Description], run_id: str) -> None:
        servers = {item.claims_server or run_id for item in workers}
        where = ", ".join(sorted({self._registry.claims_at(item) for item in workers}))
        subject, url = f"{library}'s Redis", library_url(self.target, library)
        if len(servers) > 1:
            self._problem(subject, f"workers of this namespace use several: {where}", "a namespace serves one: give each its own")
        elif url is not None:
            await self._claims_at(library, url, servers, workers)
        elif servers != {run_id}:
            self._problem(subject, f"claims are in another Redis: {where}", _url_remedy(library))
        else:
            self._ok(subject, f"{where}: claims are on the tracker's own server")

    def _shared_claims(self, stored: list[StoredInstance]) -> None:
        for names in self._registry.sharing(stored):
            says = f"what {' and '.join(sorted(names))} hold cannot be told apart: none of them is recovered while another lives"
            self._problem("claims", says, "make the broker in each process, after the fork, so that each has an id of its own")

    async def _claims_at(self, library: str, url: str, servers: set[str], workers: list[Description]) -> None:
        limits = {"socket_timeout": SOCKET_TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT}
        access = Access(options={**limits, **redis_options({"url": url})})
        subject = f"{library}'s Redis"
        try:
            client = access.client()
            run_id = info_of(await call(client, "INFO", "server")).get("run_id", "")
            if run_id not in servers:
                self._problem(subject, f"{describe(client)} is not the one that the workers use", _url_remedy(library))
                return
            self._ok(subject, f"{describe(client)}, named apart from the tracker's")
            await self._rights(library, workers, client, user=None)
        except StorageError as exc:
            self._problem(subject, str(exc), _url_remedy(library))
        finally:
            await access.aclose()

    def _corrupt(self, snapshot: Snapshot) -> None:
        for key in snapshot.corrupt:
            self._warn(
                "corrupt record",
                key,
                "another version, or somebody else, wrote it: it is skipped. Is this the namespace of the tracker alone?",
            )


def _url_remedy(library: str) -> str:
    return f"set TRACKER_{library.upper()}_REDIS_URL, or give --{library}-redis-url, in processes that are no worker"


def _workers(stored: list[StoredInstance], library: str) -> list[Description]:
    return [item.description for item in stored if item.description.library == library]


def info_of(reply: Any) -> dict[str, str]:
    """Read the reply of INFO, in either shape that redis-py gives it.

    >>> info_of(b"# Server\\r\\nredis_version:7.2.4\\r\\n"), info_of({"maxmemory": 0})
    ({'redis_version': '7.2.4'}, {'maxmemory': '0'})
    """
    if isinstance(reply, dict):
        return {text(name): str(value) for name, value in reply.items()}
    lines = text(reply).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def version_of(version: str) -> tuple[int, ...]:
    """Read the numbers of a version; what cannot be read is taken for new enough.

    >>> version_of("7.2.4"), version_of("255.255.255"), version_of("?")
    ((7, 2, 4), (255, 255, 255), (999,))
    """
    numbers = [int(part) for part in version.split(".") if part.isdigit()]
    return tuple(numbers) or (999,)
