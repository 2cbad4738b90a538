"""Redis that is more than one server: three sentinels over a primary and two replicas, and a cluster of three primaries and a replica."""

import itertools
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.crc import key_slot

from async_tracker.embedded import EmbeddedServer, end_with_parent, find_server_binary
from tests.harness.ports import ports
from tests.harness.tls import Fronts, make_certificate
from tests.harness.wait import wait_until_sync

PASSWORD, SENTINEL_PASSWORD = "m@st:er/", "s3nt?inel"
QUOTED, SENTINEL_QUOTED = "m%40st%3Aer%2F", "s3nt%3Finel"
INSIDER = "insider"
"""The user by which servers and sentinels talk to each other, where others need TLS."""
_REPLICATION = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class _Servers(ABC):
    """Several servers, which are all ended with the block, or where one of them does not start."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._take_port = self._stack.enter_context(ports())
        self.certificate: Path | None = None
        """With TLS, the file with the authority of all certificates."""
        self._fronts: Fronts | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:  # whatever it was, no server stays behind
            self._stack.close()
            raise
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._stack.close()

    @property
    def refused(self) -> int:
        """How many connections came to one of them without TLS that must not."""
        return self._fronts.refused if self._fronts is not None else 0

    def _take_tls_alone(self, folder: Path) -> None:
        """Have others reach them by TLS alone."""
        self.certificate, key = make_certificate(folder)
        self._fronts = self._stack.enter_context(Fronts(self.certificate, key))

    def _fronted(self, behind: int, *, word: str | None = None) -> int:
        """Give the port by which others reach what listens on this one: itself, or one with TLS, but for servers that say the word."""
        if self._fronts is None:
            return behind
        port = self._take_port()
        self._fronts.listen(port, behind=behind, word=word.encode() if word is not None else None)
        return port

    @abstractmethod
    def _start(self) -> None:
        """Start them all."""


class Sentinels(_Servers):
    """Three sentinels that watch over ``main``: a primary and two replicas, all with passwords; with ``tls`` all are reached by it alone.

    What a test does here goes past TLS, to the servers themselves.
    """

    def __init__(self, folder: Path, *, binary: Path | None, tls: bool = False) -> None:
        super().__init__()
        self._folder = folder
        self._binary = binary
        self.servers: dict[int, EmbeddedServer] = {}
        """By the ports by which the sentinels know them."""
        self.ports: list[int] = []
        """Of the sentinels."""
        self._asked: list[int] = []
        """The ports by which others ask the sentinels."""
        self._has_tls = tls

    @property
    def url(self) -> str:
        """The url that leads to the primary."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._asked)
        url = f"redis+sentinel://:{QUOTED}@{hosts}/main/0?sentinel_password={SENTINEL_QUOTED}"
        return url if self.certificate is None else f"{url.replace('redis', 'rediss', 1)}&ssl_ca_certs={self.certificate}"

    @property
    def shown(self) -> str:
        """The same as it may be shown."""
        scheme = "redis" if self.certificate is None else "rediss"
        return f"{scheme}+sentinel://{','.join(f'127.0.0.1:{port}' for port in self._asked)}/main/0"

    def _start_server(self, *auth: str) -> None:
        own = self._take_port()
        known = self._fronted(own, word=INSIDER)
        announced = ("--replica-announce-port", f"{known}") if known != own else ()
        server = EmbeddedServer(binary=self._binary, port=own, extra_args=(*auth, *announced, *_REPLICATION))
        self.servers[known] = self._stack.enter_context(server)

    def _start(self) -> None:
        auth = ["--requirepass", PASSWORD, "--masterauth", PASSWORD]
        insider = ""
        if self._has_tls:
            self._take_tls_alone(self._folder)
            auth += ["--masteruser", INSIDER, "--user", INSIDER, "on", f">{PASSWORD}", "~*", "&*", "+@all"]
            insider = f"sentinel auth-user main {INSIDER}\n"
        for _ in range(3):
            self._start_server(*auth)
        primary, *replicas = self.servers
        for port in replicas:
            self.client(port).execute_command("REPLICAOF", "127.0.0.1", primary)
        self.ports = [self._take_port() for _ in range(3)]
        for port in self.ports:
            folder = self._folder / f"sentinel-{port}"
            folder.mkdir()
            config = folder / "sentinel.conf"
            config.write_text(
                f'port {port}\nbind 127.0.0.1\ndir "{folder}"\nrequirepass "{SENTINEL_PASSWORD}"\n'
                f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"\nsentinel monitor main 127.0.0.1 {primary} 2\n'
                f'sentinel auth-pass main "{PASSWORD}"\n{insider}sentinel down-after-milliseconds main 1000\n'
                "sentinel failover-timeout main 3000\nsentinel parallel-syncs main 2\n"
            )
            command = [str(self._binary or find_server_binary()), str(config), "--sentinel"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=end_with_parent())
            self._stack.callback(process.wait)
            self._stack.callback(process.kill)
        self._asked = [self._fronted(port) for port in self.ports]
        wait_until_sync(self.is_whole, timeout=60, description="the sentinels know each other and both replicas")

    def client(self, port: int) -> "redis.Redis":
        """Make a client of one of the servers, by the port by which the sentinels know it; it is closed at the end."""
        client = redis.Redis(port=self.servers[port].port or 0, password=PASSWORD)
        self._stack.callback(client.close)
        return client

    def _ask(self, port: int, *command: str) -> Any:
        with redis.Redis(port=port, password=SENTINEL_PASSWORD, protocol=2) as client:
            return client.execute_command(*command)

    def is_whole(self) -> bool:
        """Tell whether all sentinels know a primary with two replicas that follow it, and each other."""
        try:
            for port in self.ports:
                with redis.Redis(port=port, password=SENTINEL_PASSWORD) as client:
                    state = client.sentinel_master("main")
                    replicas = client.sentinel_slaves("main")
                healthy = [one for one in replicas if one["flags"] == "slave" and one["master-link-status"] == "ok"]
                if state["flags"] != "master" or state["num-other-sentinels"] != 2 or len(healthy) != 2:
                    return False
            return len({self.primary_of(port) for port in self.ports}) == 1
        except redis.RedisError:
            return False

    def primary_of(self, port: int) -> int:
        """Give the port of the server that a sentinel takes for the primary."""
        with redis.Redis(port=port, password=SENTINEL_PASSWORD) as client:
            found = client.sentinel_get_master_addr_by_name("main")
        return int(found[1])

    @property
    def primary(self) -> int:
        """The port of the server that most sentinels take for the primary."""
        told = sorted(self.primary_of(port) for port in self.ports)
        return told[1]

    def kill_primary(self) -> int:
        """Kill the primary; returns its port. `heal` brings it back, as a replica."""
        port = self.primary
        self.servers[port].kill()
        return port

    def promoted(self, *, instead_of: int) -> int:
        """Wait until the sentinels have another primary, and return its port."""

        def other() -> int | None:
            port = self.primary
            return port if port != instead_of and self.client_role(port) == "master" else None

        found = wait_until_sync(other, timeout=90, description="the sentinels have promoted a replica", poll_interval=0.1)
        assert found is not None
        return found

    def client_role(self, port: int) -> str:
        """Give what a server says that it is; '' where it does not answer."""
        try:
            with redis.Redis(port=self.servers[port].port or 0, password=PASSWORD) as client:
                return str(client.info("replication")["role"])
        except redis.RedisError:
            return ""

    def fail_over(self) -> None:
        """Ask for a failover while all is well."""
        self._ask(self.ports[0], "SENTINEL", "FAILOVER", "main")

    def heal(self) -> None:
        """Start what was killed, and wait until all follow one primary."""
        for server in self.servers.values():
            server.start()
        wait_until_sync(self.is_whole, timeout=90, description="all servers follow one primary", poll_interval=0.1)


