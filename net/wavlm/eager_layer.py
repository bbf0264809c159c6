"""One transformer layer of WavLM on packed frames in PyTorch's own operations, for devices without the Triton kernels.

Shapes: N frames, D hidden size, H heads. State and norms are those of `fused_layer.py`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from net.packing.attention import AttentionPlan
from net.wavlm.relative_attention import gate_of, relative_attention


def run_plain_layer(
    stream: Tensor,
    taken: Tensor,
    table: Tensor,
    layer: Any,  # noqa: ANN401 - a transformers module
    norms: tuple[nn.LayerNorm, nn.LayerNorm],
    plan: AttentionPlan,
    is_stable: bool,
    is_last: bool,
) -> tuple[Tensor, Tensor]:
    """Run a layer.

    Args:
        stream: Residual stream, (N, D) float32.
        taken: Input of the next product, (N, D) in the dtype of the products.
        table: Position bias by distance, (H, 2 reach - 1) float32.
        layer: The transformers layer.
        norms: Norms behind the attention and behind the feed-forward part.
        plan: Plan of the batch.
        is_stable: Whether the residual stream itself is not normalised.
        is_last: Whether this is the last layer; in a stable model the second result is the encoder's output (float32).

    Returns:
        The next layer's stream and input.
    """
    feed, join = layer.feed_forward, _join_and_norm if is_stable else _norm_of_join
    attended = _attend(layer.attention, taken, table, plan)
    stream, taken = join(attended, stream, norms[0], rate_of(layer.dropout), taken.dtype)
    inner = dropped(feed.intermediate_act_fn(product(taken, feed.intermediate_dense)), feed.intermediate_dropout)
    left = torch.float32 if is_last and is_stable else taken.dtype
    return join(product(inner, feed.output_dense), stream, norms[1], rate_of(feed.output_dropout), left)


def _attend(attention: Any, hidden: Tensor, table: Tensor, plan: AttentionPlan) -> Tensor:  # noqa: ANN401
    """Return the output projection of one layer's attention, (N, D) in the dtype of `hidden`."""
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight = torch.cat([projection.weight for projection in projections]).to(hidden.dtype)
    bias = torch.cat([projection.bias for projection in projections]).to(hidden.dtype)
    packed = F.linear(hidden, weight, bias).view(hidden.shape[0], 3, attention.num_heads, -1)
    linear = attention.gru_rel_pos_linear
    gate = gate_of(hidden, linear.weight, linear.bias, attention.gru_rel_pos_const, attention.num_heads)
    rate = attention.dropout if attention.training else 0.0
    query, key, value = packed.unbind(1)
    out = relative_attention(query, key, value, gate, table, plan, attention.scaling, rate)
    return product(out.flatten(1), attention.out_proj)


def _join_and_norm(
    branch: Tensor, stream: Tensor, norm: nn.LayerNorm, rate: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Add a branch to the stream; return the stream, and its normalised copy for the next product."""
    joined = stream + F.dropout(branch, rate).float()
    return joined, normed(joined, norm).to(dtype)


def _norm_of_join(
    branch: Tensor, stream: Tensor, norm: nn.LayerNorm, rate: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Add a branch to the stream and normalise it; return the stream, and a copy for the next product."""
    joined = normed(stream + F.dropout(branch, rate).float(), norm)
    return joined, joined.to(dtype)


def rate_of(dropout: nn.Dropout) -> float:
    """Return a dropout's current rate: 0 in evaluation."""
    return dropout.p if dropout.training else 0.0


def dropped(hidden: Tensor, dropout: nn.Dropout) -> Tensor:
    """Apply a dropout, drawn by PyTorch's generator."""
    return F.dropout(hidden, rate_of(dropout))


def normed(hidden: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Apply a layer norm."""
    return F.layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def product(hidden: Tensor, linear: nn.Linear) -> Tensor:
    """Apply a linear layer in the dtype of `hidden`."""
    return F.linear(hidden, linear.weight.to(hidden.dtype), linear.bias.to(hidden.dtype))
