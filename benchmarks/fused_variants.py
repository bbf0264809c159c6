"""Time the fused parts of a transformer layer against eager PyTorch, on one GPU.

    python -m benchmarks.fused_variants

Medians of 20 runs in bfloat16, each from a cold cache; GB/s counts what must be read and written once. A setting that
does not compile prints why, and the table goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import changed, first_line, median_ms
from net import fused_layers as fused
from net import position_gate
from net.fused_layers import Dropout
from net.relative_attention import gate_of

FRAMES = 12_768
SIZES = ((768, 3072), (1024, 4096))
RATES = (0.1, 0.0)
HEAD_DIM = 64
EPS = 1e-5
SEED = 2**62 + 1
CACHE_BYTES = 512 * 2**20
SETTINGS: dict[str, list[dict[str, int]]] = {
    "gelu_forward": [{}, {"rows": 1}, {"rows": 2}, {"rows": 8}, {"columns": 512}, {"rows": 2, "num_warps": 8}],
    "gelu_backward": [
        {},
        {"programs": 3},
        {"programs": 12},
        {"programs": 24},
        {"rows": 1},
        {"rows": 1, "programs": 8},
        {"rows": 4, "programs": 4},
        {"num_stages": 2},
        {"num_stages": 3},
        {"columns": 512, "num_warps": 2, "programs": 12},
    ],
    "join_forward": [{}, {"num_warps": 1}, {"num_warps": 2}, {"num_warps": 8}, {"rows": 2}, {"rows": 4}],
    "join_backward": [
        {},
        {"programs": 2},
        {"programs": 3},
        {"programs": 5},
        {"programs": 8},
        {"programs": 16},
        {"num_warps": 8, "programs": 3},
        {"num_stages": 2},
        {"num_stages": 3},
        {"rows": 2},
        {"rows": 2, "programs": 3},
        {"num_warps": 2, "programs": 6},
    ],
    "gate_forward": [{}, {"rows": 32}, {"rows": 128}, {"rows": 128, "num_warps": 8}],
    "gate_backward": [
        {},
        {"programs": 2},
        {"programs": 5},
        {"programs": 8},
        {"programs": 16},
        {"rows": 16, "programs": 8},
        {"num_stages": 2},
    ],
}


class Part(NamedTuple):
    """One row of the table: the kernel, its case, what must be read and written, and both ways to run it."""

    kernel: str
    case: str
    bytes: int
    ours: Callable[[], object]
    eager: Callable[[], object]


def main() -> None:
    """Print one table a size."""
    torch.manual_seed(0)
    device = torch.device("cuda")
    print(torch.cuda.get_device_name(), torch.__version__)
    for dim, inner in SIZES:
        print(f"\nN = {FRAMES}, D = {dim}, F = {inner}: ms (GB/s)")
        print(" " * 70 + "".join(f"{'dropout ' + str(rate):>20s}" for rate in RATES))
        by_rate = [[*gelu_parts(inner, rate, device), *join_parts(dim, rate, device)] for rate in RATES]
        for parts in zip(*by_rate, strict=True):
            report(parts)
        for part in gate_parts(dim, device):
            report((part,))


def gelu_parts(inner: int, rate: float, device: torch.device) -> Iterator[Part]:
    """Yield forward and backward of the activation."""
    dropout = Dropout(rate, torch.tensor(SEED, device=device))
    hidden, gradient = (random(FRAMES, inner, device=device).bfloat16() for _ in range(2))
    bias = random(inner, device=device)

    def eager(hidden: Tensor, bias: Tensor) -> Tensor:
        return F.dropout(F.gelu(hidden + bias.to(hidden.dtype)), rate)

    yield Part(
        "gelu_forward",
        "",
        4 * hidden.numel(),
        partial(fused.gelu_forward, hidden, bias, dropout),
        partial(without_graph, eager, hidden, bias),
    )
    yield Part(
        "gelu_backward",
        "",
        6 * hidden.numel(),
        partial(fused.gelu_backward, gradient, hidden, bias, dropout),
        backward_of(eager, [hidden, bias], [gradient]),
    )


def join_parts(dim: int, rate: float, device: torch.device) -> Iterator[Part]:
    """Yield forward and backward of the residual stream and its norm, of models that keep it and that norm it."""
    branch, gradient = (random(FRAMES, dim, device=device).bfloat16() for _ in range(2))
    residual, stream = (random(FRAMES, dim, device=device) for _ in range(2))
    branch_bias, weight, bias = (random(dim, device=device) for _ in range(3))
    dropout = Dropout(rate, torch.tensor(SEED, device=device))
    vectors = (weight, bias, EPS, dropout, torch.bfloat16)

    def eager(branch: Tensor, branch_bias: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        joined = residual + F.dropout(branch + branch_bias.to(branch.dtype), rate).float()
        normed = F.layer_norm(joined, weight.shape, weight, bias, EPS)
        return [normed.to(branch.dtype), joined]

    def eager_full(*leaves: Tensor) -> list[Tensor]:
        branch, branch_bias, residual, weight, bias = leaves
        joined = residual + F.dropout(branch + branch_bias.to(branch.dtype), rate).float()
        normed = F.layer_norm(joined, weight.shape, weight, bias, EPS)
        return [normed.to(branch.dtype), normed]

    leaves = [branch, branch_bias, residual, weight, bias]
    given = fused.join_forward(branch, branch_bias, residual, *vectors)
    back = partial(fused.join_backward, given.joined, given.mean, given.rstd, weight)
    for case, count, composition, gradients, joined_gradient in (
        ("stream", 12, eager, [gradient], stream),
        ("norm in both", 16, eager_full, [gradient, stream], None),
    ):
        yield Part(
            "join_forward",
            case,
            count * branch.numel(),
            partial(fused.join_forward, branch, branch_bias, residual, *vectors, wants_full=count == 16),
            partial(without_graph, composition, *leaves),
        )
        yield Part(
            "join_backward",
            case,
            16 * branch.numel(),
            partial(back, gradients, joined_gradient, dropout, torch.bfloat16),
            backward_of(composition, leaves, [gradient, stream]),
        )


def gate_parts(dim: int, device: torch.device) -> Iterator[Part]:
    """Yield forward and backward of the gate."""
    heads = dim // HEAD_DIM
    hidden, other = (random(FRAMES, dim, device=device).bfloat16() for _ in range(2))
    weight, bias, const = (random(*shape, device=device) for shape in ((8, HEAD_DIM), (8,), (heads,)))
    folded = weight.view(2, 4, -1).sum(1), bias.view(2, 4).sum(1), const
    gradient = random(FRAMES, heads, device=device)

    def eager(hidden: Tensor, weight: Tensor, bias: Tensor, const: Tensor) -> list[Tensor]:
        return [gate_of(hidden, weight, bias, const, heads), hidden * 1.0]

    yield Part(
        "gate_forward",
        "",
        2 * hidden.numel() + 4 * gradient.numel(),
        partial(position_gate.gate_forward, hidden, *folded),
        partial(without_graph, gate_of, hidden, weight, bias, const, heads),
    )
    yield Part(
        "gate_backward",
        "",
        6 * hidden.numel() + 4 * gradient.numel(),
        partial(position_gate.gate_backward, gradient, hidden, *folded, other),
        backward_of(eager, [hidden, weight, bias, const], [gradient, other]),
    )


def random(*shape: int, device: torch.device) -> Tensor:
    """Draw float32 of a standard normal distribution."""
    return torch.randn(shape, device=device)


@torch.no_grad()
def without_graph(function: Callable[..., object], *arguments: object) -> object:
    """Call eager code as a forward whose backward is written by hand would."""
    return function(*arguments)


def backward_of(
    function: Callable[..., Tensor | list[Tensor]], leaves: list[Tensor], gradients: list[Tensor]
) -> Callable[[], object]:
    """Return what runs autograd's backward alone."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    outputs = function(*leaves)
    return lambda: torch.autograd.grad(outputs, leaves, gradients, retain_graph=True)


