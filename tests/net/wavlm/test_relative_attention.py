from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from net.packing.attention import DROP_STEPS, AttentionPlan
from net.packing.device_tables import placed
from net.wavlm.relative_attention import gate_of, plain_relative_attention, relative_attention, relative_buckets
from tests.support import layer_oracles as oracle
from tests.support.attention_cases import Case, errors, random_case, run_case
from tests.support.tensor_errors import peak_error

ROOT = Path(__file__).resolve().parents[3]
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
INTERPRETED = Path(__file__).with_name("interpreted_relative_attention.py")


def wavlm_attention(dim: int, heads: int, seed: int = 0) -> WavLMAttention:
    """With parameters as uneven as trained ones."""
    torch.manual_seed(seed)
    module = WavLMAttention(dim, heads, num_buckets=32, max_distance=64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


def packed_attention(module: WavLMAttention, hidden: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """What WavLMAttention computes, on (frames, dim)."""
    heads = module.num_heads
    plan = placed(AttentionPlan.of(lengths), hidden.device)
    buckets = relative_buckets(max(lengths) + 3, module.num_buckets, module.max_distance)
    table = module.rel_attn_embed(buckets).T
    gate = gate_of(
        hidden, module.gru_rel_pos_linear.weight, module.gru_rel_pos_linear.bias, module.gru_rel_pos_const, heads
    )
    projections = (module.q_proj, module.k_proj, module.v_proj)
    query, key, value = (p(hidden).view(hidden.shape[0], heads, -1) for p in projections)
    out = relative_attention(query, key, value, gate, table, plan, module.scaling)
    attended: Tensor = module.out_proj(out.flatten(1))
    return attended


def test_plain_path_equals_transformers_on_each_utterance_alone() -> None:
    lengths = (31, 7, 1, 7, 90)
    module = wavlm_attention(48, 3)
    hidden = torch.randn(sum(lengths), 48)
    weights = torch.randn(sum(lengths), 48)

    alone = hidden.clone().requires_grad_()
    expected = torch.cat([module(u.unsqueeze(0))[0].squeeze(0) for u in torch.split(alone, list(lengths))])
    torch.autograd.backward(expected, weights)
    expected_gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()

    together = hidden.clone().requires_grad_()
    found = packed_attention(module, together, lengths)
    torch.autograd.backward(found, weights)
    assert peak_error(found, expected) < 1e-5
    assert alone.grad is not None
    assert together.grad is not None
    assert peak_error(together.grad, alone.grad) < 1e-5
    assert len(expected_gradients) == 12
    # The key's bias adds the same to all scores of a query: its gradient is zero but for rounding.
    rounding = float(expected_gradients["k_proj.weight"].abs().max())
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        largest = rounding if name == "k_proj.bias" else float(expected_gradients[name].abs().max())
        deviation = float((parameter.grad - expected_gradients[name]).abs().max())
        assert deviation < 1e-5 * largest, (name, deviation / largest)


def test_plain_path_equals_the_formula_frame_by_frame() -> None:
    case = random_case((4, 1, 6), 2, 16, 9).to(torch.float64)
    found = run_case(plain_relative_attention, case)
    start = 0
    for length in case.lengths:
        for head in range(2):
            q, k, v = (case.packed[start : start + length, part, head] for part in range(3))
            for i in range(length):
                bias = torch.stack([case.table[head, 8 + j - i] for j in range(length)])
                p = torch.softmax(k @ q[i] * 16**-0.5 + case.gate[start + i, head] * bias, 0)
                assert torch.allclose(found["out"][start + i, head], p @ v, atol=1e-12)
        start += length


def test_dropout_drops_its_rate_and_keeps_the_mean() -> None:
    kept = oracle.kept_weights(torch.tensor([0, 200]), 200, 4, round(0.1 * DROP_STEPS), seed=5)
    assert kept.shape == (2, 4, 200, 200)
    assert abs(1 - kept.double().mean() - 0.1) < 4 * (0.1 * 0.9 / kept.numel()) ** 0.5
    assert not torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[:, 0], kept[:, 1])
    assert not torch.equal(kept, oracle.kept_weights(torch.tensor([0, 200]), 200, 4, round(0.1 * DROP_STEPS), seed=6))
    neighbours = (kept[..., 1:].double() - 0.9) * (kept[..., :-1].double() - 0.9)
    assert abs(neighbours.mean()) < 4 * 0.1 * 0.9 / neighbours.numel() ** 0.5

    case = random_case((50,), 2, 16, 50).to(torch.float64)
    exact = run_case(plain_relative_attention, case)["out"]
    seeds = torch.arange(300)
    draws = torch.stack([run_case(oracle.attention, case, dropout=0.2, seed=seed)["out"] for seed in seeds])
    standard_error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - exact).abs() / standard_error).max() < 5


