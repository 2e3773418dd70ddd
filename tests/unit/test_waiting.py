"""Lines keep to the order in which people came, whoever of them waits first."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest

from kvstore.waiting import Line, ThreadLine


async def test_who_came_first_is_served_first_though_he_waits_late() -> None:
    line, served = Line(), list[int]()
    places = [line.join() for _ in range(5)]

    async def wait(place: int) -> None:
        assert await line.wait(place, None)
        served.append(place)
        line.leave(place)

    assert not line.is_waiting
    tasks = []
    for number in (3, 1, 4):
        tasks.append(asyncio.create_task(wait(places[number])))
        await asyncio.sleep(0)
    assert line.is_waiting
    line.leave(places[0])  # he has found something for himself
    assert served == []
    tasks.append(asyncio.create_task(wait(places[2])))
    await asyncio.gather(*tasks)
    assert served == places[1:]
    assert not line.is_waiting


@pytest.mark.parametrize("turns", range(4))
async def test_who_gives_up_holds_up_nobody(turns: int) -> None:
    """Out of time, cancelled in the line, and cancelled as the turn comes."""
    line = Line()
    head = line.join()

    async def wait(place: int, most: float | None) -> bool:
        try:
            return await line.wait(place, most)
        finally:
            line.leave(place)

    assert await line.wait(head, None)
    assert not await wait(line.join(), 0.001)
    waiting = asyncio.create_task(wait(line.join(), None))
    behind = asyncio.create_task(wait(line.join(), None))
    await asyncio.sleep(0)
    line.leave(head)
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        assert await waiting
    assert await asyncio.wait_for(behind, 5)
    assert not line.is_waiting


def test_threads_are_served_in_the_order_in_which_they_came() -> None:
    line, served = ThreadLine(), list[int]()
    head, *places = (line.join() for _ in range(4))
    stand = [threading.Event() for _ in places]

    def wait(place: int, stands: threading.Event) -> None:
        stands.set()
        assert asyncio.run(line.wait(place, 10))
        served.append(place)
        line.leave(place)

    assert asyncio.run(line.wait(head, None))
    threads = []
    for number in (2, 0, 1):
        threads.append(threading.Thread(target=wait, args=(places[number], stand[number])))
        threads[-1].start()
        assert stand[number].wait(10)
    late = line.join()
    assert not asyncio.run(line.wait(late, 0.001))
    line.leave(late)
    line.leave(head)
    for thread in threads:
        thread.join(10)
    assert served == places