def report(parts: tuple[Part, ...]) -> None:
    """Print one part, eager and with each setting; a column a rate."""
    name = f"{parts[0].kernel} {parts[0].case}"
    eager = "".join(measured(part.eager, part.bytes) for part in parts)
    print(f"{name + ' eager':70s}{eager}", flush=True)
    settings = fused.SETTINGS | position_gate.SETTINGS
    for setting in SETTINGS[parts[0].kernel]:
        with changed(settings[parts[0].kernel], setting):
            row = "".join(measured(part.ours, part.bytes) for part in parts)
        print(f"{name + ' ' + str(setting or 'as set'):70s}{row}", flush=True)


def measured(call: Callable[[], object], count: int) -> str:
    """Return milliseconds and GB/s, or the first line of why a call failed."""
    try:
        milliseconds = time_gpu(call)
    except Exception as error:  # noqa: BLE001 - a setting that does not compile is a row of the table
        return f"  {first_line(error)}"
    return f"{milliseconds:13.4f} ({count / milliseconds / 1e6:4.0f})"


def time_gpu(call: Callable[[], object]) -> float:
    """Time a call after writing all over the cache, which hides the time to launch it too."""
    cache = torch.empty(CACHE_BYTES, dtype=torch.uint8, device="cuda")
    return median_ms(call, before=cache.zero_)


if __name__ == "__main__":
    main()
