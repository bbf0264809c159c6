"""Runs functions of test modules, each in a separate process that interprets Triton's kernels on the CPU.

TRITON_INTERPRET must be set before Triton is imported, so not in the process of the tests. What all functions import is
imported once, by a process that forks one for each of them.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("torch", "transformers.models.wavlm.modeling_wavlm", "pytest")
"""Modules that take long to import."""


def run_interpreted(module: str, function: str, *arguments: str) -> None:
    """Run `module.function(*arguments)`."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps([module, function, *arguments]), file=server.stdin, flush=True)
    status, said = json.loads(server.stdout.readline())
    assert status == 0, f"{status}: {said}"


@cache
def _server() -> subprocess.Popen[str]:
    """Start the process that forks, which ends with this one."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-m", __name__]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


def _serve() -> None:
    for name in SHARED:
        importlib.import_module(name)
    _accept_one_element_arrays()
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as console:
            child = os.fork()
            if child == 0:
                os.dup2(console.fileno(), 1)
                os.dup2(console.fileno(), 2)
                os._exit(_status_of(*json.loads(line)))
            _, status = os.waitpid(child, 0)
            console.seek(0)
            print(json.dumps([status, console.read()]), flush=True)


def _status_of(module: str, function: str, *arguments: str) -> int:
    """Call a function; return 0 where it returns, else 1 behind its traceback."""
    try:
        getattr(importlib.import_module(module), function)(*arguments)
    except BaseException:  # noqa: BLE001 - whatever it is, it is told
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _accept_one_element_arrays() -> None:
    """Let loops end at loaded values: Triton 3.6 makes integers of one-element arrays as NumPy 2.4 refuses to."""
    interpreter: Any = importlib.import_module("triton.runtime.interpreter")
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:  # noqa: ANN401
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


if __name__ == "__main__":
    _serve()
