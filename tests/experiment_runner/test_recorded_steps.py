"""Recorded optimiser steps on kept frames against the same steps launched kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from experiment_runner.recorded_steps import RecordedSteps
from experiment_runner.train import Trainer
from net.buckets import round_frames
from net.inputs import FrozenFrames
from net.loss_modules import Terms
from tests.experiment_runner.test_frozen_part import save_encoder
from tests.experiment_runner.test_train import TASKS, make_trainer, weights_of
from tests.synthetic_podcast import SyntheticPodcast
from tests.waiting import watch_waiting
from utils.dataset.collation import Batch

EPOCHS = range(1, 9)
CASES: dict[str, dict[str, object]] = {
    "categorical, bf16": {**TASKS["categorical"], "amp": "bf16", "scheduler": "cosine"},
    "multitask, fp16": {**TASKS["multitask"], "amp": "fp16", "layer_weighting": True, "head_dropout": 0.5},
    "dimensional, fp32": {**TASKS["dimensional"], "amp": "off", "max_grad_norm": 0.01},
}


class Launched(RecordedSteps):
    """Fills batches up likewise, and records nothing."""

    def __call__(self, batch: Batch) -> Terms:
        assert isinstance(batch.inputs, FrozenFrames)
        values = batch.inputs.values
        filled = F.pad(values, (0, 0, 0, round_frames(len(values)) - len(values)))
        return self._take(replace(batch, inputs=replace(batch.inputs, values=filled)))


@pytest.fixture
def train(
    podcast: SyntheticPodcast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: torch.device
) -> Callable[[Mapping[str, object]], Trainer]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    upstream = save_encoder("wavlm-tiny-random", tmp_path / "upstream", 0)
    common = {"upstream_model": upstream, "freeze": "upstream", "batch_size": 8, "max_seconds": 30.0, "epoch": 8}
    return lambda keys: make_trainer(podcast, tmp_path, {**common, **keys}, cuda)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_recorded_steps_equal_launched_ones_bit_for_bit(
    case: str, train: Callable[[Mapping[str, object]], Trainer]
) -> None:
    recorded, launched, plain = train(CASES[case]), train(CASES[case]), train({**CASES[case], "compile": "off"})
    assert recorded._recorded is not None
    assert plain._recorded is None
    launched._recorded = Launched(launched._take_single)
    for epoch in EPOCHS:
        losses = [trainer.train_epoch(epoch) for trainer in (recorded, launched, plain)]
        assert losses[0] == losses[1]
        assert losses[0] == pytest.approx(losses[2], rel=0.02)
    assert torch.equal(weights_of(recorded), weights_of(launched))
    assert torch.equal(recorded.refused, launched.refused)
    assert recorded.parts.scheduler.get_last_lr() == launched.parts.scheduler.get_last_lr()
    assert 2 <= len(recorded._recorded._recordings) < recorded.step


@pytest.mark.gpu
def test_a_recorded_step_that_is_not_finite_leaves_the_weights_alone(
    train: Callable[[Mapping[str, object]], Trainer], cuda: torch.device
) -> None:
    trainer = train({"amp": "bf16"})
    trainer.train_epoch(1)
    rows = trainer.parts.train_batches.steps(2)[0]
    (batch,) = trainer.parts.train_feed.serve(rows, 2)
    batch = batch.to(cuda)
    assert isinstance(batch.inputs, FrozenFrames)
    before, refused = weights_of(trainer), trainer.refused.clone()
    spoilt = replace(batch, inputs=replace(batch.inputs, values=batch.inputs.values * float("nan")))
    assert not torch.isfinite(trainer.train_step([spoilt])["emotion_loss"])
    assert torch.equal(weights_of(trainer), before)
    assert trainer.refused.tolist() == [refused[0] + 1, refused[1] + 1, max(refused[2], refused[1] + 1)]
    with watch_waiting() as places:
        terms = trainer.train_step([batch])
    assert not places
    assert torch.isfinite(terms["emotion_loss"])
    assert torch.isfinite(weights_of(trainer)).all()
    assert not torch.equal(weights_of(trainer), before)
