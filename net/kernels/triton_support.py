"""Whether the Triton kernels can run, and the sizes of their launches; imports no Triton."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F

_PROBE = torch.linspace(-3, 3, 7)


def runs_triton(device: torch.device) -> bool:
    """Return whether a device runs the kernels: an NVIDIA GPU, or the CPU by Triton's interpreter (TRITON_INTERPRET=1).

    The GPU needs compute capability 8.0; older ones, other vendors' GPUs and installations without Triton use the forms
    in PyTorch's own operations.
    """
    if not _is_installed():
        return False
    return _is_capable(device) if device.type == "cuda" else os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _is_installed() -> bool:
    return find_spec("triton") is not None


@cache
def _is_capable(device: torch.device) -> bool:
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def is_exact_gelu(activation: object) -> bool:
    """Return whether an activation is the GELU by the error function, as in the kernels; each is tried only once."""
    return callable(activation) and torch.equal(activation(_PROBE), F.gelu(_PROBE))


def ceil_div(count: int, size: int) -> int:
    """Return how many blocks of a size cover a count."""
    return -(-count // size)


def next_power_of_2(count: int) -> int:
    """Return the smallest power of two that is no less than a positive count."""
    return 1 << (count - 1).bit_length()
