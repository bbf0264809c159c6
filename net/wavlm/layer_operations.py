"""The operations between a transformer layer's products, each in one pass over memory: explicit forwards and backwards.

    gelu    dropout(gelu(hidden + bias))
    join    joined = residual + dropout(branch + branch_bias), and its layer norm
    drop    dropout(hidden)
    restore the state before the layer, if the layer is skipped

Everything is computed in float32 and rounded once, when stored. Dropout masks are not stored: the backward draws them
again. A mask depends only on the seed and on an element's row and column; two calls need two seeds. The same arguments
give the same bits each time. Import only where Triton runs.

Shapes: N frames, D hidden size, F inner size, both multiples of 8. All tensors are contiguous.

Sources: D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units", 2016; J. L. Ba et al., "Layer Normalization", 2016;
J. K. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011 (dropout's Philox4x32-7).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from net.kernels import layer_operations as kernels
from net.kernels.triton_support import ceil_div, next_power_of_2

DROP_STEPS = 2**16
SETTINGS: dict[str, dict[str, int]] = {
    "gelu_forward": {"rows": 4, "columns": 1024, "num_warps": 4},
    "gelu_backward": {"rows": 2, "columns": 1024, "num_warps": 4, "num_stages": 1, "programs": 6},
    "join_forward": {"rows": 1, "num_warps": 4},
    "join_backward": {"rows": 1, "num_warps": 4, "num_stages": 1, "programs": 4},
    "drop": {"rows": 1, "num_warps": 4},
    "restore": {"columns": 4096, "num_warps": 4},
}
"""Rows of a tile, warps, and for sums over rows the stages of the loop and the programs per multiprocessor.

All programs of a sum should fit on the GPU at once, which depends on their registers: otherwise there is a second turn.
"""
INTERPRETED_MULTIPROCESSORS = 2


class Dropout(NamedTuple):
    """A dropout.

    Attributes:
        rate: Drop probability, rounded to a multiple of 1 / DROP_STEPS; kept values are multiplied by 1 / (1 - that
            multiple).
        seed: Seed on the device, () int64, 0 .. 2^63 - 1; not read if the rate is 0.
        skips: Whether the seed is read in any case, and a negative one drops a joined branch entirely.
    """

    rate: float
    seed: Tensor | None = None
    skips: bool = False

    @property
    def threshold(self) -> int:
        """The rate in units of 1 / DROP_STEPS."""
        return round(self.rate * DROP_STEPS)

    @property
    def scale(self) -> float:
        """Factor of kept values."""
        return DROP_STEPS / (DROP_STEPS - self.threshold)

    def constants(self) -> dict[str, Any]:
        """Return the compile-time constants of the kernels."""
        return {"DROPOUT": self.threshold > 0, "SCALE": self.scale}


class Joined(NamedTuple):
    """The result of `join_forward`.

    Attributes:
        joined: Residual stream, (N, D) float32.
        normed: Layer norm of joined, (N, D) in the requested dtype.
        normed_full: The same in float32 if requested, (N, D); `normed` itself if that is float32.
        mean: Mean of joined, (N,) float32.
        rstd: Reciprocal standard deviation of joined, (N,) float32.
    """

    joined: Tensor
    normed: Tensor
    normed_full: Tensor | None
    mean: Tensor
    rstd: Tensor


class JoinGradients(NamedTuple):
    """The result of `join_backward`.

    Attributes:
        residual: Gradient of the residual stream, (N, D) float32.
        branch: Gradient of the branch, (N, D) in the requested dtype.
        sums: Gradients of the norm's weight and bias and of the branch's bias, (3, D) float32.
    """

    residual: Tensor
    branch: Tensor
    sums: Tensor


def gelu_forward(hidden: Tensor, bias: Tensor, dropout: Dropout) -> Tensor:
    """Return dropout(gelu(hidden + bias)), (N, F) in the dtype of hidden, with the exact GELU (by erf).

    Args:
        hidden: Output of the product without its bias, (N, F), half or float32.
        bias: Bias of the product, (F,) float32.
        dropout: Dropout of the result.
    """
    settings = SETTINGS["gelu_forward"]
    rows, columns = hidden.shape
    size = min(settings["columns"], next_power_of_2(columns))
    out = torch.empty_like(hidden)
    kernels.gelu_forward_kernel[(ceil_div(rows, settings["rows"]) * ceil_div(columns, size),)](
        hidden, bias, out, rows, dropout.seed, dropout.threshold,
        F=columns, R=settings["rows"], C=size, **dropout.constants(), num_warps=_warps(settings, size),
    )  # fmt: skip
    return out


def gelu_backward(
    gradient: Tensor, hidden: Tensor, bias: Tensor, dropout: Dropout, bias_gradient: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradients of hidden (N, F) in its dtype and of bias (F,) float32.

    Args:
        gradient: Gradient of the result of `gelu_forward`, (N, F).
        hidden: Argument of `gelu_forward`.
        bias: Argument of `gelu_forward`.
        dropout: Argument of `gelu_forward`.
        bias_gradient: Preallocated gradient of bias, or None.
    """
    settings = SETTINGS["gelu_backward"]
    rows, columns = hidden.shape
    size = min(settings["columns"], next_power_of_2(columns))
    blocks = ceil_div(columns, size)
    runs = runs_of(hidden, settings, blocks)
    hidden_gradient = torch.empty_like(hidden)
    sums = torch.empty((runs, columns), dtype=torch.float32, device=hidden.device)
    kernels.gelu_backward_kernel[(blocks, runs)](
        gradient, hidden, bias, hidden_gradient, sums, rows, dropout.seed, dropout.threshold,
        F=columns, R=settings["rows"], C=size, STAGES=settings["num_stages"], **dropout.constants(),
        num_warps=_warps(settings, size),
    )  # fmt: skip
    return hidden_gradient, torch.sum(sums, 0, out=bias_gradient)


