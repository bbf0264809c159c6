"""The positional convolution of wav2vec 2.0 and its relatives on packed frames: a frame sees only its own utterance.

On a GPU a grouped convolution of kernel 128 is computed as a matrix product with long rows: the windows of `block`
consecutive frames share all but `block` - 1 of their frames, so that one row of the product holds the window of the
whole block, and its columns are the block's outputs. With the columns of one frame only (48 or 64), the tensor cores
would wait for memory. Neither the windows nor the shifted weights are ever written out: both are overlapping views.

Shapes: N frames in the pack, D their dimension, G groups, C = D / G channels per group, K taps, B frames per block.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrizations, parametrize

from net.kernels.triton_support import is_exact_gelu, runs_triton
from net.packing.positions import PositionalPlan


def positional_convolution(embedding: Any, frames: Tensor, plan: PositionalPlan, dtype: torch.dtype) -> Tensor:  # noqa: ANN401
    """Compute the positional embedding of every utterance as the module would for that utterance alone.

    Args:
        embedding: The transformers module: `conv`, an odd or even kernel with `same` padding, and `activation`.
        frames: Frames of the utterances end to end, (N, D).
        plan: Plan of these utterances, on the frames' device.
        dtype: Element type of the products and of the result; sums are float32.

    Returns:
        Embedding to be added to the frames, (N, D).
    """
    if not (frames.is_cuda and runs_triton(frames.device) and is_exact_gelu(embedding.activation)):
        return positional_plain(embedding, frames, plan, dtype)
    return positional_fused(embedding, frames, plan, dtype)


def positional_plain(embedding: Any, frames: Tensor, plan: PositionalPlan, dtype: torch.dtype) -> Tensor:  # noqa: ANN401
    """Do what `positional_convolution` does with one convolution per utterance, the fastest form on a CPU."""
    conv = embedding.conv
    with torch.autocast(frames.device.type, enabled=False):
        weight, bias = conv.weight.to(dtype), conv.bias.to(dtype)
        outputs = []
        for utterance in torch.split(frames.to(dtype).t(), list(plan.lengths), dim=1):
            convolved = F.conv1d(utterance.unsqueeze(0), weight, bias, padding=plan.taps // 2, groups=conv.groups)
            outputs.append(convolved[0, :, : utterance.shape[1]])
        activated: Tensor = embedding.activation(torch.cat(outputs, 1).t())
        return activated


def positional_fused(embedding: Any, frames: Tensor, plan: PositionalPlan, dtype: torch.dtype) -> Tensor:  # noqa: ANN401
    """Do what `positional_convolution` does with Triton kernels, forward and backward."""
    conv = embedding.conv
    with torch.autocast(frames.device.type, enabled=False):
        weight, inputs = weight_of(conv), frames.to(dtype)
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (inputs, weight, conv.bias))
        result: Tensor = _PositionalConvolution.apply(inputs, weight, conv.bias, plan, keep)  # type: ignore[no-untyped-call]
        return result


def weight_of(conv: Any) -> Tensor:  # noqa: ANN401 - parametrizations are not typed
    """Return a convolution's weight (D, C, K), with its weight norm applied if it has one.

    PyTorch's own kernels for a norm of every tap run one small program per tap, in the forward and in the backward: on
    an H100 1.6 ms per step of the large shape.

    Source: T. Salimans and D. P. Kingma, "Weight Normalization", NeurIPS 2016.
    """
    norms = list(conv.parametrizations.weight) if parametrize.is_parametrized(conv, "weight") else []
    if len(norms) != 1 or not isinstance(norms[0], parametrizations._WeightNorm):
        weight: Tensor = conv.weight
        return weight
    length, direction = conv.parametrizations.weight.original0, conv.parametrizations.weight.original1
    others = [dim for dim in range(direction.dim()) if dim != norms[0].dim]
    found: Tensor = direction * (length / torch.linalg.vector_norm(direction, dim=others, keepdim=True))
    return found


class _PositionalConvolution(torch.autograd.Function):
    """GELU of the convolution; the pre-activation and the padded frames are kept for the backward."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, weight: Tensor, bias: Tensor, plan: PositionalPlan, keep: bool) -> Tensor:  # noqa: ANN401
        from net.kernels import positional_convolution as kernels

        groups = frames.shape[1] // weight.shape[1]
        padded = kernels.pad_frames(frames, None, plan, groups)
        taps_first = grouped_taps(weight, groups)
        result, before = kernels.convolve(padded, taps_first, bias, plan, plan.taps // 2, keep)
        ctx.plan, ctx.groups = plan, groups
        ctx.save_for_backward(padded, weight, bias, before)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        from net.kernels import positional_convolution as kernels

        padded, weight, bias, before = ctx.saved_tensors
        plan, groups = ctx.plan, ctx.groups
        gradient = kernels.pad_frames(gradients[0].contiguous(), before, plan, groups)
        by_frames = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            flipped = grouped_taps(weight, groups).flip(1).transpose(2, 3)
            by_frames, _ = kernels.convolve(gradient, flipped, None, plan, (plan.taps - 1) // 2, False)
        if ctx.needs_input_grad[1]:
            by_taps = kernels.weight_gradient(padded, gradient, plan)
            by_weight = by_taps.permute(0, 3, 2, 1).reshape(weight.shape).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            by_bias = gradient.sum(1, dtype=torch.float32).flatten().to(bias.dtype)
        return by_frames, by_weight, by_bias, None, None


def grouped_taps(weight: Tensor, groups: int) -> Tensor:
    """View a convolution's weight (D, C, K) as (G, K, C in, C out)."""
    return weight.view(groups, -1, *weight.shape[1:]).permute(0, 3, 2, 1)
