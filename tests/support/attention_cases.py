"""Inputs and comparisons of packed attention, for the interpreter's, the GPU's and the plain path's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from net.packing.attention import AttentionPlan
from net.packing.device_tables import placed
from tests.support.tensor_errors import peak_error

NAMES = ("out", "query", "key", "value", "gate", "table")
Attend = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """One batch: a packed (frames, 3, heads, head_dim), gate, table and what the output's gradient is."""

    lengths: tuple[int, ...]
    packed: Tensor
    gate: Tensor
    table: Tensor
    out_gradient: Tensor

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Case:
        """The same values; gate and table stay float32 unless all becomes float64."""
        wide = torch.promote_types(dtype, torch.float32)
        return Case(
            self.lengths,
            self.packed.to(device, dtype),
            self.gate.to(device, wide),
            self.table.to(device, wide),
            self.out_gradient.to(device, dtype),
        )


def random_case(
    lengths: Sequence[int], heads: int, head_dim: int, reach: int, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Case:
    """Values that dtype can hold, so that a float64 copy is the same problem."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    packed = torch.randn(total, 3, heads, head_dim, generator=generator).to(dtype)
    gate = 1 + torch.rand(total, heads, generator=generator)
    table = torch.randn(heads, 2 * reach - 1, generator=generator)
    out_gradient = torch.randn(total, heads, head_dim, generator=generator).to(dtype)
    return Case(tuple(lengths), packed, gate, table, out_gradient)


def run_case(attend: Attend, case: Case, plan: AttentionPlan | None = None, **options: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """Output and the five gradients, the inputs being strided views of one tensor."""
    packed = case.packed.detach().clone().requires_grad_()
    gate = case.gate.detach().clone().requires_grad_()
    table = case.table.detach().clone().requires_grad_()
    plan = plan or placed(AttentionPlan.of(case.lengths), packed.device)
    query, key, value = packed.unbind(1)
    out = attend(query, key, value, gate, table, plan, query.shape[2] ** -0.5, **options)
    torch.autograd.backward(out, case.out_gradient)
    assert packed.grad is not None
    assert gate.grad is not None
    assert table.grad is not None
    return dict(zip(NAMES, (out.detach(), *packed.grad.unbind(1), gate.grad, table.grad), strict=True))


def errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    return {name: peak_error(found[name], expected[name]) for name in NAMES}
