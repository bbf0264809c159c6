"""Run in two processes by test_process_group.py: what they tell each other."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

import pytest
import torch
from torch import nn

from experiment_runner.distributed import torch_process_group
from experiment_runner.distributed.join import join_processes
from experiment_runner.distributed.process_group import ProcessesError
from experiment_runner.distributed.torch_process_group import TorchProcessGroup
from utils.errors import ConfigurationError


class OwnError(Exception):
    """Cannot be copied: its constructor takes what the copy does not give."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)


def exchange(group: TorchProcessGroup) -> None:
    rows = torch.arange(2 + 3 * group.rank)
    tensors = [rows, rows.unsqueeze(1) * torch.ones(1, 3) / 7, rows % 2 == 0, torch.empty(len(rows), 0)]
    joined, own = group.gather(tensors)
    assert joined[0].tolist() == [0, 1, 0, 1, 2, 3, 4]
    assert torch.equal(joined[1], joined[0].unsqueeze(1) * torch.ones(1, 3) / 7)
    assert joined[2].tolist() == [value % 2 == 0 for value in joined[0].tolist()]
    assert joined[3].shape == (7, 0)
    assert torch.equal(joined[0][own], rows)
    assert group.shard([10, 11, 12]) == ([10, 12], [11])[group.rank]
    assert group.shard([10]) == [10]
    assert group.number(3) == 6 + group.rank


def sum_up(group: TorchProcessGroup) -> None:
    torch_process_group.BUCKET_ELEMENTS = 5  # so that there are several, one of them a tensor that is larger
    shapes = [(2,), (), (3, 4), (2, 2), (1,)]
    tensors = [torch.full(shape, 10.0**place * (1 + group.rank)) for place, shape in enumerate(shapes)]
    kept = [tensor.data_ptr() for tensor in tensors]
    group.sum(tensors)
    for place, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True)):
        assert torch.equal(tensor, torch.full(shape, 3 * 10.0**place))
    assert [tensor.data_ptr() for tensor in tensors] == kept
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.ones(2)
    if group.rank == 1:
        parameters[1].grad = torch.ones(2)
    group.sum_gradients(parameters)
    gradients = [None if p.grad is None else p.grad.tolist() for p in parameters]
    assert gradients == [[2.0, 2.0], [1.0, 1.0], None]


def agree(group: TorchProcessGroup) -> None:
    for error in (ConfigurationError(["one", "two"]), OwnError("a", "b"), FloatingPointError("of both")):
        fails_here = group.rank == 1 or isinstance(error, FloatingPointError)
        raised = raise_together(group, error if fails_here else None)
        told: list[str] = []
        assert group.end(raised, 3, told.append) == 3
        assert str(raised).removeprefix("OwnError: ") == str(error)
        assert isinstance(raised, RuntimeError if isinstance(error, OwnError) and not fails_here else type(error))
        assert fails_here or "raise error" in str(raised.__cause__)
        place = "" if isinstance(error, FloatingPointError) else " (in process 1 on "
        assert [text[: len(place)] for text in told] == ([place] if group.is_main else [])
    assert group.on_main(lambda: ["main", group.rank]) == ["main", 0]
    group.check_alike(lambda: {"data": 1, "weights": 2})
    with pytest.raises(ProcessesError, match="process 1 on .* differs from process 0 in: weights;"):
        group.check_alike(lambda: {"data": 1, "weights": group.rank})


def raise_together(group: TorchProcessGroup, error: Exception | None) -> Exception:
    """Return what two agreements, one in the other, raise where some process has an error."""
    try:
        with group.raise_together(), group.raise_together():
            if error is not None:
                raise error
    except Exception as raised:  # noqa: BLE001 - what is raised is looked at
        return raised
    raise AssertionError("nothing was raised")


def lose_step(group: TorchProcessGroup) -> None:
    """One process fails while the other waits for it."""
    try:
        if group.rank == 1:
            raise ValueError("a failure in the middle")
        group.gather([torch.ones(1)])
    except (ValueError, ProcessesError) as error:
        group.end(error, 7, partial(print, error, sep=""))


def vanish(group: TorchProcessGroup) -> None:
    """One process is killed while the other waits for it."""
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        group.gather([torch.ones(1)])
    except ProcessesError as error:
        group.end(error, 7, partial(print, error, sep=""))


if __name__ == "__main__":
    with join_processes() as processes:
        assert isinstance(processes, TorchProcessGroup)
        operations = (exchange, sum_up, agree, lose_step, vanish)
        for operation in operations:
            if operation.__name__ in sys.argv[1:]:
                operation(processes)
        print("done")
