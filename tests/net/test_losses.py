from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from net.loss_modules import Loss, Targets
from net.ser import Outputs
from tests.support.loss_batches import ATTRIBUTES, make_batch, make_loss

COUNTS = torch.tensor([50, 10, 30, 5])


def build(loss_type: str, task: str = "categorical", gamma: float = 2.0, gender: float | None = None) -> Loss:
    keys = {} if gender is None else {"model_type": "UpstreamGender", "gender_loss_weight": gender}
    return make_loss(loss_type, COUNTS, task, attribute_loss_weight=0.5, focal_gamma=gamma, **keys)


def by_hand(loss_type: str, outputs: Outputs, targets: Targets) -> float:
    """Float64, one utterance at a time."""
    assert outputs.emotion is not None
    total = weights = 0.0
    counts = COUNTS.double().numpy()
    for logits, label, known in zip(
        outputs.emotion.double().numpy(), targets.emotion, targets.emotion_mask, strict=True
    ):
        if not known:
            continue
        scores = logits + np.log(counts) if loss_type == "BalancedSoftmax" else logits
        p = np.exp(scores[label]) / np.exp(scores).sum()
        weight = counts.sum() / (4 * counts[label]) if loss_type == "WeightedCrossEntropy" else 1.0
        total += weight * -np.log(p) * ((1 - p) ** 2 if loss_type == "Focal" else 1)
        weights += weight
    return total / weights


@pytest.mark.parametrize("loss_type", ["CrossEntropy", "WeightedCrossEntropy", "BalancedSoftmax", "Focal"])
def test_categorical_losses_agree_with_a_float64_loop(loss_type: str) -> None:
    outputs, targets = make_batch()
    terms = build(loss_type)(outputs, targets)
    assert list(terms) == ["emotion_loss"]
    assert float(terms["emotion_loss"]) == pytest.approx(by_hand(loss_type, outputs, targets), abs=1e-6)


def test_balanced_softmax_is_the_softmax_with_counts() -> None:
    """Equation 4 of Ren et al. 2020: n_y exp(η_y) / Σ n_i exp(η_i)."""
    outputs, targets = make_batch(size=1)
    assert outputs.emotion is not None
    targets = replace(targets, emotion_mask=torch.tensor([True]))
    shares = COUNTS * outputs.emotion[0].exp()
    expected = -torch.log(shares[targets.emotion[0]] / shares.sum())
    assert float(build("BalancedSoftmax")(outputs, targets)["emotion_loss"]) == pytest.approx(float(expected), abs=1e-6)


def test_focal_without_focus_is_cross_entropy() -> None:
    outputs, targets = make_batch()
    one, other = build("Focal", gamma=0.0)(outputs, targets), build("CrossEntropy")(outputs, targets)
    assert float(one["emotion_loss"]) == pytest.approx(float(other["emotion_loss"]), abs=1e-7)


def test_ccc_loss_agrees_with_audmetric() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audmetric = pytest.importorskip("audmetric")
    outputs, targets = make_batch(size=40)
    assert outputs.attributes is not None
    terms = build("CCCLoss", task="dimensional")(outputs, targets)
    for index, name in enumerate(ATTRIBUTES):
        known = targets.attribute_mask[:, index].numpy()
        truth, predicted = targets.attributes[:, index].numpy()[known], outputs.attributes[:, index].numpy()[known]
        expected = (1 - audmetric.concordance_cc(truth.astype(float), predicted.astype(float))) / 3
        assert float(terms[f"ccc_loss_{name}"]) == pytest.approx(expected, abs=1e-6)


def test_a_constant_column_gives_a_finite_ccc_loss_and_gradient() -> None:
    attributes = torch.full((4, 3), 0.5, requires_grad=True)
    outputs = Outputs(torch.zeros(4, 2), attributes=attributes)
    targets = replace(make_batch(size=4)[1], attributes=torch.full((4, 3), 0.5), attribute_mask=torch.ones(4, 3) > 0)
    loss = torch.stack(list(build("CCCLoss", task="dimensional")(outputs, targets).values())).sum()
    torch.autograd.backward([loss])
    assert torch.isfinite(loss)
    assert attributes.grad is not None
    assert torch.isfinite(attributes.grad).all()


@pytest.mark.parametrize(
    ("loss_type", "task"),
    [
        ("CrossEntropy", "categorical"),
        ("WeightedCrossEntropy", "categorical"),
        ("BalancedSoftmax", "categorical"),
        ("Focal", "categorical"),
        ("CCCLoss", "dimensional"),
        ("MSELoss", "dimensional"),
        ("WeightedCrossEntropy", "multitask"),
        ("SoftCrossEntropy", "multitask"),
        ("KLDivergence", "categorical"),
    ],
)
def test_masked_targets_change_nothing(loss_type: str, task: str) -> None:
    outputs, targets = make_batch()
    changed = replace(
        targets,
        emotion=torch.where(targets.emotion_mask, targets.emotion, 3 - targets.emotion),
        attributes=torch.where(targets.attribute_mask, targets.attributes, 7.0),
        votes=torch.where(targets.votes_mask[:, None], targets.votes, 0.7),
    )
    one, other = (build(loss_type, task, gender=0.3)(outputs, t) for t in (targets, changed))
    assert {name: float(term) for name, term in one.items()} == {name: float(term) for name, term in other.items()}


