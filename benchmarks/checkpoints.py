"""Measure the checkpointer: `python -m benchmarks.checkpoints [--quick]`.

`LangGraphCheckpointer` against LangGraph's own `AsyncSqliteSaver`: as it ships, which is WAL mode
with a sync for each commit; and with `synchronous=NORMAL`, which kvstore has by default. A chat
graph runs once for each thread over a saver that takes down what it is asked; then all savers do
just these calls, in the same order: one thread's one after the other, and those of 60 threads in 60
tasks at once. The whole graph is timed as well, which takes most of the time itself.

Rounds alternate between the savers, on new files, and who begins alternates, too. A ratio is the
median of the rounds' ratios: of wall time, and of the process's processor time. It writes
`results/checkpoints.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import string
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

from benchmarks.run import circumstances
from benchmarks.workloads import SEED
from kvstore.integrations.langgraph import LangGraphCheckpointer

BAR = 2.0  # times as fast as AsyncSqliteSaver
ROUNDS = 9
THREADS = 60
TURNS = (5, 40)  # of a chat: a short one, and a long one
TEXT = (80, 600)  # characters of a message

Call = tuple[str, tuple[Any, ...]]


class Took(NamedTuple):
    """Seconds: by the clock, and of the processors."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Row:
    """One saver at one work: milliseconds a turn of a chat, and how many times as fast ours is."""

    what: str
    saver: str
    ms: float
    cpu_ms: float
    speedup: float
    speedup_cpu: float
    bar: float | None

    @property
    def is_met(self) -> bool:
        """Whether the bar is met, if there is one."""
        return self.bar is None or self.speedup >= self.bar


# The graph


