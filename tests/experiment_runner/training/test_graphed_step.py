"""Recorded optimiser steps on kept frames against the same steps launched kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from experiment_runner.train import Trainer
from experiment_runner.training import graphed_step
from experiment_runner.training.graphed_step import GraphedStep, Kind, Recording
from net.inputs import FrozenFrames
from net.loss_modules import Terms
from tests.support.encoders import save_encoder
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.trainings import CPU, TASKS, make_trainer, weights_of
from tests.support.waiting import watch_waiting
from utils.dataset.collation import Batch, LabelLayout, LabelTable

EPOCHS = range(1, 9)
CASES: dict[str, dict[str, object]] = {
    "categorical, bf16": {**TASKS["categorical"], "amp": "bf16", "scheduler": "cosine"},
    "multitask, fp16": {**TASKS["multitask"], "amp": "fp16", "layer_weighting": True, "head_dropout": 0.5},
    "dimensional, fp32": {**TASKS["dimensional"], "amp": "off", "max_grad_norm": 0.01},
    "cropped, bf16": {**TASKS["multitask"], "amp": "bf16", "max_seconds": 0.6},
    "nothing kept": {**TASKS["categorical"], "amp": "bf16", "cache_gib": 0},
    "gender, bf16": {**TASKS["multitask"], "amp": "bf16", "model_type": "UpstreamGender"},
}


class Launched(GraphedStep):
    """Fills batches up likewise, and records nothing."""

    def __call__(self, batch: Batch) -> Terms:
        kind = self.kind_of(batch)
        if kind not in self._seen:
            self._seen.add(kind)
            return self._take(batch)
        assert isinstance(batch.inputs, FrozenFrames)
        values = batch.inputs.values
        filled = F.pad(values, (0, 0, 0, kind[0] - len(values)))
        return self._take(replace(batch, inputs=replace(batch.inputs, values=filled)))


class Repeated(GraphedStep):
    """Takes the step again where a recording would be replayed, on any device."""

    def _record(self, kind: Kind, batch: Batch) -> Recording:
        places, found = self._places(kind, batch), torch.zeros(2)

        def replay() -> None:
            found.copy_(torch.stack([*self._take(places).values()]))

        return Recording(Replayed(replay), places, ("frames", "labels"), found)


@dataclass(frozen=True)
class Replayed:
    replay: Callable[[], None]


def make_batch(frames: int, utterances: int, value: float) -> Batch:
    counts = (1,) * utterances
    starts = torch.linspace(0, frames, utterances + 1).int()
    inputs = FrozenFrames(torch.full((frames, 2), value), counts, (True,) * utterances, None, starts)
    return Batch(
        inputs, LabelTable(torch.full((utterances, 2), value), LabelLayout(attributes=1)), torch.arange(utterances)
    )


def test_recordings_are_made_for_what_comes_again_and_dropped_where_they_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = []

    def take(batch: Batch) -> Terms:
        assert isinstance(batch.inputs, FrozenFrames)
        assert batch.inputs.starts is not None
        taken.append((len(batch.inputs.values), len(batch.rows), int(batch.inputs.starts[-1])))
        return {"frames": batch.inputs.values.sum(), "labels": batch.labels.values.sum()}

    steps = Repeated(take, most_frames=1000)
    for number, frames in enumerate((500, 490, 505, 490), start=1):
        found = steps(make_batch(frames, 4, number))
        assert {name: float(term) for name, term in found.items()} == {
            "frames": 2 * frames * number,
            "labels": 8 * number,
        }
    assert taken == [(500, 4, 500), (512, 4, 490), (512, 4, 505), (512, 4, 490)]
    assert list(steps.recordings) == [(512, 4)]
    for _ in range(3):
        steps(make_batch(2000, 4, 1.0))
        assert taken[-1] == (2000, 4, 2000)  # more than there is room for
    assert list(steps.recordings) == [(512, 4)]
    monkeypatch.setattr(graphed_step, "MOST_RECORDINGS", 2)
    for utterances in (5, 5, 6, 6, 5):
        steps(make_batch(500, utterances, 1.0))
    assert list(steps.recordings) == [(512, 6), (512, 5)]


@pytest.fixture
def build(
    podcast: SyntheticPodcast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Mapping[str, object], torch.device], Trainer]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    upstream = save_encoder("wavlm-tiny-random", tmp_path / "upstream", 0)
    common = {"upstream_model": upstream, "freeze": "upstream", "batch_size": 8, "max_seconds": 30.0, "epoch": 8}
    return lambda keys, device: make_trainer(podcast, tmp_path, {**common, **keys}, device)


@pytest.fixture
def train(
    build: Callable[[Mapping[str, object], torch.device], Trainer], cuda: torch.device
) -> Callable[[Mapping[str, object]], Trainer]:
    return lambda keys: build(keys, cuda)


@pytest.mark.parametrize("keys", [{}, {"max_seconds": 0.6}, {"max_seconds": 0.6, "cache_gib": 0}])
def test_steps_that_begin_behind_the_upstream_are_those_that_begin_with_it(
    keys: dict[str, object], build: Callable[[Mapping[str, object], torch.device], Trainer]
) -> None:
    """All kept, some cropped, none kept; no step has room, so that none is recorded."""
    behind, plain = (build({**TASKS["multitask"], **keys}, CPU) for _ in range(2))
    behind.steps._recorded = GraphedStep(behind.steps._take_seeded, most_frames=0)
    for epoch in (1, 2):
        assert behind.train_epoch(epoch) == plain.train_epoch(epoch)
    assert torch.equal(weights_of(behind), weights_of(plain))


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_recorded_steps_equal_launched_ones_bit_for_bit(
    case: str, train: Callable[[Mapping[str, object]], Trainer]
) -> None:
    recorded, launched, plain = train(CASES[case]), train(CASES[case]), train({**CASES[case], "compile": "off"})
    assert recorded.steps._recorded is not None
    assert plain.steps._recorded is None
    launched.steps._recorded = Launched(launched.steps._take_seeded, 10_000)
    for epoch in EPOCHS:
        losses = [trainer.train_epoch(epoch) for trainer in (recorded, launched, plain)]
        assert losses[0] == losses[1]
        assert losses[0] == pytest.approx(losses[2], rel=1e-4 if "fp32" in case else 0.02)
    assert torch.equal(weights_of(recorded), weights_of(launched))
    assert torch.equal(recorded.steps.refused.counts, launched.steps.refused.counts)
    assert recorded.steps.parts.scheduler.get_last_lr() == launched.steps.parts.scheduler.get_last_lr()
    assert 1 <= len(recorded.steps._recorded.recordings) < recorded.steps.count


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
    for _ in range(2):
        trainer.steps.take([batch])  # recorded now, whatever the first epoch has recorded
    before, refused = weights_of(trainer), trainer.steps.refused.counts.clone()
    spoilt = replace(batch, inputs=replace(batch.inputs, values=batch.inputs.values * float("nan")))
    assert not torch.isfinite(trainer.steps.take([spoilt])["emotion_loss"])
    assert torch.equal(weights_of(trainer), before)
    assert trainer.steps.refused.counts.tolist()[:3] == [
        refused[0] + 1,
        refused[1] + 1,
        max(refused[2], refused[1] + 1),
    ]
    with watch_waiting() as places:
        terms = trainer.steps.take([batch])
    assert not places
    assert torch.isfinite(terms["emotion_loss"])
    assert torch.isfinite(weights_of(trainer)).all()
    assert not torch.equal(weights_of(trainer), before)
