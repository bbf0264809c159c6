"""Triton kernels of the packed positional convolution; import only where triton is present.

Shapes: N frames in the pack, D their dimension, G groups, C = D / G channels per group, K taps, B frames per block,
P padded rows.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,import-untyped,untyped-decorator"
# ruff: noqa: ANN001, ANN202, N803 -- Triton reads a kernel's annotations as types; upper case marks its constants

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from net.kernels.convolutions import gelu

if TYPE_CHECKING:
    from net.packing.positions import PositionalPlan

SETTINGS: dict[str, dict[str, int]] = {
    "pad_frames": {"rows": 64, "num_warps": 4},
    "convolve": {"rows": 128, "columns": 128, "depth": 64, "num_warps": 8, "num_stages": 3, "maxnreg": 128},
    "convolve_float32": {"rows": 64, "columns": 128, "depth": 32, "num_warps": 8, "num_stages": 2},
    "weight_gradient": {"rows": 128, "columns": 128, "depth": 64, "num_warps": 8, "num_stages": 5},
    "weight_gradient_float32": {"rows": 64, "columns": 128, "depth": 32, "num_warps": 8, "num_stages": 2},
}
"""Tile sizes, warps, stages and registers per thread; at 128 of these, two programs of 8 warps share a multiprocessor.

