from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import WavLMConfig
from transformers.models.wavlm.modeling_wavlm import WavLMPositionalConvEmbedding

from net.packing.device_tables import placed
from net.packing.positions import frames_per_block, plan_positions
from net.wavlm.positional_convolution import positional_convolution, positional_fused, positional_plain
from tests.support.interpreted import run_interpreted
from tests.support.tensor_errors import peak_error

Form = Callable[..., Tensor]

SHAPES: dict[str, tuple[int, int, int, int | None, tuple[int, ...]]] = {
    "kernel 128": (24, 2, 128, None, (1, 37, 130)),
    "full tiles": (64, 2, 16, None, (5, 1, 37, 20)),
    "odd kernel": (48, 1, 7, 8, (30, 9)),
    "partly filled tiles": (8, 2, 5, 2, (3, 30, 1)),
    "one frame a block": (24, 2, 6, 1, (9, 17)),
}


def make_embedding(dim: int, groups: int, taps: int) -> Any:  # noqa: ANN401
    torch.manual_seed(0)
    config = WavLMConfig(hidden_size=dim, num_conv_pos_embedding_groups=groups, num_conv_pos_embeddings=taps)
    embedding = WavLMPositionalConvEmbedding(config).eval()
    with torch.no_grad():
        embedding.conv.bias.normal_()
        embedding.conv.parametrizations.weight.original0 *= 5.0
    return embedding


def one_by_one(embedding: Any, frames: Tensor, lengths: tuple[int, ...]) -> Tensor:  # noqa: ANN401
    return torch.cat([embedding(utterance[None])[0] for utterance in torch.split(frames, list(lengths))])


def compare(
    form: Form, shape: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> list[float]:
    """Return the relative errors of the output and of the gradients by the frames and every parameter."""
    dim, groups, taps, block, lengths = SHAPES[shape]
    embedding = make_embedding(dim, groups, taps).to(device)
    frames = torch.randn((sum(lengths), dim), generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()
    expected = one_by_one(embedding, frames, lengths)
    found = form(embedding, frames, placed(plan_positions(lengths, embedding.conv, block), device), dtype)
    assert found.dtype == dtype
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).to(device)
    leaves = [frames, *embedding.parameters()]
    by_stock = torch.autograd.grad((expected * direction).sum(), leaves)
    by_ours = torch.autograd.grad((found.float() * direction).sum(), leaves)
    pairs = [(found, expected), *zip(by_ours, by_stock, strict=True)]
    return [peak_error(one, other) for one, other in pairs]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_utterance_is_embedded_as_if_alone(shape: str) -> None:
    assert max(compare(positional_convolution, shape)) <= 1e-5


def test_blocks_fill_whole_tiles() -> None:
    assert [frames_per_block(channels) for channels in (48, 64, 128, 12)] == [8, 2, 1, 16]


@pytest.mark.parametrize("block", [1, 2, 8])
def test_the_plan_covers_every_frame_once_and_nothing_else(block: int) -> None:
    lengths = (3, 1, 16, 9)
    plan = plan_positions(lengths, torch.nn.Conv1d(8, 8, 5, groups=2), block)
    rows, frames, valid = plan.blocks
    covered = [int(f) + i for f, v in zip(frames, valid, strict=True) for i in range(int(v))]
    assert covered == list(range(sum(lengths)))
    for row, frame, count in zip(rows.tolist(), frames.tolist(), valid.tolist(), strict=True):
        assert plan.sources[row : row + block].tolist() == [frame + i if i < count else -1 for i in range(block)]


def check_kernels(shape: str) -> None:
    """Runs interpreted, where bfloat16 products are not to be had."""
    from net.kernels import positional_convolution as kernels

    for name in kernels.SETTINGS:
        kernels.SETTINGS[name].update({"rows": 32, "depth": 64} if name != "pad_frames" else {})
    assert max(compare(positional_fused, shape)) <= 5e-6
    assert max(compare(positional_fused, shape, torch.float16)) <= 1e-2
    dim, groups, taps, block, lengths = SHAPES[shape]
    embedding = make_embedding(dim, groups, taps)
    frames = torch.randn((sum(lengths), dim))
    plan = plan_positions(lengths, embedding.conv, block)
    with torch.no_grad():
        both = [form(embedding, frames, plan, torch.float32) for form in (positional_fused, positional_plain)]
    assert peak_error(*both) <= 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_equal_transformers(shape: str) -> None:
    run_interpreted(__name__, "check_kernels", shape)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 5e-3)])
@pytest.mark.parametrize("dim", [768, 1024])
def test_kernels_on_a_gpu(
    dim: int, dtype: torch.dtype, limit: float, cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHAPES, "real", (dim, 16, 128, None, (399, 1, 137, 549, 64)))
    output, *gradients = compare(positional_convolution, "real", dtype, cuda)
    assert output <= limit
    assert max(gradients) <= 5 * limit  # the weight norm's own gradient is a sum of thousands that nearly cancel


@pytest.mark.gpu
def test_the_weight_gradient_repeats_bit_for_bit(cuda: torch.device) -> None:
    lengths = (399, 137, 549)
    embedding = make_embedding(768, 16, 128).to(cuda)
    frames = torch.randn((sum(lengths), 768), device=cuda, requires_grad=True)
    plan = placed(plan_positions(lengths, embedding.conv), cuda)
    leaves = [frames, *embedding.parameters()]
    runs = [
        torch.autograd.grad(positional_convolution(embedding, frames, plan, torch.bfloat16).float().sum(), leaves)
        for _ in range(2)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
