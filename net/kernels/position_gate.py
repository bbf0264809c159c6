"""Triton kernels of the gate of WavLM's position bias; `net/wavlm/position_gate.py` launches them.

Shapes: N frames, D hidden size, H heads, E head dimension; R rows and C columns of a tile, C a power of two.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,import-untyped,untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202, N803 -- Triton reads a kernel's annotations as types; upper case marks its
# constants

import triton
import triton.language as tl

from net.kernels.layer_operations import kernel, run_of_rows


@triton.jit
def gate_parts(h, first_weights, second_weights, bias):
    """Return the two sigmoids (R,) of a tile (R, C) of one head."""
    a = tl.sum(h * first_weights[None, :], 1) + tl.load(bias)
    b = tl.sum(h * second_weights[None, :], 1) + tl.load(bias + 1)
    return tl.sigmoid(a), tl.sigmoid(b)


@kernel
def gate_forward_kernel(
    hidden, weight, bias, const, gate, total, H: tl.constexpr, E: tl.constexpr, R: tl.constexpr, C: tl.constexpr
):
    """Compute R rows, one per frame and head: the frame is the row number divided by H, the head its remainder."""
    places = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    dims = tl.arange(0, C)
    first_weights = tl.load(weight + dims, mask=dims < E, other=0.0)
    second_weights = tl.load(weight + E + dims, mask=dims < E, other=0.0)
    there = places < total.to(tl.int64) * H
    h = tl.load(hidden + places[:, None] * E + dims[None, :], mask=there[:, None] & (dims < E)[None, :], other=0.0)
    a, b = gate_parts(h.to(tl.float32), first_weights, second_weights, bias)
    consts = tl.load(const + places % H)
    tl.store(gate + places, a * (b * consts - 1.0) + 2.0, mask=there)


@kernel
def gate_backward_kernel(
    gate_gradient, hidden, weight, bias, const, other_gradient, hidden_gradient, sums, total,
    H: tl.constexpr, E: tl.constexpr, R: tl.constexpr, C: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Compute one head of a run of frames."""
    head = tl.program_id(0)
    dims = tl.arange(0, C)
    inside = dims < E
    first_weights = tl.load(weight + dims, mask=inside, other=0.0)
    second_weights = tl.load(weight + E + dims, mask=inside, other=0.0)
    factor = tl.load(const + head)
    first, last = run_of_rows(total, tl.program_id(1), tl.num_programs(1))
    first_sums = tl.zeros((R, C), dtype=tl.float32)
    second_sums = tl.zeros((R, C), dtype=tl.float32)
    a_sums = tl.zeros((R,), dtype=tl.float32)
    b_sums = tl.zeros((R,), dtype=tl.float32)
    const_sums = tl.zeros((R,), dtype=tl.float32)
    for row in tl.range(first, last, R, num_stages=STAGES):
        rows = row + tl.arange(0, R)
        there = (rows < last)[:, None] & inside[None, :]
        places = (rows.to(tl.int64) * H + head)[:, None] * E + dims[None, :]
        h = tl.load(hidden + places, mask=there, other=0.0).to(tl.float32)
        other = tl.load(other_gradient + places, mask=there, other=0.0).to(tl.float32)
        g = tl.load(gate_gradient + rows.to(tl.int64) * H + head, mask=rows < last, other=0.0)
        a, b = gate_parts(h, first_weights, second_weights, bias)
        da = g * (b * factor - 1.0) * a * (1.0 - a)
        db = g * factor * a * b * (1.0 - b)
        first_sums += da[:, None] * h
        second_sums += db[:, None] * h
        a_sums += da
        b_sums += db
        const_sums += g * a * b
        dh = other + da[:, None] * first_weights[None, :] + db[:, None] * second_weights[None, :]
        tl.store(hidden_gradient + places, dh.to(hidden_gradient.dtype.element_ty), mask=there)
    sums += (tl.program_id(1) * H + head) * (2 * E + 3)
    tl.store(sums + dims, tl.sum(first_sums, 0), mask=inside)
    tl.store(sums + E + dims, tl.sum(second_sums, 0), mask=inside)
    tl.store(sums + 2 * E, tl.sum(a_sums, 0))
    tl.store(sums + 2 * E + 1, tl.sum(b_sums, 0))
    tl.store(sums + 2 * E + 2, tl.sum(const_sums, 0))
