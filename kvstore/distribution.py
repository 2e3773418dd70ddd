"""What this package is called where it is installed from, its version, and how to get its extras.

The distribution's name is not the import name: `kvstore` on the public index is another project.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kvstore.errors import MissingDependencyError

__all__ = ["NAME", "VERSION", "how_to_install", "or_install"]

NAME: Final = "agent-kvstore"
VERSION: Final = "0.1.0"  # pyproject.toml reads it from here


def how_to_install(extra: str, *packages: str) -> str:
    """Return what to type for an extra of this distribution, or for what the extra brings."""
    return f"pip install '{NAME}[{extra}]', or pip install {' '.join(packages)}"


@contextmanager
def or_install(said: str, extra: str, *packages: str) -> Iterator[None]:
    """Import optional packages, or say what needs them and how to get them.

    Raises:
        MissingDependencyError: one cannot be imported.
    """
    try:
        yield
    except ImportError as exc:
        raise MissingDependencyError(f"{said}: {how_to_install(extra, *packages)}") from exc
