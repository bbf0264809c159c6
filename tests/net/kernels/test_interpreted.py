from __future__ import annotations

import os

import pytest
import torch

from net.kernels.triton_support import runs_triton
from tests.support.interpreted import run_interpreted


def check_process(parent: str) -> None:
    assert runs_triton(torch.device("cpu"))
    assert os.getpid() != int(parent)
    assert torch.initial_seed() != 1, "left by another check"
    torch.manual_seed(1)


def check_nothing_holds() -> None:
    raise AssertionError("nothing holds")


def test_every_check_has_a_process_of_its_own_and_what_fails_is_told() -> None:
    for _ in range(2):
        run_interpreted(__name__, "check_process", str(os.getpid()))
    with pytest.raises(AssertionError, match="check_nothing_holds[^$]*nothing holds"):
        run_interpreted(__name__, "check_nothing_holds")
