"""Exact self-attention over utterances packed end to end, with WavLM's gated relative position bias.

For utterance u, its frames i and j, head h:

    score[h, i, j] = scale * query[i, h] . key[j, h] + gate[i, h] * table[h, reach - 1 + j - i]
    out[i, h] = sum over j of softmax_j(score)[h, i, j] * value[j, h]

The bias is (heads, frames, frames) per utterance; the kernels read it from the table instead of storing it.

Sources: S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing", IEEE JSTSP
2022 (the bias); T. Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", ICLR 2024
(the order of computation); J. K. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011 (dropout's
Philox4x32-7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from net.kernels.triton_support import runs_triton
from net.packing.attention import DROP_STEPS, FLOAT_SETTINGS, HALF_SETTINGS, AttentionPlan, KernelSettings
from net.packing.device_tables import to_device

KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
KERNEL_HEAD_DIMS = (16, 32, 64, 128)


@dataclass(frozen=True, eq=False)
class Call:
    """The arguments of the kernels other than tensors.

    Attributes:
        plan: Plan of the batch.
        settings: Kernel settings for this head dimension and dtype.
        scale: Factor of the products of query and key.
        seed: Seed of dropout on the device, () int64, 0 .. 2^63 - 1; not read without dropout.
        threshold: Dropout rate in units of 1 / DROP_STEPS.
        kept_scale: Factor of kept weights.
    """

    plan: AttentionPlan
    settings: KernelSettings
    scale: float
    seed: Tensor | None
    threshold: int
    kept_scale: float


def relative_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    table: Tensor,
    plan: AttentionPlan,
    scale: float,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """Attend within each utterance of a pack.

    GPUs from compute capability 8.0 on use kernels that give the same bits each time and whose dropout mask depends
    only on the seed, a frame's place in the pack and the head. Other devices use `plain_relative_attention`, whose mask
    comes from PyTorch's generator.

    Args:
        query: Queries, (frames, heads, head_dim); like keys and values, possibly a strided view.
        key: Keys, (frames, heads, head_dim).
        value: Values, (frames, heads, head_dim).
        gate: Factor of each query's bias, (frames, heads).
        table: Bias of each distance key - query from -(reach - 1) to reach - 1, (heads, 2 reach - 1); finite. Copied in
            each call unless reach is at least the longest utterance's length rounded up to whole tiles.
        plan: Plan of this batch, on the tensors' device.
        scale: Factor of the products of query and key, usually head_dim ** -0.5.
        dropout: Probability that a weight becomes zero; others are multiplied by 1 / (1 - dropout).
        seed: Seed of the kernels' dropout on the device, () int64, 0 .. 2^63 - 1; drawn by PyTorch's generator if None.

    Returns:
        Attended values, (frames, heads, head_dim) in the dtype of query.

    Raises:
        ValueError: If shapes, dtypes or numbers do not fit each other.
    """
    _check(query, key, value, gate, table, plan, dropout)
    if not has_kernels(query.device, query.dtype, query.shape[2]):
        return plain_relative_attention(query, key, value, gate, table, plan, scale, dropout)
    if dropout > 0 and seed is None:
        seed = to_device(torch.randint(2**62, ()), query.device)
    call = prepare_call(plan, query.dtype, query.shape[2], scale, dropout, seed)
    query, key, value = (t if t.stride(2) == 1 else t.contiguous() for t in (query, key, value))
    gate, table = gate.float().contiguous(), _with_margin(table.float(), call).contiguous()
    attended: Tensor = _RelativeAttention.apply(query, key, value, gate, table, call)  # type: ignore[no-untyped-call]
    return attended


def kernel_settings(dtype: torch.dtype, head_dim: int) -> KernelSettings:
    """Return the kernels' default settings."""
    return (FLOAT_SETTINGS if dtype == torch.float32 else HALF_SETTINGS)[head_dim]


def prepare_call(
    plan: AttentionPlan, dtype: torch.dtype, head_dim: int, scale: float, dropout: float, seed: Tensor | None
) -> Call:
    """Return the arguments of the kernels other than tensors."""
    settings = plan.settings or kernel_settings(dtype, head_dim)
    return Call(plan, settings, scale, seed, round(dropout * DROP_STEPS), 1 / (1 - dropout))


def _with_margin(table: Tensor, call: Call) -> Tensor:
    """Widen a table whose reach ends inside a tile, since the kernels read whole tiles without a mask."""
    size = max(call.settings.forward_rows, call.settings.forward_columns, call.settings.backward_block)
    missing = -(-call.plan.longest // size) * size - (table.shape[1] + 1) // 2
    return F.pad(table, (missing, missing)) if missing > 0 else table


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    table: Tensor,
    plan: AttentionPlan,
    dropout: float,
) -> None:
    """Refuse arguments that would be read past a tensor's end or make no sense."""
    frames, heads, _ = query.shape
    if not (query.shape == key.shape == value.shape and query.dtype == key.dtype == value.dtype):
        raise ValueError("query, key and value need one shape and one dtype")
    if sum(plan.lengths) != frames:
        raise ValueError(f"the plan is for {sum(plan.lengths)} frames, query has {frames}")
    if gate.shape != (frames, heads):
        raise ValueError(f"gate is {tuple(gate.shape)}, expected {(frames, heads)}")
    longest = max(plan.lengths)
    if table.shape[0] != heads or table.shape[1] % 2 == 0 or table.shape[1] < 2 * longest - 1:
        raise ValueError(f"table is {tuple(table.shape)}, expected ({heads}, 2 reach - 1) with reach >= {longest}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}, allowed is 0 <= dropout < 1")


