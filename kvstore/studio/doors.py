"""Who gets in: nobody but the person who started the studio.

A page on the loopback address is reachable by every program of the machine and, through the
browser, by every web site that is open in it. So:

- The link that the terminal shows holds a token that opens once. It is exchanged for a session
  cookie (HttpOnly, SameSite=Strict) and leaves the address bar by a redirect, so that it is in
  no history, no log and no Referer. Both secrets are new at each start.
- The Host header is one of the addresses that were bound, port included: a site whose name is
  made to resolve to 127.0.0.1 (DNS rebinding) is refused.
- Requests of other origins are refused by `Sec-Fetch-Site` and `Origin`; no CORS header is ever
  sent; only POST changes anything.
- A strict content security policy: scripts, styles and data from here alone, no frames, no
  inline script; whatever is stored reaches the page as text.
"""

from __future__ import annotations

import secrets
from typing import Final

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Doors"]

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_SAFE: Final = ("GET", "HEAD")


class Doors:
    """Middleware that lets the holder of the link in, and nobody else.

    Args:
        app: what is behind the doors.
        hosts: the values that the Host header may have, such as `127.0.0.1:8123`.
        token: opens once.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], token: str) -> None:
        self._app = app
        self._hosts = hosts
        self._token: str | None = token
        self._session = secrets.token_urlsafe(32)
        port = min(hosts).rpartition(":")[2]
        self._cookie = f"kvstore-studio-{port}"  # cookies are shared between ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refusal = self._answer(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await (refusal or self._app)(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """Return what is answered at the door; `None`: come in."""
        headers = Headers(scope=scope)
        if headers.get("host", "").lower() not in self._hosts:
            return _refuse(421, "this address is not the studio's")
        origin = headers.get("origin")
        if origin is not None and origin.lower().removeprefix("http://") not in self._hosts:
            return _refuse(403, "requests of other origins are refused")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return _refuse(403, "requests of other sites are refused")
        token = QueryParams(scope["query_string"]).get("token")
        if token is not None and scope["method"] == "GET":
            return self._let_in(token)
        if not self._is_known(headers):
            return _refuse(403, "open the link that `kvstore studio` shows in its terminal")
        if scope["method"] not in _SAFE and origin is None:
            return _refuse(403, "a change comes from the studio's own page")
        return None

    def _let_in(self, token: str) -> Response:
        if self._token is None or not secrets.compare_digest(token.encode(), self._token.encode()):
            return _refuse(403, "this link was used already; start `kvstore studio` again")
        self._token = None
        response = RedirectResponse("/", 303)
        response.set_cookie(self._cookie, self._session, httponly=True, samesite="strict", path="/")
        return response

    def _is_known(self, headers: Headers) -> bool:
        found = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        return secrets.compare_digest(found.encode(), self._session.encode())


def _refuse(status: int, why: str) -> Response:
    return PlainTextResponse(why + "\n", status)
