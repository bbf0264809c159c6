"""Triton kernels of the packed feature extractor; import only where triton is present."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,import-untyped,untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202, N803 -- Triton reads a kernel's annotations as types; upper case marks its
# constants

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

if TYPE_CHECKING:
    from net.packing.placement import Placement

SETTINGS: dict[str, dict[str, int]] = {
    "window_moments": {"rows": 64, "splits": 32, "num_warps": 4},
    "first_layer": {"rows": 64, "channels": 128, "num_warps": 8},
    "first_layer_norm": {"rows": 16, "num_warps": 4},
    "layer_norm": {"rows": 8, "num_warps": 4},
}
"""Tile sizes and warps of the kernels. Tiles have fewer rows where the grid's stretches per utterance are shorter."""


def window_moments(signal: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
    """Return mean (batch, kernel) and covariance (batch, kernel, kernel) of the first layer's windows, float64.

    Args:
        signal: Signal, (total_samples,) float32.
        placement: Placement of the utterances in the signal.
    """
    settings = SETTINGS["window_moments"]
    kernel, batch = placement.kernels[0], len(placement.counts)
    width = triton.next_power_of_2(kernel + 1)
    sums = signal.new_empty((batch, settings["splits"], kernel, width), dtype=torch.float64)
    _window_moments[(batch, settings["splits"], kernel)](
        signal,
        placement.first_frames,
        sums,
        batch,
        KERNEL=kernel,
        STRIDE=placement.strides[0],
        WIDTH=width,
        ROWS=settings["rows"],
        SPLITS=settings["splits"],
        num_warps=settings["num_warps"],
    )
    moments = sums.sum(1) / placement.first_frames[1].double().view(-1, 1, 1)
    mean = moments[:, :, kernel]
    return mean, moments[:, :, :kernel] - mean.unsqueeze(2) * mean.unsqueeze(1)


def first_layer(
    signal: Tensor,
    weights: Tensor,
    biases: Tensor,
    norm: nn.Module | None,
    placement: Placement,
    dtype: torch.dtype,
) -> Tensor:
    """Convolve the signal, normalise the channels if there is a norm, and apply GELU, in float32.

    Args:
        signal: Signal, (total_samples,) float32.
        weights: Weights of each utterance or of all, (batch or 1, channels, kernel) float32.
        biases: Biases of each utterance or of all, (batch or 1, channels) float32.
        norm: Layer norm over the channels, or None.
        placement: Placement of the utterances in the signal.
        dtype: Element type of the result.

    Returns:
        Output of the first layer, (first_rows, channels).
    """
    settings = SETTINGS["first_layer" if norm is None else "first_layer_norm"]
    channels, rows = weights.shape[1], placement.first_rows
    block_channels = triton.next_power_of_2(channels)
    if norm is None:
        block_channels = min(block_channels, settings["channels"])
    block_rows = settings["rows"]
    if len(weights) > 1:
        block_rows = min(block_rows, placement.rows_per_slot & -placement.rows_per_slot)
    hidden = signal.new_empty((rows, channels), dtype=dtype)
    _first_layer[(triton.cdiv(rows, block_rows), triton.cdiv(channels, block_channels))](
        signal,
        weights.transpose(1, 2).contiguous(),
        biases.contiguous(),
        placement.slot_utterances,
        *_affine(norm, biases),
        hidden,
        rows,
        CHANNELS=channels,
        KERNEL=placement.kernels[0],
        STRIDE=placement.strides[0],
        ROWS_PER_SLOT=placement.rows_per_slot,
        BLOCK_ROWS=block_rows,
        BLOCK_CHANNELS=block_channels,
        PER_UTTERANCE=len(weights) > 1,
        LAYER_NORM=norm is not None,
        num_warps=settings["num_warps"],
    )
    return hidden


def layer_norm_gelu_(hidden: Tensor, norm: nn.Module) -> Tensor:
    """Apply a layer norm over the channels and GELU to (time, channels) in place."""
    settings = SETTINGS["layer_norm"]
    rows, channels = hidden.shape
    _layer_norm_gelu[(triton.cdiv(rows, settings["rows"]),)](
        hidden,
        *_affine(norm, hidden),
        rows,
        CHANNELS=channels,
        BLOCK_ROWS=settings["rows"],
        BLOCK_CHANNELS=triton.next_power_of_2(channels),
        num_warps=settings["num_warps"],
    )
    return hidden


def _affine(norm: Any, unused: Tensor) -> tuple[Tensor, Tensor, float]:  # noqa: ANN401
    return (unused, unused, 0.0) if norm is None else (norm.weight, norm.bias, norm.eps)


@triton.jit
def gelu(x):
    """Compute GELU with erf by M. Abramowitz and I. Stegun, 7.1.26: error 1.5e-7, half the instructions of the library.

    By the complementary function of |x|, small results for negative x are not a difference of two close numbers.
    """
    magnitude = tl.abs(x)
    t = 1.0 / (1.0 + 0.23164189 * magnitude)
    sum_of_powers = t * (0.127414796 + t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145))))
    return tl.maximum(x, 0.0) - magnitude * sum_of_powers * tl.exp2(-0.7213475204444817 * x * x)


