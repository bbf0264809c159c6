"""A local server of git repositories, over real HTTPS with basic authentication: git's own program and Git LFS.

Repositories are published without a working tree. What LFS holds lies in the bare repository's own `lfs/objects`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from tests.support.certificates import write_certificate

AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in {"NAME": "Somebody", "EMAIL": "somebody@example.org", "DATE": "1700000000 +0000"}.items()
}
LFS_TYPE = "application/vnd.git-lfs+json"
LONGEST_REQUEST = 60


class Request(NamedTuple):
    """What was asked for; the names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def password(self) -> str | None:
        """The password that came with it."""
        kind, _, encoded = self.headers.get("authorization", "").partition(" ")
        return base64.b64decode(encoded).decode().partition(":")[2] if kind == "Basic" else None


class Link(NamedTuple):
    """A symbolic link, in place of a file's content."""

    target: str


class Large(NamedTuple):
    """A content that Git LFS holds."""

    content: bytes

    @property
    def oid(self) -> str:
        """The SHA-256 that names it."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What stands in the tree."""
        return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
            self.oid.encode(),
            len(self.content),
        )


Files = Mapping[str, bytes | Large | Link]


class GitServer:
    """The repositories, how the server behaves, and what it was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.certificate = root / "certificate.pem"
        self.address = ""
        self.tokens: set[str] = set()
        self.requests: list[Request] = []
        self.moved_to = ""  # another server, which everything is redirected to, by those alone who have a token here
        self.speaks_version_2 = True
        self.is_static = False  # files alone, as a server without git's program
        self.large_from = ""  # where LFS objects are downloaded from, if not from here
        self.silent_on: str | None = None  # what is in the path or the body of requests that are not answered
        self.sent_bytes = 0
        self.on_request: Callable[[], None] = lambda: None
        self.is_over = threading.Event()

    def publish(self, name: str, files: Files, branch: str = "main") -> str:
        """Commit files to a branch, which has no others then, and return the commit."""
        folder = self.root / name
        if not folder.exists():
            subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(folder)], check=True)
            self.git(name, "config", "uploadpack.allowFilter", "true")
            self.git(name, "config", "http.getanyfile", "true")
        entries = [self._entry(name, path, content) for path, content in files.items()]
        tree = self.git(name, "mktree", given="".join(entries).encode())
        commit = self.git(name, "commit-tree", "-m", "Publish", tree)
        self.git(name, "update-ref", f"refs/heads/{branch}", commit)
        self.git(name, "update-server-info")
        return commit

    def _entry(self, name: str, path: str, content: bytes | Large | Link) -> str:
        mode, blob = "100644", content
        if isinstance(content, Large):
            blob = content.pointer
            self.object_path(name, content).parent.mkdir(parents=True, exist_ok=True)
            self.object_path(name, content).write_bytes(content.content)
        elif isinstance(content, Link):
            mode, blob = "120000", content.target.encode()
        assert isinstance(blob, bytes)
        stored = self.git(name, "hash-object", "-w", "--stdin", given=blob)
        if "/" not in path:
            return f"{mode} blob {stored}\t{path}\n"
        folder, _, inner = path.partition("/")
        tree = self.git(name, "mktree", given=f"{mode} blob {stored}\t{inner}\n".encode())
        return f"040000 tree {tree}\t{folder}\n"

    def git(self, name: str, *arguments: str, given: bytes = b"") -> str:
        """Run git in a repository and return what it says."""
        environment = {**os.environ, **AUTHOR}
        command = ["git", "--git-dir", str(self.root / name), *arguments]
        done = subprocess.run(command, input=given, env=environment, capture_output=True, check=True)
        return done.stdout.decode().strip()

    def object_path(self, name: str, large: Large) -> Path:
        """Return where an LFS object is stored."""
        return self.root / name / "lfs" / "objects" / large.oid[:2] / large.oid[2:4] / large.oid

    def flip_byte(self, name: str, large: Large) -> None:
        """Damage a stored LFS object in the middle."""
        content = bytearray(large.content)
        content[len(content) // 2] ^= 0xFF
        self.object_path(name, large).write_bytes(content)

    def asked(self, part: str) -> list[Request]:
        """Return the requests that have something in their path."""
        return [request for request in self.requests if part in request.path]


class Handler(BaseHTTPRequestHandler):
    """Between HTTPS and the repositories."""

    protocol_version = "HTTP/1.1"
    timeout = LONGEST_REQUEST
    server_state: GitServer

    def _respond(self) -> None:
        state = self.server_state
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        state.requests.append(asked)
        state.on_request()
        if state.silent_on is not None and state.silent_on.encode() in self.path.encode() + body:
            state.is_over.wait(LONGEST_REQUEST)
            self.close_connection = True
        elif state.tokens and asked.password not in state.tokens:
            self._send(401, {"WWW-Authenticate": 'Basic realm="git"'})
        elif state.moved_to:
            self._send(307, {"Location": state.moved_to + self.path})
        elif "/info/lfs/objects/batch" in self.path:
            self._send_batch(body)
        elif "/lfs/objects/" in self.path:
            self._send_object()
        else:
            self._run_git(asked, body)

    do_GET = do_POST = _respond  # noqa: N815 - the standard library's names

    def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.server_state.sent_bytes += len(body)

    def _send_batch(self, body: bytes) -> None:
        """Answer the batch API: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md."""
        state, repository = self.server_state, self.path.partition("/info/lfs")[0]
        objects = [
            {**asked, "actions": {"download": {"href": f"{place}{repository}/lfs/objects/{asked['oid']}"}}}
            for asked in json.loads(body)["objects"]
            for place in [state.large_from or state.address]
        ]
        self._send(200, {"Content-Type": LFS_TYPE}, json.dumps({"transfer": "basic", "objects": objects}).encode())

    def _send_object(self) -> None:
        repository, _, oid = self.path.lstrip("/").partition("/lfs/objects/")
        path = self.server_state.root / repository / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
        if path.is_file():
            self._send(200, {"Content-Type": "application/octet-stream"}, path.read_bytes())
        else:
            self._send(404, {"Content-Type": LFS_TYPE}, b'{"message": "no such object"}')

    def _run_git(self, asked: Request, body: bytes) -> None:
        state, (path, _, query) = self.server_state, self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(state.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": unquote(path),
            "QUERY_STRING": "" if state.is_static else query,
            "REQUEST_METHOD": asked.method,
            "CONTENT_TYPE": asked.headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": asked.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": asked.headers.get("git-protocol", "") if state.speaks_version_2 else "",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        self._send(int(headers.pop("Status", "200").split()[0]), headers, content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


class QuietServer(ThreadingHTTPServer):
    """Clients that hang up, or do not trust the certificate, are no news."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet."""


@contextmanager
def serve_git(root: Path) -> Iterator[GitServer]:
    """Serve the repositories of a folder; it has none yet."""
    root.mkdir(parents=True, exist_ok=True)
    state = GitServer(root)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write_certificate(root))
    server = QuietServer(("127.0.0.1", 0), type("GitHandler", (Handler,), {"server_state": state}))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    state.address = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.is_over.set()
        server.shutdown()
        with suppress(OSError):
            server.server_close()
        thread.join(5)
