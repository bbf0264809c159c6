"""The gate of WavLM's relative position bias, each way in one pass over memory: explicit forward and backward.

As in `fused_layers.py`: kernels where the GPU has them, else the `plain_` twins; everything is computed in float32.

Shapes: N frames, D hidden size, H heads.

Source: S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing", IEEE JSTSP
2022.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from net import fused_layers


class GateGradients(NamedTuple):
    """What `gate_backward` returns.

    Attributes:
        hidden: (N, D) in the dtype of hidden, the other gradient added.
        weight: (2, head_dim) float32.
        bias: (2,) float32.
        const: (H,) float32.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    const: Tensor


def gate_forward(hidden: Tensor, weight: Tensor, bias: Tensor, const: Tensor) -> Tensor:
    """Return each query's gate a (b const - 1) + 2, where a, b = sigmoid(hidden of a head @ weight.T + bias).

    Args:
        hidden: (N, D), half or float32.
        weight: (2, head_dim) float32: the rows of `gru_rel_pos_linear`, each four of them added up.
        bias: (2,) float32, likewise.
        const: (H,) float32.

    Returns:
        (N, H) float32.
    """
    if not fused_layers.runs_kernels(hidden):
        return plain_gate_forward(hidden, weight, bias, const)
    from net import position_gate_kernels as kernels

    return kernels.gate_forward(hidden.contiguous(), weight.contiguous(), bias.contiguous(), const.contiguous())


def gate_backward(
    gate_gradient: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, const: Tensor, other_gradient: Tensor
) -> GateGradients:
    """Return the gradients of what `gate_forward` took, that of hidden added to another one.

    Args:
        gate_gradient: (N, H) float32.
        hidden: As given there, as all but the last.
        weight: See hidden.
        bias: See hidden.
        const: See hidden.
        other_gradient: (N, D), half or float32: what reaches hidden by other ways.
    """
    if not fused_layers.runs_kernels(hidden):
        return plain_gate_backward(gate_gradient, hidden, weight, bias, const, other_gradient)
    from net import position_gate_kernels as kernels

    tensors = (gate_gradient, hidden, weight, bias, const, other_gradient)
    return GateGradients(*kernels.gate_backward(*(tensor.contiguous() for tensor in tensors)))


def plain_gate_forward(hidden: Tensor, weight: Tensor, bias: Tensor, const: Tensor) -> Tensor:
    """Compute `gate_forward` by PyTorch alone."""
    a, b = _sigmoids(hidden, weight, bias, const)
    return a * (b * const - 1) + 2


def plain_gate_backward(
    gate_gradient: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, const: Tensor, other_gradient: Tensor
) -> GateGradients:
    """Compute `gate_backward` by PyTorch alone."""
    a, b = _sigmoids(hidden, weight, bias, const)
    by_a = gate_gradient * (b * const - 1) * a * (1 - a)
    by_b = gate_gradient * const * a * b * (1 - b)
    by_both = torch.stack((by_a, by_b), dim=2)
    by_hidden = fused_layers.wide(other_gradient) + (by_both @ weight).flatten(1)
    by_weight = torch.einsum("nhp,nhe->pe", by_both, _heads(hidden, const))
    by_const = (gate_gradient * a * b).sum(0)
    return GateGradients(by_hidden.to(hidden.dtype), by_weight, by_both.sum((0, 1)), by_const)


def _sigmoids(hidden: Tensor, weight: Tensor, bias: Tensor, const: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gate's two sigmoids, (N, H) each."""
    a, b = torch.sigmoid(F.linear(_heads(hidden, const), weight, bias)).unbind(-1)
    return a, b


def _heads(hidden: Tensor, const: Tensor) -> Tensor:
    """Return hidden as (N, H, head_dim)."""
    return fused_layers.wide(hidden).reshape(len(hidden), len(const), -1)
