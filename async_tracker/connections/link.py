"""The connection that speaks for an instance.

It is made like the connections of a pool (same address, user and TLS) and does not count as one of them: a limited pool keeps all
its connections for the jobs, and an exhausted pool never silences a healthy instance. It has a name and an id by which the server
can be asked whether it is still there. It notices at once when it is cut. A forked child closes it: otherwise the child would keep
its dead parent alive.
"""

import asyncio
import functools
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as async_redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError, TimeoutError
from redis.retry import Retry as SyncRetry

from async_tracker.connections.access import SOCKET_TIMEOUT, check_mode
from async_tracker.connections.calls import call, let_be_left, translated
from async_tracker.connections.counterparts import sync_counterpart
from async_tracker.connections.replies import info_of
from async_tracker.errors import StorageError
from async_tracker.forks import on_fork
from async_tracker.namespace import Namespace

_NOT_INHERITED = {
    "client_name",
    "redis_connect_func",
    "decode_responses",
    "encoding",
    "encoding_errors",
    "retry_on_error",
    "retry_on_timeout",
}


class OneAtATime(async_redis.ConnectionPool):
    """A pool of one connection, which commands get in the order in which they ask for it.

    The driver's own pool gives it to a task that asks again at once, before those that have waited: a sweep of many commands would
    keep everything else waiting until its end. And it looks into the socket before each command, which is a good part of what that costs:
    it is left out where ``hears_end`` says that the end of a connection would have been heard of, unless the last command raised. A
    callback of the driver's that fails in the middle of a pipeline leaves the rest of the replies unread.
    """

    def __init__(self, *, hears_end: Callable[[Any], bool], **options: Any) -> None:
        super().__init__(max_connections=1, **options)
        self._hears_end = hears_end
        self._has_raised = False
        self._turn = asyncio.Lock()  # it is given in the order of asking

    async def get_connection(self, *command: Any, **options: Any) -> Any:
        """Wait for our turn, and connect if need be."""
        await self._turn.acquire()
        try:
            return await super().get_connection(*command, **options)
        except BaseException:  # a cancellation too: the next one must have its turn
            self._end_turn()
            raise

    async def ensure_connection(self, connection: Any) -> None:
        """Have the connection ready for a command."""
        if self._hears_end(connection) and not self._has_raised:
            await connection.connect()  # nothing, unless another server is to be asked
        else:
            await super().ensure_connection(connection)
        self._has_raised = False

    async def release(self, connection: Any) -> None:
        """Take the connection back, and let the next one have it. The driver does this where it leaves a command, however it ended."""
        self._has_raised = sys.exc_info()[0] is not None
        try:
            await super().release(connection)
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        if self._turn.locked():  # the driver's pool has released a connection that could not be made
            self._turn.release()


class _SendsInPlace:
    """Sends within its ``socket_timeout`` as the driver does, and without the task that Python 3.11's ``wait_for`` makes for that."""

    socket_timeout: float | None
    is_connected: bool

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        seconds = self.socket_timeout
        if not seconds or not self.is_connected:
            await super().send_packed_command(command, check_health)  # type: ignore[misc]
            return
        self.socket_timeout = None
        try:
            async with asyncio.timeout(seconds):
                await super().send_packed_command(command, check_health)  # type: ignore[misc]
        except asyncio.TimeoutError:
            raise TimeoutError("Timeout writing to socket") from None
        finally:
            self.socket_timeout = seconds


@functools.cache
def _sending_in_place(kind: type[Any]) -> type[Any]:
    """Give the class of connections that send so. From Python 3.12 on ``wait_for`` makes no task."""
    return kind if sys.version_info >= (3, 12) else type(kind.__name__, (_SendsInPlace, kind), {})


