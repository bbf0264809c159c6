from __future__ import annotations

import pytest
import torch

from utils.loss_manager import LossManager


def test_means_of_every_term_leave_refused_steps_out() -> None:
    losses = LossManager()
    losses.add({"a": torch.tensor(1.0), "b": torch.tensor(0.5)})
    losses.add({"a": torch.tensor(float("nan")), "b": torch.tensor(9.0)})
    losses.add({"a": torch.tensor(3.0), "b": torch.tensor(1.5)})
    assert losses.means() == {"a": 2.0, "b": 1.0, "loss": 3.0}
    losses.restart()
    losses.add({"a": torch.tensor(0.25), "b": torch.tensor(0.25)})
    assert losses.means() == {"a": 0.25, "b": 0.25, "loss": 0.5}


def test_means_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no step"):
        LossManager().means()
