"""Triton kernels of packed attention with a gated relative position bias, and the functions that launch them.

Imported only where the kernels run: a machine without a GPU may have no Triton. Scores are kept in base 2 throughout
(`scale` and `gate` are multiplied by log2 e once), because the hardware's exponential is exp2.

Shapes: M query rows and N key columns of a tile, D the head dimension; in the backward M = N = B.
"""

# ruff: noqa: ANN001, ANN201, ANN202, N803 -- Triton reads annotations as types; upper case marks its constants
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import os
from inspect import signature
from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from net.packing.attention import PHILOX_ROUNDS

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
ROUNDS = tl.constexpr(PHILOX_ROUNDS)
LOG2_E = tl.constexpr(1.4426950408889634)
PARTIAL_BYTES = 64 * 2**20
"""Memory limit of a table gradient's partial sums; heads that do not fit take turns."""
BATCH_NUMBERS = ["total", "reach", "seed", "threshold", "first_head", "vectors", "count", "lowest"]
"""Arguments that change with the batch: Triton would recompile whenever one happens to be 1 or a multiple of 16."""


def kernel(function: Any) -> Any:  # noqa: ANN401
    """Compile a kernel once for all batches."""
    return triton.jit(function, do_not_specialize=[n for n in BATCH_NUMBERS if n in signature(function).parameters])


@triton.jit
def load_rows(pointer, start, head, frame_stride, head_stride, rows, length, HEAD_DIM: tl.constexpr):
    """Load rows of one utterance and head, (rows, D); zeros past its end, so that no neighbour's value gets in."""
    dims = tl.arange(0, HEAD_DIM)
    base = pointer + start.to(tl.int64) * frame_stride + head * head_stride
    return tl.load(base + rows[:, None] * frame_stride + dims[None, :], mask=rows[:, None] < length, other=0.0)


