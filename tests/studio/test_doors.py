"""Who gets into the studio, and who does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

import kvstore
from kvstore.studio import make_app

PORT = 8123
HOST = f"127.0.0.1:{PORT}"
TOKEN = "the-token"


class Browser:
    """An HTTP client that talks to the application as a browser would."""

    def __init__(self, app: Any, host: str = HOST) -> None:
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url=f"http://{host}"
        )

    async def open(self, token: str = TOKEN) -> httpx.Response:
        return await self.client.get("/", params={"token": token})


@pytest_asyncio.fixture
async def app() -> AsyncIterator[Any]:
    async with kvstore.open("memory://") as store:
        await store.put(("a",), "k", {"n": 2**63 - 1})
        hosts = frozenset({HOST, f"localhost:{PORT}"})
        yield make_app(store, hosts=hosts, token=TOKEN, is_editable=True)


@pytest.fixture
def browser(app: Any) -> Browser:
    return Browser(app)


async def test_the_link_opens_once_and_becomes_a_cookie(app: Any, browser: Browser) -> None:
    response = await browser.open()
    assert response.status_code == 303
    assert response.headers["location"] == "/"
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert (await browser.client.get("/")).status_code == 200
    assert (await browser.client.get("/api/store")).status_code == 200
    assert (await Browser(app).open()).status_code == 403


@pytest.mark.parametrize("other", ["a/b=1", "a(b=1", "path=1", "a b=1", 'a="b'])
async def test_cookies_of_other_servers_of_the_machine_do_no_harm(
    browser: Browser, other: str
) -> None:
    await browser.open()
    (own,) = browser.client.cookies.jar
    for cookies in (f"{other}; {own.name}={own.value}", f"{own.name}={own.value}; {other}"):
        response = await browser.client.get("/api/store", headers={"cookie": cookies})
        assert response.status_code == 200
    browser.client.cookies.clear()
    assert (await browser.client.get("/", headers={"cookie": other})).status_code == 403


@pytest.mark.parametrize("path", ["/", "/api/store", "/api/items", "/studio.js", "/nowhere"])
async def test_without_the_cookie_nothing_is_shown(browser: Browser, path: str) -> None:
    response = await browser.client.get(path)
    assert response.status_code == 403
    assert "kvstore studio" in response.text


@pytest.mark.parametrize("token", ["", "other", "ä", TOKEN + "x"])
async def test_another_token_opens_nothing_and_spends_nothing(
    app: Any, browser: Browser, token: str
) -> None:
    assert (await browser.open(token)).status_code == 403
    assert (await Browser(app).open()).status_code == 303


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8123", "127.0.0.1", "127.0.0.1:9", "127.0.0.1:8123.evil", ""],
)
async def test_a_name_that_was_made_to_resolve_here_is_refused(browser: Browser, host: str) -> None:
    await browser.open()
    response = await browser.client.get("/api/store", headers={"host": host})
    assert response.status_code == 421


async def test_the_machines_other_name_will_do(app: Any) -> None:
    browser = Browser(app, f"localhost:{PORT}")
    await browser.open()
    assert (await browser.client.get("/api/store")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:8123"},
        {"origin": "http://127.0.0.1:9"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_other_sites_are_refused(browser: Browser, headers: dict[str, str]) -> None:
    await browser.open()
    assert (await browser.client.get("/api/store", headers=headers)).status_code == 403
    body = {"namespace": ["a"], "key": "k", "text": "1"}
    put = await browser.client.post("/api/put", json=body, headers=headers)
    assert put.status_code == 403


async def test_a_change_comes_from_the_page_itself(browser: Browser) -> None:
    await browser.open()
    body = {"namespace": ["a"], "key": "k", "text": "1"}
    assert (await browser.client.post("/api/put", json=body)).status_code == 403
    headers = {"origin": f"http://{HOST}"}
    assert (await browser.client.post("/api/put", json=body, headers=headers)).status_code == 200
    form = await browser.client.post("/api/put", content="x", headers=headers)
    assert form.status_code == 415


@pytest.mark.parametrize("path", ["/api/put", "/api/delete"])
async def test_reading_never_writes(browser: Browser, path: str) -> None:
    await browser.open()
    assert (await browser.client.get(path)).status_code == 405


async def test_every_answer_carries_the_policy(browser: Browser) -> None:
    answers = [await browser.client.get("/"), await browser.open(), await browser.client.get("/")]
    answers += [await browser.client.get(f"/api/{name}") for name in ("store", "item", "nowhere")]
    for response in answers:
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-store"
        assert not any(name.startswith("access-control") for name in response.headers)
