"""Servers that are reached with TLS: one by itself, where it was built with it, else behind a listener of ours that ends TLS before it;
and listeners before several servers that also talk to each other, as those behind Sentinel do."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from weakref import WeakSet

from async_tracker import StorageUnavailable
from async_tracker.embedded import EmbeddedServer

_AT_ONCE = 65_536
_HANDSHAKE = b"\x16"
"""With this byte begins what TLS sends first; no command of Redis does."""
_PING = b"*1\r\n$4\r\nPING\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsServer:
    """A server on a port that takes TLS alone, with a certificate of its own making."""

    port: int
    certificate: Path
    """In a file: its own authority."""
    plain_url: str
    """Another way to the same server, without TLS: for tests that look at it."""

    @property
    def url(self) -> str:
        """The url that leads there, and says by which authority to check the certificate."""
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={self.certificate}"


@asynccontextmanager
async def tls_server(folder: Path, *, port: int, binary: Path | None) -> AsyncIterator[TlsServer]:
    """Start one on this port, which ends with the block."""
    certificate, key = make_certificate(folder)
    own = ("--tls-port", f"{port}", "--tls-cert-file", f"{certificate}", "--tls-key-file", f"{key}", "--tls-ca-cert-file", f"{certificate}")
    server = EmbeddedServer(binary=binary, extra_args=(*own, "--tls-auth-clients", "no"))
    try:
        server.start()
    except StorageUnavailable as exc:
        if "TLS" not in str(exc) and "tls" not in str(exc):
            raise
    else:
        with server:
            yield TlsServer(port=port, certificate=certificate, plain_url=server.url)
        return
    with EmbeddedServer(binary=binary) as plain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        listener = await _listen(port, plain.unix_socket_path, context)
        try:
            yield TlsServer(port=port, certificate=certificate, plain_url=plain.url)
        finally:
            listener.close()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 and its key, by the program ``openssl``. Returns their files."""
    program = shutil.which("openssl")
    assert program is not None, "the tests of TLS make a certificate with openssl: install it"
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    made = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", f"{key}", "-out", f"{certificate}")
    subprocess.run([program, *made, *names], check=True, capture_output=True)
    return certificate, key


async def _listen(port: int, path: str, context: ssl.SSLContext) -> asyncio.Server:
    """Listen for TLS, and pass on what comes, until either end closes: then so is the other, as by a server itself."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_unix_connection(path)
        both = [asyncio.create_task(_pass_on(reader, behind_writer)), asyncio.create_task(_pass_on(behind_reader, writer))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            for end in (writer, behind_writer):
                end.close()

    return await asyncio.start_server(take, "127.0.0.1", port, ssl=context)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # the end of a killed client's connection may be no orderly one
        while data := await reader.read(_AT_ONCE):
            writer.write(data)
            await writer.drain()


class Fronts:
    """Listeners that take TLS alone, each before a server that listens without; in a thread, so that they outlast the loop of a test.

    Servers that talk to each other by these addresses do so without TLS: they are let through by a word that they alone say, as the
    name of their own user, and nothing else that comes without TLS is.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fronts", daemon=True)
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: WeakSet[asyncio.BaseTransport] = WeakSet()
        self.refused = 0
        """How many connections came without TLS, and without the word."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        for listener in self._listeners:
            listener.close()

    async def _end(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in self._transports:
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()  # one with TLS would wait for the other end's farewell
        await asyncio.sleep(0.05)

    def listen(self, port: int, *, behind: int, word: bytes | None = None) -> None:
        """Listen on a port for what another port's server is to be asked."""
        listener = socket.create_server(("127.0.0.1", port), backlog=100)
        listener.setblocking(False)
        self._listeners.append(listener)
        asyncio.run_coroutine_threadsafe(self._begin(self._accept(listener, behind, word)), self._loop).result()

    async def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, behind: int, word: bytes | None) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            await self._begin(self._take(client, behind, word))

    async def _take(self, client: socket.socket, behind: int, word: bytes | None) -> None:
        with client, suppress(OSError):  # a handshake that fails, a server that is down: the connection ends
            is_tls = await self._first_byte(client) == _HANDSHAKE
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, client.dup(), ssl=self._context if is_tls else None)
            self._transports.add(transport)
            writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
            try:
                behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", behind)
                self._transports.add(behind_writer.transport)
                try:
                    inwards = _pass_on(reader, behind_writer) if is_tls else self._let_in(reader, behind_writer, word)
                    both = [self._loop.create_task(inwards), self._loop.create_task(_pass_on(behind_reader, writer))]
                    try:
                        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for task in both:
                            task.cancel()
                        await asyncio.gather(*both, return_exceptions=True)
                finally:
                    behind_writer.close()
            finally:
                writer.close()

    async def _first_byte(self, client: socket.socket) -> bytes:
        """Look at what comes first, and leave it there."""
        ready = asyncio.Event()
        self._loop.add_reader(client, ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_reader(client)
        return client.recv(1, socket.MSG_PEEK)

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word: bytes | None) -> None:
        """Pass on what comes without TLS, if it begins with the word; before it, servers may ask each other whether they are there."""
        first = await reader.read(_AT_ONCE)
        while first == _PING:
            writer.write(first)
            await writer.drain()
            first = await reader.read(_AT_ONCE)
        if word is None or word not in first:
            self.refused += bool(first)
            return
        writer.write(first)
        await writer.drain()
        await _pass_on(reader, writer)
