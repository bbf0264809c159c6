"""Tables of small whole numbers on their way from the host to the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

ALIGNMENT = 32
"""Tables begin at multiples of so many numbers (128 bytes): kernels are compiled for the alignment they first meet."""


def flatten(tables: Sequence[Tensor]) -> Tensor:
    """Lay int32 tables end to end, each one aligned."""
    flat = torch.zeros(sum(map(_room, tables)), dtype=torch.int32, device=tables[0].device)
    start = 0
    for table in tables:
        flat[start : start + table.numel()] = table.flatten()
        start += _room(table)
    return flat


def unflatten(flat: Tensor, tables: Sequence[Tensor]) -> list[Tensor]:
    """View what `flatten` made of such tables, wherever it is now."""
    pieces = torch.split(flat, [_room(table) for table in tables])
    return [piece[: table.numel()].view(table.shape) for piece, table in zip(pieces, tables, strict=True)]


def to_device(table: Tensor, device: torch.device | str) -> Tensor:
    """Copy a table from the host without waiting for the device."""
    if torch.device(device).type == "cuda":
        table = table.pin_memory()
    return table.to(device, non_blocking=True)


def _room(table: Tensor) -> int:
    return -(-table.numel() // ALIGNMENT) * ALIGNMENT


class Plan(Protocol):
    """What is known of a batch's lengths, and the tables of it that the device reads."""

    def tables(self) -> list[Tensor]:
        """Return the tables, int32."""

    def with_tables(self, tables: Sequence[Tensor]) -> Self:
        """Return the plan with its tables in another place."""


AnyPlan = TypeVar("AnyPlan", bound=Plan)


def placed(plan: AnyPlan, device: torch.device | str) -> AnyPlan:
    """Return a plan with its tables on a device, copied at once and without waiting for it."""
    tables = plan.tables()
    return plan.with_tables(unflatten(to_device(flatten(tables), device), tables))
