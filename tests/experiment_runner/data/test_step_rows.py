"""Losses that need two labelled utterances a step: which they are, and that their experiments are refused or warned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import main as program
from experiment_runner.data.experiment_data import resolve_data
from experiment_runner.data.step_rows import with_checked_steps, with_steps_of_usable
from net.ser import Outputs
from tests.support.loss_batches import make_batch, make_loss
from tests.support.tiny_corpus import tiny_rows, write_tiny_corpus
from utils.config.corpus import CorpusConfig
from utils.config.losses import ATTRIBUTES, CLASSES, LOSSES, VOTES, losses_of
from utils.config.schema import ExperimentConfig
from utils.data.loader import load_corpus
from utils.errors import DataError

PRIORS = torch.tensor([50, 10, 30, 5])
ONE = '[[experiments]]\nname = "one"\n'


def gradient(loss_type: str, rows: int, priors: torch.Tensor = PRIORS) -> torch.Tensor:
    """Return what a loss says of labelled utterances: its gradient with respect to the outputs."""
    outputs, targets = make_batch(rows)
    targets = targets.with_tensors([torch.ones_like(t) if t.dtype == torch.bool else t for t in targets.tensors()])
    loss = make_loss(loss_type, priors, "dimensional" if loss_type in losses_of(ATTRIBUTES) else "categorical")
    leaves = [tensor.clone().requires_grad_() for tensor in (outputs.emotion, outputs.attributes) if tensor is not None]
    terms = loss(Outputs(torch.zeros(rows, 2), emotion=leaves[0], attributes=leaves[1]), targets)
    total = torch.stack(list(terms.values())).sum()
    (found,) = (g for g in torch.autograd.grad(total, leaves, allow_unused=True) if g is not None)
    return found


def is_lost_on_one_row(loss_type: str) -> bool:
    """Whether a loss trains nothing with one row, or its class priors matter with several rows and not with one."""
    if float(gradient(loss_type, 1).abs().max()) < 1e-6:
        return True
    others = torch.tensor([5, 50, 10, 30])
    matters = [not torch.allclose(gradient(loss_type, n), gradient(loss_type, n, others), atol=1e-6) for n in (1, 12)]
    return matters == [False, True]


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_losses_that_need_two_rows_are_those_that_lose_something_with_one(loss_type: str) -> None:
    assert is_lost_on_one_row(loss_type) == (LOSSES[loss_type].alone is not None)


def test_the_loss_that_is_offered_instead_needs_no_two_rows() -> None:
    offered = [entry.alone[1] for entry in LOSSES.values() if entry.alone is not None]
    assert offered
    assert all(LOSSES[name].alone is None for name in offered)


def check(folder: Path, rows: pd.DataFrame, keys: Mapping[str, object], ranks: int = 1) -> tuple[str, ...]:
    """Return the warnings of an experiment's steps."""
    write_tiny_corpus(folder, rows, ONE)
    corpus = CorpusConfig(FORMAT="csv", PATH_TO_LABEL=folder / "table.csv", PATH_TO_AUDIO=folder / "wav")
    config = ExperimentConfig.model_validate({"name": "one", "corpus": "TINY", "epoch": 3, **keys})
    data = replace(resolve_data(config, {"TINY": load_corpus("TINY", corpus)}), warnings=())
    return with_checked_steps(config, data, ranks).warnings


