"""The results of a layer's kernels in PyTorch's own operations, in float64 for float64 inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from net.packing.attention import DROP_STEPS, PHILOX_ROUNDS, AttentionPlan
from net.wavlm.layer_operations import Dropout, Joined, JoinGradients
from net.wavlm.position_gate import GateGradients
from net.wavlm.relative_attention import distances_to_matrix


def gelu_forward(hidden: Tensor, bias: Tensor, dropout: Dropout) -> Tensor:
    """Compute `gelu_forward` by PyTorch alone."""
    return (F.gelu(wide(hidden) + bias) * kept_factor(hidden, dropout)).to(hidden.dtype)


def gelu_backward(
    gradient: Tensor, hidden: Tensor, bias: Tensor, dropout: Dropout, bias_gradient: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute `gelu_backward` by PyTorch alone."""
    x = wide(hidden) + bias
    below = 0.5 * torch.erfc(-x * math.sqrt(0.5))
    slope = below + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    hidden_gradient = wide(gradient) * kept_factor(hidden, dropout) * slope
    return hidden_gradient.to(hidden.dtype), torch.sum(hidden_gradient, 0, out=bias_gradient)


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
    joined = residual + (wide(branch) + branch_bias) * kept_factor(branch, dropout)
    mean = joined.mean(1)
    centred = joined - mean[:, None]
    rstd = (centred.square().mean(1) + eps).rsqrt()
    normed = centred * rstd[:, None] * weight + bias
    return Joined(joined, normed.to(dtype), normed if wants_full else None, mean, rstd)


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
    branch = residual * kept_factor(residual, dropout)
    sums = torch.stack([by_weight, by_bias, branch.sum(0)], out=sums_gradient)
    return JoinGradients(residual, branch.to(dtype), sums)


def drop(hidden: Tensor, dropout: Dropout) -> Tensor:
    return hidden * kept_factor(hidden, dropout)


def kept_factor(rows: Tensor, dropout: Dropout) -> Tensor:
    """What dropout multiplies by, bit for bit as the kernels do: (rows, columns), or a one (1, 1) without dropout.

    Of rows only shape, dtype and device matter; columns are a multiple of 8.
    """
    dtype = torch.promote_types(rows.dtype, torch.float32)
    if dropout.threshold == 0 or dropout.seed is None:
        return torch.ones((1, 1), dtype=dtype, device=rows.device)
    shape = (rows.shape[0], rows.shape[1] // 8)
    places = [torch.arange(size, device=rows.device) for size in shape]
    counters = places[0][:, None].expand(shape), places[1].expand(shape)
    zero = torch.zeros(shape, dtype=torch.int64, device=rows.device)
    words = torch.stack(philox(int(dropout.seed), *counters, zero, zero), dim=-1)
    halves = torch.stack((words & 0xFFFF, words >> 16), dim=-1).flatten(1)
    return (halves >= dropout.threshold).to(dtype) * dropout.scale


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or float64 as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def gate_forward(hidden: Tensor, weight: Tensor, bias: Tensor, const: Tensor) -> Tensor:
    """Compute `gate_forward` by PyTorch alone."""
    a, b = _sigmoids(hidden, weight, bias, const)
    return a * (b * const - 1) + 2


def gate_backward(
    gate_gradient: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, const: Tensor, other_gradient: Tensor
) -> GateGradients:
    """Compute `gate_backward` by PyTorch alone."""
    a, b = _sigmoids(hidden, weight, bias, const)
    by_a = gate_gradient * (b * const - 1) * a * (1 - a)
    by_b = gate_gradient * const * a * b * (1 - b)
    by_both = torch.stack((by_a, by_b), dim=2)
    by_hidden = wide(other_gradient) + (by_both @ weight).flatten(1)
    by_weight = torch.einsum("nhp,nhe->pe", by_both, _heads(hidden, const))
    by_const = (gate_gradient * a * b).sum(0)
    return GateGradients(by_hidden.to(hidden.dtype), by_weight, by_both.sum((0, 1)), by_const)


def _sigmoids(hidden: Tensor, weight: Tensor, bias: Tensor, const: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gate's two sigmoids, (N, H) each."""
    a, b = torch.sigmoid(F.linear(_heads(hidden, const), weight, bias)).unbind(-1)
    return a, b


def _heads(hidden: Tensor, const: Tensor) -> Tensor:
    """Return hidden as (N, H, head_dim)."""
    return wide(hidden).reshape(len(hidden), len(const), -1)


def attention(
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
    """`relative_attention`, utterance by utterance, with the kernels' dropout."""
    attended, start = [], 0
    for length in plan.lengths:
        q, k, v, g = (part[start : start + length].transpose(0, 1) for part in (query, key, value, gate))
        scores = (q * scale) @ k.transpose(1, 2) + g.unsqueeze(2) * distances_to_matrix(table, length)
        weights = torch.softmax(scores, dim=2)
        if dropout > 0 and seed is not None:
            places = torch.tensor([start], device=query.device)
            kept = kept_weights(places, length, query.shape[1], round(dropout * DROP_STEPS), int(seed))[0]
            weights = weights * kept / (1 - dropout)
        attended.append((weights.to(v.dtype) @ v).transpose(0, 1))
        start += length
    return torch.cat(attended)


def kept_weights(starts: Tensor, length: int, heads: int, threshold: int, seed: int) -> Tensor:
    """Which weights dropout keeps, bit for bit as the kernels do: (utterances, heads, length, length) bool.

    `starts` (utterances,) is where each begins in the pack, `threshold` the rate in units of 1 / DROP_STEPS.
    """
    shape = (starts.shape[0], heads, length, -(-length // 4))
    places = torch.arange(length, device=starts.device)
    frames = (starts[:, None] + places)[:, None, :, None].expand(shape)
    quads = places[: shape[3]].expand(shape)
    numbers = torch.arange(heads, device=starts.device)[:, None, None].expand(shape)
    words = torch.stack(philox(seed, frames, quads, numbers, torch.zeros_like(frames)), dim=-1)
    return (words >> 8 >= threshold).flatten(3)[..., :length]


def philox(
    seed: int, c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, rounds: int = PHILOX_ROUNDS
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32 of a 64-bit key and four counters; 32-bit words in int64 tensors of one shape."""
    word = 2**32 - 1
    k0, k1 = seed & word, seed >> 32
    for _ in range(rounds):
        left, right = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # wraps at 64 bits, whose upper half is right all the same
        c0, c1, c2, c3 = (right >> 32 & word) ^ c1 ^ k0, right & word, (left >> 32 & word) ^ c3 ^ k1, left & word
        k0, k1 = k0 + 0x9E3779B9 & word, k1 + 0xBB67AE85 & word
    return c0, c1, c2, c3
