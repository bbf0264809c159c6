from __future__ import annotations

import pytest
import torch

from experiment_runner.training.optimisation import build_scheduler
from experiment_runner.training.schedules import constant, cosine, one_cycle
from tests.support.user_code import Write
from utils.config.schedules import SCHEDULE
from utils.config.schema import ExperimentConfig
from utils.errors import DataError
from utils.io.user_code import import_user_code, look_beside


def test_one_cycle_is_that_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([parameter], lr=1.0)
    torch_scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1.0, total_steps=200, pct_start=0.3)
    for step in range(199):
        expected = torch_scheduler.get_last_lr()[0]
        assert one_cycle(step, 200, 60) == pytest.approx(expected, abs=0.02)
        optimiser.step()
        torch_scheduler.step()


def test_schedules_at_their_corners() -> None:
    assert constant(0, 100, 0) == 1
    assert constant(4, 100, 9) == 0.5
    assert cosine(0, 100, 0) == 1
    assert cosine(50, 100, 0) == pytest.approx(0.5)
    assert cosine(100, 100, 0) == pytest.approx(0)
    assert one_cycle(0, 1000, 300) == pytest.approx(1 / 25, rel=1e-3)
    assert one_cycle(300, 1000, 300) == 1
    assert one_cycle(1000, 1000, 300) == pytest.approx(1 / 25e4)
    factors = [cosine(step, 100, 10) for step in range(101)]
    assert max(factors) == factors[10] == 1


def optimiser() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def test_the_users_schedule_brings_its_own_warm_up(write_module: Write) -> None:
    text = "def ramp(step, total_steps, warmup_steps):\n    return warmup_steps / 100\nramp.warmup_ratio = 0.2\n"
    look_beside(write_module("schedules_of_mine", text))
    import_user_code("schedules_of_mine:ramp", SCHEDULE.contract)
    config = ExperimentConfig(name="a", corpus="C", scheduler="schedules_of_mine:ramp")
    assert build_scheduler(optimiser(), config, 100).get_last_lr() == [0.2]
    own_ratio = config.model_copy(update={"warmup_ratio": 0.5})
    assert build_scheduler(optimiser(), own_ratio, 100).get_last_lr() == [0.5]


@pytest.mark.parametrize("value", ["float('nan')", "-0.1", "'high'"])
def test_a_factor_that_is_none_is_refused_before_training(value: str, write_module: Write) -> None:
    text = f"def late(step, total_steps, warmup_steps):\n    return 1.0 if step < 990 else {value}\n"
    look_beside(write_module("schedules_of_mine", text))
    import_user_code("schedules_of_mine:late", SCHEDULE.contract)
    config = ExperimentConfig(name="a", corpus="C", scheduler="schedules_of_mine:late")
    with pytest.raises(DataError, match="at step 990 of 1,000; it must be a finite number from 0 up"):
        build_scheduler(optimiser(), config, 1000)
