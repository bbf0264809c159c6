"""What the demo page needs before a model is loaded: its packages, a port of this machine, and a folder of its own."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError

HOST = "127.0.0.1"
PORTS = range(7860, 7960)
"""Of which the first free one is taken where none is asked for; gradio's own."""


class DemoError(UserError):
    """The page cannot be shown; the message names the remedy."""


class Place(NamedTuple):
    """Where the page is shown.

    Attributes:
        door: Listens to this machine alone.
        folder: For what is sent to the page.
    """

    door: socket.socket
    folder: Path


@contextmanager
def demo_place(port: int | None) -> Iterator[Place]:
    """Claim a port and a folder, which goes with everything in it when the context ends.

    Args:
        port: The port; the first free one of gradio's where None.

    Raises:
        DemoError: If the port cannot be had, or a package is missing.
    """
    with _claimed(port) as door, tempfile.TemporaryDirectory(prefix="200ai-page-") as folder, _environment(folder):
        try:
            import_module("gradio")  # after the environment is set, which it reads
        except ImportError as error:
            raise DemoError(
                f"the page needs {error.name}, which is not installed; "
                "install it with `pip install -r requirements-extras.txt`"
            ) from error
        yield Place(door, Path(folder))


def _claimed(port: int | None) -> socket.socket:
    reason = ""
    for number in PORTS if port is None else (port,):
        door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((HOST, number))
            door.listen()
        except OSError as error:
            door.close()
            reason = str(error.strerror)
        else:
            return door
    asked = f"none of the ports {PORTS[0]} to {PORTS[-1]}" if port is None else f"port {port}"
    raise DemoError(f"{asked} cannot be used ({reason}); name another one with --port")


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """Have gradio keep what it is sent in a folder, and tell nobody anything."""
    wanted = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
