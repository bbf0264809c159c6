from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy  # type: ignore[import-untyped]

from utils.data.labels.vote_shares import VoteSettings, vote_shares
from utils.metrics import rater_divergence

TABLE = pd.DataFrame(
    {
        "votes_angry": [3, 1, 0, 0, 1],
        "votes_sad": [1, 1, 0, 0, 0],
        "votes_other": [1, 0, 5, 0, 0],
        "secondary_angry": [0, 0, 1, 0, 1],
        "secondary_sad": [4, 2, 0, 0, 1],
    }
)
CLASSES = ("sad", "angry")


def test_shares_are_over_the_classes_in_use_and_in_their_order() -> None:
    shares = vote_shares(TABLE, CLASSES, VoteSettings())
    assert shares[:2].tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert np.isnan(shares[2]).all(), "all raters said other"
    assert np.isnan(shares[3]).all(), "nobody rated it"
    assert shares[4].tolist() == [0.0, 1.0]


def test_secondary_labels_count_their_weight() -> None:
    shares = vote_shares(TABLE, CLASSES, VoteSettings(secondary_weight=0.5))
    assert shares[0].tolist() == [0.5, 0.5]
    assert shares[2].tolist() == [0.0, 1.0], "a secondary label stands beside other"


def test_too_few_raters_have_no_shares_and_other_is_a_rater() -> None:
    shares = vote_shares(TABLE, CLASSES, VoteSettings(min_raters=5))
    assert np.isnan(shares).any(axis=1).tolist() == [False, True, True, True, True]


def test_smoothing_spreads_a_share_over_all_classes() -> None:
    shares = vote_shares(TABLE, CLASSES, VoteSettings(smoothing=0.2))
    assert shares[4] == pytest.approx([0.1, 0.9])
    assert np.isnan(shares[3]).all()


def test_a_class_that_nobody_could_choose_has_no_votes() -> None:
    assert vote_shares(TABLE, ("angry", "calm"), VoteSettings())[0].tolist() == [1.0, 0.0]


def test_the_divergence_is_scipys_mean_over_the_rated_utterances() -> None:
    generator = np.random.default_rng(0)
    votes, predicted = (generator.dirichlet(np.ones(4), 20) for _ in range(2))
    votes[3] = [1, 0, 0, 0]
    votes[5] = np.nan
    known = [n for n in range(20) if n != 5]
    expected = np.mean([entropy(votes[n], predicted[n]) for n in known])
    assert rater_divergence(votes, predicted) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(rater_divergence(np.full((2, 4), np.nan), predicted[:2]))