def texts(seed: int) -> Callable[[], str]:
    """Return what makes up texts that do not shrink to nothing."""
    generator = random.Random(seed)
    words = ["".join(generator.choices(string.ascii_lowercase, k=6)) for _ in range(2_000)]

    def text() -> str:
        return " ".join(generator.choices(words, k=generator.randint(*TEXT) // 7))

    return text


def chat(saver: Any, text: Callable[[], str]) -> Any:
    """Return a graph of a model and a tool, both scripted: three steps a turn."""

    def model(state: MessagesState) -> dict[str, Any]:
        if isinstance(state["messages"][-1], ToolMessage):
            return {"messages": [AIMessage(text())]}
        call = {"name": "look_up", "args": {"about": text()[:40]}, "id": f"call{text()[:8]}"}
        return {"messages": [AIMessage("", tool_calls=[call])]}

    def tool(state: MessagesState) -> dict[str, Any]:
        call: Any = state["messages"][-1]
        return {"messages": [ToolMessage(text(), tool_call_id=call.tool_calls[0]["id"])]}

    def route(state: MessagesState) -> str:
        return "tool" if getattr(state["messages"][-1], "tool_calls", None) else END

    graph = StateGraph(MessagesState)
    graph.add_node("model", model)
    graph.add_node("tool", tool)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", route, ["tool", END])
    graph.add_edge("tool", "model")
    return graph.compile(checkpointer=saver)


async def talk(saver: Any, thread: int, turns: int) -> None:
    """Run one chat."""
    text = texts(SEED + thread)
    graph = chat(saver, text)
    config = {"configurable": {"thread_id": f"thread-{thread}"}}
    for _ in range(turns):
        await graph.ainvoke({"messages": [HumanMessage(text())]}, config)


# What a graph asks of its saver


class Recorder(InMemorySaver):
    """A saver that takes down what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    async def aget_tuple(self, *given: Any) -> Any:
        self.calls.append(("aget_tuple", given))
        return await super().aget_tuple(*given)

    async def aput(self, *given: Any) -> Any:
        self.calls.append(("aput", given))
        return await super().aput(*given)

    async def aput_writes(self, *given: Any) -> None:
        self.calls.append(("aput_writes", given))
        await super().aput_writes(*given)


async def recorded(threads: int, turns: int) -> list[list[Call]]:
    """Return the calls of each thread's chat."""
    script = []
    for thread in range(threads):
        recorder = Recorder()
        await talk(recorder, thread, turns)
        script.append(recorder.calls)
    return script


async def replay(saver: Any, calls: Sequence[Call]) -> None:
    """Make the calls of one thread."""
    for name, given in calls:
        await getattr(saver, name)(*given)


# The contenders


@asynccontextmanager
async def ours(folder: Path) -> AsyncIterator[Any]:
    """Open kvstore's saver."""
    async with LangGraphCheckpointer.from_conn_string(str(folder / "ours.db")) as saver:
        yield saver


@asynccontextmanager
async def theirs(folder: Path) -> AsyncIterator[Any]:
    """Open LangGraph's saver as it ships."""
    async with AsyncSqliteSaver.from_conn_string(str(folder / "theirs.db")) as saver:
        await saver.setup()
        yield saver


@asynccontextmanager
async def theirs_normal(folder: Path) -> AsyncIterator[Any]:
    """Open LangGraph's saver with the durability that ours has."""
    async with theirs(folder) as saver:
        await saver.conn.execute("PRAGMA synchronous = NORMAL")
        yield saver


SAVERS = {
    "LangGraphCheckpointer": ours,
    "AsyncSqliteSaver": theirs,
    "AsyncSqliteSaver, synchronous=NORMAL": theirs_normal,
}


# The measurement


async def compared(
    what: str,
    work: Callable[[Any], Awaitable[Any]],
    turns: int,
    rounds: int,
    *,
    has_bar: bool,
) -> list[Row]:
    """Time one work on all savers."""
    taken: list[list[Took]] = []
    for number in range(rounds + 1):
        order = list(SAVERS) if number % 2 else list(reversed(SAVERS))
        found = {name: await timed(SAVERS[name], work) for name in order}
        if number:  # the first one warms up
            taken.append([found[name] for name in SAVERS])

    def median(of: Callable[[list[Took]], float]) -> float:
        return statistics.median(map(of, taken))

    return [
        Row(
            what,
            name,
            median(lambda each, at=at: each[at].wall) * 1000 / turns,  # type: ignore[misc]
            median(lambda each, at=at: each[at].cpu) * 1000 / turns,  # type: ignore[misc]
            median(lambda each, at=at: each[at].wall / each[0].wall),  # type: ignore[misc]
            median(lambda each, at=at: each[at].cpu / each[0].cpu),  # type: ignore[misc]
            BAR if has_bar and SAVERS[name] is theirs else None,
        )
        for at, name in enumerate(SAVERS)
    ]


async def timed(contender: Callable[[Path], Any], work: Callable[[Any], Awaitable[Any]]) -> Took:
    """Time one work on a new file."""
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as folder:
        async with contender(Path(folder)) as saver:
            gc.collect()
            gc.disable()
            wall, cpu = time.perf_counter(), time.process_time()
            await work(saver)
            took = Took(time.perf_counter() - wall, time.process_time() - cpu)
            gc.enable()
    return took


async def measure(rounds: int, threads: int, short: int, long: int) -> list[Row]:
    """Compare the savers on one thread and on many, by their calls alone and with the graph."""
    many = await recorded(threads, short)
    one = (await recorded(1, long))[0]
    works: list[tuple[str, Callable[[Any], Awaitable[Any]], int, bool]] = [
        (f"one thread of {short} turns", lambda saver: replay(saver, many[0]), short, True),
        (f"one thread of {long} turns", lambda saver: replay(saver, one), long, True),
        (
            f"{threads} threads of {short} turns at once",
            lambda saver: asyncio.gather(*(replay(saver, calls) for calls in many)),
            short * threads,
            True,
        ),
        (f"the graph, one thread of {long} turns", lambda saver: talk(saver, 0, long), long, False),
        (
            f"the graph, {threads} threads of {short} turns at once",
            lambda saver: asyncio.gather(*(talk(saver, n, short) for n in range(threads))),
            short * threads,
            False,
        ),
    ]
    rows = []
    for what, work, turns, has_bar in works:
        rows += await compared(what, work, turns, rounds, has_bar=has_bar)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| work | saver | ms a turn | of the processors | ours is | by processor | bar |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for made in rows:
        bar = "" if made.bar is None else f"{made.bar:.0f}x: {'yes' if made.is_met else '**no**'}"
        lines.append(
            f"| {made.what} | {made.saver} | {made.ms:.2f} | {made.cpu_ms:.2f} | "
            f"{made.speedup:.2f}x | {made.speedup_cpu:.2f}x | {bar} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoints", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds; writes nothing")
    is_quick = parser.parse_args(arguments).quick
    rounds = 3 if is_quick else ROUNDS
    rows = asyncio.run(measure(rounds, THREADS, *TURNS))
    print(table(rows))
    if is_quick:
        return
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as folder:
        where = circumstances(Path(folder))
    workload = {"rounds": rounds, "threads": THREADS, "turns": TURNS, "text_characters": TEXT}
    figures = [{**asdict(made), "is_met": made.is_met} for made in rows]
    path = Path(__file__).parent / "results" / "checkpoints.json"
    result = {**where, "workload": workload, "rows": figures}
    path.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