`rows` are blocks of frames in `convolve` and (frame, channel) in `weight_gradient`, which loads through a table, so
that Triton holds (num_stages + 1) / 2 tiles at a time.
"""
SLACK = 1024
"""Zeros behind the padded frames, since the last tile reads past the last window by less than one tile."""


def pad_frames(frames: Tensor, before: Tensor | None, plan: PositionalPlan, groups: int) -> Tensor:
    """Copy frames (N, D) to (G, P, C) with zeros between utterances.

    Args:
        frames: Frames, or the gradient of GELU's output.
        before: Input of GELU, (N, D), or None; if given, the gradient is propagated through GELU during the copy.
        plan: Plan of the batch.
        groups: Groups of the convolution.
    """
    frames = frames.contiguous()
    channels = frames.shape[1] // groups
    size = groups * plan.padded_rows * channels
    padded = frames.new_empty(size + SLACK)
    padded[size:].zero_()
    rows = SETTINGS["pad_frames"]["rows"]
    _pad_frames[(triton.cdiv(plan.padded_rows, rows), groups)](
        frames,
        frames if before is None else before,
        padded,
        plan.sources,
        plan.padded_rows,
        GROUPS=groups,
        CHANNELS=channels,
        ROWS=rows,
        COLUMNS=triton.next_power_of_2(channels),
        THROUGH_GELU=before is not None,
        num_warps=SETTINGS["pad_frames"]["num_warps"],
    )
    return padded[:size].view(groups, plan.padded_rows, channels)


def convolve(
    padded: Tensor, taps_first: Tensor, bias: Tensor | None, plan: PositionalPlan, reach: int, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """Convolve padded frames; with a bias, add it and apply GELU.

    Args:
        padded: Frames from `pad_frames`, (G, P, C).
        taps_first: Weight, (G, K, C in, C out), of any strides and dtype.
        bias: Bias, (D,), or None for the convolution alone.
        plan: Plan of the batch.
        reach: Number of frames by which a window begins before its output.
        keep: Whether to return the input of GELU.

    Returns:
        Output, (N, D), and the same before GELU.
    """
    settings = _settings("convolve", padded.dtype)
    groups, _, channels = padded.shape
    depth = triton.cdiv((plan.taps + plan.block - 1) * channels, settings["depth"]) * settings["depth"]
    weight = padded.new_zeros((groups, depth + (plan.block - 1) * channels, channels))
    weight.narrow(1, (plan.block - 1) * channels, plan.taps * channels).unflatten(1, (plan.taps, -1)).copy_(taps_first)
    result = padded.new_empty((sum(plan.lengths), groups * channels))
    before = torch.empty_like(result) if keep else None
    width, blocks = plan.block * channels, plan.blocks.shape[1]
    column_tiles = triton.cdiv(width, settings["columns"])
    _convolve[(blocks // settings["rows"] * column_tiles, groups)](
        padded,
        weight,
        weight if bias is None else bias,
        result,
        result if before is None else before,
        plan.blocks,
        blocks,
        padded.stride(0),
        reach,
        GROUPS=groups,
        CHANNELS=channels,
        BLOCK=plan.block,
        DEPTH=depth,
        ROWS=settings["rows"],
        COLUMNS=settings["columns"],
        STEP=settings["depth"],
        COLUMN_TILES=column_tiles,
        IS_FULL=width % settings["columns"] == 0,
        ACTIVATE=bias is not None,
        KEEP=keep,
        num_warps=settings["num_warps"],
        num_stages=settings["num_stages"],
        maxnreg=settings.get("maxnreg"),
    )
    return result, before


def weight_gradient(padded: Tensor, gradient: Tensor, plan: PositionalPlan) -> Tensor:
    """Return the weight's gradient, (G, K, C in, C out) float32; without atomics, so that it repeats bit for bit.

    Args:
        padded: Padded input of the convolution, (G, P, C).
        gradient: Gradient of the convolution's output, padded alike.
        plan: Plan of the batch.
    """
    settings = _settings("weight_gradient", padded.dtype)
    groups, _, channels = padded.shape
    width, height = plan.block * channels, (plan.taps + plan.block - 1) * channels
    by_block = padded.new_empty((groups, height, width), dtype=torch.float32)
    column_tiles = triton.cdiv(width, settings["columns"])
    _weight_gradient[(triton.cdiv(height, settings["rows"]) * column_tiles, groups)](
        padded,
        gradient,
        by_block,
        plan.blocks,
        plan.blocks.shape[1],
        padded.stride(0),
        REACH=plan.taps // 2,
        CHANNELS=channels,
        HEIGHT=height,
        WIDTH=width,
        ROWS=settings["rows"],
        COLUMNS=settings["columns"],
        STEP=settings["depth"],
        COLUMN_TILES=column_tiles,
        IS_FULL=width % settings["columns"] == 0,
        num_warps=settings["num_warps"],
        num_stages=settings["num_stages"],
    )
    # For the b-th frame of a block, a tap lies b frames further into the block's window.
    diagonal = (height * width, channels * width, width, 1, channels * width + channels)
    return by_block.as_strided((groups, plan.taps, channels, channels, plan.block), diagonal).sum(-1)


def _settings(kernel: str, dtype: torch.dtype) -> dict[str, int]:
    return SETTINGS[kernel + ("_float32" if dtype == torch.float32 else "")]


@triton.jit(do_not_specialize=["padded_rows"])
def _pad_frames(
    frames,
    before,
    padded,
    sources,
    padded_rows,
    GROUPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    THROUGH_GELU: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    group = tl.program_id(1)
    channel = tl.arange(0, COLUMNS)
    source = tl.load(sources + row, mask=row < padded_rows, other=-1)
    is_channel = (channel < CHANNELS)[None, :]
    where = source.to(tl.int64)[:, None] * (GROUPS * CHANNELS) + group * CHANNELS + channel[None, :]
    is_frame = (source >= 0)[:, None] & is_channel
    value = tl.load(frames + where, mask=is_frame, other=0.0)
    if THROUGH_GELU:
        x = tl.load(before + where, mask=is_frame, other=0.0).to(tl.float32)
        slope = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476)) + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
        value = value.to(tl.float32) * slope
    target = (group.to(tl.int64) * padded_rows + row)[:, None] * CHANNELS + channel[None, :]
    tl.store(padded + target, value.to(padded.dtype.element_ty), mask=(row < padded_rows)[:, None] & is_channel)


@triton.jit(do_not_specialize=["blocks", "reach"])
def _convolve(
    padded,
    weight,
    bias,
    result,
    before,
    table,
    blocks,
    group_stride,
    reach,
    GROUPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    COLUMN_TILES: tl.constexpr,
    IS_FULL: tl.constexpr,
    ACTIVATE: tl.constexpr,
    KEEP: tl.constexpr,
):
    """Compute one tile of (blocks, frame of a block and channel): windows (blocks, DEPTH) @ shifted weights."""
    group = tl.program_id(1)
    row = tl.program_id(0) // COLUMN_TILES * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % COLUMN_TILES * COLUMNS + tl.arange(0, COLUMNS)
    place, channel = column // CHANNELS, column % CHANNELS
    depth = tl.arange(0, STEP)
    start = (tl.load(table + row) - reach) * CHANNELS
    windows = padded + group.to(tl.int64) * group_stride + start[:, None] + depth[None, :]
    weight += group * ((DEPTH + (BLOCK - 1) * CHANNELS) * CHANNELS)
    shifted = weight + depth[:, None] * CHANNELS + ((BLOCK - 1 - place) * (CHANNELS * CHANNELS) + channel)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, DEPTH, STEP):
        left = tl.load(windows + first)
        if IS_FULL:
            right = tl.load(shifted + first * CHANNELS)
        else:
            right = tl.load(shifted + first * CHANNELS, mask=(place < BLOCK)[None, :], other=0.0)
        total = tl.dot(left, right, total, input_precision="ieee")
    if ACTIVATE:
        total += tl.load(bias + group * CHANNELS + channel).to(tl.float32)[None, :]
    frame = tl.load(table + blocks + row)[:, None] + place[None, :]
    is_frame = place[None, :] < tl.load(table + 2 * blocks + row)[:, None]
    where = frame * (GROUPS * CHANNELS) + (group * CHANNELS + channel)[None, :]
    if KEEP:
        tl.store(before + where, total.to(before.dtype.element_ty), mask=is_frame)
    if ACTIVATE:
        total = gelu(total)
    tl.store(result + where, total.to(result.dtype.element_ty), mask=is_frame)


@triton.jit(do_not_specialize=["blocks"])
def _weight_gradient(
    padded,
    gradient,
    by_block,
    table,
    blocks,
    group_stride,
    REACH: tl.constexpr,
    CHANNELS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    COLUMN_TILES: tl.constexpr,
    IS_FULL: tl.constexpr,
):
    """Compute one tile of windows' (blocks, HEIGHT) @ gradients (blocks, WIDTH); the table's filling adds zeros."""
    group = tl.program_id(1)
    row = tl.program_id(0) // COLUMN_TILES * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % COLUMN_TILES * COLUMNS + tl.arange(0, COLUMNS)
    padded += group.to(tl.int64) * group_stride
    gradient += group.to(tl.int64) * group_stride
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, blocks, STEP):
        start = tl.load(table + first + tl.arange(0, STEP)) * CHANNELS
        left = tl.load(padded + (start - REACH * CHANNELS)[:, None] + row[None, :])
        if IS_FULL:
            right = tl.load(gradient + start[:, None] + column[None, :])
        else:
            right = tl.load(gradient + start[:, None] + column[None, :], mask=(column < WIDTH)[None, :], other=0.0)
        total = tl.dot(tl.trans(left), right, total, input_precision="ieee")
    where = by_block + group.to(tl.int64) * (HEIGHT * WIDTH) + row[:, None] * WIDTH + column[None, :]
    tl.store(where, total, mask=(row < HEIGHT)[:, None] & (column < WIDTH)[None, :])
