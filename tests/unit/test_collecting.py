"""The collector pauses while somebody makes objects, and goes on afterwards."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from kvstore import InMemoryStore, ValueEncodingError, collecting
from kvstore.collecting import uncollected


def is_paused() -> bool:
    return gc.get_threshold()[0] > 1_000_000


def test_it_goes_on_when_the_last_one_is_done() -> None:
    assert not is_paused()
    entered, leave = threading.Event(), threading.Event()

    def make() -> None:
        with uncollected():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=make)
    with uncollected():
        thread.start()
        assert entered.wait(10)
        assert is_paused()
    assert is_paused()
    leave.set()
    thread.join()
    assert not is_paused()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_it_goes_on_in_a_child_of_a_process_in_which_it_pauses() -> None:
    entered, leave = threading.Event(), threading.Event()

    def make() -> None:
        with uncollected():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=make)
    thread.start()
    assert entered.wait(10)
    child = os.fork()
    if not child:
        was_paused = is_paused()
        with uncollected():
            is_paused_again = is_paused()
        os._exit(was_paused or not is_paused_again or is_paused())
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert not is_paused()


def test_it_goes_on_where_there_is_always_one_who_makes_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with uncollected():
        with uncollected():
            assert is_paused()
        monkeypatch.setattr(collecting, "_LONGEST_S", -1.0)
        with uncollected():
            assert not is_paused()
        assert not is_paused()
    assert not is_paused()
    monkeypatch.undo()
    with uncollected():
        assert is_paused()


def test_one_that_is_off_stays_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_the_program_says_meanwhile_holds() -> None:
    before = gc.get_threshold()
    try:
        with uncollected():
            gc.disable()
        assert not gc.isenabled()
        with uncollected():
            gc.enable()
        assert gc.isenabled()
        with uncollected():
            gc.set_threshold(123)
        assert gc.get_threshold()[0] == 123
    finally:
        gc.enable()
        gc.set_threshold(*before)


def test_nothing_is_collected_in_a_pause() -> None:
    begun: list[str] = []

    def note(phase: str, _: dict[str, int]) -> None:
        begun.append(phase)

    gc.callbacks.append(note)
    try:
        with uncollected():
            kept = [[number] for number in range(200_000)]
            assert not begun
        kept += [[number] for number in range(1_000)]
        assert begun
    finally:
        gc.callbacks.remove(note)


async def test_a_put_that_is_refused_leaves_it_on() -> None:
    async with InMemoryStore() as store:
        with pytest.raises(ValueEncodingError):
            await store.put_many(("a",), {"k": 1, "bad": {1, 2}})
        await store.put_many(("a",), {f"k{n}": n for n in range(1_000)})
    assert not is_paused()
