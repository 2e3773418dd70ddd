"""`OpenAIEmbeddings` against a real HTTP server, which answers as a test tells it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kvstore import EmbeddingError, IndexConfig, InMemoryStore, InvalidArgumentError
from kvstore.embeddings import OpenAIEmbeddings
from kvstore.testing_search import found

KEY = "sk-very-secret"


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Answer:
    status: int = 200
    body: bytes | None = None  # `None`: embeddings, as asked for
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    hangs_up: bool = False


def vector(text: str) -> list[float]:
    return [float(len(text)), 1.0, 0.0]


class Server:
    """An HTTP server that gives the prepared answers, then embeddings for ever."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: list[Answer] = []
        self.rule: Callable[[list[str]], Answer | None] = lambda texts: None
        self.url = ""
        self.is_over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                request, *lines = head.decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines if line)
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                secret = dict(line.split(": ", 1) for line in lines if line)
                self.requests.append(Request(request.split()[1], secret, body))
                answer = self.answers.pop(0) if self.answers else Answer()
                answer = self.rule(body["input"]) or answer
                if answer.hangs:
                    await self.is_over.wait()
                if answer.hangs or answer.hangs_up:
                    return
                data = answer.body
                if data is None:
                    rows = [
                        {"index": at, "embedding": vector(text)}
                        for at, text in enumerate(body["input"])
                    ]
                    data = json.dumps({"data": rows[::-1]}).encode()  # in no order
                lines = [f"HTTP/1.1 {answer.status} Said", f"content-length: {len(data)}"]
                lines += [f"{name}: {value}" for name, value in answer.headers.items()]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is gone
        finally:
            writer.close()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    it = Server()
    listening = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    async with listening:
        yield it
        it.is_over.set()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record how long was slept between tries, and do not sleep."""
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr("kvstore.embeddings.openai.asyncio.sleep", sleep)
    return slept


Make = Callable[..., OpenAIEmbeddings]


@pytest_asyncio.fixture
async def make(server: Server) -> AsyncIterator[Make]:
    made: list[OpenAIEmbeddings] = []

    def make(**options: Any) -> OpenAIEmbeddings:
        made.append(OpenAIEmbeddings("m", base_url=server.url, api_key=KEY, **options))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


async def test_a_request_is_what_the_protocol_says(server: Server, make: Make) -> None:
    embeddings = make(dimensions=3, query_prefix="query: ", document_prefix="passage: ")
    assert await embeddings.embed_documents(["a", "bcd"]) == [[10.0, 1, 0], [12.0, 1, 0]]
    assert await embeddings.embed_query("ab") == [9.0, 1, 0]
    first, second = server.requests
    assert first.path == "/v1/embeddings"
    assert first.headers["Authorization"] == f"Bearer {KEY}"
    assert first.body == {
        "model": "m", "input": ["passage: a", "passage: bcd"],
        "encoding_format": "float", "dimensions": 3,
    }  # fmt: skip
    assert second.body["input"] == ["query: ab"]


async def test_the_key_comes_from_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    async with OpenAIEmbeddings("m", base_url=server.url) as embeddings:
        await embeddings.embed_query("a")
    monkeypatch.delenv("OPENAI_API_KEY")
    async with OpenAIEmbeddings("m", base_url=server.url + "/") as embeddings:
        await embeddings.embed_query("a")
    assert server.requests[0].headers["Authorization"] == "Bearer from-the-environment"
    assert "Authorization" not in server.requests[1].headers
    assert server.requests[1].path == "/v1/embeddings"


async def test_texts_go_in_batches_and_come_back_in_order(server: Server, make: Make) -> None:
    texts = ["x" * at for at in range(1, 11)]
    assert await make(batch_size=4).embed_documents(texts) == [vector(text) for text in texts]
    assert [len(request.body["input"]) for request in server.requests] == [4, 4, 2]
    assert await make().embed_documents([]) == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
async def test_what_fails_for_a_moment_is_tried_again(
    server: Server, make: Make, pauses: list[float], status: int
) -> None:
    server.answers = [Answer(status, b"{}")] * 3
    assert await make().embed_query("a") == vector("a")
    assert len(server.requests) == 4
    for pause, most in zip(pauses, (0.5, 1.0, 2.0), strict=True):  # each time twice as long
        assert most / 2 <= pause <= most


async def test_a_lost_connection_is_tried_again(
    server: Server, make: Make, pauses: list[float]
) -> None:
    server.answers = [Answer(hangs_up=True), Answer(hangs_up=True)]
    assert await make().embed_query("a") == vector("a")
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7, 7),
        ("0.25", 0.25, 0.25),
        ("1000000", 30, 30),
        ("-3", 0, 0),
        ("soon", 0.25, 0.5),
        ("nan", 0.25, 0.5),
    ],
)
async def test_a_server_says_how_long_to_wait(
    server: Server, make: Make, pauses: list[float], said: str, least: float, most: float
) -> None:
    server.answers = [Answer(429, b"{}", {"Retry-After": said})]
    await make().embed_query("a")
    assert least <= pauses[0] <= most


async def test_a_server_says_until_when_to_wait(
    server: Server, make: Make, pauses: list[float]
) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    server.answers = [Answer(503, b"{}", {"Retry-After": until})]
    await make().embed_query("a")
    assert 10 < pauses[0] <= 20


async def test_tries_come_to_an_end(server: Server, make: Make, pauses: list[float]) -> None:
    server.answers = [Answer(500, b"{}")] * 9
    with pytest.raises(EmbeddingError, match=r"HTTP 500 .* after 3 attempts"):
        await make(attempts=3).embed_query("a")
    assert len(server.requests) == 3
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("status", "said"), [(400, "HTTP 400"), (401, "API key"), (404, "HTTP 404"), (413, "HTTP 413")]
)
async def test_what_will_not_change_is_not_tried_again(
    server: Server, make: Make, pauses: list[float], status: int, said: str
) -> None:
    server.answers = [Answer(status, json.dumps({"error": f"bad key {KEY}"}).encode())]
    with pytest.raises(EmbeddingError, match=said) as caught:
        await make().embed_query("a")
    assert len(server.requests) == 1
    assert pauses == []
    assert_no_key(caught.value)


async def test_a_server_that_does_not_answer_in_time(
    server: Server, make: Make, pauses: list[float]
) -> None:
    server.answers = [Answer(hangs=True)] * 2
    with pytest.raises(EmbeddingError, match="Timeout after 2 attempts") as caught:
        await make(timeout=0.05, attempts=2).embed_query("a")
    assert len(pauses) == 1
    assert_no_key(caught.value)


async def test_no_server_at_all(pauses: list[float]) -> None:
    async with OpenAIEmbeddings(
        "m", base_url="http://127.0.0.1:9/v1", api_key=KEY, attempts=2
    ) as embeddings:
        with pytest.raises(EmbeddingError, match=r"127\.0\.0\.1:9/v1/embeddings") as caught:
            await embeddings.embed_query("a")
    assert_no_key(caught.value)


async def test_a_password_in_the_address_is_not_told() -> None:
    url = "http://user:very-secret@127.0.0.1:9/v1"
    async with OpenAIEmbeddings("m", base_url=url, attempts=1) as embeddings:
        with pytest.raises(EmbeddingError, match=r"127\.0\.0\.1:9") as caught:
            await embeddings.embed_query("a")
    assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"data": 7}',
        b'{"data": [{"index": 0}]}',
        b'{"data": []}',
        b'{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [2]}]}',
        b'{"data": [{"index": 0, "embedding": []}]}',
        b'{"data": [{"index": 0, "embedding": "AAAA"}]}',
        b'{"data": [{"index": 0, "embedding": [1, null]}]}',
        b'{"data": [{"index": 0, "embedding": [1, "a"]}]}',
        b'{"data": [{"index": 0, "embedding": [NaN]}]}',
    ],
)
async def test_what_is_no_answer_fails_the_put_that_needed_it(
    server: Server, make: Make, body: bytes
) -> None:
    server.answers = [Answer(body=body)]
    async with InMemoryStore(index=IndexConfig(make())) as store:
        with pytest.raises(EmbeddingError) as caught:
            await store.put(("n",), "k", "text")
        assert await store.count(("n",)) == 0
        assert_no_key(caught.value)
        await store.put(("n",), "k", "text")
        assert found(await store.search(("n",), "text")) == ["k"]


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_is_too_much_for_a_server_goes_in_halves(
    server: Server, make: Make, status: int
) -> None:
    """Servers take 10 texts, or 32, and say so by an error."""
    server.rule = lambda texts: Answer(status, b"{}") if len(texts) > 10 else None
    texts = ["x" * at for at in range(1, 101)]
    embeddings = make()
    assert await embeddings.embed_documents(texts) == [vector(text) for text in texts]
    asked = len(server.requests)
    assert await embeddings.embed_documents(texts) == [vector(text) for text in texts]
    assert len(server.requests) - asked <= 13  # it has learnt how many the server takes


async def test_a_text_that_is_refused_does_not_make_the_batches_smaller(
    server: Server, make: Make
) -> None:
    server.rule = lambda texts: Answer(422, b"{}") if "bad" in texts else None
    embeddings = make(batch_size=8)
    with pytest.raises(EmbeddingError, match="422"):
        await embeddings.embed_documents(["good"] * 7 + ["bad"])
    server.requests.clear()
    await embeddings.embed_documents(["good"] * 8)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "try pulling it first", "type": "api_error"}},
        {"error": "try pulling it first"},
        {"message": "try pulling it first", "code": 404},
        {"detail": [{"loc": ["body"], "msg": "try pulling it first"}]},
        [{"error": {"code": 404, "message": "try pulling it first"}}],
        "try pulling it first",
    ],
)
async def test_an_error_has_the_servers_own_words(server: Server, make: Make, body: Any) -> None:
    server.answers = [Answer(404, json.dumps(body).encode())]
    with pytest.raises(EmbeddingError, match=r"HTTP 404 .*: try pulling it first"):
        await make().embed_query("a")


async def test_the_servers_words_are_short_and_steer_no_terminal(
    server: Server, make: Make
) -> None:
    server.answers = [Answer(404, json.dumps({"error": "\x1b[31m\n" + "x" * 10_000}).encode())]
    with pytest.raises(EmbeddingError) as caught:
        await make().embed_query("a")
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "rows",
    [
        [{"embedding": [1.0]}, {"index": 1, "embedding": [2.0]}],
        [{"embedding": [1.0]}, {"embedding": [2.0]}],
        [{"index": None, "embedding": [1.0]}, {"index": None, "embedding": [2.0]}],
        [{"index": 1, "embedding": [2.0]}, {"embedding": [1.0]}],
        [{"index": 1, "embedding": "AAAAQA=="}, {"index": 0, "embedding": "AACAPw=="}],
    ],
)
async def test_answers_come_in_several_shapes(server: Server, make: Make, rows: Any) -> None:
    server.answers = [Answer(body=json.dumps({"data": rows}).encode())]
    assert await make().embed_documents(["a", "b"]) == [[1.0], [2.0]]


async def test_indexes_that_make_no_sense_are_refused(server: Server, make: Make) -> None:
    rows = [{"index": 3, "embedding": [1.0]}, {"index": 3, "embedding": [2.0]}]
    server.answers = [Answer(body=json.dumps({"data": rows}).encode())]
    with pytest.raises(EmbeddingError):
        await make().embed_documents(["a", "b"])


@pytest.mark.parametrize("rows", [["a", "b"], {"a": 1}, None, [{"embedding": None}] * 2])
async def test_what_is_no_list_of_embeddings_is_told_with_the_servers_words(
    server: Server, make: Make, rows: Any
) -> None:
    body = {"data": rows, "error": {"message": "the quota is used up"}}
    server.answers = [Answer(body=json.dumps(body).encode())]
    with pytest.raises(EmbeddingError, match="no list of embeddings: the quota is used up"):
        await make(dimensions=2).embed_documents(["a", "b"])


async def test_a_server_that_ignores_dimensions_is_noticed(server: Server, make: Make) -> None:
    with pytest.raises(EmbeddingError, match="vectors of 3 numbers, where dimensions=2"):
        await make(dimensions=2).embed_query("a")


@pytest.mark.parametrize(
    "url",
    [
        *["localhost:11434/v1", "ftp://host/v1", "https:///v1", "", "http://[::1/v1"],
        *["http://host:99999/v1", "http://ho st/v1", 5, None],
    ],
)
def test_an_address_that_is_none_is_refused_at_once(url: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="http://localhost"):
        OpenAIEmbeddings("m", base_url=url)


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLCertVerificationError(1, "self-signed certificate"),
        ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
    ],
)
async def test_what_is_wrong_with_tls_is_not_tried_again(
    make: Make, pauses: list[float], error: ssl.SSLError
) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        try:
            raise error
        except ssl.SSLError as exc:
            raise httpx.ConnectError(str(exc)) from exc

    client = httpx.AsyncClient(transport=httpx.MockTransport(refuse))
    with pytest.raises(EmbeddingError, match=r"after 1 attempts: .*(self-signed|wrong version)"):
        await make(client=client).embed_query("a")
    await client.aclose()
    assert pauses == []


def test_whatever_changes_the_vectors_is_part_of_the_models_identity() -> None:
    ids = {
        OpenAIEmbeddings("m").model_id,
        OpenAIEmbeddings("n").model_id,
        OpenAIEmbeddings("m", dimensions=8).model_id,
        OpenAIEmbeddings("m", document_prefix="d: ").model_id,
        OpenAIEmbeddings("m", query_prefix="d: ").model_id,
    }
    assert len(ids) == 5
    assert OpenAIEmbeddings("m").model_id == "m"


async def test_one_text_that_is_refused_fails_its_put_alone(server: Server, make: Make) -> None:
    """Concurrent puts share a call; when the server refuses it for a text, each gets its own."""
    server.rule = lambda texts: Answer(400, b"{}") if "text b" in texts else None
    async with InMemoryStore(index=IndexConfig(make())) as store:
        outcomes = await asyncio.gather(
            *(store.put(("n",), key, f"text {key}") for key in "abc"), return_exceptions=True
        )
        assert [isinstance(each, EmbeddingError) for each in outcomes] == [False, True, False]
        assert await store.keys(("n",)) == ["a", "c"]


async def test_a_server_that_is_down_is_not_asked_for_each_text(server: Server, make: Make) -> None:
    server.answers = [Answer(401, b"{}")]
    async with InMemoryStore(index=IndexConfig(make())) as store:
        outcomes = await asyncio.gather(
            *(store.put(("n",), key, f"text {key}") for key in "abc"), return_exceptions=True
        )
        assert all(isinstance(each, EmbeddingError) for each in outcomes)
    assert len(server.requests) == 1


async def test_a_client_of_ones_own_is_used_and_left_open(server: Server) -> None:
    async with httpx.AsyncClient(headers={"x-mine": "1"}) as client:
        async with OpenAIEmbeddings("m", base_url=server.url, client=client) as embeddings:
            await embeddings.embed_query("a")
        assert not client.is_closed
    assert {name.lower() for name in server.requests[0].headers} >= {"x-mine"}


def test_it_serves_one_loop_after_another() -> None:
    embeddings = OpenAIEmbeddings("m", base_url="http://127.0.0.1:9/v1", attempts=1)

    async def ask() -> None:
        with pytest.raises(EmbeddingError):
            await embeddings.embed_query("a")
        await embeddings.aclose()

    asyncio.run(ask())
    asyncio.run(ask())


def test_its_name_says_the_model_and_never_the_key() -> None:
    embeddings = OpenAIEmbeddings("m", api_key=KEY)
    assert repr(embeddings) == "OpenAIEmbeddings('m')"
    with pytest.raises(InvalidArgumentError):
        OpenAIEmbeddings("m", batch_size=0)
    with pytest.raises(InvalidArgumentError):
        OpenAIEmbeddings("m", attempts=0)


def assert_no_key(error: BaseException | None) -> None:
    while error is not None:
        assert KEY not in str(error)
        assert KEY not in repr(error)
        error = error.__cause__
