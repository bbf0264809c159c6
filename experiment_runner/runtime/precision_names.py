"""Resolves the `amp` key to a precision on a device, without torch, so that `--check` can use it too."""

from __future__ import annotations

from typing import NamedTuple

FP32, FP16, BF16 = "fp32", "fp16", "bf16"


class PrecisionName(NamedTuple):
    """A precision of forward passes.

    Attributes:
        name: `fp32`, `fp16` or `bf16`.
        reason: Reason for the choice, for console messages.
    """

    name: str
    reason: str


def name_precision(amp: str, gpu: str | None, has_bf16: bool) -> PrecisionName:
    """Resolve the `amp` key for a device.

    Args:
        amp: Value of the key.
        gpu: Name of the GPU; None for the CPU.
        has_bf16: Whether the GPU computes in bf16.

    Raises:
        ValueError: If the device does not support the requested precision.
    """
    if amp == "off":
        return PrecisionName(FP32, 'fp32: amp = "off"')
    if gpu is None:
        if amp == FP16:
            raise ValueError('amp = "fp16" needs a GPU; use "auto", "bf16" or "off" on the CPU')
        return PrecisionName(FP32, "fp32: mixed precision is off on the CPU") if amp == "auto" else _bf16("as asked")
    if amp == BF16 and not has_bf16:
        raise ValueError(f'amp = "bf16" is not supported by {gpu}; use "auto" or "fp16"')
    if amp == FP16:
        return PrecisionName(FP16, "fp16 with a gradient scaler: as asked")
    if has_bf16:
        return _bf16("the GPU has it" if amp == "auto" else "as asked")
    return PrecisionName(FP16, "fp16 with a gradient scaler: the GPU has no bf16")


def _bf16(why: str) -> PrecisionName:
    return PrecisionName(BF16, f"bf16: {why}")
