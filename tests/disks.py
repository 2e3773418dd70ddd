"""Directories for tests that care what is in a file, and not for how long it lasts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["memory_directory"]


@contextmanager
def memory_directory() -> Iterator[Path]:
    """Give a new directory, in memory where the system has a place for that: syncing is free."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="kvstore-test-", dir=memory) as directory:
        yield Path(directory)
