"""`LangGraphCheckpointer` does what LangGraph's `InMemorySaver` does, whatever comes.

Both get the same calls: puts that grow, cut and mend lists, forks, writes before and after their
checkpoints, several threads and namespaces, other processes. What `InMemorySaver` lacks (`prune`,
`copy_thread`, `delete_for_runs`) is done to its dictionaries by the plain meaning of the words.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph.checkpoint.memory")

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    CheckpointTuple,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED

from kvstore.integrations.langgraph import LangGraphCheckpointer

THREADS = ("t1", "", "a/b*[c]\n\tü", "\0")
SPACES = ("", "child:1|grandchild:2", "\0x")
RUNS = ("r1", "r2", "r3")
DELTA = "log"  # the channel that stores only what is new of each step


class XorCipher:
    """Encrypts to other bytes each time."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        pad = self._rng.randrange(256)
        return "xor", bytes([pad]) + bytes(byte ^ pad for byte in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "xor"
        return bytes(byte ^ ciphertext[0] for byte in ciphertext[1:])


class Histories:
    """Draws calls, makes them on both savers, and compares what they say."""

    def __init__(self, rng: random.Random, reopen: Callable[[], LangGraphCheckpointer]) -> None:
        self.rng = rng
        self.reopen = reopen
        self.saver = reopen()
        self.model = InMemorySaver()
        self.clock = 0
        self.known: dict[tuple[str, str], list[str]] = {}  # ids by thread and namespace

    # Drawing

    def config(self, thread: str, ns: str, id: str | None = None) -> Any:
        settings = {"thread_id": thread, "checkpoint_ns": ns}
        return {"configurable": settings | ({} if id is None else {"checkpoint_id": id})}

    def place(self) -> tuple[str, str]:
        return self.rng.choice(THREADS), self.rng.choice(SPACES)

    def message(self) -> Any:
        kind = self.rng.choice((HumanMessage, AIMessage))
        return kind("words " * self.rng.randrange(1, 40), id=str(self.rng.getrandbits(64)))

    def changed(self, value: Any) -> Any:
        """Return another value of the same kind, or of another."""
        rng = self.rng
        match value:
            case list():
                new = list(value)
                new += [
                    rng.choice((self.message(), rng.random(), "short", None))
                    for _ in range(rng.choice((1, 1, 1, 2, 12)))
                ]
                if rng.random() < 0.2:
                    at = rng.randrange(len(new))
                    del new[at : at + 2]
                if rng.random() < 0.2 and new:
                    new[rng.randrange(len(new))] = self.message()
                if rng.random() < 0.1:
                    rng.shuffle(new)
                if rng.random() < 0.1:
                    new += new[:2]
                return new if rng.random() < 0.95 else []
            case dict():
                return {**value, rng.choice("abcdefgh"): rng.choice(("x" * 300, 1, [1, "two"]))}
            case deque():
                return deque([*value, "y" * 200], maxlen=5)
        return rng.choice(([], {}, deque(maxlen=5), "z" * 2_000, b"\0\xff" * 400, None, 1.5))

    # Calls

    def put(self) -> None:
        rng = self.rng
        thread, ns = place = self.place()
        ids = self.known.setdefault(place, [])
        parent = rng.choice([ids[-1], ids[-1], rng.choice(ids), None]) if ids else None
        again = rng.choice(ids) if ids and rng.random() < 0.05 else None
        if again is not None:  # the same id once more, with the same parent
            parent = self.model.storage[thread][ns][again][2]
        before = self.model.get_tuple(self.config(thread, ns, parent)) if parent else None
        state: Any = copy.deepcopy(before.checkpoint) if before else {}
        values, versions = state.get("channel_values", {}), state.get("channel_versions", {})
        new: dict[str, Any] = {}
        for channel in ("messages", "files", "queue", "branch:to:x", DELTA, "odd"):
            if rng.random() < 0.5:
                continue
            new[channel] = self.model.get_next_version(versions.get(channel), None)
            if channel == DELTA and rng.random() < 0.8:
                values.pop(channel, None)  # a step without a snapshot
            elif rng.random() < 0.1:
                values.pop(channel, None)
            else:
                first: Any = {"messages": [], "files": {}, DELTA: []}.get(channel)
                values[channel] = self.changed(values.get(channel, first))
        self.clock += 1
        id = again or f"{self.clock:08}-{rng.getrandbits(32):08x}"
        checkpoint: Any = {
            "v": 4,
            "id": id,
            "ts": "2026-11-28T00:00:00+00:00",
            "channel_values": values,
            "channel_versions": {**versions, **new},
            "versions_seen": {"__input__": {}, "node": dict(new)},
            "updated_channels": list(new),
        }
        metadata: Any = {
            "source": rng.choice(("input", "loop", "update")),
            "step": self.clock,
            "parents": {},
            "run_id": rng.choice(RUNS),
        }
        if DELTA in checkpoint["channel_versions"]:
            metadata["counters_since_delta_snapshot"] = {DELTA: [1, 1]}
        if rng.random() < 0.1:
            metadata["odd"] = {1, 2}  # no JSON
        for saver in (self.saver, self.model):
            config = self.config(thread, ns, parent)
            saved = saver.put(config, copy.deepcopy(checkpoint), metadata, new)
            assert saved == self.config(thread, ns, id)
        if id not in ids:
            ids.append(id)

    def put_writes(self) -> None:
        rng = self.rng
        thread, ns = self.place()
        ids = self.known.get((thread, ns), []) + ["later"] * (rng.random() < 0.1)
        if not ids:
            return
        channels = ("messages", "branch:to:x", DELTA, ERROR, INTERRUPT, RESUME, SCHEDULED)
        writes = [
            (rng.choice(channels), rng.choice((self.message(), None, [1, self.message()])))
            for _ in range(rng.randrange(4))
        ]
        task, path = rng.choice(("a", "b.c", "*")), rng.choice(("", "~__pregel_pull, x", "z"))
        config = self.config(thread, ns, rng.choice(ids))
        for saver in (self.saver, self.model):
            saver.put_writes(config, copy.deepcopy(writes), task, path)

    def go_on_elsewhere(self) -> None:
        """Another process, which remembers nothing."""
        self.saver.close()
        self.saver = self.reopen()

    def delete_thread(self) -> None:
        thread = self.rng.choice(THREADS)
        for saver in (self.saver, self.model):
            saver.delete_thread(thread)
        self.forget(thread)

    def forget(self, thread: str) -> None:
        for place in [place for place in self.known if place[0] == thread]:
            del self.known[place]

    def copy_thread(self) -> None:
        source, target = self.rng.sample(THREADS, 2)
        for saver in (self.saver, self.model):
            saver.delete_thread(target)
        self.forget(target)
        self.saver.copy_thread(source, target)
        model = self.model
        for (thread, ns), ids in list(self.known.items()):
            if thread == source:
                self.known[target, ns] = list(ids)
        if source in model.storage:
            model.storage[target] = copy.deepcopy(model.storage[source])
        for key, stored in list(model.writes.items()):
            if key[0] == source:
                model.writes[target, key[1], key[2]] = copy.deepcopy(stored)
        for thread, *rest in list(model.blobs):
            if thread == source:
                model.blobs[target, *rest] = model.blobs[source, *rest]  # type: ignore[index]

    def prune(self) -> None:
        threads = self.rng.sample(THREADS, 2)
        self.saver.prune(threads)
        for (thread, ns), ids in self.known.items():
            if thread in threads and ids:
                self.remove(thread, ns, set(ids) - {max(ids)})

    def delete_for_runs(self) -> None:
        runs = self.rng.sample(RUNS, 1)
        self.saver.delete_for_runs(runs)
        for (thread, ns), ids in self.known.items():
            found = (self.model.get_tuple(self.config(thread, ns, id)) for id in ids)
            doomed = {
                each.checkpoint["id"] for each in found if each and each.metadata["run_id"] in runs
            }
            self.remove(thread, ns, doomed)

    def remove(self, thread: str, ns: str, doomed: set[str]) -> None:
        """Take checkpoints out of the model, but those that a delta channel's value is in."""
        stored = self.model.storage[thread][ns]
        needed = set()
        for id in set(stored) - doomed:
            at: str | None = id
            while at in stored:
                found = self.model.get_tuple(self.config(thread, ns, at))
                assert found is not None
                if at == id and DELTA not in found.checkpoint["channel_versions"]:
                    break
                needed.add(at)
                if DELTA in found.checkpoint["channel_values"]:
                    break
                at = stored[at][2]
        going = doomed - needed
        for id in going:
            del stored[id]
            self.model.writes.pop((thread, ns, id), None)
        for id, (checkpoint, metadata, parent) in list(stored.items()):
            if parent in going:
                stored[id] = checkpoint, metadata, None
        self.known[thread, ns] = [id for id in self.known[thread, ns] if id not in going]

    # Comparing

    def compare(self) -> None:
        for thread in THREADS:
            for ns in SPACES:
                self.compare_place(thread, ns)
        everything = [listed(saver, None) for saver in (self.saver, self.model)]
        assert everything[0] == everything[1]

    def compare_place(self, thread: str, ns: str) -> None:
        ids = self.known.get((thread, ns), [])
        for id in [None, "later", "unknown", *ids]:
            config = self.config(thread, ns, id)
            found, wanted = self.saver.get_tuple(config), self.model.get_tuple(config)
            assert plain(found) == plain(wanted)
            histories = [
                saver.get_delta_channel_history(config=config, channels=[DELTA, "messages", "none"])
                for saver in (self.saver, self.model)
            ]
            assert histories[0] == histories[1]
        config = self.config(thread, ns)
        before = self.config(thread, ns, self.rng.choice(ids)) if ids else None
        for options in (
            {},
            {"before": before},
            {"before": config},
            {"filter": {"source": "loop"}},
            {"filter": {"source": "loop", "missing": None}},
            {"filter": {"step": self.clock}},
            {"filter": {"odd": {1, 2}}},
            {"limit": 2},
            {"limit": 0},
        ):
            assert listed(self.saver, config, **options) == listed(self.model, config, **options)

    def run(self, calls: int) -> None:
        often, seldom = (
            [self.put] * 12 + [self.put_writes] * 8,
            [
                self.go_on_elsewhere,
                self.delete_thread,
                self.copy_thread,
                self.prune,
                self.delete_for_runs,
            ],
        )
        for number in range(calls):
            self.rng.choice(often if self.rng.random() < 0.93 else seldom)()
            if number % 40 == 39:
                self.compare()
        self.compare()
        self.saver.close()


def plain(found: CheckpointTuple | None) -> Any:
    return None if found is None else found._asdict()


def listed(saver: BaseCheckpointSaver[str], config: Any, **options: Any) -> list[Any]:
    """Return what a saver lists, over several namespaces by the id, as the databases order it."""
    found = [plain(each) for each in saver.list(config, **options)]
    if config is not None:
        return found
    return sorted(found, key=lambda each: str(each["config"]))


SERDES: dict[str, Callable[[random.Random], SerializerProtocol | None]] = {
    "plain": lambda rng: None,
    "encrypted": lambda rng: EncryptedSerializer(XorCipher(rng)),
}


@pytest.fixture(params=SERDES)
def serde(request: pytest.FixtureRequest) -> Callable[[], SerializerProtocol | None]:
    rng = random.Random(7)
    return lambda: SERDES[request.param](rng)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_as_the_saver_in_memory(
    tmp_path: Path, serde: Callable[[], SerializerProtocol | None], seed: int
) -> None:
    path = tmp_path / "agent.db"
    Histories(random.Random(seed), lambda: LangGraphCheckpointer(path, serde=serde())).run(160)


@pytest.mark.slow
def test_it_is_so_over_a_server(postgres_url: str) -> None:
    Histories(random.Random(9), lambda: LangGraphCheckpointer(postgres_url)).run(80)
