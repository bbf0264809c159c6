"""Learning-rate schedules: functions from an optimiser step, counted from 0, to a share of the highest rate."""

from __future__ import annotations

import math

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1 / 25e4
"""Learning rates at the start and end of one cycle, relative to the highest: the defaults of
`torch.optim.lr_scheduler.OneCycleLR`, after L. Smith and N. Topin, "Super-Convergence", 2017."""


def constant(step: int, total_steps: int, warmup_steps: int) -> float:
    """Rise linearly over the warm-up, then stay at the highest rate."""
    return _linear_rise(step, warmup_steps) if step < warmup_steps else 1.0


def cosine(step: int, total_steps: int, warmup_steps: int) -> float:
    """Rise linearly over the warm-up, then fall to 0 along half a cosine."""
    if step < warmup_steps:
        return _linear_rise(step, warmup_steps)
    return 1 - _half_cosine(_share_of_fall(step, total_steps, warmup_steps))


def one_cycle(step: int, total_steps: int, warmup_steps: int) -> float:
    """Rise from 1/25 over the warm-up and fall to 1/250,000, both along half a cosine."""
    if step < warmup_steps:
        return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * _half_cosine(_linear_rise(step, warmup_steps))
    return 1 - (1 - ONE_CYCLE_END) * _half_cosine(_share_of_fall(step, total_steps, warmup_steps))


def _linear_rise(step: int, warmup_steps: int) -> float:
    return (step + 1) / (warmup_steps + 1)


def _share_of_fall(step: int, total_steps: int, warmup_steps: int) -> float:
    return min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))


def _half_cosine(share: float) -> float:
    """Rise from 0 to 1 along half a cosine."""
    return (1 - math.cos(math.pi * share)) / 2
