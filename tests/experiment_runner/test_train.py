from __future__ import annotations

import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from experiment_runner.runtime.device import choose_precision
from experiment_runner.storage.checkpoints import CheckpointStore, read_checkpoint
from experiment_runner.training.inference import infer
from experiment_runner.training.optimisation import build_optimiser, clip_gradients
from experiment_runner.training.schedules import cosine
from net.inputs import Waveforms
from net.loss_modules import Targets
from net.ser import Outputs
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.trainings import CPU, KEYS, TASKS, make_trainer, weights_of
from tests.support.waiting import watch_waiting
from utils.config.schema import ExperimentConfig
from utils.dataset.collation import Batch
from utils.errors import DataError
from utils.metrics import Metrics


def spoilt(batch: Batch) -> Batch:
    assert isinstance(batch.inputs, Waveforms)
    batch.inputs.samples[5] = float("nan")
    return batch


@pytest.mark.parametrize("task", TASKS)
def test_accumulating_4_of_2_equals_a_batch_of_8(task: str, podcast: SyntheticPodcast, tmp_path: Path) -> None:
    plain = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0, "head_dropout": 0.0}
    keys = {**TASKS[task], **plain, "mask_time_prob": 0.0}
    whole = make_trainer(podcast, tmp_path, {**keys, "batch_size": 8})
    parts = make_trainer(podcast, tmp_path, {**keys, "batch_size": 2, "accumulation_steps": 4})
    assert torch.equal(weights_of(whole), weights_of(parts))
    gradients, losses = [], []
    for trainer in (whole, parts):
        rows = trainer.parts.train_batches.steps(1)[0]
        window = list(trainer.parts.train_feed.serve(rows, 1))
        trainer.model.train()
        differentiate = (
            trainer.steps._differentiate_by_parts
            if len(window) == 1 or trainer.steps.parts.loss.separable
            else trainer.steps._differentiate_in_two_passes
        )
        losses.append({name: float(term) for name, term in differentiate(window).items()})
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.steps.trained if p.grad is not None]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[0].norm()


