"""File systems that fill up, turn read-only or go away under an open store, each by its own error.

Each program runs in a mount namespace of its own, which takes the rights of root.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import kvstore
from kvstore.sqlite.openfile import LOOK_S

ROOT = Path(__file__).parents[2]
NS = ("a",)


def run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


def run_freely(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def can_mount() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    trial = (
        "folder=$(mktemp -d) && mount -t tmpfs tmpfs $folder && umount $folder; it=$?\n"
        "rmdir $folder; exit $it"
    )
    return run_freely("unshare", "-m", "sh", "-c", trial).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_mount(), reason="nothing can be mounted here"),
]


# What runs in a namespace of its own


async def fill(store: kvstore.Store, folder: Path) -> str:
    """Write until there is no room; what is there can be read, and deleted to make room."""
    for length in (50_000, 5_000, 500):
        with contextlib.suppress(kvstore.StoreFullError):
            for number in range(1_000):
                await store.put(NS, f"{length} {number}", "x" * length)
    refused = await outcome(store.put(NS, "late", 1))
    assert (await store.get(NS, "early")).value == 1  # type: ignore[union-attr]
    assert (await store.check()).ok
    return refused


async def unmount(store: kvstore.Store, folder: Path) -> str:
    run("umount", "--lazy", folder)
    await asyncio.sleep(LOOK_S)
    return await outcome(store.put(NS, "late", 1))


async def mount_over(store: kvstore.Store, folder: Path) -> str:
    run("mount", "-t", "tmpfs", "tmpfs", folder)
    await asyncio.sleep(LOOK_S)
    return await outcome(store.put(NS, "late", 1))


async def fail(store: kvstore.Store, folder: Path) -> str:
    """Have the file system take note of an error of the disk, and turn read-only."""
    (device,) = [
        line.split()[0] for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[1] == str(folder)
    ]  # fmt: skip
    Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1")
    refused = await outcome(store.put(NS, "late", 1))
    assert (await store.get(NS, "early")).value == 1  # type: ignore[union-attr]
    return refused


PROGRAMS: dict[str, Callable[[kvstore.Store, Path], Awaitable[str]]] = {
    program.__name__: program for program in (fill, unmount, mount_over, fail)
}


async def outcome(call: Awaitable[object]) -> str:
    try:
        await call
    except kvstore.StoreError as exc:
        return f"{type(exc).__name__}: {exc}"
    return "it was acknowledged"


async def main(name: str, folder: Path, image: str) -> None:
    source = ["-o", "size=1m", "-t", "tmpfs", "tmpfs"]
    if image:
        source = ["-o", "loop,errors=remount-ro", "-t", "ext4", image]
    run("mount", *source, folder)
    store = await kvstore.SQLiteStore(folder / "store.db", sweep_interval=None).open()
    await store.put(NS, "early", 1)
    print(await PROGRAMS[name](store, folder))
    with contextlib.suppress(kvstore.StoreError):
        await store.close()


def start(name: str, folder: Path, image: Path | str = "") -> str:
    program = (sys.executable, "-m", "tests.faults.test_mounts", name, str(folder), str(image))
    done = run_freely("unshare", "-m", *program)
    assert done.returncode == 0, done.stderr
    return done.stdout


# The tests


def test_a_small_file_system_that_is_full_says_so(tmp_path: Path) -> None:
    assert start("fill", tmp_path).startswith("StoreFullError: ")


@pytest.mark.parametrize("name", ["unmount", "mount_over"])
def test_a_file_that_was_mounted_away_is_noticed(tmp_path: Path, name: str) -> None:
    assert start(name, tmp_path).startswith("StoreReplacedError: ")


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="needs mkfs.ext4")
def test_a_file_system_that_turns_read_only_says_so(tmp_path: Path) -> None:
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
    run("mkfs.ext4", "-q", image)
    said = start("fail", folder, image)
    assert said.startswith("ReadOnlyError: ")
    assert "its file system is read-only now" in said


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
