"""Where the SQL files are that make and upgrade a store: the one place that looks for them.

They lie in the folder `migrations/` of the source tree, and in an installed package, a wheel or a
frozen program in `kvstore/migrations/`. They are looked for beside this very code, never by the
name of another module: a checkout on `sys.path` and an installation of another version do not mix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from kvstore.errors import MissingDependencyError

__all__ = ["Script", "folder", "scripts"]

_FIRST = "0001_items.sql"
_FILE_NAME = re.compile(r"(\d{4})_\w+\.sql")


@dataclass(frozen=True, slots=True)
class Script:
    """One step of a schema, as its file has it."""

    number: int
    name: str
    text: str


@cache
def scripts(database: str) -> tuple[Script, ...]:
    """Return the steps for a database, in order.

    Args:
        database: `"sqlite"` or `"postgres"`.

    Raises:
        MissingDependencyError: the files did not come along with the code.
    """
    files = sorted((folder() / database).iterdir(), key=lambda file: file.name)
    return tuple(
        Script(int(match[1]), file.name, file.read_text("utf-8"))
        for file in files
        if (match := _FILE_NAME.fullmatch(file.name))
    )


def folder() -> Traversable:
    """Return the folder that holds one of SQL files for each database.

    Raises:
        MissingDependencyError: it did not come along with the code.
    """
    places = (resources.files("kvstore"), Path(__file__).parents[1])
    for place in places:
        found = place / "migrations"
        if (found / "sqlite" / _FIRST).is_file():
            return found
    raise MissingDependencyError(
        "kvstore's SQL files, kvstore/migrations/*/*.sql, are missing: this copy of it is "
        "incomplete. Install it again; a program that freezes it takes its data files along"
    )
