"""Serves the demo page to this machine only, until it is stopped."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI

from experiment_runner.models.loaded_model import LoadedModel
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.precision import Precision
from experiment_runner.webapp.guard import Guard
from experiment_runner.webapp.page import STYLE, build_page, theme
from experiment_runner.webapp.uploads import Uploads
from experiment_runner.webapp.workspace import HOST, Place

MOST_BYTES = 128 << 20
"""Maximum size of one recording: an hour at 16 kHz, uncompressed."""
ENDING_SECONDS = 1
"""Seconds to wait at the end for open connections, and then for a running prediction."""


def serve(model: LoadedModel, name: str, precision: Precision, place: Place, console: Console) -> None:
    """Show the page until Ctrl-C, SIGTERM or SIGHUP.

    Args:
        model: The model.
        name: Name that the model was requested by.
        precision: Precision of the forward passes.
        place: Where to listen, and where to keep uploads.
        console: Where messages are printed.
    """
    page = build_page(model, name, precision, Uploads(place.folder))
    server = uvicorn.Server(
        uvicorn.Config(
            _make_app(page, place.folder),
            lifespan="on",
            ws="none",
            log_config=None,
            log_level="critical",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=ENDING_SECONDS,
        )
    )
    before = signal.signal(signal.SIGHUP, server.handle_exit)  # a closed terminal stops the server as Ctrl-C does
    _report(place.door.getsockname()[1], console)
    try:
        with suppress(KeyboardInterrupt):  # uvicorn stops, and then raises the signal again
            server.run([place.door])
    finally:
        signal.signal(signal.SIGHUP, before)
    if not server.started:
        raise RuntimeError("the page's server did not start")


def _make_app(page: gr.Blocks, folder: Path) -> Guard:
    """Return gradio's server without its extras: documentation, monitoring, history, other folders' files."""
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page.queue(api_open=False, max_size=20),
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        root_path="",
        allowed_paths=[],
        show_error=False,
        max_file_size=MOST_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css_paths=[STYLE],
    )
    return Guard(app, folder)


def _report(port: int, console: Console) -> None:
    console.line(f"http://{HOST}:{port} serves the page to this machine only; Ctrl-C stops it")
    if "SSH_CONNECTION" in os.environ:
        place = f"{getpass.getuser()}@{socket.gethostname()}"
        console.line(f"from your own machine: ssh -N -L {port}:{HOST}:{port} {place}, and the same address there")


def leave_predictions(threads: Collection[threading.Thread]) -> None:
    """End the process at once if a prediction is still running: waiting for its thread could take minutes.

    Args:
        threads: Threads that ran before the page was shown.
    """
    until = time.monotonic() + ENDING_SECONDS
    for thread in threading.enumerate():
        if thread not in threads and not thread.daemon:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
