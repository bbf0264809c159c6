"""`predict.py --serve` in a separate process, with all its network requests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT

WATCH = """
import sys

ADDRESS = {{"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}}

def watch(event, arguments):
    if event in ADDRESS:
        with open({path!r}, "a") as file:
            print(event, arguments[ADDRESS[event]], file=file)

sys.addaudithook(watch)
"""
needs_gradio = pytest.mark.skipif(
    find_spec("gradio") is None, reason="needs gradio: pip install -r requirements-extras.txt -c constraints.txt"
)
SECONDS = 60.0
"""That starting and ending may take."""


@dataclass(frozen=True)
class ServedPage:
    """A page that is being shown.

    Attributes:
        process: Its server.
        address: Of the page.
        temporary: The only folder for temporary files that the server knows.
        console: What it has printed.
        network: A line for everything it asked the network for; missing where there was nothing.
    """

    process: subprocess.Popen[bytes]
    address: str
    temporary: Path
    console: Path
    network: Path

    @property
    def recordings(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


@contextmanager
def served(model: Path, folder: Path) -> Iterator[ServedPage]:
    """Show the page of a model until the context ends."""
    temporary, console, network = folder / "temporary", folder / "screen.txt", folder / "network.txt"
    temporary.mkdir(parents=True)
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(WATCH.format(path=str(network)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--model", str(model), "--serve", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(folder / "site")}
    with console.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "predict.py", *arguments], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    page = ServedPage(process, f"http://127.0.0.1:{port}", temporary, console, network)
    try:
        _await(page)
        yield page
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _await(page: ServedPage) -> None:
    until = time.monotonic() + SECONDS
    while page.address not in page.console.read_text():
        assert page.process.poll() is None, page.console.read_text()
        assert time.monotonic() < until, page.console.read_text()
        time.sleep(0.05)
    assert httpx.get(page.address, trust_env=False).status_code == httpx.codes.OK
