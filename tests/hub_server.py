"""A local server that answers the hub client's questions about one repository, over real HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_repository(repository: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the files of a folder as a model repository.

    Yields:
        The endpoint, and the paths asked for, in order.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:  # noqa: N802 - the standard library's names
            self._answer(with_body=False)

        def do_GET(self) -> None:  # noqa: N802
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            asked.append(self.path)
            path = self.path.split("?")[0]
            prefix = f"/{repository}/resolve/"
            if path.startswith(f"/api/models/{repository}"):
                self._send(json.dumps(self._info(path)).encode(), "application/json", {}, with_body)
            elif path.startswith(prefix) and (file := folder / path[len(prefix) :].split("/", 1)[1]).is_file():
                content = file.read_bytes()
                headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
                self._send(content, "application/octet-stream", headers, with_body)
            else:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _info(self, path: str) -> object:
            names = sorted(p.name for p in folder.iterdir())
            if "/tree/" in path:
                return [{"type": "file", "path": n, "size": (folder / n).stat().st_size, "oid": n} for n in names]
            return {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}

        def _send(self, content: bytes, kind: str, headers: dict[str, str], with_body: bool) -> None:
            self.send_response(200)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
