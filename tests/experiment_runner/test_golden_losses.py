"""Losses that must not move while the mathematics does not: a faster path that moves them has changed the training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.trainings import make_trainer

GOLDEN = {
    "wavlm-tiny-random": [3.10464, 2.86803, 2.57712],
    "wavlm-tiny-group-random": [3.24556, 2.91258, 2.81985],
}


@pytest.mark.parametrize("upstream", GOLDEN)
def test_losses_of_three_epochs(upstream: str, podcast: SyntheticPodcast, tmp_path: Path) -> None:
    no_draws = dict.fromkeys(("hidden_dropout", "attention_dropout", "feat_proj_dropout", "head_dropout"), 0.0)
    keys = {"task": "multitask", "batch_size": 4, "accumulation_steps": 2, "max_seconds": 0.4, "mask_time_prob": 0.0}
    trainer = make_trainer(podcast, tmp_path, {**keys, **no_draws, "upstream_model": upstream})
    losses = [trainer.train_epoch(epoch)["loss"] for epoch in (1, 2, 3)]
    assert losses == pytest.approx(GOLDEN[upstream], rel=1e-3)
