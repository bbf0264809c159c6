"""What lies between a transformer layer's products, each in one pass over memory: explicit forwards and backwards.

    gelu    dropout(gelu(hidden + bias))
    join    joined = residual + dropout(branch + branch_bias), and its layer norm
    drop    dropout(hidden)
    restore a layer's state as it was, where the layer is skipped

Everything is computed in float32 and rounded once, when stored. Dropout's masks are not stored: the backward draws
them again. A mask depends on the seed and on an element's row and column alone; two calls need two seeds. The same
arguments give the same bits each time. Import only where Triton runs.

Shapes: N frames, D hidden size, F inner size, both multiples of 8. All tensors are contiguous.

Sources: D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units", 2016; J. L. Ba et al., "Layer Normalization", 2016;
J. K. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011 (dropout's Philox4x32-7).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor
from torch.autograd.function import once_differentiable

from net.kernels import layer_operations as kernels

DROP_STEPS = 2**16
SETTINGS: dict[str, dict[str, int]] = {
    "gelu_forward": {"rows": 4, "columns": 1024, "num_warps": 4},
    "gelu_backward": {"rows": 2, "columns": 1024, "num_warps": 4, "num_stages": 1, "programs": 6},
    "join_forward": {"rows": 1, "num_warps": 4},
    "join_backward": {"rows": 1, "num_warps": 4, "num_stages": 1, "programs": 4},
    "drop": {"rows": 1, "num_warps": 4},
    "restore": {"columns": 4096, "num_warps": 4},
}
"""Rows of a tile, warps, and for sums over rows the stages of the loop and the programs a multiprocessor.

All programs of a sum should fit on the GPU at once, which their registers decide: those that do not make a second turn.
"""
INTERPRETED_MULTIPROCESSORS = 2


class Dropout(NamedTuple):
    """A dropout.

    Attributes:
        rate: Rounded to a multiple of 1 / DROP_STEPS; a kept value is multiplied by 1 / (1 - that multiple).
        seed: () int64 on the device, 0 .. 2^63 - 1; not read where the rate is 0.
        skips: Whether the seed is read all the same, and all of a joined branch is dropped where it is negative.
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
        """What kept values are multiplied by."""
        return DROP_STEPS / (DROP_STEPS - self.threshold)

    def constants(self) -> dict[str, Any]:
        """Return what the kernels are compiled for."""
        return {"DROPOUT": self.threshold > 0, "SCALE": self.scale}


class Joined(NamedTuple):
    """What `join_forward` returns.

    Attributes:
        joined: (N, D) float32, the residual stream.
        normed: (N, D) in the dtype asked for.
        normed_full: (N, D) float32 where asked for; `normed` itself if that is float32.
        mean: (N,) float32, of joined.
        rstd: (N,) float32, one over the standard deviation of joined.
    """

    joined: Tensor
    normed: Tensor
    normed_full: Tensor | None
    mean: Tensor
    rstd: Tensor


class JoinGradients(NamedTuple):
    """What `join_backward` returns.

    Attributes:
        residual: (N, D) float32.
        branch: (N, D) in the dtype asked for.
        sums: (3, D) float32: of the norm's weight and bias and of the branch's bias.
    """

    residual: Tensor
    branch: Tensor
    sums: Tensor


def gelu_forward(hidden: Tensor, bias: Tensor, dropout: Dropout) -> Tensor:
    """Return dropout(gelu(hidden + bias)), (N, F) in the dtype of hidden; the GELU is the one by erf.

    Args:
        hidden: (N, F), half or float32.
        bias: (F,) float32.
        dropout: Of the result.
    """
    settings = SETTINGS["gelu_forward"]
    rows, columns = hidden.shape
    size = min(settings["columns"], triton.next_power_of_2(columns))
    out = torch.empty_like(hidden)
    kernels.gelu_forward_kernel[(triton.cdiv(rows, settings["rows"]) * triton.cdiv(columns, size),)](
        hidden, bias, out, rows, dropout.seed, dropout.threshold,
        F=columns, R=settings["rows"], C=size, **dropout.constants(), num_warps=_warps(settings, size),
    )  # fmt: skip
    return out


