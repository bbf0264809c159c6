"""Runs a function of a test module in a process of its own, where Triton's kernels are interpreted on the CPU."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run_interpreted(module: str, function: str, *arguments: str) -> None:
    """Run `module.function(*arguments)`; TRITON_INTERPRET must be set before Triton is imported, so not in here."""
    command = [sys.executable, "-W", "error", "-m", __name__, module, function, *arguments]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _accept_one_element_arrays() -> None:
    """Let loops end at loaded values: Triton 3.6 makes integers of one-element arrays as NumPy 2.4 refuses to."""
    interpreter: Any = importlib.import_module("triton.runtime.interpreter")
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:  # noqa: ANN401
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


if __name__ == "__main__":
    _accept_one_element_arrays()
    getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(*sys.argv[3:])
