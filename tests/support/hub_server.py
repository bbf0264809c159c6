"""A local Hugging Face hub for models, over real HTTP, for the real client without Xet (HF_HUB_DISABLE_XET=1).

It speaks what the client asks of it: repositories are created, deleted, listed, committed to and downloaded from,
large files by Git LFS. Other than the real one it sends the content of LFS files itself, without a redirect to a
content network, knows the branch main alone (no tags, no pull requests), and a namespace belongs to one user.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from tests.support.hub_answers import answer
from tests.support.hub_messages import Answer, Asked
from tests.support.hub_repositories import HubError, Repository


class Request(NamedTuple):
    """What was asked for, as it was sent; the names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class Hub:
    """The state of the server, and what a test does with it."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self.tokens = dict(tokens)
        self.endpoint = ""
        self.requests: list[Request] = []
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, tuple[Repository, str, int]] = {}  # where LFS objects are put, by a secret address
        self.lock = threading.RLock()
        self._failures: list[tuple[str, int]] = []
        self._cuts: list[int] = []
        self._actions: list[tuple[str, Callable[[], object]]] = []

    def publish(self, repository: str, folder: Path, private: bool = False) -> str:
        """Commit the files of a folder as if they had been uploaded, and return the revision."""
        with self.lock:
            found = self.repositories.setdefault(repository, Repository(repository, private))
            files = dict(found.head.files)
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                name, content = path.relative_to(folder).as_posix(), path.read_bytes()
                large = content and found.upload_mode(name, len(content), content[:512]) == "lfs"
                files[name] = found.store_lfs(content) if large else found.store(content)
            return found.record("Publish", files)

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes]:
        """Return the contents of a revision; every repository has the .gitattributes that it was created with."""
        found = self.repositories[repository]
        return {path: found.contents[file.key] for path, file in found.find(revision).files.items()}

    def is_private(self, repository: str) -> bool:
        """Return whether only its owner sees a repository."""
        return self.repositories[repository].private

    def flip_byte(self, repository: str, path: str) -> None:
        """Damage the stored content of a file in the middle; what the metadata say of it stays."""
        found = self.repositories[repository]
        key = found.head.files[path].key
        content = bytearray(found.contents[key])
        content[len(content) // 2] ^= 0xFF
        found.contents[key] = bytes(content)

    def fail(self, times: int, status: int = 500, on: str = "") -> None:
        """Answer the next requests with an error: those whose "METHOD path" has `on` in it.

        The client waits for a second and longer before it repeats a request that failed by 408, 429 or 5xx.
        """
        self._failures += [(on, status)] * times

    def cut(self, after_bytes: int, times: int = 1) -> None:
        """End the connection of the next downloads of a file after so many bytes of it."""
        self._cuts += [after_bytes] * times

    def after(self, on: str, action: Callable[[], object]) -> None:
        """Do something once, between the next request whose "METHOD path" has `on` in it and its answer."""
        self._actions.append((on, action))

    def respond(self, asked: Asked) -> Answer:
        """Answer a request, with what `fail`, `cut` and `after` have ordered."""
        line = f"{asked.method} {asked.target}"
        with self.lock:
            self.requests.append(Request(asked.method, asked.target, asked.headers))
            for failure in self._failures:
                if failure[0] in line:
                    self._failures.remove(failure)
                    return Answer.of_error(HubError(HTTPStatus(failure[1]), "This failure was ordered by the test"))
            given = answer(self, asked)
            for order in [order for order in self._actions if order[0] in line]:
                self._actions.remove(order)
                order[1]()
            if given.is_download and asked.method == "GET" and self._cuts:
                given.cut_after = self._cuts.pop(0)
            return given


class Handler(BaseHTTPRequestHandler):
    """Between HTTP and `Hub.respond`."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def _respond(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        path, _, query = self.path.partition("?")
        parts = [unquote(part) for part in path.strip("/").split("/")]
        given = self.hub.respond(Asked(self.command, self.path, parts, query, headers, self._read_body(headers)))
        self.send_response(given.status)
        for name, value in {"Content-Length": str(len(given.body)), **given.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # a client that has seen enough hangs up
                self.wfile.write(given.body if given.cut_after is None else given.body[: given.cut_after])
        self.close_connection = self.close_connection or given.cut_after is not None

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _respond  # noqa: N815 - the standard library's names

    def _read_body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@contextmanager
def serve_hub(tokens: Mapping[str, str] | None = None) -> Iterator[Hub]:
    """Serve a hub that has no repositories yet.

    Args:
        tokens: The user of each access token; a user's repositories are those of the namespace of that name.
    """
    hub = Hub(tokens or {})
    hub_handler = type("HubHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub_handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
