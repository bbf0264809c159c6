"""The kernels without a GPU: `test_relative_attention.py` runs this file with TRITON_INTERPRET=1."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from net.packing.attention import AttentionPlan, KernelSettings
from net.packing.buckets import Bucket
from net.wavlm.relative_attention import has_kernels, plain_relative_attention, relative_attention
from tests.support import layer_oracles as oracle
from tests.support.attention_cases import NAMES, errors, random_case, run_case


@pytest.fixture(autouse=True)
def _loop_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.6 makes a loop's bound by int(array of one element), which NumPy 2.4 refuses."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    patch = interpreter._patch_lang_tensor

    def patch_and_index(tensor: Any, scope: Any) -> None:  # noqa: ANN401
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch_and_index)


SMALL = KernelSettings(16, 16, 1, 1, 16, 1, 1, 1, 1)
UNEQUAL = KernelSettings(32, 16, 1, 1, 16, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("lengths", "heads", "head_dim", "reach", "settings"),
    [
        ((1,), 1, 16, 1, SMALL),
        ((16,), 2, 32, 16, SMALL),
        ((17,), 1, 64, 20, SMALL),
        ((5, 40, 16, 1, 17, 33), 2, 16, 64, UNEQUAL),
        ((33, 48, 47), 3, 16, 48, SMALL),
        ((18, 20), 1, 128, 21, UNEQUAL),
        ((70, 3, 65), 1, 64, 70, None),
    ],
)
def test_kernels_equal_the_plain_path(
    lengths: tuple[int, ...], heads: int, head_dim: int, reach: int, settings: KernelSettings | None
) -> None:
    case = random_case(lengths, heads, head_dim, reach, dtype=torch.float32)
    found = run_case(relative_attention, case, AttentionPlan.of(lengths, settings))
    found_errors = errors(found, run_case(plain_relative_attention, case.to(torch.float64)))
    print(lengths, head_dim, found_errors)
    assert max(found_errors.values()) < 1e-5, found_errors


def test_half_precision_is_as_exact_as_its_roundings() -> None:
    """Of float16 alone: the interpreter multiplies the bit patterns of bfloat16."""
    case = random_case((20, 37), 2, 16, 48, dtype=torch.float16)
    plan = AttentionPlan.of(case.lengths, SMALL)
    exact = run_case(plain_relative_attention, case.to(torch.float64))
    found_errors = errors(run_case(relative_attention, case, plan), exact)
    print(found_errors)
    assert max(found_errors.values()) < 2 * torch.finfo(torch.float16).eps, found_errors


def test_dropout_masks_what_the_plain_path_masks() -> None:
    case = random_case((19, 34), 2, 16, 40)
    plan = AttentionPlan.of(case.lengths, UNEQUAL)
    for seed in torch.tensor([3, 2**40 + 5]):
        found = run_case(relative_attention, case, plan, dropout=0.3, seed=seed)
        exact = run_case(oracle.attention, case.to(torch.float64), dropout=0.3, seed=seed)
        found_errors = errors(found, exact)
        print(seed, found_errors)
        assert max(found_errors.values()) < 1e-5, found_errors


def test_a_directional_derivative_agrees_with_the_gradients_under_dropout() -> None:
    case = random_case((21, 18), 1, 16, 32)
    plan = AttentionPlan.of(case.lengths, SMALL)
    gradients = run_case(relative_attention, case, plan, dropout=0.2, seed=torch.tensor(9))
    generator = torch.Generator().manual_seed(1)
    inputs = dict(zip(NAMES[1:], (*case.packed.unbind(1), case.gate, case.table), strict=True))
    for name, values in inputs.items():
        direction = torch.randn(values.shape, generator=generator)
        direction *= torch.sign(gradients[name]) * torch.sign(direction)  # adds up instead of cancelling
        step = 1e-2

        def loss(sign: int, moved: str = name, along: Tensor = direction * step) -> float:
            q, k, v, gate, table = (t + sign * along if n == moved else t for n, t in inputs.items())
            out = relative_attention(q, k, v, gate, table, plan, 16**-0.5, dropout=0.2, seed=torch.tensor(9))
            return float((out * case.out_gradient).double().sum())

        expected = float((gradients[name] * direction).double().sum())
        assert (loss(1) - loss(-1)) / (2 * step) == pytest.approx(expected, rel=2e-2), name


def test_heads_in_turns_give_the_same_table_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    from net.kernels import relative_attention as kernels

    case = random_case((20, 9), 3, 16, 32)
    plan = AttentionPlan.of(case.lengths, SMALL)
    expected = run_case(relative_attention, case, plan)
    monkeypatch.setattr(kernels, "PARTIAL_BYTES", 2 * 4 * 16 * plan.vectors[16])
    found = run_case(relative_attention, case, plan)
    for name in NAMES:
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_neighbour_that_is_not_finite_stays_outside() -> None:
    case = random_case((20, 7, 18), 1, 16, 32)
    plan = AttentionPlan.of(case.lengths, SMALL)
    expected = run_case(relative_attention, case, plan)
    case.packed[20:27] = float("nan")
    found = run_case(relative_attention, case, plan)
    for name in NAMES[:-1]:
        assert torch.equal(found[name][:20], expected[name][:20]), name
        assert torch.equal(found[name][27:], expected[name][27:]), name


def test_programs_that_fill_up_a_bucket_change_nothing() -> None:
    lengths = (20, 7, 33)
    case = random_case(lengths, 2, 16, 48)
    expected = run_case(relative_attention, case, AttentionPlan.of(lengths, SMALL))
    plan = AttentionPlan.of(lengths, SMALL, Bucket(sum(lengths), 8, 48))
    assert len(plan.programs[16]) > len(AttentionPlan.of(lengths, SMALL).programs[16])
    found = run_case(relative_attention, case, plan)
    for name in NAMES:
        assert torch.equal(found[name], expected[name]), name


def test_frozen_table_needs_no_partial_sums() -> None:
    case = random_case((20, 9), 1, 16, 32)
    plan = AttentionPlan.of(case.lengths, SMALL)
    expected = run_case(relative_attention, case, plan)
    query, key, value = (t.clone().requires_grad_() for t in case.packed.unbind(1))
    out = relative_attention(query, key, value, case.gate, case.table, plan, 16**-0.5)
    torch.autograd.backward(out, case.out_gradient.transpose(0, 2).contiguous().transpose(0, 2))
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        assert tensor.grad is not None
        assert torch.equal(tensor.grad, expected[name]), name


def test_the_kernels_are_what_ran() -> None:
    assert has_kernels(torch.device("cpu"), torch.float32, 16)
