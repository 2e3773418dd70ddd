"""`kvstore studio`: a local web page to look at a store and, if asked, to edit it.

- `doors`: who gets in: one-time link, session cookie, the exact host, no other origin.
- `views`: what the page asks for, as JSON; each answer is a page of bounded size.
- `server`: the application, and the server that runs it on the loopback address.
- `static/`: the page: plain HTML, CSS and JavaScript, without a build step.

It needs the extra `studio` (Starlette and uvicorn) and asks nothing of any other server.
"""

from kvstore.studio.server import make_app, serve

__all__ = ["make_app", "serve"]