class Cluster(_Servers):
    """Three primaries, each with a third of the slots, and a replica of the one that has the slot of ``tag``.

    With ``tls_folder``, for a certificate, all are reached by TLS alone, except by each other and by what a test does here.
    """

    def __init__(self, *, binary: Path | None, tag: str, tls_folder: Path | None = None) -> None:
        super().__init__()
        self._binary = binary
        self._tls_folder = tls_folder
        self._known: dict[int, EmbeddedServer] = {}
        """By the ports by which the cluster tells of them."""
        self.slot = key_slot(tag.encode())
        self.primaries: list[EmbeddedServer] = []
        self.replica: EmbeddedServer

    @property
    def nodes(self) -> list[EmbeddedServer]:
        return [*self.primaries, self.replica]

    @property
    def url(self) -> str:
        """The url that leads to the owner of the slot; it names the nodes that were no replicas from the beginning."""
        return self.shown if self.certificate is None else f"{self.shown}?ssl_ca_certs={self.certificate}"

    @property
    def shown(self) -> str:
        """The same as it may be shown."""
        scheme = "redis" if self.certificate is None else "rediss"
        return f"{scheme}+cluster://{','.join(f'127.0.0.1:{port}' for port in list(self._known)[:3])}"

    def client(self, server: EmbeddedServer) -> "redis.Redis":
        """Make a client of one node alone, which is closed at the end."""
        client = redis.Redis(port=server.port or 0, protocol=2)
        self._stack.callback(client.close)
        return client

    def _start(self) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-allow-replica-migration", "no", *_REPLICATION)
        if self._tls_folder is not None:
            self._take_tls_alone(self._tls_folder)
        for port in [self._take_port(bus=True) for _ in range(4)]:
            known = self._fronted(port, word="REPLCONF")
            announced = ("--cluster-announce-port", f"{known}") if known != port else ()
            server = EmbeddedServer(binary=self._binary, port=port, extra_args=(*options, *announced))
            self._known[known] = self._stack.enter_context(server)
        made = list(self._known.values())
        self.primaries, self.replica = made[:3], made[3]
        bounds = [16_384 * at // 3 for at in range(4)]
        for epoch, (server, (first, end)) in enumerate(zip(self.primaries, itertools.pairwise(bounds), strict=True), 1):
            self.client(server).execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)
            self.client(server).execute_command("CLUSTER ADDSLOTS", *range(first, end))
        for server in made[1:]:
            self.client(server).execute_command("CLUSTER MEET", "127.0.0.1", made[0].port or 0)
        self.wait(lambda: all(self._knows(server) == 4 for server in made), "all nodes know each other")
        self.client(self.replica).execute_command("CLUSTER REPLICATE", self.id_of(self.owner()))
        self.wait(lambda: all(self.is_well(server) for server in made), "all slots are served")
        following: Any = self.client(self.replica)
        self.wait(lambda: following.info("replication").get("master_link_status") == "up", "the replica follows")

    def wait(self, predicate: Callable[[], object], description: str) -> None:
        """Wait for a state of the cluster."""

        def held() -> object:
            try:
                return predicate()
            except redis.RedisError:
                return None

        wait_until_sync(held, timeout=90, description=description, poll_interval=0.05)

    def _knows(self, server: EmbeddedServer) -> int:
        return int(self.client(server).execute_command("CLUSTER INFO")["cluster_known_nodes"])

    def is_well(self, server: EmbeddedServer) -> bool:
        """Tell whether a node takes the cluster for healthy, with every slot served by three primaries."""
        client = self.client(server)
        is_ok: bool = client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
        return is_ok and len(client.execute_command(b"CLUSTER SLOTS")) >= 3

    def id_of(self, server: EmbeddedServer) -> str:
        """Give a node's id."""
        found = self.client(server).execute_command("CLUSTER MYID")
        return found.decode() if isinstance(found, bytes) else str(found)

    def owner(self) -> EmbeddedServer:
        """Give the node that has the slot, as the most nodes see it that answer."""
        votes: list[int] = []
        for server in [server for server in self.nodes if server.is_running()]:
            for first, last, primary, *_ in self.client(server).execute_command(b"CLUSTER SLOTS"):
                if first <= self.slot <= last:
                    votes.append(int(primary[1]))
        return self._known[max(votes, key=votes.count)]

    def is_replica(self, server: EmbeddedServer) -> bool:
        """Tell whether a node is a replica, by its own word."""
        client: Any = self.client(server)
        return bool(client.info("replication")["role"] == "slave")

    def another_primary(self) -> EmbeddedServer:
        """Give a primary that does not have the slot."""
        return next(server for server in self._masters() if server is not self.owner())

    def _masters(self) -> list[EmbeddedServer]:
        running = [server for server in self.nodes if server.is_running()]
        said: dict[Any, Any] = {server.port: self.client(server).info("replication") for server in running}
        return [server for server in running if said[server.port]["role"] == "master"]

    def move_slot(self, to: EmbeddedServer, *, half_way: float = 0.0) -> None:
        """Move the slot with all that is in it to another primary, as ``redis-cli --cluster reshard`` does.

        For ``half_way`` seconds some keys are there and some here: what asks is answered by ASK and TRYAGAIN then.
        """
        source = self.owner()
        giving, taking = self.client(source), self.client(to)
        taking.execute_command("CLUSTER SETSLOT", self.slot, "IMPORTING", self.id_of(source))
        giving.execute_command("CLUSTER SETSLOT", self.slot, "MIGRATING", self.id_of(to))
        while found := giving.execute_command("CLUSTER GETKEYSINSLOT", self.slot, 3):
            giving.execute_command("MIGRATE", "127.0.0.1", to.port or 0, "", 0, 5_000, "KEYS", *found)
            time.sleep(half_way)
            half_way = 0.0
        for client in (taking, giving, *(self.client(server) for server in self._masters() if server not in (source, to))):
            client.execute_command("CLUSTER SETSLOT", self.slot, "NODE", self.id_of(to))
