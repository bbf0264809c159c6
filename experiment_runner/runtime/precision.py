"""The precision of forward passes, resolved without torch, so that `--check` can use it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiment_runner.runtime.device_facts import DeviceFacts
from utils.errors import WRONG_INPUT, UserError

if TYPE_CHECKING:
    import torch

FP32, FP16, BF16 = "fp32", "fp16", "bf16"


class PrecisionError(UserError, ValueError):
    """A precision that the device does not support; the message names the remedy."""

    exit_status = WRONG_INPUT


@dataclass(frozen=True)
class Precision:
    """The precision of the forward pass, and why it was chosen.

    Attributes:
        name: `fp32`, `fp16` or `bf16`.
        reason: Reason for the choice, for console messages.
    """

    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype | None:
        """Dtype of autocast; None for plain fp32."""
        import torch

        return {FP32: None, FP16: torch.float16, BF16: torch.bfloat16}[self.name]

    @property
    def needs_scaler(self) -> bool:
        """Whether gradients would underflow without scaling."""
        return self.name == FP16

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context of a forward pass."""
        import torch

        return torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype is not None)


def resolve_precision(amp: str, device: DeviceFacts) -> Precision:
    """Resolve the `amp` key for a device.

    Raises:
        PrecisionError: If the device does not support the requested precision.
    """
    if amp == "off":
        return Precision(FP32, 'fp32: amp = "off"')
    if device.gpu is None:
        if amp == FP16:
            raise PrecisionError('amp = "fp16" needs a GPU; use "auto", "bf16" or "off" on the CPU')
        return Precision(FP32, "fp32: mixed precision is off on the CPU") if amp == "auto" else _bf16("as asked")
    if amp == BF16 and not device.has_bf16:
        raise PrecisionError(f'amp = "bf16" is not supported by {device.gpu}; use "auto" or "fp16"')
    if amp == FP16:
        return Precision(FP16, "fp16 with a gradient scaler: as asked")
    if device.has_bf16:
        return _bf16("the GPU has it" if amp == "auto" else "as asked")
    return Precision(FP16, "fp16 with a gradient scaler: the GPU has no bf16")


def _bf16(why: str) -> Precision:
    return Precision(BF16, f"bf16: {why}")
