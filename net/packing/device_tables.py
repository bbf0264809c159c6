"""Tables of small whole numbers on their way from the host to the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

ALIGNMENT = 32
"""Tables begin at multiples of so many numbers (128 bytes): kernels are compiled for the alignment they first meet."""


def room_for(tables: Sequence[Tensor]) -> Tensor:
    """Return zeros on the tables' device for all of them, end to end and each one aligned."""
    return torch.zeros(sum(map(_room, tables)), dtype=torch.int32, device=tables[0].device)


def unflatten(flat: Tensor, tables: Sequence[Tensor]) -> list[Tensor]:
    """View what `room_for` made for such tables, or what it was copied to."""
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
    """What is known of a batch's lengths, and the tables of it that the device reads."""

    def tables(self) -> list[Tensor]:
        """Return the tables, int32."""

    def with_tables(self, tables: Sequence[Tensor]) -> Self:
        """Return the plan with its tables in another place."""


AnyLayout = TypeVar("AnyLayout", bound=BatchLayout)


def placed(plan: AnyLayout, device: torch.device | str) -> AnyLayout:
    """Return a plan with its tables, which lie on the host, on a device: by one copy and without waiting for it."""
    tables = plan.tables()
    is_pinned = torch.device(device).type == "cuda"
    flat = torch.empty(sum(map(_room, tables)), dtype=torch.int32, pin_memory=is_pinned)
    start, whole = 0, flat.numpy()
    for table in tables:
        whole[start : start + table.numel()] = table.numpy().ravel()
        start += _room(table)
    return plan.with_tables(unflatten(flat.to(device, non_blocking=True), tables))
