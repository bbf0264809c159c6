"""Attention-weighted means and deviations of utterances' frames, forward and backward in one kernel each.

With α the softmax of the scores over an utterance's frames, μ = Σ α x and v = Σ α (x − μ)², the gradients are those of
μ and sqrt(max(v, smallest)) written out: of x, α (∂μ + 2 ∂v (x − μ)); of a score, the columns' sum of
α (∂μ (x − μ) + ∂v ((x − μ)² − v)). Everything is computed in float32 and summed in a fixed order; import only where
Triton runs.

Shapes: N frames, B utterances, D columns.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from net.kernels import attentive_statistics as kernels
from net.kernels.triton_support import ceil_div

FORWARD = {"R": 32, "C": 64, "num_warps": 4}
BACKWARD = {"R": 16, "C": 128, "num_warps": 4}
PROGRAMS = 16
"""Programs of the backward that share one utterance."""


def pool_statistics(values: Tensor, scores: Tensor, starts: Tensor, smallest_variance: float) -> Tensor:
    """Return mean and standard deviation of each utterance's frames, weighted by the softmax of their scores.

    Args:
        values: Frames, (N, D) float32, contiguous. Rows behind the last utterance are filling: their gradient is 0.
        scores: Attention scores, (N, 1) float32.
        starts: First row of each utterance and the end of the last one, (B + 1,) int32.
        smallest_variance: Lower bound of the variance; smaller ones are raised to it and have no gradient.

    Returns:
        Means and deviations, (B, 2 D).
    """
    pooled: Tensor = _Statistics.apply(values, scores, starts, smallest_variance)  # type: ignore[no-untyped-call]
    return pooled


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        values: Tensor,
        scores: Tensor,
        starts: Tensor,
        smallest: float,
    ) -> Tensor:
        utterances, columns = len(starts) - 1, values.shape[1]
        statistics = values.new_empty((utterances, 2 * columns))
        softmax = values.new_empty((utterances, 2))
        scores = scores.contiguous()
        kernels.statistics_forward_kernel[(utterances, ceil_div(columns, FORWARD["C"]))](
            values, scores, starts, statistics, softmax, D=columns, SMALLEST=math.sqrt(smallest), **FORWARD
        )
        ctx.save_for_backward(values, scores, starts, statistics, softmax)
        ctx.smallest = smallest
        return statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        values, scores, starts, statistics, softmax = ctx.saved_tensors
        wants_values = ctx.needs_input_grad[0]
        values_gradient = torch.zeros_like(values) if wants_values else values
        scores_gradient = torch.zeros_like(scores)
        kernels.statistics_backward_kernel[(len(statistics), PROGRAMS)](
            gradients[0].contiguous(), values, scores, starts, statistics, softmax, values_gradient, scores_gradient,
            D=values.shape[1], SMALLEST=math.sqrt(ctx.smallest), WANTS_VALUES=wants_values, **BACKWARD,
        )  # fmt: skip
        return values_gradient if wants_values else None, scores_gradient, None, None