def has_kernels(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Return whether the Triton kernels support this device, dtype and head dimension."""
    return dtype in KERNEL_DTYPES and head_dim in KERNEL_HEAD_DIMS and runs_triton(device)


class _RelativeAttention(torch.autograd.Function):
    """The kernels, and their gradients."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor, gate: Tensor, table: Tensor, call: Call
    ) -> Tensor:
        from net.kernels import relative_attention as kernels

        out, lse = kernels.forward(query, key, value, gate, table, call)
        ctx.save_for_backward(query, key, value, gate, table, out, lse)
        ctx.call = call  # type: ignore[attr-defined]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, out_gradient: Tensor) -> tuple[Tensor | None, ...]:
        from net.kernels import relative_attention as kernels

        if out_gradient.stride(2) != 1:
            out_gradient = out_gradient.contiguous()
        saved: tuple[Tensor, ...] = ctx.saved_tensors  # type: ignore[attr-defined]
        with_table: bool = ctx.needs_input_grad[4]  # type: ignore[attr-defined]
        packed, gate, table = kernels.backward(saved, out_gradient, ctx.call, with_table)  # type: ignore[attr-defined]
        return *packed.unbind(1), gate, table, None


def plain_relative_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    table: Tensor,
    plan: AttentionPlan,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Compute `relative_attention` in PyTorch only, utterances of equal length together; the bias is stored."""
    pieces = [torch.split(t, list(plan.lengths)) for t in (query, key, value, gate)]
    attended: list[Tensor] = [query] * len(plan.lengths)
    for length in sorted(set(plan.lengths)):
        chosen = [u for u, n in enumerate(plan.lengths) if n == length]
        q, k, v, g = (torch.stack([piece[u] for u in chosen]).transpose(1, 2) for piece in pieces)
        bias = (g.unsqueeze(3) * distances_to_matrix(table, length)).to(query.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)
        for u, one in zip(chosen, out.transpose(1, 2), strict=True):
            attended[u] = one
    return torch.cat(attended)


def distances_to_matrix(table: Tensor, length: int) -> Tensor:
    """Spread a table (heads, 2 reach - 1) over queries and keys: (heads, length, length)."""
    reach = (table.shape[1] + 1) // 2
    # Window w begins at distance w - (length - 1), so the windows are the queries from the last to the first.
    return table[:, reach - length : reach + length - 1].unfold(1, length, 1).flip(1)


def relative_buckets(reach: int, num_buckets: int, max_distance: int) -> Tensor:
    """Return the bucket of every distance key - query from -(reach - 1) to reach - 1: (2 reach - 1,) int64.

    Each direction has half of the buckets: half of these are for single distances, the rest are spaced logarithmically
    up to max_distance, the last one holding all beyond. `embedding(buckets).T` is the table of `relative_attention`.

    Source: C. Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", JMLR
    2020, as in WavLM; float32 and its rounding are those of transformers' WavLMAttention.
    """
    distances = torch.arange(1 - reach, reach)
    one_way = num_buckets // 2
    single = one_way // 2
    far = torch.log(distances.abs().float() / single) / math.log(max_distance / single) * (one_way - single)
    far = (single + far).to(torch.long).clamp(max=one_way - 1)
    near_or_far = torch.where(distances.abs() < single, distances.abs(), far)
    return (distances > 0).to(torch.long) * one_way + near_or_far


def gate_of(hidden: Tensor, weight: Tensor, bias: Tensor, const: Tensor, heads: int) -> Tensor:
    """Return each query's gate of the position bias, as WavLMAttention computes it.

    Args:
        hidden: Input of the layer, (frames, hidden_dim).
        weight: Weight of `gru_rel_pos_linear`, (8, head_dim). Its outputs are only ever summed in two groups of four,
            so its rows are summed first: a quarter of the work.
        bias: Bias of `gru_rel_pos_linear`, (8,).
        const: `gru_rel_pos_const`, one number per head.
        heads: Number of heads.

    Returns:
        Gates, (frames, heads), float32 unless hidden is float64.
    """
    weight, bias = (whole.view(2, 4, -1).sum(1).to(hidden.dtype) for whole in (weight, bias))
    projected = F.linear(hidden.view(*hidden.shape[:-1], heads, -1), weight, bias.squeeze(1))
    gate_a, gate_b = torch.sigmoid(projected.to(torch.promote_types(projected.dtype, torch.float32))).unbind(-1)
    return gate_a * (gate_b * const.view(heads) - 1.0) + 2.0
