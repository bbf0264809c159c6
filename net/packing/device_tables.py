"""Tables of small integers, copied from the host to the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

ALIGNMENT = 32
"""Tables begin at multiples of this many numbers (128 bytes): kernels are compiled for the first alignment they see."""


def room_for(tables: Sequence[Tensor]) -> Tensor:
    """Return zeros with room for all tables on their device, end to end, each one aligned."""
    return torch.zeros(sum(map(_room, tables)), dtype=torch.int32, device=tables[0].device)


def unflatten(flat: Tensor, tables: Sequence[Tensor]) -> list[Tensor]:
    """View the result of `room_for` for such tables, or a copy of it, as separate tables."""
    pieces = torch.split(flat, [_room(table) for table in tables])
    return [piece[: table.numel()].view(table.shape) for piece, table in zip(pieces, tables, strict=True)]


def to_device(table: Tensor, device: torch.device | str) -> Tensor:
    """Copy a table from the host without waiting for the device."""
    if torch.device(device).type == "cuda":
        table = table.pin_memory()
    return table.to(device, non_blocking=True)


def _room(table: Tensor) -> int:
    return -(-table.numel() // ALIGNMENT) * ALIGNMENT


class BatchLayout(Protocol):
    """The layout of a batch, with the tables of it that the device reads."""

    def tables(self) -> list[Tensor]:
        """Return the tables, int32."""

    def with_tables(self, tables: Sequence[Tensor]) -> Self:
        """Return the plan with its tables in another place."""


AnyLayout = TypeVar("AnyLayout", bound=BatchLayout)


def placed(plan: AnyLayout, device: torch.device | str) -> AnyLayout:
    """Return a plan whose tables have been moved from the host to a device, by one copy and without waiting for it."""
    tables = plan.tables()
    is_pinned = torch.device(device).type == "cuda"
    flat = torch.empty(sum(map(_room, tables)), dtype=torch.int32, pin_memory=is_pinned)
    start, whole = 0, flat.numpy()
    for table in tables:
        whole[start : start + table.numel()] = table.numpy().ravel()
        start += _room(table)
    return plan.with_tables(unflatten(flat.to(device, non_blocking=True), tables))
