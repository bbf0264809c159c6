"""What lies between a transformer layer's products, each in one pass over memory: explicit forwards and backwards.

    gelu    dropout(gelu(hidden + bias))
    join    joined = residual + dropout(branch + branch_bias), and its layer norm

Everything is computed in float32 and rounded once, when stored. Dropout's masks are not stored: the backward draws
them again. A mask depends on the seed and on an element's row and column alone; two calls need two seeds. Rates are
rounded to multiples of 1 / DROP_STEPS, and a kept value is multiplied by 1 / (1 - that multiple).

By kernels that give the same bits each time. The `plain_` twins, whose masks are the same bit for bit, say what the
kernels compute, in float64 where what they take is; without kernels a model does not run layers in this form.

Shapes: N frames, D hidden size, F inner size, both multiples of 8.

Sources: D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units", 2016; J. L. Ba et al., "Layer Normalization", 2016;
J. K. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011 (dropout's Philox4x32-7).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from net.relative_attention import philox
from net.triton_support import runs_triton

DROP_STEPS = 2**16
KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


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
        branch: (N, D) in the dtype asked for, or None without a branch.
        weight: (D,) float32.
        bias: (D,) float32.
        branch_bias: (D,) float32, or None without a branch.
    """

    residual: Tensor
    branch: Tensor | None
    weight: Tensor
    bias: Tensor
    branch_bias: Tensor | None


def gelu_forward(hidden: Tensor, bias: Tensor, rate: float, seed: int) -> Tensor:
    """Return dropout(gelu(hidden + bias)), (N, F) in the dtype of hidden; the GELU is the one by erf.

    Args:
        hidden: (N, F), half or float32.
        bias: (F,) float32.
        rate: Of dropout.
        seed: Of dropout, 0 .. 2^63 - 1.
    """
    if not runs_kernels(hidden):
        return plain_gelu_forward(hidden, bias, rate, seed)
    from net import fused_layers_kernels as kernels

    return kernels.gelu_forward(hidden.contiguous(), bias.contiguous(), *_dropout(rate, seed))


