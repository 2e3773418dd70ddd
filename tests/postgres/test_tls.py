"""TLS: what each mode demands, and what is said when it is not to be had.

Before the real server stands one that does for it what `ssl = on` does: it answers the request for
TLS, and passes on what comes over it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kvstore import InvalidArgumentError, StoreAccessError

from .server import Server, reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore.postgres import PostgresStore

trustme: Any = pytest.importorskip("trustme")

NS = ("a",)
_LENGTH_OF_REQUEST = 8


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Any:
    """Who signs certificates; its own is in `ca.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


@asynccontextmanager
async def front(
    server: Server, certificate: Any | None, *, of_clients: Any | None = None
) -> AsyncIterator[int]:
    """Stand before a server, on a port; without a certificate, refuse TLS as one without it does.

    Args:
        server: which.
        certificate: to show.
        of_clients: the authority of those that clients must show.
    """
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        if of_clients is not None:
            of_clients.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
    path = f"{parse_qs(urlsplit(server.url).query)['host'][0]}/.s.PGSQL.5432"
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(path)
        try:
            first = await reader.readexactly(_LENGTH_OF_REQUEST)
            if first[:4] == _LENGTH_OF_REQUEST.to_bytes(4) and context is not None:
                writer.write(b"S")
                await writer.start_tls(context)
            elif first[:4] == _LENGTH_OF_REQUEST.to_bytes(4):
                writer.write(b"N")
            else:
                back.write(first)
            await asyncio.gather(pump(reader, back), pump(there, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            back.transport.abort()
            writer.transport.abort()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(carry(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def url_of(port: int, options: str, host: str = "localhost") -> str:
    return f"postgresql://postgres@{host}:{port}/postgres?{options}"


async def failure(url: str, *, within: float = 4.0) -> str:
    began = time.monotonic()
    with pytest.raises((StoreAccessError, InvalidArgumentError)) as caught:
        await PostgresStore(url, busy_timeout=5).open()
    assert time.monotonic() - began < within
    return str(caught.value)


@pytest.mark.parametrize(
    "mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
)
async def test_each_mode_works_where_it_has_what_it_demands(
    server: Server, authority: Any, tmp_path: Path, mode: str
) -> None:
    async with front(server, authority.issue_cert("localhost")) as port:
        options = f"sslmode={mode}&sslrootcert={tmp_path}/ca.pem"
        async with PostgresStore(url_of(port, options)) as store:
            await store.put(NS, "k", 1)
            await asyncio.gather(*(store.count(NS) for _ in range(5)))


async def test_nothing_is_asked_of_a_server_without_tls_unless_it_must_have_it(
    server: Server,
) -> None:
    async with front(server, None) as port:
        async with PostgresStore(url_of(port, "sslmode=prefer")) as store:
            await store.put(NS, "k", 1)
        async with PostgresStore(url_of(port, "")) as store:
            assert await store.count(NS) == 1
        said = await failure(url_of(port, "sslmode=require"))
    assert "does not speak TLS" in said
    assert "ssl = on" in said


async def test_a_certificate_of_an_unknown_authority(
    server: Server, authority: Any, tmp_path: Path
) -> None:
    async with front(server, trustme.CA().issue_cert("localhost")) as port:
        for mode in ("require", "verify-ca", "verify-full"):
            options = f"sslmode={mode}&sslrootcert={tmp_path}/ca.pem"
            said = await failure(url_of(port, options))
            assert "authority that is not known" in said
            assert "sslrootcert=" in said


async def test_a_certificate_for_another_host(
    server: Server, authority: Any, tmp_path: Path
) -> None:
    trusted = f"sslrootcert={tmp_path}/ca.pem"
    async with front(server, authority.issue_cert("db.example")) as port:
        for host in ("localhost", "127.0.0.1"):
            said = await failure(url_of(port, f"sslmode=verify-full&{trusted}", host))
            assert "not for this host name" in said
        async with PostgresStore(url_of(port, f"sslmode=verify-ca&{trusted}")) as store:
            await store.count(NS)


async def test_a_certificate_that_is_over(server: Server, authority: Any, tmp_path: Path) -> None:
    over = authority.issue_cert("localhost", not_after=datetime.now(UTC) - timedelta(days=1))
    async with front(server, over) as port:
        said = await failure(url_of(port, f"sslmode=verify-full&sslrootcert={tmp_path}/ca.pem"))
    assert "not valid today" in said


async def test_clients_that_must_show_a_certificate(
    server: Server, authority: Any, tmp_path: Path
) -> None:
    trusted = f"sslmode=verify-full&sslrootcert={tmp_path}/ca.pem"
    mine = authority.issue_cert("client")
    mine.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    mine.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    shown = f"{trusted}&sslcert={tmp_path}/client.pem&sslkey={tmp_path}/client.key"
    async with front(server, authority.issue_cert("localhost"), of_clients=authority) as port:
        async with PostgresStore(url_of(port, shown)) as store:
            await store.count(NS)
        assert await failure(url_of(port, trusted))


async def test_files_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = await failure(url_of(port, f"sslmode=verify-full&sslrootcert={tmp_path}/no.pem"))
        assert "sslrootcert=" in said
        assert "no.pem" in said
        said = await failure(url_of(port, "sslmode=verify-full"))
        assert "certificate of the authority" in said
        said = await failure(url_of(port, "sslmode=sometimes"))
        assert "sslmode is one of disable" in said
        monkeypatch.setenv("PGSSLCERT", str(tmp_path / "none.pem"))
        assert "sslcert=" in await failure(url_of(port, "sslmode=require"))
