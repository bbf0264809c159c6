"""The device that a command runs on."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from experiment_runner.distributed.process_group import ProcessGroup
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.device_facts import CPU, DeviceFacts, explain_chosen_cpu, explain_missing_gpu
from experiment_runner.runtime.precision import Precision, resolve_precision
from utils.commands import RUN_OPTIONS, torchrun_command
from utils.errors import WRONG_INPUT, UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


class DeviceError(UserError):
    """The requested device is not available; the message names the remedy."""

    exit_status = WRONG_INPUT


def choose_device(name: str, console: Console, processes: ProcessGroup) -> torch.device:
    """Resolve `--device`; each of several processes on a machine has its own GPU.

    Raises:
        DeviceError: If CUDA is requested but not available, or there are more processes than GPUs.
    """
    has_cuda = torch.cuda.is_available()
    if name == "auto":
        gpu = f"device: {torch.cuda.get_device_name()}, because it is available" if has_cuda else None
        console.line(gpu or explain_chosen_cpu())
        name = "cuda" if has_cuda else "cpu"
    if name == "cuda" and not has_cuda:
        raise DeviceError(explain_missing_gpu())
    if name == "cpu":
        keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False  # keep float32 computations in float32
    return torch.device(name) if name == "cpu" or processes.ranks == 1 else _own_gpu(processes)


def describe_device(device: torch.device) -> DeviceFacts:
    """Return the facts about a device that the checks before training use."""
    if device.type == "cpu":
        return CPU
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return DeviceFacts(torch.cuda.get_device_name(device), has_bf16)


def choose_precision(amp: str, device: torch.device) -> Precision:
    """Resolve the `amp` key for a device.

    Raises:
        PrecisionError: If the device does not support the requested precision.
    """
    return resolve_precision(amp, describe_device(device))


def _own_gpu(processes: ProcessGroup) -> torch.device:
    there = torch.cuda.device_count()
    if processes.local_ranks > there:
        raise DeviceError(
            f"{processes.local_ranks} processes were started on a machine with {there} GPU(s), and each needs its own; "
            f"start {there}: {torchrun_command(there, 'main.py', repeat=RUN_OPTIONS)}"
        )
    torch.cuda.set_device(processes.local_rank)
    return torch.device("cuda", processes.local_rank)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 operations in full float32 while the context lasts, whatever torch's settings are."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def repeatable(is_wanted: bool, device: torch.device) -> Iterator[None]:
    """Use only operations that repeat bit for bit while the context lasts; the CPU has no others.

    Raises:
        RuntimeError: Raised by torch if an operation has no such form.
    """
    if not is_wanted or device.type == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch refuses to multiply without it
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system after every operation.

    Activations of a training step are freed and allocated again; handing their pages back and forth took half of a
    step's time on the CPU (1.58 s against 0.78 s, see docs/performance.md).
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
