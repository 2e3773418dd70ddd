"""The collector pauses while somebody makes objects, and goes on afterwards."""

from __future__ import annotations

import gc
import threading

import pytest

from kvstore import InMemoryStore, ValueEncodingError, collecting
from kvstore.collecting import uncollected


def test_it_goes_on_when_the_last_one_is_done() -> None:
    assert gc.isenabled()
    entered, leave = threading.Event(), threading.Event()

    def make() -> None:
        with uncollected():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=make)
    with uncollected():
        thread.start()
        assert entered.wait(10)
        assert not gc.isenabled()
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_it_goes_on_where_there_is_always_one_who_makes_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with uncollected():
        with uncollected():
            assert not gc.isenabled()
        monkeypatch.setattr(collecting, "_LONGEST_S", -1.0)
        with uncollected():
            assert gc.isenabled()
        assert gc.isenabled()
    assert gc.isenabled()
    monkeypatch.undo()
    with uncollected():
        assert not gc.isenabled()


def test_one_that_is_off_stays_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


async def test_a_put_that_is_refused_leaves_it_on() -> None:
    async with InMemoryStore() as store:
        with pytest.raises(ValueEncodingError):
            await store.put_many(("a",), {"k": 1, "bad": {1, 2}})
        await store.put_many(("a",), {f"k{n}": n for n in range(1_000)})
    assert gc.isenabled()
