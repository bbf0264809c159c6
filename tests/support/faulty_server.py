"""Servers that fail: they answer 500, cut every connection in the middle of an answer, or never answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

FAULTS = ("500", "cut", "silent")
ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
HALF = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n{"id": "half an ans'


@contextmanager
def serve_fault(fault: str) -> Iterator[tuple[str, list[bytes]]]:
    """Serve one of `FAULTS`.

    Yields:
        The address, and how each connection began.
    """
    asked: list[bytes] = []
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                if fault == "silent":
                    asked.append(b"")
                    continue
                with suppress(OSError):
                    connection.settimeout(5)
                    asked.append(connection.recv(65_536))
                    connection.sendall(ERROR if fault == "500" else HALF)
                connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    for connection in held:
        connection.close()
