"""The data types of the flow node beyond the plain ones: content, knowledge, configurations."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import kvstore
from kvstore import (
    AsyncKeyValueStore,
    IndexConfig,
    InMemoryStore,
    InvalidArgumentError,
    KeyValueStore,
    KeyValueStoreNode,
    ValueTypeError,
)
from kvstore.flow import KnowledgeDB, Secret
from kvstore.flow.data_types import DATA_TYPES
from kvstore.flow.secrets import is_named_secret
from kvstore.runtime import ToolRuntime

GOOD: dict[str, list[Any]] = {
    "content": [
        [],
        ["Look at this:", {"type": "text", "text": "and this", "lang": "en"}],
        [{"type": "image", "media_type": "image/png", "data": b"\x89PNG", "alt": "a dog"}],
        [{"type": "file", "media_type": "application/pdf", "data": b"%PDF", "name": "a.pdf"}],
    ],
    "knowledge": [
        [],
        [{"text": "one"}, {"text": "two", "metadata": {"page": 2, "tags": ["x"]}}],
        [{"text": "one", "vector": [0.5, -1]}, {"text": "two", "vector": [1, 0.25], "id": 7}],
    ],
    "llm_model": [
        {"model": "small"},
        {"model": "m", "provider": "p", "max_tokens": 100, "stop": ["x"], "temperature": 0.2},
        {"model": "m", "api_key": "env:MODEL_KEY", "headers": {"Authorization": "keyring:m/me"}},
    ],
    "configured_service": [
        {"service": "mail", "url": "https://mail.example/api", "retries": 3, "cache_key": "x"},
        {"service": "crm", "clientSecret": "env:CRM", "token": None, "tokens": ["a", "b"]},
        {
            "url": "http://host:80/@me?token=$TOKEN&page=2",
            "prompt": "Say password=x, or token = y.",
        },
        {"dsn": "host=db user=me password={PW}", "size": "width=3;height=4", "is_bearer": True},
        {"service": "door", "secrets": ["pin"], "pin": "env:DOOR_PIN", "codes": {"pin": "env:P"}},
    ],
}
BAD: dict[str, list[tuple[Any, str]]] = {
    "content": [
        ("text", "list of parts"),
        ({"type": "text", "text": "x"}, "list of parts"),
        ([1], r"\[0\]"),
        (["a", {"type": "text"}], r"\[1\]"),
        ([{"type": "video", "media_type": "video/mp4", "data": b""}], "image or file"),
        ([{"type": "image", "media_type": "png", "data": b""}], "media type"),
        ([{"type": "image", "media_type": "text/plain", "data": b""}], "none of an image"),
        ([{"type": "image", "media_type": "image/png", "data": "iVBOR"}], r"\[0\].data"),
        ([{"type": "file", "media_type": "a/b"}], r"\[0\].data"),
        (None, "list of parts"),
    ],
    "knowledge": [
        ([{"metadata": {}}], "'text'"),
        (["text"], "'text'"),
        ([{"text": "x", "metadata": []}], "metadata"),
        ([{"text": "x", "vector": ["a"]}], r"vector\[0\]"),
        ([{"text": "x", "vector": []}], "not empty"),
        ([{"text": "x", "vector": [1, 2]}, {"text": "y", "vector": [1]}], "equally long"),
    ],
    "knowledge_db": [
        ("docs", "namespace"),
        ({"namespace": "docs"}, "namespace"),
        ({"namespace": ["a", ""]}, "namespace"),
        ({"namespace": ["a"], "limit": 3}, "subtree"),
        ({"namespace": ["a"], "subtree": 1}, "subtree"),
    ],
    "llm_model": [
        ({}, "not empty"),
        ("small", "object"),
        ({"provider": "p"}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m", "api_key": "sk-hidden"}, "value.api_key is a secret"),
        ({"model": "m", "options": {"apiKey": "hidden"}}, "value.options.apiKey is a secret"),
        ({"model": "m", "headers": [{"Authorization": "Bearer hidden"}]}, "Authorization"),
        ({"model": "m", "api_key": b"hidden"}, "secret"),
        ({"model": "m", "api_keys": ["hidden"]}, r"value.api_keys\[0\] is a secret"),
        ({"model": "m", "password": 123}, "value.password is a secret"),
        ({"model": "m", "headers": {"X-Proxy": "Bearer hidden-hidden"}}, "a key or a token"),
        ({"model": "m", "note": "sk-hidden-0123456789abcdef"}, "a key or a token"),
    ],
    "configured_service": [
        ([], "object"),
        ({"secrets": ["pin"], "pin": "1234"}, "value.pin is a secret"),
        ({"secrets": ["login"], "login": {"user": "hidden"}}, "value.login.user is a secret"),
        ({"secrets": "pin"}, "names of fields"),
        ({"password": "env:"}, "secret"),
        ({"url": "postgresql://me:hidden@host/db"}, "URL with a password"),
        ({"args": ["--proxy", "http://me:hidden@host"]}, "URL with a password"),
        ({"url": "https://me:hid/den@host/x"}, "URL with a password"),
        ({"url": "https://host/x?page=1&api_key=hidden"}, "api_key="),
        ({"dsn": "host=db user=me password=hidden"}, "password="),
        ({"store": "Endpoint=https://host;AccountKey=hidden"}, "AccountKey="),
    ],
}


@pytest.fixture(params=["memory", "file", "sync facade"])
async def runtime(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    match request.param:
        case "memory":
            async with InMemoryStore(index=IndexConfig()) as store:
                yield ToolRuntime(store=store)
        case "file":
            async with kvstore.open(tmp_path / "a.db", index=IndexConfig()) as store:
                yield ToolRuntime(store=store)
        case _:
            with KeyValueStore(tmp_path / "b.db") as facade:
                yield ToolRuntime(store=facade)


def cases(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(kind, each) for kind, values in table.items() for each in values]


@pytest.mark.parametrize(("kind", "value"), cases(GOOD))
async def test_a_value_comes_back_as_it_was(runtime: ToolRuntime, kind: str, value: Any) -> None:
    before = copy.deepcopy(value)
    await KeyValueStoreNode("insert", "k", kind)({"value": value}, runtime)
    assert value == before
    assert await KeyValueStoreNode("retrieve", "k", kind)({}, runtime) == {"value": before}


@pytest.mark.parametrize(("kind", "case"), cases(BAD))
async def test_another_value_is_refused_and_never_told(
    runtime: ToolRuntime, kind: str, case: tuple[Any, str]
) -> None:
    value, told = case
    with pytest.raises(ValueTypeError, match=told) as caught:
        await KeyValueStoreNode("insert", "k", kind)({"value": value}, runtime)
    assert "hidden" not in str(caught.value)
    assert kind in str(caught.value)
    assert await KeyValueStoreNode("retrieve", "k", kind)({}, runtime) == {"value": None}


def test_there_are_the_types_of_the_builder() -> None:
    assert DATA_TYPES.keys() == {
        *("text", "number", "json", "bytes", "content", "segments", "embedding", "knowledge"),
        *("knowledge_db", "llm_model", "configured_service"),
    }


async def test_bytes_of_all_kinds_are_content(runtime: ToolRuntime) -> None:
    part = {"type": "file", "media_type": "text/plain", "data": bytearray(b"x")}
    await KeyValueStoreNode("insert", "k", "content")({"value": (part,)}, runtime)
    found = await KeyValueStoreNode("retrieve", "k", "content")({}, runtime)
    assert found == {"value": [{**part, "data": b"x"}]}


async def test_a_knowledge_db_comes_back_as_what_can_be_searched(runtime: ToolRuntime) -> None:
    insert = KeyValueStoreNode("insert", "docs", "knowledge_db")
    retrieve = KeyValueStoreNode("retrieve", "docs", "knowledge_db")
    facade = runtime.store
    if isinstance(facade, KeyValueStore):
        facade.sync_store.put(("kb", "docs"), "a", {"text": "the cat sat"})
        facade.sync_store.put(("kb", "docs", "more"), "b", {"text": "another cat"})
    else:
        await facade.put(("kb", "docs"), "a", {"text": "the cat sat"})
        await facade.put(("kb", "docs", "more"), "b", {"text": "another cat"})

    given = KnowledgeDB(("kb", "docs"))
    await insert({"value": given}, runtime)
    db = (await retrieve({}, runtime))["value"]
    assert db == given
    assert [item.key for item in await db.search("cat")] == ["a"]
    assert [item.key for item in await db.search("cat", subtree=True, limit=1)] != []

    await insert({"value": {"namespace": ["kb"], "subtree": True}}, runtime)
    db = (await retrieve({}, runtime))["value"]
    assert {item.key for item in await db.search("cat")} == {"a", "b"}
    assert await db.search(filter={"text": "nothing"}) == []

    copied = pickle.loads(pickle.dumps(db))
    assert copied == db
    with pytest.raises(InvalidArgumentError, match="retrieve it"):
        await copied.search("cat")


async def test_secrets_are_kept_as_references(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    path = tmp_path / "a.db"
    monkeypatch.setenv("MODEL_KEY", "the secret itself")
    model = {"model": "m", "api_key": Secret("env:MODEL_KEY"), "more": [Secret("env:OTHER")]}
    async with kvstore.open(path) as store:
        runtime = ToolRuntime(store=store)
        await KeyValueStoreNode("insert", "k", "llm_model")({"value": model}, runtime)
        found = (await KeyValueStoreNode("retrieve", "k", "llm_model")({}, runtime))["value"]
        assert found == model
        assert isinstance(found["api_key"], Secret)
        assert found["api_key"].reveal() == "the secret itself"
        assert await AsyncKeyValueStore(store).retrieve("k") == {
            "model": "m",
            "api_key": "env:MODEL_KEY",
            "more": ["env:OTHER"],
        }
        with pytest.raises(InvalidArgumentError, match="OTHER is not set"):
            Secret("env:OTHER").reveal()
    assert b"the secret itself" not in path.read_bytes()


@pytest.mark.parametrize("text", ["", "sk-hidden", "env:", "env:A B", "keyring:only", "vault:a/b"])
def test_what_is_no_reference_is_no_secret(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="reference") as caught:
        Secret(text)
    assert "hidden" not in str(caught.value)


def test_a_secret_is_text_and_shows_itself() -> None:
    secret = Secret("keyring:mail/me")
    assert secret == "keyring:mail/me"
    assert repr(secret) == "Secret('keyring:mail/me')"
    assert pickle.loads(pickle.dumps(secret)) == secret


def test_a_keyring_is_asked() -> None:
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend

    base: Any = KeyringBackend

    class Ring(base):  # type: ignore[misc] # whether keyring is installed or not
        priority = 1.0

        def get_password(self, service: str, username: str) -> str | None:
            return {"mail/me/too": "found"}.get(f"{service}/{username}")

        def set_password(self, service: str, username: str, password: str) -> None:
            raise NotImplementedError

    before = keyring.get_keyring()
    keyring.set_keyring(Ring())
    try:
        assert Secret("keyring:mail/me/too").reveal() == "found"
        with pytest.raises(InvalidArgumentError, match="no secret is in keyring:mail/you"):
            Secret("keyring:mail/you").reveal()
    finally:
        keyring.set_keyring(before)


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *((name, True) for name in ("api_key", "apiKey", "API-Key", "openai_api_key", "token")),
        *((name, True) for name in ("access_token", "clientSecret", "password", "Authorization")),
        *((name, True) for name in ("api_keys", "clientsecret", "accessToken", "api_key_2", "jwt")),
        *(
            (name, False)
            for name in ("tokens", "completion_tokens", "public_key", "keys", "passes")
        ),
        *((name, False) for name in ("max_tokens", "token_type", "key", "cache_key", "secretary")),
    ],
)
def test_names_tell_secrets(name: str, is_secret: bool) -> None:
    assert is_named_secret(name) == is_secret
