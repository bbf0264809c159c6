from __future__ import annotations

import copy
import importlib
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from net.kernels.triton_support import runs_triton
from net.packing.frames import Frames, from_padded
from net.pooling import AttentiveStatisticsPooling
from tests.support.interpreted import run_interpreted


def make_frames(lengths: list[int], dim: int, seed: int = 0) -> Frames:
    generator = torch.Generator().manual_seed(seed)
    return Frames(torch.randn(sum(lengths), dim, generator=generator), tuple(lengths))


def pool_by_hand(pooling: AttentiveStatisticsPooling, frames: Frames) -> np.ndarray:
    """Okabe et al. 2018 in a float64 loop, with the deviation as the paper writes it."""
    weight, bias, vector = (
        p.detach().double().numpy()
        for p in (pooling.projection.weight, pooling.projection.bias, pooling.attention.weight)
    )
    pooled = []
    for part in torch.split(frames.values, list(frames.lengths)):
        values = part.double().numpy()
        scores = [float(vector[0] @ np.tanh(weight @ frame + bias)) for frame in values]
        alphas = np.exp(scores) / np.exp(scores).sum()
        mean = sum(alpha * frame for alpha, frame in zip(alphas, values, strict=True))
        second = sum(alpha * frame * frame for alpha, frame in zip(alphas, values, strict=True))
        pooled.append(np.concatenate([mean, np.sqrt(np.maximum(second - mean * mean, 1e-5))]))
    return np.stack(pooled)


@pytest.mark.parametrize("lengths", [[1], [7], [3, 1, 12, 5], [200, 2]])
def test_pooling_agrees_with_a_float64_loop(lengths: list[int]) -> None:
    torch.manual_seed(1)
    pooling = AttentiveStatisticsPooling(6)
    frames = make_frames(lengths, 6)
    assert np.abs(pooling(frames).detach().numpy() - pool_by_hand(pooling, frames)).max() < 1e-6


def test_pooling_is_stable_far_from_zero() -> None:
    torch.manual_seed(1)
    pooling = AttentiveStatisticsPooling(4)
    frames = make_frames([50], 4)
    shifted = Frames(frames.values + 300, frames.lengths)
    deviations = pooling(shifted)[:, 4:], torch.from_numpy(pool_by_hand(pooling, shifted))[:, 4:]
    assert torch.allclose(deviations[0].double(), deviations[1], rtol=1e-3)


def test_gradients_agree_with_finite_differences() -> None:
    frames = Frames(torch.randn(6, 3, dtype=torch.double, requires_grad=True), (2, 1, 3))
    inputs = frames.values

    def statistics(values: torch.Tensor) -> torch.Tensor:
        own = Frames(values, frames.lengths)
        weights = own.softmax(values[:, :1])
        mean = own.sum(weights * values)
        return torch.cat([mean, own.sum(weights * (values - own.spread(mean)).square())])

    assert torch.autograd.gradcheck(statistics, inputs)


def test_padding_is_taken_out_exactly() -> None:
    padded = torch.arange(12.0).view(2, 3, 2)
    frames = Frames(from_padded(padded, (1, 3)), (1, 3))
    assert frames.values.tolist() == [[0, 1], [6, 7], [8, 9], [10, 11]]


def test_lengths_must_describe_the_values() -> None:
    for lengths in ((2, 2), (5, 0)):
        with pytest.raises(ValueError, match="do not describe"):
            Frames(torch.zeros(5, 1), lengths)


def pool(pooling: AttentiveStatisticsPooling, values: torch.Tensor, frames: Frames) -> list[torch.Tensor]:
    """Pool, and differentiate a weighting of the result by frames and weights."""
    values = values.detach().requires_grad_()
    pooling.zero_grad()
    pooled = pooling(Frames(values, frames.lengths, frames.known_starts))
    weighting = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(3)).to(pooled)
    torch.autograd.backward((pooled * weighting).sum())
    found = [pooled.detach(), values.grad, *(parameter.grad for parameter in pooling.parameters())]
    return [tensor.clone() for tensor in found if tensor is not None]


def compare_with_double(device: torch.device, lengths: list[int], dim: int, limit: float) -> None:
    """Kernels in float32, filling included, against PyTorch's own operations in float64 on the CPU."""
    assert runs_triton(device)
    torch.manual_seed(1)
    exact = AttentiveStatisticsPooling(dim).double()
    kernel = copy.deepcopy(exact).float().to(device)
    torch.nn.init.normal_(exact.attention.weight, std=2 / dim**0.5)
    frames = make_frames(lengths, dim)
    frames.values[: lengths[0]] = frames.values[0]  # no variance
    kernel.load_state_dict(exact.state_dict())
    with patch("net.pooling.runs_triton", return_value=False):
        expected = pool(exact, frames.values.double(), frames)
    filling = torch.full((5, dim), 7.0)
    filled = Frames(torch.cat([frames.values, filling]).to(device), frames.lengths, frames.starts.to(device))
    found = pool(kernel, filled.values, filled)
    assert not found[1][len(frames.values) :].any()
    found[1] = found[1][: len(frames.values)]
    for one, other in zip(found, expected, strict=True):
        assert float((one.cpu() - other).norm()) <= limit * max(float(other.norm()), 1e-3)


def compare_on_the_cpu() -> None:
    compare_with_double(torch.device("cpu"), [3, 1, 45, 12, 70], 136, 1e-5)


def test_kernels_pool_what_torch_pools() -> None:
    run_interpreted(__name__, "compare_on_the_cpu")


@pytest.mark.parametrize("wants_values", [False, True])
def test_kernels_compile_for_an_h100_without_one(
    wants_values: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the interpreter takes is not always what the compiler takes."""
    triton = pytest.importorskip("triton")
    compiler = importlib.import_module("triton.compiler")
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", 90, 32)
    from net import attentive_statistics
    from net.kernels import attentive_statistics as attentive_statistics_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    floats = ["values", "scores", "statistics", "softmax", "gradient", "values_gradient", "scores_gradient"]
    types = {**dict.fromkeys(floats, "*fp32"), "starts": "*i32"}
    common = {"D": 768, "SMALLEST": 0.003, "WANTS_VALUES": wants_values}
    for kernel, settings in (
        (attentive_statistics_kernels.statistics_forward_kernel, attentive_statistics.FORWARD),
        (attentive_statistics_kernels.statistics_backward_kernel, attentive_statistics.BACKWARD),
    ):
        constants = {name: value for name, value in {**common, **settings}.items() if name in kernel.arg_names}
        signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
        compiled = triton.compile(compiler.ASTSource(kernel, signature, constants), target=target)
        assert ".target sm_90" in compiled.asm["ptx"]


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [64, 768, 1024])
def test_kernels_on_a_gpu(dim: int, cuda: torch.device) -> None:
    compare_with_double(cuda, [3, 1, 3000, 137, *range(200, 460, 10)], dim, 5e-5)
