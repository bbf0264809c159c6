from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from net.kernels.triton_support import runs_triton
from net.wavlm import layer_operations as fused
from net.wavlm import position_gate
from net.wavlm.layer_operations import Dropout
from tests.support import layer_oracles as oracle
from tests.support.interpreted import run_interpreted
from tests.support.tensor_errors import peak_error

EPS = 1e-5
SEED = torch.tensor(2**62 + 12345)
HEAD_DIM = 16


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def mask_of(rate: float, seed: int, rows: int, columns: int) -> Tensor:
    """Draw the mask number by number, by Python's integers."""
    word = 2**32 - 1
    mask = torch.empty((rows, columns), dtype=torch.float64)
    threshold = round(rate * 2**16)
    for row in range(rows):
        for octet in range(columns // 8):
            c, k = [row, octet, 0, 0], [seed & word, seed >> 32]
            for _ in range(7):
                left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
                c = [right >> 32 ^ c[1] ^ k[0], right & word, left >> 32 ^ c[3] ^ k[1], left & word]
                k = [k[0] + 0x9E3779B9 & word, k[1] + 0xBB67AE85 & word]
            for place in range(8):
                half = c[place // 2] >> 16 * (place % 2) & 0xFFFF
                mask[row, octet * 8 + place] = 0.0 if half < threshold else 2**16 / (2**16 - threshold)
    return mask


def by_autograd(outputs: Any, gradients: Any, leaves: list[Tensor]) -> list[Tensor]:  # noqa: ANN401
    return list(torch.autograd.grad(outputs, leaves, gradients))


def assert_close(found: tuple[Tensor | None, ...], expected: list[Tensor], limit: float = 1e-12) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert peak_error(one, other) <= limit


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_plain_gelu_equals_autograd(rate: float) -> None:
    hidden, bias, gradient = random(5, 48).requires_grad_(), random(48).requires_grad_(), random(5, 48, seed=1)
    expected = F.gelu(hidden + bias) * mask_of(rate, int(SEED), 5, 48)
    dropout = Dropout(rate, SEED)
    assert peak_error(oracle.gelu_forward(hidden, bias, dropout), expected) <= 1e-12
    found = oracle.gelu_backward(gradient, hidden.detach(), bias.detach(), dropout)
    assert_close(found, by_autograd(expected, gradient, [hidden, bias]))


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("gradients", [1, 2])
@pytest.mark.parametrize("has_joined", [True, False])
def test_plain_join_equals_autograd(rate: float, gradients: int, has_joined: bool) -> None:
    branch, residual, branch_bias, weight, bias = (
        random(*shape, seed=number).requires_grad_()
        for number, shape in enumerate([(5, 48), (5, 48), (48,), (48,), (48,)])
    )
    dropout = Dropout(rate, SEED)
    joined = residual + (branch + branch_bias) * mask_of(rate, int(SEED), 5, 48)
    normed = F.layer_norm(joined, (48,), weight, bias, EPS)
    leaves = [residual, branch, weight, bias, branch_bias]
    branches, norm = (branch.detach(), branch_bias.detach()), (weight.detach(), bias.detach())
    given = oracle.join_forward(*branches, residual.detach(), *norm, EPS, dropout, torch.float64, wants_full=True)
    variance = joined.var(1, correction=0)
    assert_close(given, [joined, normed, normed, joined.mean(1), 1 / (variance + EPS).sqrt()])
    normed_gradients = [random(5, 48, seed=9 + number) for number in range(gradients)]
    joined_gradient = random(5, 48, seed=20) if has_joined else None
    outputs = [normed] * gradients + ([joined] if has_joined else [])
    directions = normed_gradients + ([joined_gradient] if joined_gradient is not None else [])
    statistics = given.joined, given.mean, given.rstd, weight.detach()
    found = oracle.join_backward(*statistics, normed_gradients, joined_gradient, dropout, torch.float64)
    assert_close((*found[:2], *found.sums), by_autograd(outputs, directions, leaves))


def test_plain_gate_equals_autograd() -> None:
    hidden, weight, bias, const = (
        random(*shape).requires_grad_() for shape in [(5, 48), (2, HEAD_DIM), (2,), (48 // HEAD_DIM,)]
    )
    a, b = torch.sigmoid(F.linear(hidden.view(5, 3, HEAD_DIM), weight, bias)).unbind(-1)
    expected = a * (b * const - 1.0) + 2.0
    assert peak_error(oracle.gate_forward(hidden, weight, bias, const), expected) <= 1e-12
    gate_gradient, other = random(5, 3, seed=4), random(5, 48, seed=5)
    leaves = [hidden, weight, bias, const]
    detached = hidden.detach(), weight.detach(), bias.detach(), const.detach()
    found = oracle.gate_backward(gate_gradient, *detached, other)
    assert_close(found, by_autograd([expected, hidden * 1.0], [gate_gradient, other], leaves))


def test_masks_drop_at_the_rate_repeat_and_differ_between_seeds() -> None:
    rows, rate = torch.empty((500, 1024)), 0.1
    masks = [oracle.kept_factor(rows, Dropout(rate, seed)) for seed in (SEED, SEED, SEED + 1, SEED ^ 2**61)]
    assert torch.equal(masks[0], masks[1])
    threshold = round(rate * 2**16) / 2**16
    sigma = math.sqrt(threshold * (1 - threshold) / rows.numel())
    for mask in masks:
        assert abs(float((mask == 0).double().mean()) - threshold) <= 4 * sigma
        assert set(mask.flatten().tolist()) == {0.0, torch.tensor(1 / (1 - threshold)).item()}
    for other in masks[2:]:
        both = float(((masks[0] == 0) & (other == 0)).double().mean())
        assert abs(both - threshold**2) <= 4 * threshold / math.sqrt(rows.numel())


Case = tuple[str, Callable[..., Any], Callable[..., Any], tuple[Any, ...]]


def cases(rows: int, dim: int, inner: int, head_dim: int, dtype: torch.dtype, rate: float) -> Iterator[Case]:
    """Yield a name, a function, its twin and what both take, over all that may be left out."""
    full, dropout = torch.float32, Dropout(rate, SEED)
    hidden, inner_bias = random(rows, inner, dtype=dtype), random(inner, dtype=full)
    yield "gelu", fused.gelu_forward, oracle.gelu_forward, (hidden, inner_bias, dropout)
    gradient = random(rows, inner, dtype=dtype, seed=1)
    yield "gelu backward", fused.gelu_backward, oracle.gelu_backward, (gradient, hidden, inner_bias, dropout)
    branch, residual = random(rows, dim, dtype=dtype), random(rows, dim, dtype=full, seed=1)
    branch_bias, weight, bias = random(3, dim, dtype=full).unbind(0)
    first, second = random(rows, dim, dtype=dtype, seed=2), random(rows, dim, dtype=full, seed=3)
    stream = random(rows, dim, dtype=full, seed=4)
    for wants_full in (True, False):
        forward, twin = with_full(fused.join_forward, wants_full), with_full(oracle.join_forward, wants_full)
        yield "join", forward, twin, (branch, branch_bias, residual, weight, bias, EPS, dropout, dtype)
    mean, rstd = residual.mean(1), (residual.var(1, correction=0) + EPS).rsqrt()
    for gradients, joined_gradient in [([first], stream), ([first, second], None), ([second, first], stream)]:
        given = (residual, mean, rstd, weight, gradients, joined_gradient, dropout, dtype)
        yield "join backward", fused.join_backward, oracle.join_backward, given
    yield "drop", fused.drop, oracle.drop, (residual, dropout)
    heads = dim // head_dim
    gate = (branch, random(2, head_dim, dtype=full), random(2, dtype=full), random(heads, dtype=full))
    yield "gate", position_gate.gate_forward, oracle.gate_forward, gate
    for other in (first, second):
        arguments = (random(rows, heads, dtype=full), *gate, other)
        yield "gate backward", position_gate.gate_backward, oracle.gate_backward, arguments


def with_full(function: Callable[..., Any], wants_full: bool) -> Callable[..., Any]:
    return lambda *arguments: function(*arguments, wants_full=wants_full)


def moved(argument: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401
    if isinstance(argument, list):
        return [moved(one, change) for one in argument]
    if isinstance(argument, Dropout):
        return Dropout(argument.rate, moved(argument.seed, change))
    return change(argument) if isinstance(argument, Tensor) else argument


def in_double(argument: Any) -> Any:  # noqa: ANN401
    def widen(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    return torch.float64 if isinstance(argument, torch.dtype) else moved(argument, widen)


def errors(case: Case, device: torch.device | str = "cpu") -> Iterator[tuple[Tensor, float]]:
    """Yield what a function returns, and its error beside the twin in float64."""
    _, function, twin, arguments = case
    there = [moved(argument, lambda tensor: tensor.to(device)) for argument in arguments]
    found, expected = function(*there), twin(*(in_double(argument) for argument in there))
    found, expected = ((one,) if isinstance(one, Tensor) else tuple(one) for one in (found, expected))
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            yield one, peak_error(one, other)


def assert_all_close(
    rows: int, dim: int, inner: int, head_dim: int, dtype: torch.dtype, device: torch.device | str
) -> None:
    """Compare everything; results in half are off by their rounding, those in float32 by far less."""
    for rate in (0.0, 0.1):
        for case in cases(rows, dim, inner, head_dim, dtype, rate):
            for result, found in errors(case, device):
                limit = 3e-6 if result.dtype == torch.float32 else torch.finfo(result.dtype).eps
                assert found <= limit, (case[0], rate, result.shape, result.dtype, found)


def check_kernels(rows: str, dim: str) -> None:
    """Runs interpreted, where each way to split rows and columns is to be had with few of them."""
    assert runs_triton(torch.device("cpu"))
    for size, programs, rate in ((1, 2, 0.0), (4, 7, 0.25)):
        for settings in (fused.SETTINGS | position_gate.SETTINGS).values():
            settings.update({"rows": size} | ({"programs": programs} if "programs" in settings else {}))
        fused.SETTINGS["gelu_forward"]["columns"] = fused.SETTINGS["gelu_backward"]["columns"] = 32 * size
        for dtype, limit in ((torch.float32, 1e-6), (torch.float16, 1e-3)):
            for name, function, twin, arguments in cases(int(rows), int(dim), int(dim) + 16, 16, dtype, rate):
                found, expected = function(*arguments), twin(*arguments)
                found, expected = ((one,) if isinstance(one, Tensor) else tuple(one) for one in (found, expected))
                for number, (one, other) in enumerate(zip(found, expected, strict=True)):
                    assert (one is None) == (other is None)
                    if one is not None:
                        assert one.dtype == other.dtype
                        assert peak_error(one, other) <= (limit if one.dtype == dtype else 1e-6), (name, number, dtype)


@pytest.mark.parametrize(("rows", "dim"), [(5, 48), (1, 64), (19, 96), (3, 768)])
@pytest.mark.slow
def test_kernels_equal_their_twins(rows: int, dim: int) -> None:
    run_interpreted(__name__, "check_kernels", str(rows), str(dim))


def check_gelu() -> None:
    """GELU's error over all that matters, in units of the larger of 1 and its argument."""
    hidden = torch.linspace(-14, 14, 64 * 1024).view(64, 1024)
    exact = hidden.double().requires_grad_()
    expected = F.gelu(exact)
    (slope,) = torch.autograd.grad(expected.sum(), exact)
    scale = hidden.abs().clamp(min=1)
    bias = torch.zeros(1024)
    assert float(((fused.gelu_forward(hidden, bias, Dropout(0.0)) - expected.detach()).abs() / scale).max()) <= 3e-7
    found, _ = fused.gelu_backward(torch.ones_like(hidden), hidden, bias, Dropout(0.0))
    assert float((found - slope).abs().max()) <= 3e-7


@pytest.mark.slow
def test_gelu_is_exact_to_float32() -> None:
    run_interpreted(__name__, "check_gelu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("dim", "inner"), [(768, 3072), (1024, 4096)])
@pytest.mark.parametrize("rows", [12768, 1234, 1])
def test_kernels_on_a_gpu(rows: int, dim: int, inner: int, dtype: torch.dtype, cuda: torch.device) -> None:
    assert_all_close(rows, dim, inner, 64, dtype, cuda)


@pytest.mark.gpu
def test_gelu_is_exact_to_float32_on_a_gpu(cuda: torch.device) -> None:
    hidden = torch.linspace(-14, 14, 64 * 1024, device=cuda).view(64, 1024)
    found = fused.gelu_forward(hidden, torch.zeros(1024, device=cuda), Dropout(0.0))
    assert float(((found - F.gelu(hidden.double())).abs() / hidden.abs().clamp(min=1)).max()) <= 3e-7


@pytest.mark.gpu
def test_kernels_repeat_bit_for_bit(cuda: torch.device) -> None:
    for _, function, _, arguments in cases(3001, 768, 3072, 64, torch.bfloat16, 0.1):
        there = [moved(argument, lambda tensor: tensor.to(cuda)) for argument in arguments]
        runs = [function(*there) for _ in range(2)]
        first, second = ((one,) if isinstance(one, Tensor) else tuple(one) for one in runs)
        for one, other in zip(first, second, strict=True):
            assert one is other or torch.equal(one, other)
