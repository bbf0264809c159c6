"""Optimiser, gradient clipping and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from net.ser_model_wrapper import SERModelWrapper
from utils.config.schedules import schedule_entry
from utils.config.schema import ExperimentConfig
from utils.errors import DataError
from utils.registry import is_user_code, load

CHECKED_STEPS = 1000
"""Steps at which a schedule of the user's own is checked before training."""


def build_optimiser(model: SERModelWrapper, config: ExperimentConfig) -> torch.optim.AdamW:
    """Return one fused AdamW over the trained parameters of upstream and head; only weight matrices are decayed."""
    head = {id(parameter) for parameter in model.head_parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in head, parameter.ndim > 1), []).append(parameter)
    head_rate = config.head_learning_rate or config.learning_rate
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": head_rate if is_head else config.learning_rate,
                "weight_decay": config.weight_decay if is_matrix else 0.0,
            }
            for (is_head, is_matrix), parameters in groups.items()
        ],
        fused=True,
    )


def make_recordable(optimiser: torch.optim.AdamW) -> None:
    """Move the learning rates to the GPU, where a recorded step reads them; the schedule must already exist."""
    for group in optimiser.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=group["params"][0].device)
        group["capturable"] = True


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients together down to a norm of `max_norm`; return the norm before scaling.

    Bit for bit the same as `torch.nn.utils.clip_grad_norm_` for gradients of one device and dtype; that function looks
    up the device and dtype of every gradient, which takes longer than the GPU takes to scale them.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def build_scheduler(optimiser: torch.optim.Optimizer, config: ExperimentConfig, total_steps: int) -> LambdaLR:
    """Return the schedule of `config.scheduler` over all optimiser steps.

    Raises:
        DataError: If a schedule of the user's own returns no factor from 0 up.
    """
    entry = schedule_entry(config.scheduler)
    schedule: Callable[[int, int, int], float] = load(entry.place)
    warmup_steps = round((entry.warmup_ratio if config.warmup_ratio is None else config.warmup_ratio) * total_steps)
    for step in range(0, total_steps, -(-total_steps // CHECKED_STEPS)) if is_user_code(config.scheduler) else ():
        factor = schedule(step, total_steps, warmup_steps)
        if not (isinstance(factor, (int, float)) and 0 <= factor < math.inf):
            raise DataError(
                f'{config.name}: scheduler = "{config.scheduler}" returns {factor!r} at step {step:,} of '
                f"{total_steps:,}; it must be a finite number from 0 up"
            )
    return LambdaLR(optimiser, lambda step: schedule(step, total_steps, warmup_steps))


def go_to_step(scheduler: LambdaLR, step: int) -> None:
    """Set a schedule to an optimiser step (counted from 0), as if it had been stepped up to it."""
    scheduler.last_epoch = step
    scheduler._step_count = step + 1
    for group, rate, factor in zip(
        scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
    ):
        value = rate * factor(step)
        if isinstance(group["lr"], Tensor):
            group["lr"].copy_(torch.as_tensor(value))
        else:
            group["lr"] = value


def current_rate(scheduler: LambdaLR) -> float:
    """Return the first group's learning rate for the next step, without waiting for the device."""
    return float(scheduler.base_lrs[0]) * scheduler.lr_lambdas[0](scheduler.last_epoch)
