"""Access control of the demo page's server: only this machine's own page may ask, and only for recordings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
FILES = ("/gradio_api/file=", "/gradio_api/file/")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Response headers: the browser may only contact this server, and may not embed the page in another."""


class Guard:
    """Refuses requests that the page itself never makes.

    A website can make a browser send requests to this machine: through a name that resolves to 127.0.0.1, visible in
    `Host`, or from another page, visible in `Origin`. Gradio by itself answers both, only keeps its answers from other
    pages' scripts, and fetches addresses for anyone who requests them as files.

    Args:
        app: The server.
        folder: Folder of the recordings that may be read.
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self._app = app
        self._folder = folder.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = next(self._refusals(scope), None)
        if refusal is not None:
            await PlainTextResponse(refusal, status_code=403)(scope, receive, send)
            return
        is_file = scope["path"].startswith(FILES)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS | ({"Cache-Control": "no-store"} if is_file else {}))
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _refusals(self, scope: Scope) -> Iterator[str]:
        headers, path = Headers(scope=scope), str(scope["path"])
        host, origin = headers.get("host", ""), headers.get("origin")
        if host.partition(":")[0] not in HOSTS:
            yield f"this page is only served at {' or '.join(HOSTS)}"
        if origin is not None and origin != f"http://{host}":
            yield "requests from other pages are refused"
        for prefix in FILES:
            if path.startswith(prefix) and not self._is_recording(path.removeprefix(prefix)):
                yield "only recordings that were sent can be read here"

    def _is_recording(self, name: str) -> bool:
        try:
            return Path(name).resolve().is_relative_to(self._folder)
        except (OSError, ValueError):
            return False