@triton.jit
def _normalised(x, is_channel, channel, gamma, beta, eps, CHANNELS: tl.constexpr):
    """Return the layer norm of (rows, channels) over the channels, float32; `x` is zero outside the channels."""
    mean = tl.sum(x, 1) / CHANNELS
    centred = tl.where(is_channel[None, :], x - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / CHANNELS + eps)
    weight = tl.load(gamma + channel, mask=is_channel, other=0.0).to(tl.float32)
    bias = tl.load(beta + channel, mask=is_channel, other=0.0).to(tl.float32)
    return centred * scale[:, None] * weight[None, :] + bias[None, :]


@triton.jit(do_not_specialize=["batch"])
def _window_moments(
    signal,
    first_frames,
    sums,
    batch,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Sum the products of one tap with every tap, and with one (the tap itself), over a share of an utterance."""
    utterance, split, tap = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = tl.load(first_frames + utterance)
    frames = tl.load(first_frames + batch + utterance)
    column = tl.arange(0, WIDTH)
    total = tl.zeros((ROWS, WIDTH), tl.float64)
    for start in range(split * ROWS, frames, SPLITS * ROWS):
        row = start + tl.arange(0, ROWS)
        is_row = row < frames
        window = signal + (first + row) * STRIDE
        taps = tl.load(window[:, None] + column[None, :], mask=is_row[:, None] & (column < KERNEL)[None, :], other=0.0)
        taps = tl.where((column == KERNEL)[None, :], 1.0, taps)
        one = tl.load(window + tap, mask=is_row, other=0.0)
        total += one.to(tl.float64)[:, None] * taps.to(tl.float64)
    where = ((utterance * SPLITS + split) * KERNEL + tap) * WIDTH
    tl.store(sums + where + column, tl.sum(total, 0))


@triton.jit(do_not_specialize=["rows"])
def _first_layer(
    signal,
    weights,
    biases,
    slot_utterances,
    gamma,
    beta,
    eps,
    hidden,
    rows,
    CHANNELS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    ROWS_PER_SLOT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    PER_UTTERANCE: tl.constexpr,
    LAYER_NORM: tl.constexpr,
):
    start = tl.program_id(0) * BLOCK_ROWS
    row = start + tl.arange(0, BLOCK_ROWS)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    is_row, is_channel = row < rows, channel < CHANNELS
    if PER_UTTERANCE:
        utterance = tl.load(slot_utterances + start // ROWS_PER_SLOT)
        weights += utterance * (KERNEL * CHANNELS)
        biases += utterance * CHANNELS
    bias = tl.load(biases + channel, mask=is_channel, other=0.0)
    total = tl.zeros((BLOCK_ROWS, BLOCK_CHANNELS), tl.float32) + bias[None, :]
    for tap in tl.static_range(KERNEL):
        sample = tl.load(signal + row * STRIDE + tap, mask=is_row, other=0.0)
        weight = tl.load(weights + tap * CHANNELS + channel, mask=is_channel, other=0.0)
        total += sample[:, None] * weight[None, :]
    if LAYER_NORM:
        total = _normalised(total, is_channel, channel, gamma, beta, eps, CHANNELS)
    where = row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(hidden + where, gelu(total).to(hidden.dtype.element_ty), mask=is_row[:, None] & is_channel[None, :])


@triton.jit(do_not_specialize=["rows"])
def _layer_norm_gelu(
    hidden,
    gamma,
    beta,
    eps,
    rows,
    CHANNELS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.arange(0, BLOCK_CHANNELS)
    is_channel = channel < CHANNELS
    is_value = (row < rows)[:, None] & is_channel[None, :]
    where = hidden + row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    x = tl.load(where, mask=is_value, other=0.0).to(tl.float32)
    x = _normalised(x, is_channel, channel, gamma, beta, eps, CHANNELS)
    tl.store(where, gelu(x).to(hidden.dtype.element_ty), mask=is_value)