CCC = {"task": "dimensional", "loss_type": "CCCLoss"}
WEIGHTED = {"loss_type": "WeightedCrossEntropy"}
BOTH = {"task": "multitask", "loss_type": "CrossEntropy", "attribute_loss_type": "CCCLoss"}
REFUSED = {
    "weights": (WEIGHTED, 'loss_type = "WeightedCrossEntropy"', 'use "CrossEntropy"'),
    "ccc": (CCC, 'loss_type = "CCCLoss"', 'use "MSELoss"'),
    "ccc of multitask": (BOTH, 'attribute_loss_type = "CCCLoss"', 'use "MSELoss"'),
    "weights of multitask": (
        {"task": "multitask", "loss_type": "WeightedCrossEntropy", "attribute_loss_type": "MSELoss"},
        ': loss_type = "WeightedCrossEntropy"',
        'use "CrossEntropy"',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_steps_of_one_utterance_are_refused(case: str, tmp_path: Path) -> None:
    keys, named, remedy = REFUSED[case]
    with pytest.raises(DataError) as refused:
        check(tmp_path, tiny_rows(), {**keys, "batch_size": 1})
    (problem,) = refused.value.problems
    assert named in problem
    assert remedy in problem
    assert "raise batch_size or accumulation_steps" in problem
    for enough in ({"batch_size": 2}, {"batch_size": 1, "accumulation_steps": 2}):
        assert check(tmp_path, tiny_rows(), {**keys, **enough}) == ()
    assert check(tmp_path, tiny_rows(), {**keys, "batch_size": 1}, ranks=2) == (), "two processes make two of it"


def test_both_losses_of_a_multitask_experiment_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        check(tmp_path, tiny_rows(), {**BOTH, **WEIGHTED, "batch_size": 1})
    assert len(refused.value.problems) == 2


@pytest.mark.parametrize("loss_type", [name for name in losses_of(CLASSES, VOTES) if LOSSES[name].alone is None])
def test_other_losses_take_steps_of_one(loss_type: str, tmp_path: Path) -> None:
    if loss_type in ("CrossEntropy", "BalancedSoftmax", "Focal"):
        assert check(tmp_path, tiny_rows(), {"loss_type": loss_type, "batch_size": 1}) == ()


def test_labels_that_never_meet_in_a_step_are_refused(tmp_path: Path) -> None:
    """Two of twelve rows are rated, and the seed decides that they stand in other steps of two in all epochs."""
    rows = tiny_rows()
    rated = rows.copy()
    rated.loc[(rows["split"] == "train") & ~rows.index.isin([0, 1]), "valence"] = np.nan
    with pytest.raises(DataError) as refused:
        check(tmp_path, rated, {**CCC, "batch_size": 2, "seeds": [1, 2, 3]})
    (problem,) = refused.value.problems
    assert "with valence in an optimiser step, but only 2 of 12 training utterances have it" in problem
    assert check(tmp_path, rated, {**CCC, "batch_size": 12}) == (), "one step holds them all"


def test_steps_that_happen_to_lack_labels_are_counted(tmp_path: Path) -> None:
    rated = tiny_rows()
    rated.loc[[2, 5, 7], "arousal"] = np.nan
    (warning,) = check(tmp_path, rated, {**CCC, "batch_size": 2})
    assert "of 6 optimiser steps of epoch 1 (seed 42) contain fewer than two utterances with arousal" in warning
    unlabelled = tiny_rows()
    unlabelled.loc[[1, 4, 8], "emotion"] = np.nan
    (warning,) = check(tmp_path, unlabelled, {**BOTH, **WEIGHTED, "batch_size": 2})
    assert "with a class" in warning
    assert check(tmp_path, rated, {**BOTH, "attribute_loss_type": "MSELoss", "batch_size": 2}) == ()


@pytest.mark.parametrize("keys", [WEIGHTED, CCC, BOTH], ids=["weights", "ccc", "multitask"])
def test_check_and_training_refuse_alike(
    keys: Mapping[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_tiny_corpus(tmp_path, tiny_rows(), ONE, **keys, batch_size=1)
    assert program.main([*arguments, "--check"]) == 2
    checked = capsys.readouterr().err
    assert program.main(arguments) == 2
    assert capsys.readouterr().err == checked
    assert "needs two utterances or more in an optimiser step" in checked
    assert not (tmp_path / "runs").exists()


def rated_thrice() -> pd.DataFrame:
    """Return rows of which three of 108 training utterances have a valence: the first and two more."""
    rows = tiny_rows(per_class=9)
    rows.loc[(rows["split"] == "train") & ~rows.index.isin([0, 30, 60]), "valence"] = np.nan
    return rows


def seed_that_parts_two(folder: Path, keys: Mapping[str, object]) -> int:
    """Return a seed with which two of three valences meet, but the last two do not without the first utterance."""
    rows = rated_thrice()
    for seed in range(50):
        try:
            check(folder, rows, {**keys, "seeds": [seed]})
        except DataError:
            continue
        try:
            check(folder, rows.drop(index=0), {**keys, "seeds": [seed]})
        except DataError:
            return seed
    raise AssertionError("no seed parts them")


def test_check_and_training_refuse_what_left_out_recordings_leave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {**BOTH, "batch_size": 60, "epoch": 1}
    keys["seeds"] = [seed_that_parts_two(tmp_path, keys)]
    arguments = write_tiny_corpus(tmp_path, rated_thrice(), ONE, **{**keys, "batch_size": 60})
    (tmp_path / "wav" / "01-angry-0.wav").write_bytes(b"")
    expected = "with valence in an optimiser step, but only 2 of 107 training utterances have it"
    assert program.main([*arguments, "--check"]) == 2
    said = capsys.readouterr()
    assert said.err.count(expected) == 1
    (sentence,) = [line for line in said.err.splitlines() if expected in line]
    assert program.main(arguments) == 1
    assert sentence.removeprefix("one: ") in " ".join(capsys.readouterr().out.split())


def test_steps_that_left_out_recordings_leave_lonely_are_told(tmp_path: Path) -> None:
    rows = rated_thrice()
    rows["valence"] = rows["valence"].fillna(3.0)
    write_tiny_corpus(tmp_path, rows, ONE)
    corpus = CorpusConfig(FORMAT="csv", PATH_TO_LABEL=tmp_path / "table.csv", PATH_TO_AUDIO=tmp_path / "wav")
    config = ExperimentConfig.model_validate({"name": "one", "corpus": "TINY", "batch_size": 2, **CCC})
    data = resolve_data(config, {"TINY": load_corpus("TINY", corpus)})
    assert with_steps_of_usable(config, data) == (data, []), "nothing was left out"
    left_out = pd.DataFrame({"file": ["a.wav"], "kind": ["empty"], "reason": ["holds no byte"]})
    odd = replace(data, train=data.train.iloc[1:].reset_index(drop=True), left_out_recordings=left_out)
    assert with_steps_of_usable(config, odd)[1] == [], "the last step of 107 utterances joins the one before"
    unrated = odd.train.assign(valence=odd.train["valence"].where(odd.train.index > 0))
    checked, fresh = with_steps_of_usable(config, replace(odd, train=unrated))
    assert len(fresh) == 1
    assert "1 of 53 optimiser steps of epoch 1 (seed 42) contain fewer than two utterances with valence" in fresh[0]
    assert checked.warnings == (*data.warnings, *fresh)
    assert with_steps_of_usable(config, checked)[1] == [], "it is told once"