def join_forward(
    branch: Tensor,
    branch_bias: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dropout: Dropout,
    dtype: torch.dtype,
    *,
    wants_full: bool = False,
) -> Joined:
    """Add a branch to the residual stream and normalise the sum.

    Args:
        branch: Branch, (N, D), half or float32.
        branch_bias: Bias added to the branch before dropout, (D,) float32.
        residual: Residual stream, (N, D) float32.
        weight: Weight of the layer norm, (D,) float32.
        bias: Bias of the layer norm, (D,) float32.
        eps: Epsilon of the layer norm.
        dropout: Dropout of the branch.
        dtype: Element type of `normed`.
        wants_full: Whether to return the norm's output in float32, too.
    """
    settings = SETTINGS["join_forward"]
    rows, columns = residual.shape
    size = next_power_of_2(columns)
    joined = torch.empty_like(residual)
    normed = torch.empty(residual.shape, dtype=dtype, device=residual.device)
    stores_full = wants_full and dtype != torch.float32
    full = torch.empty_like(residual) if stores_full else None
    mean, rstd = torch.empty((2, rows), dtype=torch.float32, device=residual.device).unbind(0)
    kernels.join_forward_kernel[(ceil_div(rows, settings["rows"]),)](
        branch, branch_bias, residual, weight, bias, joined, normed, full, mean, rstd, rows, dropout.seed,
        dropout.threshold, eps,
        D=columns, R=settings["rows"], C=size, WANTS_FULL=stores_full, **dropout.constants(), SKIPS=dropout.skips,
        num_warps=_warps(settings, size),
    )  # fmt: skip
    return Joined(joined, normed, normed if wants_full and not stores_full else full, mean, rstd)


