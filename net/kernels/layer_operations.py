"""Triton kernels of the operations between a layer's products; `net/wavlm/layer_operations.py` launches them.

All of them are bound by memory, so each reads and writes an element once and recomputes the rest, dropout masks
included. Each program sums the columns of a contiguous run of rows, and the partial sums are added in a fixed order:
the same bits each time. Seeds are read from memory, so that a recorded launch draws anew.

Shapes: N frames, D hidden size, F inner size; R rows and C columns of a tile, C a power of two.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,import-untyped,untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202, N803 -- Triton reads a kernel's annotations as types; upper case marks its
# constants

import math
import os
from functools import partial

import triton
import triton.language as tl

from net.packing.attention import PHILOX_ROUNDS

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
ROUNDS = tl.constexpr(PHILOX_ROUNDS)
INVERSE_SQRT_2_PI = tl.constexpr(1 / math.sqrt(2 * math.pi))
HALF_LOG2_E = tl.constexpr(0.5 / math.log(2))

kernel = partial(triton.jit, do_not_specialize=["total", "seed", "threshold"])
"""Compiles once for all batches: Triton would recompile whenever a number happens to be 1 or a multiple of 16."""


@triton.jit
def kept_factor(seed, threshold, rows, first_column, SCALE: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    """Return dropout's factor (R, C): 0 with probability threshold / 2^16, else SCALE.

    One Philox call (row, column // 8) serves eight neighbours, the lower half of each word before its upper half.
    """
    octets = first_column // 8 + tl.arange(0, C // 8)
    zero = tl.zeros((R, C // 8), dtype=tl.int32)
    w0, w1, w2, w3 = tl.philox(seed, zero + rows[:, None], zero + octets[None, :], zero, zero, ROUNDS)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3))
    # Compared in the upper half of a word: the lower half makes no difference there and need not be masked off.
    halves = tl.join(words << 16, words).reshape(R, C)
    return tl.where(halves >= threshold.to(tl.uint32) << 16, SCALE, 0.0)


@triton.jit
def fast_exp2(x):
    """Return 2^x to 2 units in the last place; the usual one spends three more instructions on denormal results."""
    if INTERPRETED:
        y = tl.exp2(x)
    else:
        y = tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    return y


@triton.jit
def fast_reciprocal(x):
    """Return 1 / x to 1 unit in the last place; the usual one spends four more instructions on extreme numbers."""
    if INTERPRETED:
        y = 1.0 / x
    else:
        y = tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    return y


@triton.jit
def normal_tail(x):
    """Return the tail of the standard normal distribution beyond |x|, and exp(-x^2 / 2).

    The tail is a polynomial of 1 / (1 + 0.28 |x|) times the exponential, in the form of M. Abramowitz and I. Stegun,
    "Handbook of Mathematical Functions", 7.1.26. With one degree more and a new fit, its error times |x| is below 1e-8,
    less than float32's rounding. The GPU's own erf takes twice the instructions.
    """
    bell = fast_exp2(x * x * -HALF_LOG2_E)
    t = fast_reciprocal(1.0 + 0.28 * tl.abs(x))
    tail = 0.39381875 - 0.10675722 * t
    tail = -0.24351092 + tail * t
    tail = 0.27425844 + tail * t
    tail = 0.06531755 + tail * t
    tail = (0.11687339 + tail * t) * (t * bell)
    return tail, bell


@triton.jit
def run_of_rows(total, program, programs):
    """Return the first row of a program's run and the row after its last; runs differ by one row at most."""
    first = program.to(tl.int64) * total // programs
    last = (program.to(tl.int64) + 1) * total // programs
    return first.to(tl.int32), last.to(tl.int32)


@kernel
def gelu_forward_kernel(
    hidden, bias, out, total, seed, threshold,
    F: tl.constexpr, R: tl.constexpr, C: tl.constexpr, DROPOUT: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    """One tile (R, C)."""
    blocks: tl.constexpr = (F + C - 1) // C
    rows = tl.program_id(0) // blocks * R + tl.arange(0, R)
    first_column = tl.program_id(0) % blocks * C
    columns = first_column + tl.arange(0, C)
    there = (rows < total)[:, None] & (columns < F)[None, :]
    places = rows.to(tl.int64)[:, None] * F + columns[None, :]
    biases = tl.load(bias + columns, mask=columns < F, other=0.0)
    x = tl.load(hidden + places, mask=there, other=0.0).to(tl.float32) + biases[None, :]
    tail, _ = normal_tail(x)
    y = tl.maximum(x, 0.0) - tl.abs(x) * tail  # x times what lies below x
    if DROPOUT:
        y *= kept_factor(tl.load(seed), threshold, rows, first_column, SCALE, R, C)
    tl.store(out + places, y.to(out.dtype.element_ty), mask=there)


@kernel
def gelu_backward_kernel(
    gradient, hidden, bias, hidden_gradient, sums, total, seed, threshold,
    F: tl.constexpr, R: tl.constexpr, C: tl.constexpr, STAGES: tl.constexpr, DROPOUT: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    """A run of rows and one block of columns."""
    first_column = tl.program_id(0) * C
    columns = first_column + tl.arange(0, C)
    biases = tl.load(bias + columns, mask=columns < F, other=0.0)
    first, last = run_of_rows(total, tl.program_id(1), tl.num_programs(1))
    bias_sums = tl.zeros((C,), dtype=tl.float32)
    for row in tl.range(first, last, R, num_stages=STAGES):
        rows = row + tl.arange(0, R)
        there = (rows < last)[:, None] & (columns < F)[None, :]
        places = rows.to(tl.int64)[:, None] * F + columns[None, :]
        x = tl.load(hidden + places, mask=there, other=0.0).to(tl.float32) + biases[None, :]
        g = tl.load(gradient + places, mask=there, other=0.0).to(tl.float32)
        if DROPOUT:
            g *= kept_factor(tl.load(seed), threshold, rows, first_column, SCALE, R, C)
        tail, bell = normal_tail(x)
        g *= tl.where(x < 0.0, tail, 1.0 - tail) + x * (bell * INVERSE_SQRT_2_PI)
        bias_sums += tl.sum(g, 0)
        tl.store(hidden_gradient + places, g.to(hidden_gradient.dtype.element_ty), mask=there)
    tl.store(sums + tl.program_id(1) * F + columns, bias_sums, mask=columns < F)


@kernel
def join_forward_kernel(
    branch, branch_bias, residual, weight, bias, joined, normed, normed_full, mean, rstd, total, seed, threshold, eps,
    D: tl.constexpr, R: tl.constexpr, C: tl.constexpr, WANTS_FULL: tl.constexpr, DROPOUT: tl.constexpr,
    SCALE: tl.constexpr, SKIPS: tl.constexpr,
):  # fmt: skip
    """R rows."""
    rows = tl.program_id(0) * R + tl.arange(0, R)
    columns = tl.arange(0, C)
    inside = columns < D
    there = (rows < total)[:, None] & inside[None, :]
    places = rows.to(tl.int64)[:, None] * D + columns[None, :]
    added = tl.load(branch + places, mask=there, other=0.0).to(tl.float32)
    added += tl.load(branch_bias + columns, mask=inside, other=0.0)[None, :]
    if DROPOUT:
        added *= kept_factor(tl.load(seed), threshold, rows, 0, SCALE, R, C)
    if SKIPS:
        added = tl.where(tl.load(seed) < 0, 0.0, added)
    x = tl.load(residual + places, mask=there, other=0.0) + added
    tl.store(joined + places, x, mask=there)
    means = tl.sum(x, 1) / D
    centred = tl.where(inside[None, :], x - means[:, None], 0.0)
    rstds = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / D + eps)
    weights = tl.load(weight + columns, mask=inside, other=0.0)
    biases = tl.load(bias + columns, mask=inside, other=0.0)
    y = centred * rstds[:, None] * weights[None, :] + biases[None, :]
    tl.store(normed + places, y.to(normed.dtype.element_ty), mask=there)
    if WANTS_FULL:
        tl.store(normed_full + places, y, mask=there)
    tl.store(mean + rows, means, mask=rows < total)
    tl.store(rstd + rows, rstds, mask=rows < total)


@kernel
def join_backward_kernel(
    joined, mean, rstd, weight, first_gradient, second_gradient, joined_gradient, residual_gradient, branch_gradient,
    sums, total, seed, threshold,
    D: tl.constexpr, R: tl.constexpr, C: tl.constexpr, STAGES: tl.constexpr, HAS_SECOND: tl.constexpr,
    HAS_JOINED: tl.constexpr, DROPOUT: tl.constexpr, SCALE: tl.constexpr, SKIPS: tl.constexpr,
):  # fmt: skip
    """A run of rows; rows past its end have a mean, a reciprocal deviation and gradients of zero."""
    columns = tl.arange(0, C)
    inside = columns < D
    weights = tl.load(weight + columns, mask=inside, other=0.0)
    first, last = run_of_rows(total, tl.program_id(0), tl.num_programs(0))
    weight_sums = tl.zeros((C,), dtype=tl.float32)
    bias_sums = tl.zeros((C,), dtype=tl.float32)
    branch_sums = tl.zeros((C,), dtype=tl.float32)
    for row in tl.range(first, last, R, num_stages=STAGES):
        rows = row + tl.arange(0, R)
        there = (rows < last)[:, None] & inside[None, :]
        places = rows.to(tl.int64)[:, None] * D + columns[None, :]
        x = tl.load(joined + places, mask=there, other=0.0)
        g = tl.load(first_gradient + places, mask=there, other=0.0).to(tl.float32)
        if HAS_SECOND:
            g += tl.load(second_gradient + places, mask=there, other=0.0).to(tl.float32)
        means = tl.load(mean + rows, mask=rows < last, other=0.0)
        rstds = tl.load(rstd + rows, mask=rows < last, other=0.0)
        # Masked columns hold (0 - mean) * rstd here; their gradient and weight are zero, so no sum changes.
        scaled = (x - means[:, None]) * rstds[:, None]
        weighted = g * weights[None, :]
        along = tl.sum(weighted * scaled, 1) / D
        level = tl.sum(weighted, 1) / D
        dx = (weighted - scaled * along[:, None] - level[:, None]) * rstds[:, None]
        if HAS_JOINED:
            dx += tl.load(joined_gradient + places, mask=there, other=0.0)
        tl.store(residual_gradient + places, dx, mask=there)
        weight_sums += tl.sum(g * scaled, 0)
        bias_sums += tl.sum(g, 0)
        if DROPOUT:
            dx *= kept_factor(tl.load(seed), threshold, rows, 0, SCALE, R, C)
        if SKIPS:
            dx = tl.where(tl.load(seed) < 0, 0.0, dx)
        tl.store(branch_gradient + places, dx.to(branch_gradient.dtype.element_ty), mask=there)
        branch_sums += tl.sum(dx, 0)
    sums += tl.program_id(0) * (3 * D)
    tl.store(sums + columns, weight_sums, mask=inside)
    tl.store(sums + D + columns, bias_sums, mask=inside)
    tl.store(sums + 2 * D + columns, branch_sums, mask=inside)


@kernel
def restore_kernel(stream, taken, stream_out, taken_out, total, seed, C: tl.constexpr):
    """C elements, where the seed is negative."""
    if tl.load(seed) < 0:
        places = tl.program_id(0).to(tl.int64) * C + tl.arange(0, C)
        there = places < total
        tl.store(stream_out + places, tl.load(stream + places, mask=there), mask=there)
        tl.store(taken_out + places, tl.load(taken + places, mask=there), mask=there)


@kernel
def drop_kernel(
    hidden, out, total, seed, threshold, D: tl.constexpr, R: tl.constexpr, C: tl.constexpr, SCALE: tl.constexpr
):  # fmt: skip
    """R rows."""
    rows = tl.program_id(0) * R + tl.arange(0, R)
    columns = tl.arange(0, C)
    there = (rows < total)[:, None] & (columns < D)[None, :]
    places = rows.to(tl.int64)[:, None] * D + columns[None, :]
    x = tl.load(hidden + places, mask=there, other=0.0)
    tl.store(out + places, x * kept_factor(tl.load(seed), threshold, rows, 0, SCALE, R, C), mask=there)