def gelu_backward(gradient: Tensor, hidden: Tensor, bias: Tensor, rate: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of hidden (N, F) in its dtype and of bias (F,) float32.

    Args:
        gradient: (N, F), of what `gelu_forward` returned.
        hidden: As given there, as all that follows.
        bias: See hidden.
        rate: See hidden.
        seed: See hidden.
    """
    if not runs_kernels(hidden):
        return plain_gelu_backward(gradient, hidden, bias, rate, seed)
    from net import fused_layers_kernels as kernels

    return kernels.gelu_backward(gradient.contiguous(), hidden.contiguous(), bias.contiguous(), *_dropout(rate, seed))


def join_forward(
    branch: Tensor | None,
    branch_bias: Tensor | None,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    rate: float,
    seed: int,
    dtype: torch.dtype,
    *,
    wants_full: bool = False,
) -> Joined:
    """Add a branch to the residual stream and normalise the sum.

    Args:
        branch: (N, D), half or float32; None if there is nothing to add: then joined is residual itself, not a copy.
        branch_bias: (D,) float32, added to the branch before dropout, or None.
        residual: (N, D) float32.
        weight: (D,) float32, of the layer norm.
        bias: (D,) float32, of the layer norm.
        eps: Of the layer norm.
        rate: Of the branch's dropout.
        seed: Of dropout, 0 .. 2^63 - 1.
        dtype: Of `normed`.
        wants_full: Whether the norm is wanted in float32 also.
    """
    if not runs_kernels(residual):
        return plain_join_forward(
            branch, branch_bias, residual, weight, bias, eps, rate, seed, dtype, wants_full=wants_full
        )
    from net import fused_layers_kernels as kernels

    branch = None if branch is None else branch.contiguous()
    branch_bias = None if branch is None or branch_bias is None else branch_bias.contiguous()
    drop = _dropout(0.0 if branch is None else rate, seed)
    tensors = (residual.contiguous(), weight.contiguous(), bias.contiguous())
    return Joined(*kernels.join_forward(branch, branch_bias, *tensors, eps, *drop, dtype, wants_full))


def join_backward(
    joined: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    normed_gradients: Sequence[Tensor],
    joined_gradient: Tensor | None,
    rate: float,
    seed: int,
    dtype: torch.dtype,
    has_branch: bool,
) -> JoinGradients:
    """Return the gradients of what `join_forward` took.

    Args:
        joined: (N, D) float32, as returned there, as mean and rstd.
        mean: See joined.
        rstd: See joined.
        weight: (D,) float32, of the layer norm.
        normed_gradients: One or two of (N, D), half or float32: of `normed` and of `normed_full`, in any order.
        joined_gradient: (N, D) float32, what reaches `joined` not by its norm, or None.
        rate: As given there, as seed.
        seed: See rate.
        dtype: Of the branch's gradient.
        has_branch: Whether there was one.

    Raises:
        ValueError: There are no normed gradients, or more than two.
    """
    if len(normed_gradients) not in (1, 2):
        raise ValueError(f"join_backward takes one or two gradients of the norm, found {len(normed_gradients)}")
    if not runs_kernels(joined):
        return plain_join_backward(
            joined, mean, rstd, weight, normed_gradients, joined_gradient, rate, seed, dtype, has_branch
        )
    from net import fused_layers_kernels as kernels

    tensors = (joined.contiguous(), mean.contiguous(), rstd.contiguous(), weight.contiguous())
    normed_gradients = [gradient.contiguous() for gradient in normed_gradients]
    joined_gradient = None if joined_gradient is None else joined_gradient.contiguous()
    drop = _dropout(rate, seed)
    return JoinGradients(*kernels.join_backward(*tensors, normed_gradients, joined_gradient, *drop, dtype, has_branch))


def runs_kernels(rows: Tensor) -> bool:
    """Return whether Triton runs such rows."""
    return rows.dtype in KERNEL_DTYPES and rows.numel() > 0 and runs_triton(rows.device)


def plain_gelu_forward(hidden: Tensor, bias: Tensor, rate: float, seed: int) -> Tensor:
    """Compute `gelu_forward` by PyTorch alone."""
    return (F.gelu(wide(hidden) + bias) * kept_factor(hidden, rate, seed)).to(hidden.dtype)


def plain_gelu_backward(
    gradient: Tensor, hidden: Tensor, bias: Tensor, rate: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Compute `gelu_backward` by PyTorch alone."""
    x = wide(hidden) + bias
    below = 0.5 * torch.erfc(-x * math.sqrt(0.5))
    slope = below + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    hidden_gradient = wide(gradient) * kept_factor(hidden, rate, seed) * slope
    return hidden_gradient.to(hidden.dtype), hidden_gradient.sum(0)


def plain_join_forward(
    branch: Tensor | None,
    branch_bias: Tensor | None,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    rate: float,
    seed: int,
    dtype: torch.dtype,
    *,
    wants_full: bool = False,
) -> Joined:
    """Compute `join_forward` by PyTorch alone."""
    joined = residual
    if branch is not None:
        added = wide(branch) if branch_bias is None else wide(branch) + branch_bias
        joined = residual + added * kept_factor(branch, rate, seed)
    mean = joined.mean(1)
    centred = joined - mean[:, None]
    rstd = (centred.square().mean(1) + eps).rsqrt()
    normed = centred * rstd[:, None] * weight + bias
    return Joined(joined, normed.to(dtype), normed if wants_full else None, mean, rstd)


def plain_join_backward(
    joined: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    normed_gradients: Sequence[Tensor],
    joined_gradient: Tensor | None,
    rate: float,
    seed: int,
    dtype: torch.dtype,
    has_branch: bool,
) -> JoinGradients:
    """Compute `join_backward` by PyTorch alone."""
    gradient = wide(normed_gradients[0])
    for other in normed_gradients[1:]:
        gradient = gradient + wide(other)
    scaled = (joined - mean[:, None]) * rstd[:, None]
    weighted = gradient * weight
    along = (weighted * scaled).mean(1, keepdim=True)
    residual = (weighted - scaled * along - weighted.mean(1, keepdim=True)) * rstd[:, None]
    if joined_gradient is not None:
        residual = residual + joined_gradient
    by_weight, by_bias = (gradient * scaled).sum(0), gradient.sum(0)
    if not has_branch:
        return JoinGradients(residual, None, by_weight, by_bias, None)
    branch = residual * kept_factor(residual, rate, seed)
    return JoinGradients(residual, branch.to(dtype), by_weight, by_bias, branch.sum(0))


def kept_factor(rows: Tensor, rate: float, seed: int) -> Tensor:
    """Return what dropout multiplies by, bit for bit as the kernels do: 0 or 1 / (1 - rate).

    Args:
        rows: (rows, columns), of which only shape, dtype and device matter; columns a multiple of 8.
        rate: Rounded to a multiple of 1 / DROP_STEPS.
        seed: 0 .. 2^63 - 1.

    Returns:
        (rows, columns), float32 or, of float64, float64; without dropout a one (1, 1).
    """
    threshold, scale, seed = _dropout(rate, seed)
    dtype = torch.promote_types(rows.dtype, torch.float32)
    if threshold == 0:
        return torch.ones((1, 1), dtype=dtype, device=rows.device)
    shape = (rows.shape[0], rows.shape[1] // 8)
    places = [torch.arange(size, device=rows.device) for size in shape]
    counters = places[0][:, None].expand(shape), places[1].expand(shape)
    zero = torch.zeros(shape, dtype=torch.int64, device=rows.device)
    words = torch.stack(philox(seed, *counters, zero, zero), dim=-1)
    halves = torch.stack((words & 0xFFFF, words >> 16), dim=-1).flatten(1)
    return (halves >= threshold).to(dtype) * scale


def _dropout(rate: float, seed: int) -> tuple[int, float, int]:
    """Return the rate in units of 1 / DROP_STEPS, what kept values are multiplied by, and the seed.

    Raises:
        ValueError: A number is out of range.
    """
    threshold = round(rate * DROP_STEPS)
    if not 0 <= threshold < DROP_STEPS:
        raise ValueError(f"dropout is {rate}, allowed is 0 <= dropout < 1")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed}, allowed is 0 <= seed < 2^63")
    return threshold, DROP_STEPS / (DROP_STEPS - threshold), seed


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or float64 as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
