"""What an adapter needs of its framework: there, and new enough, or an error that says which."""

from __future__ import annotations

import re
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from kvstore.distribution import how_to_install
from kvstore.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["needing"]


@contextmanager
def needing(what: str, distribution: str, least: str, *, extra: str) -> Iterator[None]:
    """Import a framework for an adapter.

    Args:
        what: the adapter's name.
        distribution: that of the framework.
        least: its first version that will do; the extra says the same.
        extra: which one of ours brings it.

    Raises:
        MissingDependencyError: it is not there, is older, or cannot be imported.
    """
    there = _installed(distribution)
    said = f"{what} needs {distribution} {least} or newer"
    remedy = how_to_install(extra, f"'{distribution}>={least}'")
    if there is not None and _numbers(there) < _numbers(least):
        raise MissingDependencyError(f"{said}, and {there} is installed: {remedy}")
    try:
        yield
    except ImportError as exc:
        if there is None:
            raise MissingDependencyError(f"{said}: {remedy}") from exc
        raise MissingDependencyError(
            f"{said}; {there} is installed, and its import fails ({exc}): {remedy}"
        ) from exc


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:  # not there, or in a frozen program
        return None


def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with; a pre-release counts as what it is before."""
    release = re.match(r"\d+(?:\.\d+)*", text)
    numbers = [*map(int, release[0].split("."))] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
