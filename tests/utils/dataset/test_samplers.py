from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.support.user_code import Write
from utils.config.samplers import SAMPLER
from utils.config.schema import ExperimentConfig
from utils.dataset.samplers import choose_order, class_balanced, random
from utils.dataset.sampling import RandomBatches
from utils.errors import DataError
from utils.io.user_code import import_user_code, look_beside

LABELS = ["happy"] * 60 + ["sad"] * 30 + ["angry"] * 6 + [None] * 24
TABLE = pd.DataFrame({"emotion": pd.array(LABELS, dtype="string"), "speaker": "1"})


def test_the_random_sampler_is_the_order_of_batches_without_one() -> None:
    plain = RandomBatches(np.ones(120), 8, 1, seed=5)
    chosen = RandomBatches(np.ones(120), 8, 1, seed=5, order=lambda seed, epoch: random(TABLE, seed, epoch))
    for one, other in zip(plain.steps(3), chosen.steps(3), strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_classes_are_drawn_equally_often_and_rows_without_one_keep_their_share() -> None:
    drawn = np.concatenate([class_balanced(TABLE, 0, epoch) for epoch in range(1, 501)])
    labels = TABLE["emotion"].fillna("none").iloc[drawn].value_counts(normalize=True)
    assert labels["none"] == pytest.approx(24 / 120, abs=0.01)
    for name in ("happy", "sad", "angry"):
        assert labels[name] == pytest.approx(96 / 120 / 3, abs=0.01)


def test_an_order_depends_on_seed_and_epoch_alone() -> None:
    np.testing.assert_array_equal(class_balanced(TABLE, 1, 2), class_balanced(TABLE, 1, 2))
    assert not np.array_equal(class_balanced(TABLE, 1, 2), class_balanced(TABLE, 1, 3))
    assert not np.array_equal(class_balanced(TABLE, 1, 2), class_balanced(TABLE, 2, 2))


def test_a_sampler_finds_no_classes_but_those_in_use() -> None:
    config = ExperimentConfig(name="a", corpus="C", sampler="class_balanced", loss_type="CrossEntropy")
    order = choose_order(config, TABLE, ("happy", "sad"))
    drawn = np.concatenate([order(0, epoch) for epoch in range(1, 501)])
    assert TABLE["emotion"].fillna("none").iloc[drawn].eq("angry").mean() == pytest.approx(6 / 120, abs=0.01)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("np.arange(len(table) - 1)", "must return 120 row numbers, from 0 to 119; it returned int64 of shape"),
        ("np.arange(len(table)) + 1", "must return 120 row numbers, from 0 to 119"),
        ("np.ones(len(table))", "it returned float64 of shape"),
        ("np.random.permutation(len(table))", "returns another order for the same seed and epoch"),
    ],
)
def test_a_sampler_that_returns_no_order_is_refused(body: str, sentence: str, write_module: Write) -> None:
    look_beside(
        write_module("samplers_of_mine", f"import numpy as np\ndef mine(table, seed, epoch):\n    return {body}\n")
    )
    import_user_code("samplers_of_mine:mine", SAMPLER.contract)
    config = ExperimentConfig(name="a", corpus="C", sampler="samplers_of_mine:mine")
    with pytest.raises(DataError, match=sentence):
        choose_order(config, TABLE, ("happy", "sad", "angry"))


def test_balanced_classes_are_refused_beside_a_loss_that_balances_them() -> None:
    with pytest.raises(ValueError, match="BalancedSoftmax balances the classes already"):
        ExperimentConfig(name="a", corpus="C", sampler="class_balanced", loss_type="BalancedSoftmax")
    with pytest.raises(ValueError, match='task = "dimensional" has no classes'):
        ExperimentConfig(name="a", corpus="C", sampler="class_balanced", task="dimensional", loss_type="CCCLoss")
