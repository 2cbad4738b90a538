"""Bad weather between a client and a server: a proxy on the loopback that delays, holds, cuts, refuses and lies on demand.

    with WireProxy(server.unix_socket_path) as wire:
        client = redis.asyncio.Redis.from_url(wire.url)
        wire.delay(to_server=0.05)
        wire.reply_with_error("OOM command not allowed when used memory > 'maxmemory'.", to={"EVALSHA"})

It runs in a thread with an event loop of its own, so that a test may block, and every method may be called from anywhere; when a method
returns, what it asked for is in force.
"""

import asyncio
import contextlib
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.harness.resp import Command, FrameSplitter, error_reply, is_push, parse_command

T = TypeVar("T")
Matcher = Callable[[Command], bool]

_CHUNK_BYTES = 65_536
_CALL_TIMEOUT = 5.0


class Rule:
    """What happens to the commands that it matches; made by the proxy's methods, and in force until ``remove()``."""

    def __init__(self, matches: Matcher, *, times: int | None) -> None:
        self._matches = matches
        self._times_left = times
        self._changed = threading.Condition()
        self.caught: list[Command] = []

    def takes(self, command: Command) -> bool:
        """Tell whether the rule applies to this command, and count it where it does."""
        if self._times_left == 0 or not self._matches(command):
            return False
        with self._changed:
            self.caught.append(command)
            if self._times_left is not None:
                self._times_left -= 1
            self._changed.notify_all()
        return True

    def remove(self) -> None:
        """Let every further command pass."""
        self._times_left = 0

    def wait_until_caught(self, count: int = 1, *, timeout: float = 10.0) -> None:
        """Block until ``count`` commands were caught; for async tests poll ``caught`` instead. Fails after ``timeout`` seconds."""
        with self._changed:
            reached = self._changed.wait_for(lambda: len(self.caught) >= count, timeout)
        assert reached, f"{len(self.caught)} of {count} commands were caught within {timeout} s"


class ErrorRule(Rule):
    """Answers in the server's place, which never sees the command."""

    def __init__(self, matches: Matcher, *, reply: bytes, times: int | None) -> None:
        super().__init__(matches, times=times)
        self.reply = reply


class HoldRule(Rule):
    """Keeps back the command and, as on any wire, all that the same client sends after it, until ``release()``."""

    def __init__(self, matches: Matcher, *, times: int | None, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(matches, times=times)
        self._loop = loop
        self._released = asyncio.Event()

    def release(self) -> None:
        """Deliver what was kept back, also where its sender has gone away since; nothing is kept back any more."""
        self.remove()
        self._loop.call_soon_threadsafe(self._released.set)

    async def wait_for_release(self) -> None:
        """Wait until ``release()``; inside the proxy only."""
        await self._released.wait()


@dataclass(slots=True)
class _Weather:
    """What holds for every connection; changed in the loop's thread only."""

    to_server_delay: float = 0.0
    to_client_delay: float = 0.0
    swallows_close: bool = False
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    rules: list[Rule] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)


