"""The gate of WavLM's relative position bias: explicit forward and backward, each in one pass over memory.

As in `layer_operations.py`, everything is computed in float32 and all tensors are contiguous; import only where Triton
runs.

Shapes: N frames, D hidden size, H heads.

Source: S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing", IEEE JSTSP
2022.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from net.kernels import position_gate as kernels
from net.kernels.triton_support import ceil_div, next_power_of_2
from net.wavlm.layer_operations import runs_of

SETTINGS: dict[str, dict[str, int]] = {
    "gate_forward": {"rows": 64, "num_warps": 4},
    "gate_backward": {"rows": 32, "num_warps": 4, "num_stages": 1, "programs": 4},
}
"""As in `layer_operations.py`."""


class GateGradients(NamedTuple):
    """The result of `gate_backward`.

    Attributes:
        hidden: Gradient of hidden in its dtype, (N, D), with the other gradient added.
        weight: Gradient of weight, (2, head_dim) float32.
        bias: Gradient of bias, (2,) float32.
        const: Gradient of const, (H,) float32.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    const: Tensor


def gate_forward(hidden: Tensor, weight: Tensor, bias: Tensor, const: Tensor) -> Tensor:
    """Return each query's gate a (b const - 1) + 2, where a, b = sigmoid(hidden of a head @ weight.T + bias).

    Args:
        hidden: Input of the layer, (N, D), half or float32.
        weight: Weight of `gru_rel_pos_linear`, its rows summed in groups of four, (2, head_dim) float32.
        bias: Bias of the same, likewise summed, (2,) float32.
        const: `gru_rel_pos_const`, (H,) float32.

    Returns:
        Gates, (N, H) float32.
    """
    settings = SETTINGS["gate_forward"]
    frames, heads, head_dim = hidden.shape[0], const.shape[0], weight.shape[1]
    gate = torch.empty((frames, heads), dtype=torch.float32, device=hidden.device)
    kernels.gate_forward_kernel[(ceil_div(frames * heads, settings["rows"]),)](
        hidden, weight, bias, const, gate, frames,
        H=heads, E=head_dim, R=settings["rows"], C=next_power_of_2(head_dim), num_warps=settings["num_warps"],
    )  # fmt: skip
    return gate


def gate_backward(
    gate_gradient: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, const: Tensor, other_gradient: Tensor
) -> GateGradients:
    """Return the gradients of the arguments of `gate_forward`, that of hidden added to another one.

    Args:
        gate_gradient: Gradient of the gates, (N, H) float32.
        hidden: Argument of `gate_forward`.
        weight: Argument of `gate_forward`.
        bias: Argument of `gate_forward`.
        const: Argument of `gate_forward`.
        other_gradient: Gradient that reaches hidden by other paths, (N, D), half or float32.
    """
    settings = SETTINGS["gate_backward"]
    frames, heads, head_dim = hidden.shape[0], const.shape[0], weight.shape[1]
    runs = runs_of(hidden, settings, heads)
    hidden_gradient = torch.empty_like(hidden)
    sums = torch.empty((runs, heads, 2 * head_dim + 3), dtype=torch.float32, device=hidden.device)
    kernels.gate_backward_kernel[(heads, runs)](
        gate_gradient, hidden, weight, bias, const, other_gradient, hidden_gradient, sums, frames,
        H=heads, E=head_dim, R=settings["rows"], C=next_power_of_2(head_dim), STAGES=settings["num_stages"],
        num_warps=settings["num_warps"],
    )  # fmt: skip
    by_head = sums.sum(0)
    by_weight, by_bias, _ = torch.split(by_head.sum(0), [2 * head_dim, 2, 1])
    return GateGradients(hidden_gradient, by_weight.view(2, head_dim), by_bias, by_head[:, -1])
