"""The demo page's requirements before a model is loaded: packages, a port on this machine, and its own folder."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError
from utils.io.environment import variables

HOST = "127.0.0.1"
PORTS = range(7860, 7960)
"""Gradio's own ports; the first free one is taken if none is requested."""


class DemoError(UserError):
    """The page cannot be shown; the message names the remedy."""


class Place(NamedTuple):
    """Where the page is shown.

    Attributes:
        door: Socket that accepts connections only from this machine.
        folder: Folder for uploads to the page.
    """

    door: socket.socket
    folder: Path


@contextmanager
def demo_place(port: int | None) -> Iterator[Place]:
    """Claim a port and a folder, which is deleted with its content when the context ends.

    Args:
        port: The port; if None, the first free one of `PORTS`.

    Raises:
        DemoError: If the port is not available, or a package is missing.
    """
    with (
        _claimed(port) as door,
        tempfile.TemporaryDirectory(prefix="200ai-page-") as folder,
        variables(GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED="False"),  # uploads lie there; no telemetry
    ):
        try:
            import_module("gradio")  # only now, because it reads the environment set above
        except ImportError as error:
            raise DemoError(
                f"the page needs {error.name}, which is not installed; "
                "install it with `pip install -r requirements-extras.txt -c constraints.txt`"
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
    wanted = f"none of the ports {PORTS[0]} to {PORTS[-1]}" if port is None else f"port {port}"
    raise DemoError(f"{wanted} cannot be used ({reason}); name another one with --port")