@triton.jit
def store_rows(pointer, values, start, head, rows, length, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Store (rows, D) as one head of a contiguous (frames, HEADS, D)."""
    dims = tl.arange(0, HEAD_DIM)
    base = pointer + (start.to(tl.int64) * HEADS + head) * HEAD_DIM
    values = values.to(pointer.dtype.element_ty)
    tl.store(base + rows[:, None] * (HEADS * HEAD_DIM) + dims[None, :], values, mask=rows[:, None] < length)


@triton.jit
def load_bias(table, head, reach, first_row, first_column, SIGN: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """Load the bias (M, N) of distances SIGN * (column - row).

    Offsets are 64 bits wide, so that the compiler sees which elements of a thread lie on one diagonal and loads them
    once. Triton would treat an ordinary load as a product's operand and stage it through shared memory, 4 bytes a copy.
    """
    middle = table + (head * (2 * reach - 1) + reach - 1)
    rows = middle - first_row * SIGN - tl.arange(0, M).to(tl.int64) * SIGN
    pointers = rows[:, None] + (first_column + tl.arange(0, N)).to(tl.int64)[None, :] * SIGN
    if INTERPRETED:
        values = tl.load(pointers)
    else:
        values = tl.inline_asm_elementwise(
            "ld.global.nc.f32 $0, [$1];", "=f,l", [pointers.to(tl.int64)], dtype=tl.float32, is_pure=True, pack=1
        )
    return values


@triton.jit
def kept_fraction(
    seed, threshold, head, start, query_rows, first_key, SCALE: tl.constexpr, M: tl.constexpr, N: tl.constexpr
):
    """Return dropout's factor (M, N): 0 with probability threshold / 2^24, else SCALE.

    One Philox call (query's frame in the pack, key's place in its utterance // 4, head) serves four neighbouring keys.
    """
    quads = first_key // 4 + tl.arange(0, N // 4)
    zero = tl.zeros((M, N // 4), dtype=tl.int32)
    frames = zero + (start + query_rows)[:, None]
    w0, w1, w2, w3 = tl.philox(seed, frames, zero + quads[None, :], zero + head, zero, ROUNDS)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3)).reshape(M, N)
    return tl.where((words >> 8).to(tl.int32) >= threshold, SCALE, 0.0)


@kernel
def forward_kernel(
    query, key, value, gate, table, out, lse, programs,
    query_frame, query_head, key_frame, key_head, value_frame, value_head,
    total, reach, scale, seed, threshold,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    PRECISION: tl.constexpr, DROPOUT: tl.constexpr, DROP_SCALE: tl.constexpr,
):  # fmt: skip
    """Attend from M queries of one head to all keys of their utterance, by online softmax."""
    head = tl.program_id(0)
    program = programs + tl.program_id(1) * 4
    start = tl.load(program)
    length = tl.load(program + 1) - start
    rows = tl.load(program + 2) * M + tl.arange(0, M)

    q = load_rows(query, start, head, query_frame, query_head, rows, length, HEAD_DIM)
    gates = tl.load(gate + (start + rows) * HEADS + head, mask=rows < length, other=0.0) * LOG2_E
    first_row = tl.load(program + 2) * M
    score_scale = scale * LOG2_E
    highest = tl.full((M,), float("-inf"), dtype=tl.float32)
    total_weight = tl.zeros((M,), dtype=tl.float32)
    sums = tl.zeros((M, HEAD_DIM), dtype=tl.float32)

    for first in tl.range(0, length, N):
        columns = first + tl.arange(0, N)
        k = load_rows(key, start, head, key_frame, key_head, columns, length, HEAD_DIM)
        bias = load_bias(table, head, reach, first_row, first, 1, M, N)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * score_scale + gates[:, None] * bias
        scores = tl.where((columns < length)[None, :], scores, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        shrink = tl.exp2(highest - new_highest)
        weights = tl.exp2(scores - new_highest[:, None])
        total_weight = total_weight * shrink + tl.sum(weights, 1)
        if DROPOUT:
            weights *= kept_fraction(tl.load(seed), threshold, head, start, rows, first, DROP_SCALE, M, N)
        v = load_rows(value, start, head, value_frame, value_head, columns, length, HEAD_DIM)
        sums = tl.dot(weights.to(v.dtype), v, sums * shrink[:, None], input_precision=PRECISION)
        highest = new_highest

    total_weight = tl.maximum(total_weight, 1.0)  # at least 1 except in programs without frames
    store_rows(out, sums / total_weight[:, None], start, head, rows, length, HEADS, HEAD_DIM)
    lse_rows = lse + head.to(tl.int64) * total + start + rows
    tl.store(lse_rows, highest + tl.log2(total_weight), mask=rows < length)


@triton.jit
def diagonal_sums(tile, B: tl.constexpr, PRECISION: tl.constexpr):
    """Sum a tile (queries B, keys B) along its diagonals by two products with zeros and ones.

    With query i = 8 a + x and key j = 8 b + y, the distance is j - i = 8 (b - a) + (y - x) = 8 (b - a - s) + m, where
    s = 1 and m = y - x + 8 if y < x, else s = 0 and m = y - x. The first product sums each 8 x 8 block (a, b) over the
    (x, y) of one (s, m), the second sums over the (a, b, s) of one b - a - s. Rotating each row instead (`tl.gather`,
    by shuffles) compiles to almost three times as many instructions for B = 64 on compute capability 9.0.

    Returns:
        (B,) sums of distances c - B and (B,) of c, for c = 0 .. B - 1.
    """
    side: tl.constexpr = B // 8
    blocks = tile.reshape(side, 8, side, 8).permute(0, 2, 1, 3).reshape(side * side, 64)
    within = tl.arange(0, 64)
    fine = within % 8 - within // 8
    fine = tl.where(fine < 0, fine + 16, fine)  # 8 s + m
    chosen = (fine[:, None] == tl.arange(0, 16)[None, :]).to(tile.dtype)
    block_sums = tl.dot(blocks, chosen, input_precision=PRECISION).reshape(side * side * 2, 8)
    if PRECISION == "tf32":  # tensor cores truncate float32 to tf32; this makes them round
        block_sums = (block_sums.to(tl.int32, bitcast=True) + 0x1000).to(tl.float32, bitcast=True)
    places = tl.arange(0, side * side * 2)
    coarse = places // 2 % side - places // (2 * side) - places % 2
    gathered = (coarse[None, :] == (tl.arange(0, 2 * side) - side)[:, None]).to(tl.float32)
    sums = tl.dot(gathered, block_sums, input_precision=PRECISION)
    return sums.reshape(2, B).permute(1, 0).split()


@kernel
def query_gradient_kernel(
    query, key, value, gate, table, out, lse, out_gradient, stats, query_gradient, gate_gradient, partial, programs,
    query_frame, query_head, key_frame, key_head, value_frame, value_head, gradient_frame, gradient_head,
    total, reach, scale, seed, threshold, first_head, vectors,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, B: tl.constexpr, PRECISION: tl.constexpr, TABLE: tl.constexpr,
    DROPOUT: tl.constexpr, DROP_SCALE: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of one block of B queries and their gates, and their part of the table's gradient.

    Query block I and key block J hold the distances (J - I) B + c and (J - I - 1) B + c. The second part completes the
    sums that the key block before began, so each step stores one vector (B,): this program's vector J holds the
    distances (J - I - 1) B + c. The kernel also stores the inputs of `key_gradient_kernel` for each query, aligned and
    without gaps: the log of its denominator, delta (the row sums of out * out_gradient) and its gate; zeros past the
    utterance's end.
    """
    head = first_head + tl.program_id(0)
    program = programs + tl.program_id(1) * 4
    start = tl.load(program)
    length = tl.load(program + 1) - start
    rows = tl.load(program + 2) * B + tl.arange(0, B)
    partial += (tl.program_id(0).to(tl.int64) * vectors + tl.load(program + 3)) * B + tl.arange(0, B)

    q = load_rows(query, start, head, query_frame, query_head, rows, length, HEAD_DIM)
    do = load_rows(out_gradient, start, head, gradient_frame, gradient_head, rows, length, HEAD_DIM)
    o = load_rows(out, start, head, HEADS * HEAD_DIM, HEAD_DIM, rows, length, HEAD_DIM)
    deltas = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    lses = tl.load(lse + head.to(tl.int64) * total + start + rows, mask=rows < length, other=0.0)
    gates = tl.load(gate + (start + rows) * HEADS + head, mask=rows < length, other=0.0)
    stats += (head.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * (3 * B) + tl.arange(0, B)
    tl.store(stats, lses)
    tl.store(stats + B, deltas)
    tl.store(stats + 2 * B, gates * LOG2_E)
    first_row = tl.load(program + 2) * B
    score_scale = scale * LOG2_E
    sums = tl.zeros((B, HEAD_DIM), dtype=tl.float32)
    gate_sums = tl.zeros((B,), dtype=tl.float32)
    carry = tl.zeros((B,), dtype=tl.float32)

    for first in tl.range(0, length, B):
        columns = first + tl.arange(0, B)
        k = load_rows(key, start, head, key_frame, key_head, columns, length, HEAD_DIM)
        v = load_rows(value, start, head, value_frame, value_head, columns, length, HEAD_DIM)
        bias = load_bias(table, head, reach, first_row, first, 1, B, B)
        products = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        scores = products * score_scale + ((gates * LOG2_E)[:, None] * bias - lses[:, None])
        weights = tl.where((columns < length)[None, :], tl.exp2(scores), 0.0)
        weight_gradient = tl.dot(do, tl.trans(v), input_precision=PRECISION)
        if DROPOUT:
            weight_gradient *= kept_fraction(tl.load(seed), threshold, head, start, rows, first, DROP_SCALE, B, B)
        score_gradient = weights * (weight_gradient - deltas[:, None])
        sums = tl.dot(score_gradient.to(k.dtype), k, sums, input_precision=PRECISION)
        gate_sums += tl.sum(score_gradient * bias, 1)
        if TABLE:
            behind, ahead = diagonal_sums((score_gradient * gates[:, None]).to(k.dtype), B, PRECISION)
            tl.store(partial, carry + behind)
            carry = ahead
            partial += B

    store_rows(query_gradient, sums * scale, start, head, rows, length, 3 * HEADS, HEAD_DIM)
    tl.store(gate_gradient + (start + rows) * HEADS + head, gate_sums, mask=rows < length)
    if TABLE:
        tl.store(partial, carry)


@kernel
def key_gradient_kernel(
    query, key, value, table, out_gradient, stats, key_gradient, value_gradient, programs,
    query_frame, query_head, key_frame, key_head, value_frame, value_head, gradient_frame, gradient_head,
    reach, scale, seed, threshold,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, B: tl.constexpr, PRECISION: tl.constexpr,
    DROPOUT: tl.constexpr, DROP_SCALE: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of B keys and values; tiles are (keys, queries), so no product waits for a transposition.

    Queries past the end have no output gradient, and keys past the end are not stored: neither needs a mask.
    """
    head = tl.program_id(0)
    program = programs + tl.program_id(1) * 4
    start = tl.load(program)
    length = tl.load(program + 1) - start
    block = tl.load(program + 2)
    rows = block * B + tl.arange(0, B)

    k = load_rows(key, start, head, key_frame, key_head, rows, length, HEAD_DIM)
    v = load_rows(value, start, head, value_frame, value_head, rows, length, HEAD_DIM)
    stats += (head.to(tl.int64) * tl.num_programs(1) + tl.program_id(1) - block) * (3 * B) + tl.arange(0, B)
    score_scale = scale * LOG2_E
    key_sums = tl.zeros((B, HEAD_DIM), dtype=tl.float32)
    value_sums = tl.zeros((B, HEAD_DIM), dtype=tl.float32)

    for first in tl.range(0, length, B):
        queries = first + tl.arange(0, B)
        q = load_rows(query, start, head, query_frame, query_head, queries, length, HEAD_DIM)
        do = load_rows(out_gradient, start, head, gradient_frame, gradient_head, queries, length, HEAD_DIM)
        lses = tl.load(stats)
        deltas = tl.load(stats + B)
        gates = tl.load(stats + 2 * B)
        bias = load_bias(table, head, reach, block * B, first, -1, B, B)
        products = tl.dot(k, tl.trans(q), input_precision=PRECISION)
        weights = tl.exp2(products * score_scale + (gates[None, :] * bias - lses[None, :]))
        weight_gradient = tl.dot(v, tl.trans(do), input_precision=PRECISION)
        dropped = weights
        if DROPOUT:
            kept = tl.trans(kept_fraction(tl.load(seed), threshold, head, start, queries, block * B, DROP_SCALE, B, B))
            dropped = weights * kept
            weight_gradient *= kept
        value_sums = tl.dot(dropped.to(do.dtype), do, value_sums, input_precision=PRECISION)
        score_gradient = weights * (weight_gradient - deltas[None, :])
        key_sums = tl.dot(score_gradient.to(q.dtype), q, key_sums, input_precision=PRECISION)
        stats += 3 * B

    store_rows(key_gradient, key_sums * scale, start, head, rows, length, 3 * HEADS, HEAD_DIM)
    store_rows(value_gradient, value_sums, start, head, rows, length, 3 * HEADS, HEAD_DIM)


@kernel
def table_gradient_kernel(
    partial, programs, table_gradient, count, reach, first_head, vectors, lowest,
    B: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Add up the programs' partial sums for one head and one block of B distances, always in the same order."""
    distance_block = lowest + tl.program_id(1)
    places = tl.arange(0, B)
    partial += tl.program_id(0).to(tl.int64) * vectors * B
    sums = tl.zeros((CHUNK, B), dtype=tl.float32)
    for first in tl.range(0, count, CHUNK):
        chosen = first + tl.arange(0, CHUNK)
        there = chosen < count
        start = tl.load(programs + chosen * 4, mask=there, other=0)
        end = tl.load(programs + chosen * 4 + 1, mask=there, other=0)
        vector = distance_block + 1 + tl.load(programs + chosen * 4 + 2, mask=there, other=0)
        offset = tl.load(programs + chosen * 4 + 3, mask=there, other=0).to(tl.int64) + vector
        holds = there & (vector >= 0) & (vector <= tl.cdiv(end - start, B))
        sums += tl.load(partial + offset[:, None] * B + places[None, :], mask=holds[:, None], other=0.0)
    distances = distance_block * B + places
    base = table_gradient + (first_head + tl.program_id(0)) * (2 * reach - 1) + reach - 1
    tl.store(base + distances, tl.sum(sums, 0), mask=(distances > -reach) & (distances < reach))


def forward(query: Tensor, key: Tensor, value: Tensor, gate: Tensor, table: Tensor, call: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Attend.

    Args:
        query: Queries, (frames, heads, head_dim); like keys and values strided, the last dimension contiguous.
        key: Keys of the same shape.
        value: Values of the same shape.
        gate: Gates, (frames, heads) float32.
        table: Position bias by distance, (heads, 2 reach - 1) float32.
        call: The plan, its settings and the numbers (a `net.wavlm.relative_attention.Call`).

    Returns:
        Attended values, (frames, heads, head_dim), and the log2 of each query's softmax denominator, (heads, frames).
    """
    total, heads, head_dim = query.shape
    out = torch.empty((total, heads, head_dim), dtype=query.dtype, device=query.device)
    lse = torch.empty((heads, total), dtype=torch.float32, device=query.device)
    settings = call.settings
    programs = call.plan.programs[settings.forward_rows]
    forward_kernel[(heads, programs.shape[0])](
        query, key, value, gate, table, out, lse, programs,
        *_strides(query, key, value), total, _reach(table), call.scale, call.seed, call.threshold,
        HEADS=heads, HEAD_DIM=head_dim, M=settings.forward_rows, N=settings.forward_columns,
        PRECISION=_precision(query), **_dropout(call),
        num_warps=settings.forward_warps, num_stages=settings.forward_stages,
    )  # fmt: skip
    return out, lse


def backward(
    saved: tuple[Tensor, ...],
    out_gradient: Tensor,
    call: Any,  # noqa: ANN401
    with_table: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of query, key and value as one (frames, 3, heads, head_dim), of gate and of table.

    Args:
        saved: Arguments and results of `forward`: query, key, value, gate, table, out, lse.
        out_gradient: Gradient of out, (frames, heads, head_dim), the last dimension contiguous.
        call: The argument of `forward`.
        with_table: Whether to compute the table's gradient.
    """
    query, key, value, gate, table, out, lse = saved
    total, heads, head_dim = query.shape
    settings = call.settings
    size = settings.backward_block
    programs = call.plan.programs[size]
    packed = torch.empty((total, 3, heads, head_dim), dtype=query.dtype, device=query.device)
    gradients = packed.unbind(1)
    gate_gradient = torch.empty_like(gate)
    stats = torch.empty((heads, programs.shape[0], 3, size), dtype=torch.float32, device=query.device)
    table_gradient = torch.zeros_like(table) if with_table else None
    numbers = (_reach(table), call.scale, call.seed, call.threshold)
    constants = {"HEADS": heads, "HEAD_DIM": head_dim, "B": size, "PRECISION": _precision(query), **_dropout(call)}
    strides = _strides(query, key, value, out_gradient)

    vectors = call.plan.vectors[size] if with_table else 0
    turn = heads if not with_table else max(1, min(heads, PARTIAL_BYTES // (4 * size * vectors)))
    partial = torch.empty((turn, vectors, size), dtype=torch.float32, device=query.device)
    for first_head in range(0, heads, turn):
        count = min(turn, heads - first_head)
        query_gradient_kernel[(count, programs.shape[0])](
            query, key, value, gate, table, out, lse, out_gradient, stats, gradients[0], gate_gradient, partial,
            programs, *strides, total, *numbers, first_head, vectors, TABLE=with_table, **constants,
            num_warps=settings.query_warps, num_stages=settings.query_stages,
        )  # fmt: skip
        if table_gradient is not None:
            blocks = -(-call.plan.longest // size)
            table_gradient_kernel[(count, 2 * blocks)](
                partial, programs, table_gradient, programs.shape[0], _reach(table), first_head, vectors, -blocks,
                B=size, CHUNK=max(1, 2048 // size), num_warps=4,
            )  # fmt: skip
    key_gradient_kernel[(heads, programs.shape[0])](
        query, key, value, table, out_gradient, stats, gradients[1], gradients[2], programs,
        *strides, *numbers, **constants, num_warps=settings.key_warps, num_stages=settings.key_stages,
    )  # fmt: skip
    return packed, gate_gradient, table_gradient


def _strides(*tensors: Tensor) -> list[int]:
    """Return the strides of frames and of heads, one tensor after the other."""
    return [stride for tensor in tensors for stride in tensor.stride()[:2]]


def _reach(table: Tensor) -> int:
    return (table.shape[1] + 1) // 2


def _precision(query: Tensor) -> str:
    """Return the precision of products: float32 stays float32; half precision runs on the tensor cores in any case."""
    return "ieee" if query.dtype == torch.float32 else "tf32"


def _dropout(call: Any) -> dict[str, object]:  # noqa: ANN401
    return {"DROPOUT": call.threshold > 0, "DROP_SCALE": call.kept_scale}