def join_backward(
    joined: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    normed_gradients: Sequence[Tensor],
    joined_gradient: Tensor | None,
    dropout: Dropout,
    dtype: torch.dtype,
    sums_gradient: Tensor | None = None,
) -> JoinGradients:
    """Return the gradients of the arguments of `join_forward`.

    Args:
        joined: Residual stream returned by `join_forward`, (N, D) float32.
        mean: Mean returned by `join_forward`.
        rstd: Reciprocal standard deviation returned by `join_forward`.
        weight: Weight of the layer norm, (D,) float32.
        normed_gradients: Gradients of `normed` and of `normed_full`, one or both in any order, (N, D), half or float32.
        joined_gradient: Gradient that reaches `joined` other than through its norm, (N, D) float32, or None.
        dropout: Argument of `join_forward`.
        dtype: Element type of the branch's gradient.
        sums_gradient: Preallocated `sums`, or None.
    """
    settings = SETTINGS["join_backward"]
    rows, columns = joined.shape
    size = next_power_of_2(columns)
    runs = runs_of(joined, settings, 1)
    first, second = (*normed_gradients, None)[:2]
    residual_gradient = torch.empty_like(joined)
    branch_gradient = torch.empty(joined.shape, dtype=dtype, device=joined.device)
    sums = torch.empty((runs, 3, columns), dtype=torch.float32, device=joined.device)
    kernels.join_backward_kernel[(runs,)](
        joined, mean, rstd, weight, first, second, joined_gradient, residual_gradient, branch_gradient, sums,
        rows, dropout.seed, dropout.threshold,
        D=columns, R=settings["rows"], C=size, STAGES=settings["num_stages"], HAS_SECOND=second is not None,
        HAS_JOINED=joined_gradient is not None, **dropout.constants(), SKIPS=dropout.skips,
        num_warps=_warps(settings, size),
    )  # fmt: skip
    return JoinGradients(residual_gradient, branch_gradient, torch.sum(sums, 0, out=sums_gradient))


def restore(seed: Tensor, before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> None:
    """Restore a layer's state, or its gradient, in place if the seed is negative.

    Args:
        seed: Seed, () int64.
        before: Stream and input before the layer, (N, D) each.
        after: Stream and input after it, in the same dtypes; unchanged unless the seed is negative.
    """
    settings = SETTINGS["restore"]
    count = before[0].numel()
    kernels.restore_kernel[(ceil_div(count, settings["columns"]),)](
        *before, *after, count, seed, C=settings["columns"], num_warps=settings["num_warps"]
    )


def drop(hidden: Tensor, dropout: Dropout) -> Tensor:
    """Return dropout(hidden), (N, D) float32, differentiable; hidden itself if the rate is 0."""
    if dropout.threshold == 0:
        return hidden
    dropped: Tensor = _Drop.apply(hidden, dropout)  # type: ignore[no-untyped-call]
    return dropped


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, dropout: Dropout) -> Tensor:  # noqa: ANN401
        ctx.dropout = dropout
        return _drop(hidden, dropout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return _drop(gradients[0].contiguous(), ctx.dropout), None


def _drop(hidden: Tensor, dropout: Dropout) -> Tensor:
    settings = SETTINGS["drop"]
    rows, columns = hidden.shape
    size = next_power_of_2(columns)
    out = torch.empty_like(hidden)
    kernels.drop_kernel[(ceil_div(rows, settings["rows"]),)](
        hidden, out, rows, dropout.seed, dropout.threshold,
        D=columns, R=settings["rows"], C=size, SCALE=dropout.scale, num_warps=_warps(settings, size),
    )  # fmt: skip
    return out


def runs_of(rows: Tensor, settings: dict[str, int], blocks: int) -> int:
    """Return the number of runs into which rows are split, so that `blocks` programs per run fill the GPU."""
    wanted = _multiprocessors(rows.device) * settings["programs"] // blocks
    return max(1, min(wanted, ceil_div(rows.shape[0], settings["rows"])))


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return INTERPRETED_MULTIPROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _warps(settings: dict[str, int], columns: int) -> int:
    """Return the warps of a program: no more than leave every thread columns of its own."""
    return max(1, min(settings["num_warps"], columns // 128))
