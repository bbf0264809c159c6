"""Queries the GPU driver without torch, which takes seconds to import.

The query runs this file as a separate program: a driver that crashes or hangs does not affect the caller, and a process
that has begun to use a GPU could not fork. So this file imports only the standard library.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LIBRARY = "libcuda.so.1"
NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE of cuda.h."""
MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
LONGEST_ANSWER = 30.0
"""Timeout in seconds; a driver that has to load its module first takes several."""
FIRST_WITH_BF16 = (8, 0)
"""First compute capability with bf16."""


@dataclass(frozen=True)
class Driver:
    """A driver and the GPUs that it sees.

    Attributes:
        cuda: Newest CUDA version that it supports, such as (13, 0); None if there is no driver.
        gpus: Name and compute capability of each GPU.
        failure: Reason why it sees none, if it gives one.
    """

    cuda: tuple[int, int] | None = None
    gpus: tuple[tuple[str, tuple[int, int]], ...] = ()
    failure: str = ""


def find_obstacle(driver: Driver, torch_cuda: str | None) -> str | None:
    """Explain why torch has no GPU; None if it should have one.

    Args:
        driver: Result of `ask_driver`.
        torch_cuda: CUDA version that torch is built for; None if it is built without CUDA.
    """
    if torch_cuda is None:
        return "the installed torch is built without CUDA"
    if driver.cuda is None:
        return driver.failure or "there is no NVIDIA driver"
    if driver.cuda[0] < int(torch_cuda.split(".")[0]):  # newer minor versions run on the driver of their major one
        supported = ".".join(map(str, driver.cuda))
        return (
            f"its driver supports CUDA {supported}, the installed torch needs {torch_cuda}: "
            "update the driver, or install a torch that is built for it, as README.md says"
        )
    if driver.gpus:
        return None
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    because = "" if hidden is None else f', with CUDA_VISIBLE_DEVICES = "{hidden}"'
    return f"the driver reports none{because}{f': {driver.failure}' if driver.failure else ''}"


def read_torch_cuda() -> tuple[bool, str | None]:
    """Return whether the installed torch is for NVIDIA GPUs or for CPUs only, and the CUDA version it is built for.

    Read from the text of its `version.py`; a torch for other makers' GPUs, or a missing one, is not judged here.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False, None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False, None
    values = dict(re.findall(r"^(cuda|hip|xpu)\b[^=\n]*= *(?:'([^']*)'|None)", text, re.MULTILINE))
    is_judged = "cuda" in values and not values.get("hip") and not values.get("xpu")
    return is_judged, values.get("cuda") or None


def ask_driver() -> Driver:
    """Query the driver in a separate process."""
    command = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_ANSWER)
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Driver(failure=f"the NVIDIA driver does not answer within {LONGEST_ANSWER:.0f} s")
    except (OSError, ValueError):
        return Driver(failure="the NVIDIA driver kills the process that queries it")
    version = answer["version"]
    cuda = None if version is None else (version // 1000, version % 1000 // 10)
    gpus = tuple((str(name), (int(major), int(minor))) for name, major, minor in answer["gpus"])
    return Driver(cuda, gpus, answer["failure"])


def _answer() -> dict[str, object]:
    """Query the driver through its library; return the answer for JSON."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return {"version": None, "gpus": [], "failure": ""}
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    status = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    failure = "" if status in (0, NO_DEVICE) else _explain(library, status)
    return {"version": version.value, "gpus": [_describe(library, n) for n in range(count.value)], "failure": failure}


def _describe(library: ctypes.CDLL, number: int) -> tuple[str, int, int]:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), number)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
    return name.value.decode(errors="replace"), major.value, minor.value


def _explain(library: ctypes.CDLL, status: int) -> str:
    text = ctypes.c_char_p()
    library.cuGetErrorString(status, ctypes.byref(text))
    return (text.value or f"error {status}".encode()).decode(errors="replace")


if __name__ == "__main__":
    print(json.dumps(_answer()))