def gelu_backward(
    gradient: Tensor, hidden: Tensor, bias: Tensor, dropout: Dropout, bias_gradient: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradients of hidden (N, F) in its dtype and of bias (F,) float32.

    Args:
        gradient: (N, F), of what `gelu_forward` returned.
        hidden: As given there, as all that follows.
        bias: See hidden.
        dropout: See hidden.
        bias_gradient: Where that of bias is wanted, if in a certain place.
    """
    settings = SETTINGS["gelu_backward"]
    rows, columns = hidden.shape
    size = min(settings["columns"], triton.next_power_of_2(columns))
    blocks = triton.cdiv(columns, size)
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
        branch: (N, D), half or float32.
        branch_bias: (D,) float32, added to the branch before dropout.
        residual: (N, D) float32.
        weight: (D,) float32, of the layer norm.
        bias: (D,) float32, of the layer norm.
        eps: Of the layer norm.
        dropout: Of the branch.
        dtype: Of `normed`.
        wants_full: Whether the norm is wanted in float32 also.
    """
    settings = SETTINGS["join_forward"]
    rows, columns = residual.shape
    size = triton.next_power_of_2(columns)
    joined = torch.empty_like(residual)
    normed = torch.empty(residual.shape, dtype=dtype, device=residual.device)
    stores_full = wants_full and dtype != torch.float32
    full = torch.empty_like(residual) if stores_full else None
    mean, rstd = torch.empty((2, rows), dtype=torch.float32, device=residual.device).unbind(0)
    kernels.join_forward_kernel[(triton.cdiv(rows, settings["rows"]),)](
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
    """Return the gradients of what `join_forward` took.

    Args:
        joined: (N, D) float32, as returned there, as mean and rstd.
        mean: See joined.
        rstd: See joined.
        weight: (D,) float32, of the layer norm.
        normed_gradients: One or two of (N, D), half or float32: of `normed` and of `normed_full`, in any order.
        joined_gradient: (N, D) float32, what reaches `joined` not by its norm, or None.
        dropout: As given there.
        dtype: Of the branch's gradient.
        sums_gradient: Where `sums` are wanted, if in a certain place.
    """
    settings = SETTINGS["join_backward"]
    rows, columns = joined.shape
    size = triton.next_power_of_2(columns)
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
    """Put a layer's state, or its gradient, back to what it was, in place, where the seed is negative.

    Args:
        seed: () int64.
        before: Stream and input, (N, D) each.
        after: What a layer has made of them, in the same dtypes; not touched where the seed is not negative.
    """
    settings = SETTINGS["restore"]
    count = before[0].numel()
    kernels.restore_kernel[(triton.cdiv(count, settings["columns"]),)](
        *before, *after, count, seed, C=settings["columns"], num_warps=settings["num_warps"]
    )


def drop(hidden: Tensor, dropout: Dropout) -> Tensor:
    """Return dropout(hidden), (N, D) float32, differentiable; hidden itself where the rate is 0."""
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
    size = triton.next_power_of_2(columns)
    out = torch.empty_like(hidden)
    kernels.drop_kernel[(triton.cdiv(rows, settings["rows"]),)](
        hidden, out, rows, dropout.seed, dropout.threshold,
        D=columns, R=settings["rows"], C=size, SCALE=dropout.scale, num_warps=_warps(settings, size),
    )  # fmt: skip
    return out


def runs_of(rows: Tensor, settings: dict[str, int], blocks: int) -> int:
    """Return into how many runs the rows are split, so that `blocks` programs a run fill the GPU."""
    wanted = _multiprocessors(rows.device) * settings["programs"] // blocks
    return max(1, min(wanted, -(-rows.shape[0] // settings["rows"])))


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return INTERPRETED_MULTIPROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _warps(settings: dict[str, int], columns: int) -> int:
    """Return the warps of a program: not so many that threads have no columns of their own."""
    return max(1, min(settings["num_warps"], columns // 128))
