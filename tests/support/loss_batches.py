"""Outputs and targets for losses."""

from __future__ import annotations

from dataclasses import replace

import torch

from net.loss_modules import Targets
from net.ser import Outputs

ATTRIBUTES = ("arousal", "valence", "dominance")


def make_batch(size: int = 12, seed: int = 0) -> tuple[Outputs, Targets]:
    generator = torch.Generator().manual_seed(seed)
    outputs = Outputs(
        torch.zeros(size, 2),
        emotion=torch.randn(size, 4, generator=generator),
        attributes=torch.rand(size, 3, generator=generator),
    )
    targets = Targets(
        torch.randint(0, 4, (size,), generator=generator),
        torch.rand(size, generator=generator) > 0.2,
        torch.rand(size, 3, generator=generator),
        torch.rand(size, 3, generator=generator) > 0.2,
        torch.randint(0, 2, (size,), generator=generator),
        torch.rand(size, generator=generator) > 0.2,
        torch.rand(size, 4, generator=generator).softmax(-1),
        torch.rand(size, generator=generator) > 0.2,
    )
    return replace(outputs, gender=torch.randn(size, 2, generator=generator)), targets
