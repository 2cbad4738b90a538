"""A server that is reached with TLS: by itself, where it was built with it, else behind a listener of ours that ends TLS before it."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from async_tracker import StorageUnavailable
from async_tracker.embedded import EmbeddedServer

_AT_ONCE = 65_536


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
