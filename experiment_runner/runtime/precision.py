"""The precision of forward passes, on a device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from experiment_runner.runtime.precision_names import BF16, FP16, FP32, name_precision

DTYPES = {FP32: None, FP16: torch.float16, BF16: torch.bfloat16}
"""Dtype of autocast by precision."""


@dataclass(frozen=True)
class Precision:
    """The precision of the forward pass, and why it was chosen.

    Attributes:
        dtype: Dtype of autocast; None for plain fp32.
        reason: Reason for the choice, for console messages.
    """

    dtype: torch.dtype | None
    reason: str

    @property
    def needs_scaler(self) -> bool:
        """Whether gradients would underflow without scaling."""
        return self.dtype is torch.float16

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context of a forward pass."""
        return torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype is not None)


def choose_precision(amp: str, device: torch.device) -> Precision:
    """Resolve the `amp` key for a device.

    Raises:
        ValueError: If the device does not support the requested precision.
    """
    is_gpu = device.type == "cuda"
    has_bf16 = is_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    name, reason = name_precision(amp, torch.cuda.get_device_name() if is_gpu else None, has_bf16)
    return Precision(DTYPES[name], reason)