class Link:
    """One named connection with a client and a Namespace proxy on top; commands queue up for it.

    It connects when first used and again after it was lost; each time it learns its id and its server.
    """

    def __init__(
        self,
        client: Any,
        *,
        namespace: str,
        name: str,
        on_lost: Callable[[], None] | None = None,
        on_inherited: Callable[[], None] | None = None,
    ) -> None:
        """``client`` says how to connect. ``on_lost`` is called when the server has closed the connection, ``on_inherited`` in a child."""
        self._template = client
        self._on_lost = on_lost
        self._on_inherited = on_inherited
        self.name = name
        self.connection_id: int | None = None
        """The id that the server knows this connection by; None while there is none, or when it cannot be known."""
        self.is_evidence = False
        """Whether the server knows its connections by the names that we give them: else that it does not have one says nothing."""
        self.server_run_id = ""
        self.generation = 0
        """Grows with every connection that is made."""
        self.is_inherited = False
        """This is a forked child, and the connection is its parent's."""
        self._ended = False
        self._inner_connect = client.connection_pool.connection_kwargs.get("redis_connect_func")
        self._connection: Any = None
        self._watched: Any = None
        """The connection, if we hear of its end."""
        self.client = async_redis.Redis(connection_pool=self._pool(client.connection_pool))
        self.redis = Namespace(self.client, namespace)
        on_fork(self)

    def _pool(self, pool: Any) -> OneAtATime:
        kwargs = {name: value for name, value in pool.connection_kwargs.items() if name not in _NOT_INHERITED}
        kwargs["socket_timeout"] = kwargs.get("socket_timeout") or SOCKET_TIMEOUT
        if "path" not in kwargs:
            kwargs["socket_connect_timeout"] = kwargs.get("socket_connect_timeout") or SOCKET_TIMEOUT
        kwargs["retry"] = Retry(NoBackoff(), 0)  # whether to send a write again is the journal's decision
        return OneAtATime(
            hears_end=self._hears_end,
            connection_class=_sending_in_place(pool.connection_class),
            redis_connect_func=self._connected,
            **kwargs,
        )

    def _hears_end(self, connection: Any) -> bool:
        """Tell whether we hear of a connection's end when it comes, and have not."""
        return connection is self._watched and not self._ended

    async def _connected(self, connection: Any) -> None:
        if self._inner_connect is None:
            await connection.on_connect()
        else:
            waited = self._inner_connect(connection)
            if waited is not None:
                await waited
        self._connection = connection
        named = await self._ask(connection, "CLIENT", "SETNAME", self.name)
        identity = await self._ask(connection, "CLIENT", "ID")
        info = info_of(await self._ask(connection, "INFO", "server"))
        try:
            check_mode(self._template, info)
        except StorageError as exc:  # the driver closes a connection that is not wanted if the error is one of its own
            raise ResponseError(str(exc)) from exc
        shown = await self._ask(connection, "CLIENT", "LIST", "ID", str(identity))
        self.is_evidence = named is not None and isinstance(identity, int) and _shows(shown, self.name)
        self.connection_id = identity if self.is_evidence else None
        self.server_run_id = info.get("run_id", "")
        self.generation += 1
        self._ended = False
        self._watch(connection)

    async def _ask(self, connection: Any, *command: str) -> Any:
        await connection.send_command(*command)
        try:
            return await connection.read_response()
        except ResponseError:  # not allowed, or not known to this server: then there is no such evidence
            return None

    def _watch(self, connection: Any) -> None:
        """Hear of the end of the stream when it comes, not when the next command fails."""
        writer = getattr(connection, "_writer", None)  # redis-py has no public way to the transport
        self._watched = connection if writer is not None else None
        if writer is None:
            return
        protocol = writer.transport.get_protocol()
        eof_received, connection_lost = protocol.eof_received, protocol.connection_lost
        generation = self.generation

        def on_eof() -> Any:
            self._end(generation)
            return eof_received()

        def on_connection_lost(exc: Exception | None) -> None:
            self._end(generation)
            connection_lost(exc)

        protocol.eof_received, protocol.connection_lost = on_eof, on_connection_lost

    def _end(self, generation: int) -> None:
        if generation == self.generation and not self._ended:
            self._ended = True
            self.connection_id = None
            if self._on_lost is not None:
                self._on_lost()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self.generation > 0 and not self._ended

    async def ensure(self) -> None:
        """Connect unless connected. Raises StorageError when Redis is away."""
        if not self.is_open:
            await call(self.client, "PING")

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait until no command is under way, and let none begin until the block ends. Raises StorageError."""
        alone = self.client.client()
        with translated():
            await alone.initialize()
        try:
            yield
        finally:
            await alone.aclose()

    @property
    def address(self) -> tuple[str, int] | None:
        """Where the connection leads to at present; where the server is asked for, only the connection itself knows."""
        host, port = getattr(self._connection, "host", None), getattr(self._connection, "port", None)
        return (host, int(port)) if isinstance(host, str) and port is not None else None

    def sync_client(self, *, name: str, patience: float | None = None, anew: bool = False) -> Any:
        """Make a synchronous client of the same Redis with one connection, for a thread; named where that is evidence.

        With ``patience`` it tries once, and gives up after as many seconds for connecting and for each answer. It goes where the
        connection leads to at present; ``anew``: by itself, since that may be the wrong server by now.
        """
        overrides: dict[str, Any] = {
            "client_name": name if self.is_evidence else None,
            "max_connections": 1,
            "socket_timeout": SOCKET_TIMEOUT,
            "decode_responses": False,
            "retry": None,  # whether to say it again is for the thread to decide
        }
        if patience is not None:
            overrides |= {"socket_timeout": patience, "socket_connect_timeout": patience, "retry": SyncRetry(NoBackoff(), 0)}
        return sync_counterpart(self._template, address=None if anew else self.address, **overrides)

    def socket_fileno(self) -> int | None:
        """The descriptor of the connection; None while there is none."""
        writer = getattr(self._connection, "_writer", None)
        sock = writer.get_extra_info("socket") if writer is not None else None
        number = sock.fileno() if sock is not None else -1
        return number if number >= 0 else None

    async def aclose(self) -> None:
        """Close the connection; another use opens another one. It is closed also where the caller is cancelled meanwhile."""
        self._ended = True
        self.connection_id = None
        closing = asyncio.ensure_future(self.client.connection_pool.disconnect())
        let_be_left(closing)
        await asyncio.shield(closing)  # the driver closes in a task of its own, which does nothing if it is cancelled before it begins

    def forget_in_child(self) -> None:
        """Let go of the inherited socket without a word to the server."""
        self.is_inherited = True
        if self._on_inherited is not None:
            self._on_inherited()
        number = self.socket_fileno()
        self._ended = True
        self.connection_id = None
        silence(number)


def silence(number: int | None) -> None:
    """Put the null device in the place of an inherited socket; does nothing for None.

    The descriptor stays in use: if it were closed, the object that still holds its number could later close another file.
    """
    if number is not None:
        devnull = os.open(os.devnull, os.O_RDWR)
        os.dup2(devnull, number, inheritable=False)
        os.close(devnull)


def _shows(clients: Any, name: str) -> bool:
    """Tell whether a list of clients, where there is one, has our connection as we named it.

    A user may not be allowed to name it, and a proxy may have lent us one of its own.

    >>> _shows(b"id=7 name=async-tracker:ab db=0", "async-tracker:ab"), _shows(b"id=7 name= db=0", "async-tracker:ab")
    (True, False)
    >>> _shows(None, "async-tracker:ab")
    True
    """
    return not isinstance(clients, bytes) or f" name={name} ".encode() in clients
