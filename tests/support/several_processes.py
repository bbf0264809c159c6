"""Starts a test's script as several processes, as torchrun does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT

Done = tuple[int, str, str]
"""Exit status, standard output and standard error."""


def start_together(script: Path, arguments: Sequence[object], ranks: int = 2, seconds: float = 120) -> list[Done]:
    """Return what each process said, by rank; one that hangs is ended with status -6 and tells its stacks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "TORCHELASTIC_RUN_ID": "test",
        "WORLD_SIZE": ranks,
        "LOCAL_WORLD_SIZE": ranks,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": 1,
        "PYTHONFAULTHANDLER": 1,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    processes = []
    for rank in range(ranks):
        own = {name: str(value) for name, value in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()}
        command = [sys.executable, str(script), *map(str, arguments)]
        processes.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **own}
            )
        )
    deadline = time.monotonic() + seconds
    said = [_finish(process, deadline) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def _finish(process: subprocess.Popen[str], deadline: float) -> tuple[str, str]:
    """Return what a process says; one that still runs at the deadline is ended, and says where it was."""
    try:
        return process.communicate(timeout=max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        return process.communicate()