@pytest.mark.parametrize(
    ("rounds", "seed", "counters", "words"),
    [
        (7, 0, (0, 0, 0, 0), (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
        (7, 2**64 - 1, (2**32 - 1,) * 4, (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662)),
        (7, 0x299F31D0A4093822, PI, (0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A)),
        (10, 0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (10, 0x299F31D0A4093822, PI, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_philox_gives_the_published_words(
    rounds: int, seed: int, counters: tuple[int, ...], words: tuple[int, ...]
) -> None:
    """The known answers of Random123."""
    c0, c1, c2, c3 = (torch.tensor(c) for c in counters)
    assert tuple(int(w) for w in oracle.philox(seed, c0, c1, c2, c3, rounds)) == words


@pytest.mark.parametrize(("buckets", "distance", "reach"), [(320, 800, 3000), (32, 64, 200), (320, 800, 1)])
def test_relative_buckets_are_those_of_transformers(buckets: int, distance: int, reach: int) -> None:
    module = WavLMAttention(16, 1, num_buckets=buckets, max_distance=distance)
    expected = module._relative_positions_bucket(torch.arange(1 - reach, reach))
    assert torch.equal(relative_buckets(reach, buckets, distance), expected)


def test_gate_is_that_of_transformers() -> None:
    heads, head_dim = 4, 16
    linear, const = nn.Linear(head_dim, 8), torch.randn(1, heads, 1, 1)
    hidden = torch.randn(50, heads * head_dim)
    projected = linear(hidden.view(50, heads, head_dim).transpose(0, 1).unsqueeze(0))
    gate_a, gate_b = torch.sigmoid(projected.view(1, heads, 50, 2, 4).sum(-1)).chunk(2, dim=-1)
    expected = (gate_a * (gate_b * const - 1.0) + 2.0).squeeze(-1).squeeze(0).T
    found = gate_of(hidden, linear.weight, linear.bias, const, heads)
    assert found.shape == (50, heads)
    assert peak_error(found, expected) < 1e-6
    assert gate_of(hidden.bfloat16(), linear.weight, linear.bias, const, heads).dtype == torch.float32


def test_plan_lists_every_block_once_longest_utterances_first() -> None:
    plan = AttentionPlan.of((64, 1, 65, 130))
    rows = plan.programs[64].tolist()
    assert [tuple(row[:3]) for row in rows] == [
        (130, 260, 0),
        (130, 260, 1),
        (130, 260, 2),
        (65, 130, 0),
        (65, 130, 1),
        (0, 64, 0),
        (64, 65, 0),
    ]
    assert [row[3] for row in rows] == [0, 4, 8, 12, 15, 18, 20]
    assert plan.vectors[64] == 22


@pytest.mark.parametrize(
    ("frames", "reach", "gate_heads", "dropout", "key_dtype", "message"),
    [
        (4, 5, 2, 0.0, torch.float32, "the plan is for 5 frames"),
        (5, 4, 2, 0.0, torch.float32, "reach >= 5"),
        (5, 5, 1, 0.0, torch.float32, "gate is"),
        (5, 5, 2, 1.0, torch.float32, "dropout is 1.0"),
        (5, 5, 2, 0.0, torch.float64, "one dtype"),
    ],
)
def test_what_does_not_fit_is_refused(
    frames: int, reach: int, gate_heads: int, dropout: float, key_dtype: torch.dtype, message: str
) -> None:
    query = torch.zeros(frames, 2, 16)
    gate, table = torch.zeros(frames, gate_heads), torch.zeros(2, 2 * reach - 1)
    plan = AttentionPlan.of((5,))
    with pytest.raises(ValueError, match=message):
        relative_attention(query, query.to(key_dtype), query, gate, table, plan, 1.0, dropout)


def test_an_utterance_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        AttentionPlan.of((5, 0))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
def test_kernels_under_the_interpreter() -> None:
    """In a process of its own: Triton decides at its import whether it interprets."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(INTERPRETED)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def realistic_case(dtype: torch.dtype) -> Case:
    lengths = (600, 399, 512, 100, 257, 64, 65, 1)
    return random_case(lengths, 16, 64, 640, dtype=dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_kernels_are_as_exact_as_torch(cuda: torch.device, dtype: torch.dtype) -> None:
    case = realistic_case(dtype).to(dtype, cuda)
    exact = run_case(plain_relative_attention, case.to(torch.float64, cuda))
    found_errors = errors(run_case(relative_attention, case), exact)
    torch_errors = errors(run_case(plain_relative_attention, case), exact)
    print(found_errors, torch_errors)
    for name, error in found_errors.items():
        assert error < 2 * torch_errors[name] + 1e-6, (name, error, torch_errors[name])


@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [16, 32, 64, 128])
def test_float32_kernels_are_exact(cuda: torch.device, head_dim: int) -> None:
    case = random_case((150, 33, 32, 1, 97), 3, head_dim, 150).to(torch.float32, cuda)
    found_errors = errors(
        run_case(relative_attention, case), run_case(plain_relative_attention, case.to(torch.float64, cuda))
    )
    print(head_dim, found_errors)
    assert max(found_errors.values()) < 1e-5, found_errors


@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [16, 32, 64, 128])
def test_kernels_repeat_their_bits_and_drop_what_the_plain_path_drops(cuda: torch.device, head_dim: int) -> None:
    case = random_case((150, 64, 301), 3, head_dim, 320, dtype=torch.bfloat16).to(torch.bfloat16, cuda)
    seed = torch.tensor(2**40 + 7, device=cuda)
    first, second = (run_case(relative_attention, case, dropout=0.1, seed=seed) for _ in range(2))
    exact = run_case(oracle.attention, case.to(torch.float64, cuda), dropout=0.1, seed=seed)
    for name, error in errors(first, exact).items():
        assert torch.equal(first[name], second[name]), name
        assert error < 4 * torch.finfo(torch.bfloat16).eps, (name, error)


@pytest.mark.gpu
def test_memory_stays_far_below_the_stored_bias(cuda: torch.device) -> None:
    case = random_case((3000,) * 8, 16, 64, 3072, dtype=torch.bfloat16).to(torch.bfloat16, cuda)
    run_case(relative_attention, case)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run_case(relative_attention, case)
    tensors = 12 * case.packed.numel() // 3 * 2
    assert torch.cuda.max_memory_allocated() - before < tensors + 100 * 2**20