@pytest.mark.parametrize(
    ("loss_type", "task"),
    [("WeightedCrossEntropy", "categorical"), ("MSELoss", "dimensional"), ("SoftCrossEntropy", "categorical")],
)
def test_parts_of_a_separable_loss_add_up_to_the_whole(loss_type: str, task: str) -> None:
    loss = build(loss_type, task, gender=0.3)
    outputs, targets = make_batch()
    whole, totals = loss(outputs, targets), loss.totals(targets)
    rows = torch.split(torch.arange(12), [5, 1, 6])
    parts = [loss(outputs.select(part), targets.select(part), totals) for part in rows]
    for name, value in whole.items():
        assert float(sum(part[name] for part in parts)) == pytest.approx(float(value), abs=1e-6)


def test_an_unlabelled_batch_has_loss_zero() -> None:
    outputs, targets = make_batch()
    unlabelled = replace(
        targets,
        emotion_mask=torch.zeros(12) > 1,
        attribute_mask=torch.zeros(12, 3) > 1,
        auxiliary={"gender": torch.full((12,), -1)},
        votes_mask=torch.zeros(12) > 1,
    )
    terms = build("WeightedCrossEntropy", gender=0.3)(outputs, unlabelled)
    assert {name: float(term) for name, term in terms.items()} == {"emotion_loss": 0, "gender_loss": 0}
    assert float(build("KLDivergence")(outputs, unlabelled)["emotion_loss"]) == 0
    assert all(float(term) == 0 for term in build("MSELoss", "dimensional")(outputs, unlabelled).values())


def test_multitask_terms_carry_their_weight() -> None:
    outputs, targets = make_batch()
    both = build("BalancedSoftmax", "multitask")(outputs, targets)
    alone = build("CCCLoss", "dimensional")(outputs, targets)
    assert set(both) == {"emotion_loss", "ccc_loss_arousal", "ccc_loss_valence", "ccc_loss_dominance"}
    assert float(both["ccc_loss_valence"]) == pytest.approx(0.5 * float(alone["ccc_loss_valence"]))


@pytest.mark.parametrize(("loss_type", "task"), [("CrossEntropy", "categorical"), ("CCCLoss", "dimensional")])
def test_gender_is_one_more_weighted_term_over_the_known_genders(loss_type: str, task: str) -> None:
    outputs, targets = make_batch()
    terms = build(loss_type, task, gender=0.3)(outputs, targets)
    losses = []
    for logits, gender in zip(outputs.auxiliary["gender"].double(), targets.auxiliary["gender"], strict=True):
        p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum()
        losses += [-np.log(p[gender])] * bool(gender >= 0)
    assert 0 < len(losses) < 12
    assert float(terms.pop("gender_loss")) == pytest.approx(0.3 * np.mean(losses), abs=1e-6)
    alone = build(loss_type, task)(outputs, targets)
    assert {name: float(term) for name, term in terms.items()} == {name: float(term) for name, term in alone.items()}


@pytest.mark.parametrize("loss_type", ["SoftCrossEntropy", "KLDivergence"])
def test_losses_of_votes_agree_with_a_float64_loop(loss_type: str) -> None:
    outputs, targets = make_batch()
    targets.votes[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    targets.votes_mask[0] = True
    assert outputs.emotion is not None
    losses = []
    for logits, votes, known in zip(outputs.emotion.double(), targets.votes.double(), targets.votes_mask, strict=True):
        p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum()
        entropy = -sum(v * np.log(v) for v in votes.numpy() if v > 0)
        cross = -sum(v * np.log(q) for v, q in zip(votes.numpy(), p, strict=True))
        losses += [cross - entropy * (loss_type == "KLDivergence")] * bool(known)
    assert float(build(loss_type)(outputs, targets)["emotion_loss"]) == pytest.approx(np.mean(losses), abs=1e-6)


def test_both_losses_of_votes_have_one_gradient() -> None:
    outputs, targets = make_batch()
    assert outputs.emotion is not None
    gradients = []
    for loss_type in ("SoftCrossEntropy", "KLDivergence"):
        logits = outputs.emotion.clone().requires_grad_()
        torch.autograd.backward([build(loss_type)(replace(outputs, emotion=logits), targets)["emotion_loss"]])
        assert logits.grad is not None
        gradients.append(logits.grad)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-7)