class WireProxy:
    """Listens on a free loopback port and forwards to ``upstream``: the path of a unix socket, or a host and a port.

    ``database`` is the one that ``url`` names.
    """

    def __init__(self, upstream: str | tuple[str, int], *, database: int = 0) -> None:
        self._upstream = upstream
        self._database = database
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire-proxy", daemon=True)
        self._weather = _Weather()
        self._links: set[_Link] = set()
        self._accepted: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._connection_count = 0
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._weather.flowing.set()
        self._call(self._listen())
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_TIMEOUT)
        self._loop.close()

    @property
    def url(self) -> str:
        """The url of the server's database through this proxy."""
        return f"redis://127.0.0.1:{self.port}/{self._database}"

    @property
    def connection_count(self) -> int:
        """How many connections were ever accepted."""
        return self._connection_count

    @property
    def commands(self) -> list[Command]:
        """Every command that a client sent so far, in order."""
        return list(self._weather.commands)

    def command_counts(self) -> Counter[str]:
        """How often each command was sent so far, by its name."""
        return Counter(command[0].decode() for command in self.commands)

    def forget_commands(self) -> None:
        """Count from here."""
        self._weather.commands.clear()

    def delay(self, *, to_server: float = 0.0, to_client: float = 0.0) -> None:
        """Deliver everything so many seconds later, each way; throughput is left alone."""

        async def change() -> None:
            self._weather.to_server_delay, self._weather.to_client_delay = to_server, to_client

        self._call(change())

    def stall(self) -> None:
        """Keep everything back, both ways, with all connections open, until ``flow()``."""
        self._call_now(self._weather.flowing.clear)

    def flow(self) -> None:
        """End ``stall()``: what was kept back is delivered."""
        self._call_now(self._weather.flowing.set)

    def cut(self) -> None:
        """Close every connection on both sides; new ones are accepted."""

        async def cut() -> None:
            for link in list(self._links):
                link.cut_both()

        self._call(cut())

    def cut_clients(self) -> None:
        """Close every connection on the client's side; the server is told nothing, and what is held can still be delivered to it."""

        async def cut() -> None:
            for link in list(self._links):
                link.outlive_client()

        self._call(cut())

    def refuse(self) -> None:
        """Refuse new connections (ECONNREFUSED) and close the open ones, until ``accept()``: the server is down."""
        self._call(self._stop_listening())
        self.cut()

    def accept(self) -> None:
        """End ``refuse()``, on the same port."""
        self._call(self._listen())

    def lead_to(self, upstream: str | tuple[str, int]) -> None:
        """Take new connections to another server from now on, as the address of a service does after a failover."""

        def change() -> None:
            self._upstream = upstream

        self._call_now(change)

    def lose_hosts(self) -> None:
        """Let no client's end reach the server from now on: its connections stay open there, as those of a host that lost its power."""

        async def change() -> None:
            self._weather.swallows_close = True

        self._call(change())

    def reply_with_error(self, error: str, *, to: Collection[str] | Matcher, times: int | None = None) -> ErrorRule:
        """Answer the commands named, or matched, with this error; the server never sees them. In order, also within a pipeline.

        Inside MULTI the server does not know that a command was refused, and executes the others.
        """
        rule = ErrorRule(_matcher(to), reply=error_reply(error), times=times)
        self._call_now(lambda: self._weather.rules.append(rule))
        return rule

    def hold(self, what: Collection[str] | Matcher, *, times: int | None = 1) -> HoldRule:
        """Keep the commands named, or matched, back until ``release()``. With ``cut_clients()`` in between they are delivered late."""
        rule = HoldRule(_matcher(what), times=times, loop=self._loop)
        self._call_now(lambda: self._weather.rules.append(rule))
        return rule

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_TIMEOUT)

    def _call_now(self, action: Callable[[], object]) -> None:
        async def act() -> None:
            action()

        self._call(act())

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port, reuse_address=True)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connection_count += 1
        self._accepted.add(writer)
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if isinstance(self._upstream, str):
                upstream = await asyncio.open_unix_connection(self._upstream)
            else:
                upstream = await asyncio.open_connection(*self._upstream)
        except OSError:  # the server is down: so are we
            writer.transport.abort()
            return
        link = _Link(weather=self._weather, client=(reader, writer), server=upstream)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)
            self._accepted.discard(writer)

    async def _close(self) -> None:
        await self._stop_listening()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for writer in self._accepted:  # those whose task was cancelled before it had a link
            writer.transport.abort()
        await asyncio.sleep(0)  # the transports close in the loop's next round


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One client's connection, and ours to the server on its behalf."""

    def __init__(self, *, weather: _Weather, client: _Stream, server: _Stream) -> None:
        self._weather = weather
        self._client_reader, self._client_writer = client
        self._server_reader, self._server_writer = server
        self._requests = FrameSplitter()
        self._replies = FrameSplitter()
        self._owed: deque[bytes | None] = deque()  # for each command not yet answered: None for the server's reply, or ours
        self._outlives_client = False
        for writer in (self._client_writer, self._server_writer):
            transport_socket = writer.get_extra_info("socket")
            if transport_socket.family != socket.AF_UNIX:
                transport_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def run(self) -> None:
        """Forward both ways until either side ends, or for ever where the server must not learn of the client's end."""
        to_server: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        to_client: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        towards_server = [self._read_client(to_server), self._deliver(to_server, self._forward_requests)]
        towards_client = [self._read_server(to_client), self._deliver(to_client, self._forward_replies)]
        tasks = [asyncio.create_task(work) for work in (*towards_server, *towards_client)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.cut_both()  # before the next await, which may be cancelled
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def cut_both(self) -> None:
        """Close both connections, whatever is still on its way."""
        for writer in (self._client_writer, self._server_writer):
            writer.transport.abort()

    def outlive_client(self) -> None:
        """Close the client's connection and keep the server's."""
        self._outlives_client = True
        self._client_writer.transport.abort()

    async def _read_client(self, deliveries: asyncio.Queue[tuple[float, bytes]]) -> None:
        await self._read(self._client_reader, deliveries, lambda: self._weather.to_server_delay)
        await deliveries.join()
        if not (self._weather.swallows_close or self._outlives_client):
            self._server_writer.write_eof()  # it answers by closing, once it has read everything: that ends this link
        await asyncio.Event().wait()

    async def _read_server(self, deliveries: asyncio.Queue[tuple[float, bytes]]) -> None:
        await self._read(self._server_reader, deliveries, lambda: self._weather.to_client_delay)
        await deliveries.join()

    async def _read(self, reader: asyncio.StreamReader, deliveries: asyncio.Queue[tuple[float, bytes]], delay: Callable[[], float]) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(_CHUNK_BYTES):
                deliveries.put_nowait((loop.time() + delay(), chunk))

    async def _deliver(self, deliveries: asyncio.Queue[tuple[float, bytes]], forward: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_at, chunk = await deliveries.get()
            await asyncio.sleep(max(0.0, due_at - loop.time()))
            await self._weather.flowing.wait()
            await forward(chunk)
            deliveries.task_done()

    async def _forward_requests(self, chunk: bytes) -> None:
        for frame in self._requests.feed(chunk):
            command = parse_command(frame)
            self._weather.commands.append(command)
            rule = next((rule for rule in self._weather.rules if rule.takes(command)), None)
            if isinstance(rule, ErrorRule):
                self._owed.append(rule.reply)
                await self._pay()
                continue
            if isinstance(rule, HoldRule):
                await rule.wait_for_release()
            self._owed.append(None)
            self._server_writer.write(frame)
        await self._server_writer.drain()

    async def _forward_replies(self, chunk: bytes) -> None:
        for frame in self._replies.feed(chunk):
            self._write_to_client(frame)
            if not is_push(frame) and self._owed:  # a message of pub/sub answers nothing
                self._owed.popleft()
            await self._pay()
        with contextlib.suppress(ConnectionError):  # the client is gone: whether that is the server's concern, the reading side decides
            await self._client_writer.drain()

    async def _pay(self) -> None:
        while self._owed and (reply := self._owed[0]) is not None:
            self._owed.popleft()
            self._write_to_client(reply)

    def _write_to_client(self, data: bytes) -> None:
        if not self._client_writer.transport.is_closing():
            self._client_writer.write(data)


def _matcher(to: Collection[str] | Matcher) -> Matcher:
    if callable(to):
        return to
    names = frozenset(name.upper().encode() for name in to)
    return lambda command: bool(command) and command[0] in names
