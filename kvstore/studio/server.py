"""The application, and the server that runs it on the loopback address for one person."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from kvstore.distribution import or_install
from kvstore.errors import InvalidArgumentError, StoreAccessError
from kvstore.store import Store

__all__ = ["make_app", "serve"]

_HOST = "127.0.0.1"
_NEEDS = ("the studio needs Starlette and uvicorn", "studio", "starlette", "uvicorn")
_SCRIPTS = ("base", "items", "charts", "studio")  # the page begins with the last


def make_app(store: Store, *, hosts: frozenset[str], token: str, is_editable: bool = False) -> Any:
    """Return the studio of an open store as an ASGI application.

    Args:
        store: it is used on the loop that opened it.
        hosts: the values that a request's Host header may have, ports included.
        token: what the first request shows as `?token=`; it opens once.
        is_editable: whether items can be written and deleted.

    Raises:
        MissingDependencyError: Starlette is not installed.
    """
    with or_install(*_NEEDS):
        from starlette.applications import Starlette
        from starlette.responses import Response
        from starlette.routing import Route

    from kvstore.studio.doors import Doors
    from kvstore.studio.views import routes

    def page(name: str, media_type: str) -> Callable[[Any], Response]:
        content = files("kvstore.studio").joinpath("static", name).read_bytes()
        return lambda request: Response(content, media_type=media_type)

    static = [
        Route("/", page("index.html", "text/html")),
        *(Route(f"/{name}.js", page(f"{name}.js", "text/javascript")) for name in _SCRIPTS),
        Route("/studio.css", page("studio.css", "text/css")),
        Route("/favicon.ico", page("icon.svg", "image/svg+xml")),
    ]
    app = Starlette(routes=[*static, *routes(store, is_editable=is_editable)])
    return Doors(app, hosts=hosts, token=token)


async def serve(
    store: Store,
    *,
    port: int = 0,
    is_editable: bool = False,
    started: Callable[[str], object] = print,
) -> None:
    """Serve the studio of an open store on 127.0.0.1 until the task is cancelled or Ctrl-C.

    Args:
        store: an open store.
        port: to listen on; 0: any that is free.
        is_editable: whether items can be written and deleted.
        started: called with the link that opens the studio, once.

    Raises:
        MissingDependencyError: Starlette or uvicorn is not installed.
        StoreAccessError: the port is taken.
    """
    with or_install(*_NEEDS):
        import uvicorn
    if not 0 <= port < 65536:
        raise InvalidArgumentError(f"a port is from 0 to 65535, not {port}")
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((_HOST, port))
        except OSError as exc:
            raise StoreAccessError(f"port {port} cannot be used ({exc.strerror})") from exc
        port = listening.getsockname()[1]
        token = secrets.token_urlsafe(32)
        hosts = frozenset({f"{_HOST}:{port}", f"localhost:{port}"})
        app = make_app(store, hosts=hosts, token=token, is_editable=is_editable)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        started(f"http://{_HOST}:{port}/?token={token}")
        await server.serve(sockets=[listening])
