"""Every command in a pipe: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

import kvstore
from kvstore.cli.words import parse_namespace, show_namespace, visible
from tests.cli.conftest import COMMAND, ROOT, Run, environment

pytestmark = pytest.mark.slow  # each command is a process of its own

STORE = "agent.db"
NAMES = [
    "get",
    "put",
    "rm",
    "keys",
    "ls",
    "tree",
    "search",
    "scan",
    "stats",
    "check",
    "backup",
    "export",
    "import",
    "copy",
    "reindex",
    "watch",
    "history",
    "rewind",
    "browse",
    "vacuum",
    "shell-completion",
]


def objects(done: subprocess.CompletedProcess[bytes]) -> list[Any]:
    return [orjson.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    async def fill() -> None:
        async with kvstore.open(tmp_path / STORE) as store:
            await store.put(("users", "alice"), "theme", {"name": "dark"})
            await store.put(("users", "bob"), "theme", {"name": "light"})
            await store.put_many(("users", "bob"), {f"temp_{n}": n for n in range(25)})
            await store.put((), "root", b"\x00")
            await store.put(("a/b", "[1]", "\x1b[31m"), "evil\x1b[31m\nkey", "\x1b[31m")

    asyncio.run(fill())
    return tmp_path / STORE


def test_a_value_goes_in_and_comes_out(run: Run) -> None:
    done = run("put", STORE, "users/alice", "theme", '{"name": "dark", "n": [1, 2]}')
    assert done.stderr == b"stored users/alice theme, version 1\n"
    assert done.stdout == b""
    assert orjson.loads(run("get", STORE, "users/alice", "theme").stdout) == {
        "name": "dark",
        "n": [1, 2],
    }
    (item,) = objects(run("get", STORE, '["users","alice"]', "theme", "--json"))
    assert item["namespace"] == ["users", "alice"]
    assert item["version"] == 1
    assert item["value"] == {"name": "dark", "n": [1, 2]}
    assert {"key", "created_at", "updated_at"} <= set(item)


def test_values_of_every_kind_go_through_pipes(run: Run) -> None:
    run("put", STORE, "/", "text", "--text", "no JSON: ü")
    assert run("get", STORE, "/", "text").stdout.decode() == '"no JSON: ü"\n'
    assert run("get", STORE, "/", "text", "--raw").stdout.decode() == "no JSON: ü"
    data = bytes(range(256)) * 1_000
    run("put", STORE, "/", "bytes", "--bytes", input=data)
    assert run("get", STORE, "/", "bytes", "--raw").stdout == data
    run("put", STORE, "/", "json", "-", input=b'{"deep": [null, 1.5]}')
    assert objects(run("get", STORE, "/", "json", "--json"))[0]["value"] == {"deep": [None, 1.5]}
    assert b"neither" in run("get", STORE, "/", "json", "--raw", code=2).stderr
    copied = run("get", STORE, "/", "bytes").stdout
    run("put", STORE, "/", "again", "-", input=copied)
    assert run("get", STORE, "/", "again", "--raw").stdout == data


def test_numbers_that_do_not_fit_are_refused(run: Run) -> None:
    for number in ("18446744073709551617", '{"a": [-9223372036854775809]}', "9" * 300):
        assert b"64 bits" in run("put", STORE, "a", "k", number, code=3).stderr
    run("put", STORE, "a", "k", '[18446744073709551615, "18446744073709551617"]')
    filter = '{"a": 18446744073709551617}'
    assert b"64 bits" in run("search", STORE, "a", "--filter", filter, code=2).stderr


def test_what_a_terminal_would_obey_is_the_same_json(run: Run) -> None:
    value = "\x9b31m \x7f \u202e \u200b 日本 \U000e0041 👩‍👧"
    run("put", STORE, "a", "k", orjson.dumps(value).decode())
    shown = run("get", STORE, "a", "k").stdout
    assert orjson.loads(shown) == value
    assert "日本" in shown.decode()
    assert "👩‍👧" in shown.decode()
    assert objects(run("scan", STORE, "--json"))[0]["value"] == value


def test_put_minds_its_options(run: Run) -> None:
    (item,) = objects(run("put", STORE, "a", "k", "1", "--ttl", "60", "--json"))
    assert item["expires_at"] > item["updated_at"]
    assert b"was expected" in run("put", STORE, "a", "k", "2", "--if-version", "9", code=3).stderr
    run("put", STORE, "a", "k", "2", "--if-version", item["version"])
    assert b"exclude" in run("put", STORE, "a", "k", "1", "--text", "--bytes", code=2).stderr


def test_words_that_are_typed_are_text(run: Run, tmp_path: Path) -> None:
    assert run("put", STORE, "a", "k", "hello").stderr == b"stored a k as text, version 1\n"
    assert run("get", STORE, "a", "k").stdout == b'"hello"\n'
    run("put", STORE, "a", "k", "true")
    assert run("get", STORE, "a", "k").stdout == b"true\n"
    for none in ("{half", "[1,", '"open', "12x", "NaN", "-", "Infinity"):
        done = run("put", STORE, "a", "k", none, code=2, input=b"words from a pipe")
        assert b"--text takes it as it is" in done.stderr
    assert run("get", STORE, "a", "k").stdout == b"true\n"


def test_bare_it_shows_its_help(run: Run) -> None:
    assert run(code=2).stdout == run("--help").stdout
    assert len(run(code=2).stdout.splitlines()) > 20


def test_it_tells_its_version(run: Run) -> None:
    assert run("--version").stdout == f"kvstore {kvstore.__version__}\n".encode()


def test_what_is_not_there_is_exit_code_1(run: Run, filled: Path) -> None:
    done = run("get", STORE, "users/alice", "none", code=1)
    assert done.stderr == b"kvstore: users/alice has no none\n"
    assert done.stdout == b""
    run("rm", STORE, "users/alice", "none", code=1)


def test_a_store_that_is_not_there_is_not_made_by_reading(run: Run, tmp_path: Path) -> None:
    for command in ("ls", "tree", "stats", "check", "export", "vacuum", "watch", "scan", "keys"):
        done = run(command, "typo.db", code=3)
        assert done.stderr == b"kvstore: typo.db does not exist; kvstore put makes a store\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("get",), 2, b"Missing argument"),
        (("get", STORE, "a", "b", "c"), 2, b"unexpected extra argument"),
        (("fly", STORE), 2, b"No such command"),
        (("ls", STORE, "--colour"), 2, b"No such option"),
        (("ls", "redis://x"), 2, b"no scheme"),
        (("ls", "."), 3, b"is a directory"),
        (("keys", STORE, "a//b"), 2, b"is empty"),
        (("keys", STORE, '["a", []]'), 2, b"label 1 of the namespace is a list"),
        (("queue", "ls", STORE, "[1]"), 2, b"label 0 of the namespace is a int"),
        (("keys", STORE, "a", "[x"), 2, b"never closes"),
        (("search", STORE, "/", "--filter", "{"), 2, b"the filter is not JSON"),
        (("search", STORE, "/", "--filter", '{"a":{"$no":1}}'), 2, b"$no"),
        (("import", STORE, "none.jsonl"), 3, b"none.jsonl: No such file"),
        (("shell-completion", "tcsh"), 2, b"there is bash"),
    ],
)
def test_errors_are_one_line_with_the_right_code(
    run: Run, filled: Path, arguments: tuple[str, ...], code: int, message: bytes
) -> None:
    done = run(*arguments, code=code)
    said = done.stderr or done.stdout
    assert message in said
    assert said.startswith(b"kvstore: ")
    assert said.count(b"\n") == 1


def test_listings_for_people(run: Run, filled: Path) -> None:
    listed = run("ls", STORE).stdout.decode()
    assert "users/" in listed
    assert "27" in listed
    assert "root" in listed
    assert '{ "name": "dark" }' in run("ls", STORE, "users/alice").stdout.decode()
    drawn = run("tree", STORE).stdout.decode()
    assert "├── alice  1" in drawn
    assert "└── bob  26" in drawn
    assert run("keys", STORE, "users/bob", "temp_1?").stdout.decode().split() == [
        f"temp_{n}" for n in range(10, 20)
    ]
    assert run("keys", STORE, "users", "th*", "-r").stdout.decode().splitlines() == [
        "users/alice\ttheme",
        "users/bob\ttheme",
    ]
    assert "light" in run("search", STORE, "users", "LIGHT").stdout.decode()
    assert len(run("scan", STORE, "users").stdout.splitlines()) == 27
    assert "29" in run("stats", STORE).stdout.decode()


def test_nothing_stored_can_steer_the_terminal(run: Run, filled: Path) -> None:
    for command in ("ls", "tree", "keys", "scan", "stats"):
        where = ("a%2Fb/%5B1]/%1B[31m",) if command in ("ls", "keys") else ()
        shown = run(command, STORE, *where).stdout.decode()
        assert "\x1b" not in shown
    assert run("keys", STORE, "a%2Fb/%5B1]/%1B[31m").stdout == b"evil\\x1b[31m\\nkey\n"


def test_listings_for_pipes_are_json_lines(run: Run, filled: Path) -> None:
    listed = objects(run("ls", STORE, "--json"))
    assert {"namespace": ["users"], "items": 27} in listed
    assert any(each.get("key") == "root" for each in listed)
    assert {"namespace": ["users", "bob"], "items": 26} in objects(run("tree", STORE, "--json"))
    assert objects(run("tree", STORE, "--json", "--depth", "1"))[-1] == {
        "namespace": ["users"],
        "items": 27,
    }
    assert objects(run("keys", STORE, "users", "theme", "--subtree", "--json")) == [
        {"namespace": ["users", name], "key": "theme"} for name in ("alice", "bob")
    ]
    found = objects(run("search", STORE, "users", "--filter", '{"name":"dark"}', "--json"))
    assert [item["key"] for item in found] == ["theme"]
    scanned = objects(run("scan", STORE, "--json", "--pattern", "temp_2*"))
    assert [item["value"] for item in scanned] == [2, 20, 21, 22, 23, 24]
    (stats,) = objects(run("stats", STORE, "--json"))
    assert stats["items"] == 29
    assert stats["roots"][-1]["root"] == ["users"]


@pytest.mark.parametrize(("limit", "is_more"), [(2, True), (3, False), (4, False)])
def test_a_listing_says_whether_there_is_more(run: Run, limit: int, is_more: bool) -> None:
    for key in "abc":
        run("put", STORE, "n", key, "1")
    done = run("ls", STORE, "n", "--limit", limit)
    assert (b"only the first" in done.stderr) == is_more


def test_rm_takes_one_key_at_once_and_asks_for_many(run: Run, filled: Path) -> None:
    assert run("rm", STORE, "users/alice", "theme").stderr == b"removed 1 item\n"
    done = run("rm", STORE, "users/bob", "temp_*", code=1, input=b"n\n")
    assert done.stderr.count(b"  users/bob temp_") == 20
    assert b"... and 5 more" in done.stderr
    assert b"Remove these 25? [y/N]" in done.stderr
    assert b"nothing removed" in done.stderr
    run("rm", STORE, "users/bob", "temp_*", code=130)  # no answer at all
    assert len(run("keys", STORE, "users/bob").stdout.splitlines()) == 26
    assert run("rm", STORE, "users/bob", "temp_1*", input=b"y\n").stderr.endswith(
        b"removed 11 items\n"
    )
    assert objects(run("rm", STORE, "users", "*", "-r", "--yes", "--json")) == [{"removed": 15}]
    assert run("rm", STORE, "/", "*", "-y", "-r").stderr == b"removed 2 items\n"


def test_export_and_import_meet_in_a_pipe(run: Run, filled: Path, tmp_path: Path) -> None:
    data = run("export", STORE).stdout
    assert len(data.splitlines()) == 29 + 2
    assert run("import", "new.db", input=data).stderr == b"29 items imported\n"
    assert run("export", STORE, "out.jsonl", "--namespace", "users").stdout == b""
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 27 + 2
    assert run("import", "new.db", "out.jsonl").stderr == b"27 items imported\n"
    done = run("import", "new.db", "out.jsonl", "--on-conflict", "error", code=3)
    assert b"is there already" in done.stderr
    assert run("import", "new.db", "out.jsonl", "--on-conflict", "skip").stderr.startswith(b"0 ")
    half = data[: len(data) // 2].rpartition(b"\n")[0] + b"\n"
    assert b"cut off" in run("import", "half.db", input=half, code=3).stderr
    assert run("keys", "half.db", "-r", code=1).stdout == b""


def test_copy_moves_between_stores(run: Run, filled: Path) -> None:
    assert run("copy", STORE, "sqlite:///other.db").stderr == b"29 items copied\n"
    assert run("scan", STORE, "--json").stdout.count(b"\n") == 29
    some = run("copy", STORE, "memory://", "--namespace", "users")
    assert some.stderr == b"27 items copied\n"


def test_backup_check_and_vacuum(run: Run, filled: Path, tmp_path: Path) -> None:
    assert b"backup.db: " in run("backup", STORE, "backup.db").stderr
    assert run("check", "backup.db").stderr == b"no problems in 29 items\n"
    assert b"given back" in run("vacuum", STORE).stderr
    connection = sqlite3.connect(tmp_path / "backup.db")
    with connection:
        connection.execute("UPDATE items SET value = '2' WHERE key = 'temp_7'")
    connection.close()
    done = run("check", "backup.db", code=1)
    assert b"'temp_7': its checksum does not match" in done.stdout
    assert done.stderr == b"kvstore: 1 problem found\n"
    (report,) = objects(run("check", "backup.db", "--json", code=1))
    assert not report["ok"]
    assert b"damaged" in run("get", "backup.db", "users/bob", "temp_7", code=3).stderr


def test_the_environment_names_the_store(run: Run, filled: Path) -> None:
    named = {"KVSTORE_URL": STORE}
    assert orjson.loads(run("get", "users/alice", "theme", **named).stdout) == {"name": "dark"}
    assert objects(run("keys", "--json", "users/alice", **named))[0]["key"] == "theme"
    assert run("keys", "users/bob", "theme", **named).stdout == b"theme\n"
    assert b"alice" in run("tree", **named).stdout
    run("put", "other.db", "a", "k", "1", **named)
    assert run("keys", "sqlite:///other.db", "a", **named).stdout == b"k\n"
    assert run("keys", "a", code=1, **named).stdout == b""


def test_the_number_of_arguments_tells_a_store_from_what_it_looks_like(
    run: Run, filled: Path, tmp_path: Path
) -> None:
    named = {"KVSTORE_URL": STORE}
    assert b"copy.db: " in run("backup", "copy.db", **named).stderr
    assert (tmp_path / "copy.db").exists()
    run("backup", "copy.db", "second.db", **named)
    assert (tmp_path / "second.db").exists()
    (tmp_path / "copy.db").rename(tmp_path / "plain")
    assert run("get", "plain", "users/alice", "theme", **named).stderr == b""


def test_what_could_be_a_store_or_a_namespace_is_said(
    run: Run, filled: Path, tmp_path: Path
) -> None:
    named = {"KVSTORE_URL": STORE}
    run("put", "other.db", "a", "k", "1")
    taken = b"kvstore: other.db is taken for the store; other.db/ is the namespace in KVSTORE_URL\n"
    assert run("keys", "other.db", code=1, **named).stderr.startswith(taken)
    run("put", "other.db/", "k", "1", **named)
    assert run("keys", "other.db/", **named).stdout == b"k\n"
    (tmp_path / "other.db").rename(tmp_path / "users")
    done = run("keys", "users/alice", **named)
    assert (done.stdout, done.stderr) == (b"theme\n", b"")
    assert b"./users is the file" in run("tree", "users", **named).stderr
    assert run("keys", "./users", "a", **named).stderr == b""
    done = run("put", "notes", "a", "k", "1", code=2)
    assert b"write ./notes to make it" in done.stderr
    assert b"KVSTORE_URL" in run("ls", "notes", code=3).stderr
    run("put", "./notes", "a", "k", "1")


def test_an_import_of_nothing_makes_nothing(run: Run, tmp_path: Path) -> None:
    assert b"nothing to import" in run("import", "new.db", code=1).stderr
    assert b"none.jsonl" in run("import", "new.db", "none.jsonl", code=3).stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_tables_do_not_mind_the_encoding(run: Run, encoding: str) -> None:
    run("put", STORE, "пользователи/Zoë", "тема", '"мат 🐈"')
    env = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for command in (["ls"], ["ls", "пользователи"], ["tree"], ["search", "/", "мат"], ["stats"]):
        said = run(command[0], STORE, *command[1:], **env).stdout.decode()
        assert "пользователи" in said or "nothing" in said or command == ["ls", "пользователи"]
    assert "тема" in run("keys", STORE, "пользователи/Zoë", **env).stdout.decode()


def test_a_table_that_is_cut_off_is_no_error(run: Run, filled: Path, tmp_path: Path) -> None:
    for words in (["ls"], ["tree"], ["search", "/"], ["keys", "/", "-r"], ["export"], ["stats"]):
        command = " ".join([sys.executable, "-m", "kvstore", words[0], STORE, *words[1:]])
        done = subprocess.run(
            ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            check=True,
        )
        assert done.stdout == b"0\n", words
        assert b"Traceback" not in done.stderr
        assert b"Broken pipe" not in done.stderr


def test_watch_prints_changes_as_they_come(run: Run, filled: Path, tmp_path: Path) -> None:
    watching = subprocess.Popen(
        [*COMMAND, "watch", STORE, "users", "--json", "-n", "3"],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
    )
    with watching:
        while not objects(run("stats", STORE, "--json"))[0]["changes"]:
            run("put", STORE, "other", "k", "1")
        run("put", STORE, "users/carol", "theme", '"dark"')
        run("rm", STORE, "users/alice", "theme")
        run("put", STORE, "users/carol", "brief", "1", "--ttl", "100")
        assert watching.stdout is not None
        changes = [orjson.loads(line) for line in watching.stdout]
        assert watching.wait(timeout=30) == 0
    assert [(c["kind"], c["namespace"][-1], c["key"]) for c in changes] == [
        ("put", "carol", "theme"),
        ("delete", "alice", "theme"),
        ("put", "carol", "brief"),
    ]
    assert changes[0]["value"] == "dark"
    since = changes[0]["version"]
    again = run("watch", STORE, "users", "--since", since, "-n", "2")
    assert again.stdout.split()[1::5][0] == b"delete"
    assert b"are not kept" in run("watch", STORE, "--since", "1", code=3).stderr


def test_a_reader_that_has_seen_enough_is_no_error(run: Run, filled: Path, tmp_path: Path) -> None:
    run(
        "import",
        STORE,
        input=b"".join(
            b'{"namespace":["many"],"key":"%d","value":"%s"}\n' % (n, b"x" * 200)
            for n in range(5_000)
        ),
    )
    done = subprocess.run(
        f"{sys.executable} -m kvstore scan {STORE} | head -n 1",
        shell=True,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=True,
    )
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_learns_to_complete(run: Run, shell: str) -> None:
    script = run("shell-completion", shell).stdout.decode()
    assert "_KVSTORE_COMPLETE" in script
    if shell == "bash":
        asked = {"COMP_WORDS": "kvstore sta", "COMP_CWORD": "1"}
        done = run(_KVSTORE_COMPLETE="complete_bash", **asked)
        assert done.stdout.split() == [b"stats"], done


def test_without_the_extra_the_message_names_it(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(name='typer')")
    env = environment(PYTHONPATH=f"{tmp_path}:{ROOT}")
    asked = subprocess.run([*COMMAND, "--version"], capture_output=True, env=env, check=True)
    assert asked.stdout == f"kvstore {kvstore.__version__}\n".encode()
    done = subprocess.run(COMMAND, capture_output=True, env=env, check=False)
    assert done.returncode == 3
    assert done.stderr == (
        b"kvstore: the command line needs typer: pip install 'agent-kvstore[cli]', "
        b"or pip install rich textual typer\n"
    )


def test_help_names_every_command(run: Run) -> None:
    said = run("--help").stdout.decode()
    for name in NAMES:
        assert f"\n  {name} " in said
        assert run(name, "--help").stdout.startswith(b"Usage: kvstore " + name.encode())


@pytest.mark.parametrize(
    "namespace",
    [(), ("a",), ("a/b", "%", "%2F"), ("[x", "]"), ("\x1b", "\n", "é", "日本", "\ue000"), (" ",)],
)
def test_a_namespace_can_be_typed_as_it_is_shown(namespace: tuple[str, ...]) -> None:
    shown = show_namespace(namespace)
    assert shown.isprintable()
    assert parse_namespace(shown) == namespace
    assert parse_namespace(orjson.dumps(namespace).decode()) == namespace
    assert visible(shown) == shown


def test_a_store_or_a_value_that_was_forgotten_is_said_to_be(run: Run, tmp_path: Path) -> None:
    forgotten = run("put", "users/alice", "theme", '{"name": "dark"}', code=2)
    assert b"a namespace comes after the store" in forgotten.stderr
    no_value = run("put", "agent.db", "users/alice", "theme", code=2)
    assert b"write it after the key" in no_value.stderr
    assert b"STORE comes first" in run("get", "a", "k", code=2).stderr
    assert b"STORE comes first" in run("ls", code=2).stderr
    assert not list(tmp_path.iterdir())