def test_the_second_pass_has_the_same_dropout_draws(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    trainer = make_trainer(podcast, tmp_path, {"batch_size": 4, **TASKS["dimensional"]})
    batch = next(trainer.parts.train_feed.serve(trainer.parts.train_batches.steps(1)[0], 1))
    trainer.model.train()
    first, second, other = (
        trainer.steps._forward(batch, 0),
        trainer.steps._forward(batch, 0),
        trainer.steps._forward(batch, 1),
    )
    assert first.attributes is not None
    assert second.attributes is not None
    assert other.attributes is not None
    assert torch.equal(first.attributes, second.attributes)
    assert not torch.equal(first.attributes, other.attributes)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_seed_gives_the_same_losses_whatever_the_workers(
    workers: int, podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    keys = {"batch_size": 8, "max_seconds": 0.3}
    one = make_trainer(podcast, tmp_path, {**keys, "num_workers": 0})
    other = make_trainer(podcast, tmp_path, {**keys, "num_workers": workers})
    torch.rand(3)  # what was drawn elsewhere does not matter
    for epoch in (1, 2):
        assert one.train_epoch(epoch) == other.train_epoch(epoch)
    assert torch.equal(weights_of(one), weights_of(other))
    assert one.evaluate().loss == other.evaluate().loss


def test_a_step_that_is_not_finite_leaves_the_weights_alone(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    trainer = make_trainer(podcast, tmp_path, {"batch_size": 8})
    steps = trainer.parts.train_batches.steps(1)
    batches = [next(trainer.parts.train_feed.serve(rows, 1)) for rows in steps[:2]]
    trainer.model.train()
    before = weights_of(trainer)
    batches[0] = spoilt(batches[0])
    trainer.steps.take([batches[0]])
    assert torch.equal(weights_of(trainer), before)
    assert trainer.steps.refused.counts.tolist() == [1, 1, 1, 1, 1]
    trainer.steps.take([batches[1]])
    assert not torch.equal(weights_of(trainer), before)
    assert torch.isfinite(weights_of(trainer)).all()
    assert trainer.steps.refused.counts.tolist() == [1, 0, 1, 2, 1]


def test_ten_refused_steps_in_a_row_end_the_experiment(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    trainer = make_trainer(podcast, tmp_path, {"batch_size": 1})
    with torch.no_grad():
        next(trainer.model.pooling.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"^10 optimiser steps in a row \(to step 10\) had") as caught:
        trainer.train_epoch(1)
    rows = [int(rows[0]) for (rows,) in trainer.parts.train_batches.steps(1)[:10]]
    names = trainer.parts.name_training(rows)
    assert names.count(", ") == 9
    assert f"not finite, with {names}; lower learning_rate" in str(caught.value)


def test_the_development_loss_is_one_over_the_whole_split(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    small = make_trainer(podcast, tmp_path, {**TASKS["multitask"], "eval_batch_seconds": 1}).evaluate()
    large = make_trainer(podcast, tmp_path, {**TASKS["multitask"], "eval_batch_seconds": 64}).evaluate()
    assert small.loss == pytest.approx(large.loss, abs=1e-5)
    assert small.terms == pytest.approx(large.terms, abs=1e-5)
    assert small.predictions["file"].tolist() == large.predictions["file"].tolist()
    assert small.score == pytest.approx((small.metrics["macro_f1"] + small.metrics["mean_ccc"]) / 2)


def test_outputs_come_back_in_the_order_of_the_table(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    trainer = make_trainer(podcast, tmp_path, {"eval_batch_seconds": 5})
    table_order = list(trainer.parts.development_feed.serve([np.arange(24)], -1))
    precision, names = trainer.steps.parts.precision, trainer.parts.name_development
    expected, _ = infer(trainer.model, table_order, CPU, precision, names)
    sorted_order = trainer.parts.development_feed.serve(trainer.parts.development_batches, -1)
    found, targets = infer(trainer.model, sorted_order, CPU, precision, names)
    assert expected.emotion is not None
    assert found.emotion is not None
    assert torch.allclose(found.emotion, expected.emotion, atol=1e-5)
    assert torch.equal(targets.emotion, table_order[0].targets.emotion)


def test_two_passes_give_the_gradient_of_one_graph_with_the_same_draws(
    podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    keys = {"batch_size": 2, "accumulation_steps": 3, "head_dropout": 0.5, **TASKS["multitask"]}
    trainer = make_trainer(podcast, tmp_path, keys)
    window = list(trainer.parts.train_feed.serve(trainer.parts.train_batches.steps(1)[0], 1))
    assert len(window) == 3
    trainer.model.train()
    trainer.steps._differentiate_in_two_passes(window)
    in_two_passes = [p.grad.clone() for p in trainer.steps.trained if p.grad is not None]
    trainer.steps.parts.optimiser.zero_grad()
    joined = Outputs.concatenate([trainer.steps._forward(batch, part) for part, batch in enumerate(window)])
    terms = trainer.steps.parts.loss(joined, Targets.concatenate([batch.targets for batch in window]))
    torch.autograd.backward([torch.stack(list(terms.values())).sum()])
    in_one_graph = [p.grad for p in trainer.steps.trained if p.grad is not None]
    for one, other in zip(in_two_passes, in_one_graph, strict=True):
        assert torch.allclose(one, other, atol=1e-7, rtol=1e-4)


def test_gradients_are_clipped_and_the_rate_follows_its_schedule(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    keys = {"batch_size": 8, "max_grad_norm": 1e-3, "scheduler": "cosine", "epoch": 3}
    trainer = make_trainer(podcast, tmp_path, keys)
    norms, rates = [], []

    def look(optimiser: torch.optim.Optimizer, *_: object) -> None:
        norms.append(float(torch.cat([p.grad.flatten() for p in trainer.steps.trained if p.grad is not None]).norm()))
        rates.append(optimiser.param_groups[0]["lr"])

    trainer.steps.parts.optimiser.register_step_pre_hook(look)
    for epoch in (1, 2, 3):
        trainer.train_epoch(epoch)
    assert max(norms) == pytest.approx(1e-3, rel=1e-3)
    expected = [1e-3 * cosine(step, len(rates), 0) for step in range(len(rates))]
    assert len(rates) == 9
    assert rates == pytest.approx(expected)


def test_the_saved_model_is_the_one_with_the_best_score(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"batch_size": 8, "window": 1, "min_epochs": 4, "epoch": 4, "loss_stop_ratio": 100.0}
    trainer = make_trainer(podcast, tmp_path, keys)
    scores, measured = iter([0.0, 0.3, 0.6, 0.5, 0.4]), []  # the first is that of the warm-up

    def compute_metrics(outputs: Outputs) -> tuple[pd.DataFrame, Metrics]:
        measured.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
        return pd.DataFrame({"file": []}), {"macro_f1": next(scores)}

    trainer.parts = replace(trainer.parts, compute_metrics=compute_metrics)
    (tmp_path / "test" / "seed-1").mkdir(parents=True)
    assert trainer.fit(5) == "sma_f1"
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(
        "early stopping: training ends at the first epoch whose development score is not a new best"
    )
    (ending,) = [line for line in told if line.startswith("early stopping ends")]
    assert ending == (
        "early stopping ends training at epoch 4 of at most 5: the development score, 0.4000, is not a new best "
        "(the best "
        "is 0.6000, of epoch 2); min_epochs = 5 would train until epoch 5 at least (change it and train again with "
        "--retrain)"
    )
    store = CheckpointStore(tmp_path / "test" / "seed-1" / "checkpoints")
    assert store.find("best").name == "epoch-2-step-6"
    assert json.loads((store.find("best") / "metrics.json").read_text())["development_score"] == 0.6
    _, weights = read_checkpoint(store.find("best"))
    for name, value in measured[2].items():
        assert torch.equal(weights[name], value)
    assert any(not torch.equal(weights[name], value) for name, value in measured[4].items())


def test_parameter_groups(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    config = ExperimentConfig.model_validate({**KEYS, "head_learning_rate": 1e-2, "freeze": "cnn"})
    model = make_trainer(podcast, tmp_path, {"freeze": "cnn"}).model
    groups = build_optimiser(model, config).param_groups
    kinds = {(g["lr"], g["weight_decay"], g["params"][0].ndim > 1) for g in groups}
    assert kinds == {(1e-3, 0.01, True), (1e-3, 0.0, False), (1e-2, 0.01, True), (1e-2, 0.0, False)}
    in_groups = sum(p.numel() for g in groups for p in g["params"])
    assert in_groups == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert in_groups < sum(p.numel() for p in model.parameters())


def test_precision_on_the_cpu() -> None:
    assert choose_precision("auto", CPU).dtype is None
    assert choose_precision("bf16", CPU).dtype is torch.bfloat16
    with pytest.raises(ValueError, match="needs a GPU"):
        choose_precision("fp16", CPU)


def test_an_epoch_without_a_finite_loss_ends_the_experiment(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    trainer = make_trainer(podcast, tmp_path, {"batch_size": 16})
    with torch.no_grad():
        next(trainer.model.pooling.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="no step of epoch 1 had a finite loss"):
        trainer.train_epoch(1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_recording_that_breaks_is_named_in_one_sentence(
    workers: int, podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    trainer = make_trainer(podcast, tmp_path, {"num_workers": workers})
    gone = tmp_path / "gone.wav"
    trainer.parts.train_feed.loader.dataset.dataset.paths[3] = str(gone)  # type: ignore[attr-defined]
    with pytest.raises(DataError) as caught:
        trainer.train_epoch(1)
    assert str(caught.value).startswith(f"{gone} cannot be decoded")
    assert "Traceback" not in str(caught.value)


def test_a_closed_trainer_ends_its_workers_at_once_and_can_go_on(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    trainer = make_trainer(podcast, tmp_path, {"num_workers": 2})
    trainer.train_epoch(1)
    trainer.evaluate()
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 4
    started = time.perf_counter()
    trainer.close()
    assert time.perf_counter() - started < 2
    assert not workers & set(multiprocessing.active_children())
    trainer.train_epoch(2)
    trainer.close()


@pytest.mark.gpu
@pytest.mark.parametrize("task", TASKS)
def test_a_step_never_waits_for_the_gpu(
    task: str, podcast: SyntheticPodcast, tmp_path: Path, cuda: torch.device
) -> None:
    keys = {"batch_size": 4, "accumulation_steps": 2, "amp": "bf16", **TASKS[task]}
    trainer = make_trainer(podcast, tmp_path, keys, cuda)
    trainer.train_epoch(1)
    rows = trainer.parts.train_batches.steps(2)[0]
    window = [batch.to(cuda) for batch in trainer.parts.train_feed.serve(rows, 2)]
    trainer.model.train()
    for _ in range(2):
        trainer.steps.take(window)  # recording it waits
    with watch_waiting() as places:
        trainer.steps.take(window)
    assert not places


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("task", TASKS)
def test_training_on_a_gpu(task: str, amp: str, podcast: SyntheticPodcast, tmp_path: Path, cuda: torch.device) -> None:
    keys = {"batch_size": 4, "accumulation_steps": 2, "amp": amp, "max_seconds": 0.5, "num_workers": 2, **TASKS[task]}
    trainer = make_trainer(podcast, tmp_path, keys, cuda)
    first = trainer.train_epoch(1)["loss"]
    for epoch in range(2, 16):
        last = trainer.train_epoch(epoch)["loss"]
    assert last < first
    assert torch.isfinite(weights_of(trainer)).all()
    assert np.isfinite(trainer.evaluate().loss)
    before, skipped = weights_of(trainer), trainer.steps.refused.total
    batch = next(trainer.parts.train_feed.serve(trainer.parts.train_batches.steps(1)[0], 1))
    trainer.steps.take([spoilt(batch).to(cuda)])
    assert torch.equal(weights_of(trainer), before)
    assert trainer.steps.refused.total == skipped + 1


@pytest.mark.gpu
@pytest.mark.parametrize("upstream", ["wavlm-tiny-random", "wavlm-tiny-group-random"])
def test_a_gpu_computes_what_the_cpu_computes(
    upstream: str, podcast: SyntheticPodcast, tmp_path: Path, cuda: torch.device
) -> None:
    keys = {"upstream_model": upstream, "amp": "off", **TASKS["multitask"]}
    one = make_trainer(podcast, tmp_path, keys)
    other = make_trainer(podcast, tmp_path, keys, cuda)
    other.model.load_state_dict(one.model.state_dict())
    assert one.evaluate().loss == pytest.approx(other.evaluate().loss, abs=1e-4)


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_gradients_are_clipped_as_torch_clips_them(max_norm: float) -> None:
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(size)) for size in (3, 700, 1, 20)]
    others = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    for parameter, other in zip(parameters[:3], others[:3], strict=True):
        parameter.grad = torch.randn_like(parameter)
        other.grad = parameter.grad.clone()
    norm = clip_gradients(parameters, max_norm)
    assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(others, max_norm))
    for parameter, other in zip(parameters[:3], others[:3], strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        assert torch.equal(parameter.grad, other.grad)
