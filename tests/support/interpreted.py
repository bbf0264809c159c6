"""Runs functions of test modules, each in a separate process that interprets Triton's kernels on the CPU.

TRITON_INTERPRET must be set before Triton is imported, so not in the process of the tests.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.forked import Forker

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("torch", "transformers.models.wavlm.modeling_wavlm", "pytest")
"""Modules that take long to import."""


def run_interpreted(module: str, function: str, *arguments: str) -> None:
    """Run `module.function(*arguments)`."""
    call = f"import_module({module!r}).{function}(*{arguments!r})"
    code = f"from importlib import import_module\nimport_module({__name__!r}).prepare()\n{call}"
    done = _forker().run(["-c", code], ROOT)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"


@cache
def _forker() -> Forker:
    return Forker(SHARED, ("-W", "error"), {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"})


def prepare() -> None:
    """Prepare a process that interprets kernels; each of their programs costs it as much as a large tile."""
    _accept_one_element_arrays()
    from net.kernels import convolutions
    from net.wavlm import layer_operations

    for settings in layer_operations.SETTINGS.values():
        settings.update({"rows": 16} if "rows" in settings else {})
    convolutions.SETTINGS["window_moments"]["splits"] = 2


def _accept_one_element_arrays() -> None:
    """Let loops end at loaded values: Triton 3.6 makes integers of one-element arrays as NumPy 2.4 refuses to."""
    interpreter: Any = importlib.import_module("triton.runtime.interpreter")
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:  # noqa: ANN401
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched
