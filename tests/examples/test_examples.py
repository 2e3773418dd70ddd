"""Each example runs, and a second run goes on where the first one stopped."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import kvstore
from tests.running import python

pytestmark = pytest.mark.slow  # each starts processes

ROOT = Path(kvstore.__file__).parents[1]


def run(name: str, cwd: Path) -> list[str]:
    done = python(
        "-W",
        "error",
        "-m",
        f"kvstore.examples.{name}",
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [package for package in packages if not _is_there(package)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False


def test_flow_state(tmp_path: Path) -> None:
    first = run("flow_state", tmp_path)
    assert first == [
        "run 1 on project.db",
        "  alice likes it dark; login 1",
        "  bob likes it light; login 1",
        "  while it runs: $run.draft, $session.seen, runs",
        "  when it is over: $session.seen, runs",
        "  seen in this session: alice, bob",
    ]
    second = run("flow_state", tmp_path)
    assert second[0] == "run 2 on project.db"
    assert second[1] == "  alice likes it dark; login 2"
    assert second[4] == first[4]
    assert second[5] == "  seen in this session: alice, bob, alice, bob"


def test_tool_runtime(tmp_path: Path) -> None:
    for count in ("1 thing", "2 things"):
        lines = run("tool_runtime", tmp_path)
        assert f"  remember('likes tea'): Noted; I know {count} about alice." in lines
        assert f"  remember('has a cat'): Noted; I know {count} about bob." in lines
        assert lines[-1] == "  remember('nobody asked'): I have nothing to remember it with."


@pytest.mark.slow
@needs("langgraph")
def test_flow_graph(tmp_path: Path) -> None:
    assert run("flow_graph", tmp_path) == [
        "visit 1 of alice",
        "visit 1 of bob",
        "visit 2 of alice",
    ]
    assert run("flow_graph", tmp_path) == [
        "visit 3 of alice",
        "visit 2 of bob",
        "visit 4 of alice",
    ]


@pytest.mark.slow
@needs("langgraph")
def test_langgraph_memory(tmp_path: Path) -> None:
    remembered = ["Noted. I know 2 now.", "> recall", "You said: I have a cat; I like tea"]
    first = run("langgraph_memory", tmp_path)
    assert first[:2] == ["> recall", "Nothing yet."]
    assert first[-3:] == remembered
    second = run("langgraph_memory", tmp_path)
    assert second[:2] == ["> recall", "You said: I have a cat; I like tea"]
    assert second[-3:] == remembered


@pytest.mark.slow
@needs("langgraph")
def test_langgraph_chat(tmp_path: Path) -> None:
    answer = "You have said {} things, first 'This is message 1'."
    assert run("langgraph_chat", tmp_path) == ["> This is message 1", answer.format(1)]
    assert run("langgraph_chat", tmp_path) == [
        "May I remember that? yes",
        "remembered: This is message 1",
        "> This is message 2",
        answer.format(2),
    ]


@pytest.mark.slow
@needs("langchain_core")
def test_langchain_notes(tmp_path: Path) -> None:
    answer = ["> which tea does Alice like?", "Alice likes green tea"]
    first = run("langchain_notes", tmp_path)
    assert first == ["noted two things", *answer, "2 messages so far"]
    assert run("langchain_notes", tmp_path) == [*answer, "4 messages so far"]


@pytest.mark.slow
@needs("fastmcp")
def test_fastmcp_storage(tmp_path: Path) -> None:
    answers = ["12 squared is 144", "12 squared is 144", "25 squared is 625"]
    first = run("fastmcp_storage", tmp_path)
    assert [line for line in first if "working out" in line] == [
        "  working out 12 squared ...",
        "  working out 25 squared ...",
    ]
    assert [line for line in first if "working out" not in line] == answers
    assert run("fastmcp_storage", tmp_path) == answers


@pytest.mark.slow
@needs("mcp", "typer")
def test_mcp_memory(tmp_path: Path) -> None:
    known = "Alice likes to drink tea"
    first = run("mcp_memory", tmp_path)
    assert first == [
        "phone: what to drink? No idea.",
        f"phone: and now? {known}",
        "desk: there is drink pet",
    ]
    assert run("mcp_memory", tmp_path) == [f"phone: what to drink? {known}", *first[1:]]


def test_agent_views(tmp_path: Path) -> None:
    """The second run is answered from the cache, and finds the file of the first."""
    first = run("agent_views", tmp_path)
    assert first == [
        "asked the model: how do I reset my password?",
        "asked the model: what is the weather?",
        "2 of 5 messages go to the model: question, answer",
        "/plan.md:2: - call Bob (done)",
        "the session is gone, 5 items",
    ]
    assert run("agent_views", tmp_path) == first[2:]


@pytest.mark.slow
@needs("agents")
def test_openai_agents_chat(tmp_path: Path) -> None:
    for turn in (1, 2):
        assert run("openai_agents_chat", tmp_path) == [
            f"> this is message {turn}",
            f"You have said {turn} things, first 'this is message 1'.",
        ]


@pytest.mark.slow
@needs("llama_index")
def test_llama_index_notes(tmp_path: Path) -> None:
    found = ["Alice likes green tea", "The cat sleeps"]
    assert run("llama_index_notes", tmp_path) == ["noted two things", *found, "1 messages so far"]
    assert run("llama_index_notes", tmp_path) == [*found, "2 messages so far"]


@pytest.mark.slow
@needs("haystack")
def test_haystack_notes(tmp_path: Path) -> None:
    answer = ["> which tea does Alice like?", "Alice likes green tea"]
    assert run("haystack_notes", tmp_path) == ["noted two things", *answer]
    assert run("haystack_notes", tmp_path) == answer


@pytest.mark.slow
@needs("google.adk")
def test_google_adk_chat(tmp_path: Path) -> None:
    first = run("google_adk_chat", tmp_path)
    assert first == ["> this is message 1", "You have said 1 things.", "visit 1 of alice"]
    assert run("google_adk_chat", tmp_path) == [
        "> this is message 2",
        "You have said 2 things.",
        "remembered: this is message 1",
        "visit 2 of alice",
    ]


@pytest.mark.slow
@needs("deepagents")
def test_deepagents_files(tmp_path: Path) -> None:
    answer = "I knew {} things about Alice, and wrote down one more."
    assert run("deepagents_files", tmp_path) == [answer.format(0), "/notes/day1.md"]
    assert run("deepagents_files", tmp_path) == [
        answer.format(1),
        "/notes/day1.md",
        "/notes/day2.md",
    ]
