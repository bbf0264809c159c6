from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from utils.data.labels.columns import ATTRIBUTES
from utils.data.labels.scale_use import unreached_scales, warn_of_scale


def table_of(low: float, high: float, rows: int = 40) -> pd.DataFrame:
    return pd.DataFrame({"arousal": np.linspace(low, high, rows), "valence": np.linspace(1, 7, rows)}).reindex(
        columns=list(ATTRIBUTES)
    )


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((1, 5), (1, 7)),
        ((3, 7), (1, 7)),
        ((2.6, 5.4), (1, 7)),
        ((-1, 1), (-3, 3)),
        ((0, 1), (0, 100)),
        ((4, 4), (1, 7)),
    ],
)
def test_a_scale_that_is_not_reached_is_told(values: tuple[float, float], scale: tuple[float, float]) -> None:
    assert unreached_scales(table_of(*values)[["arousal"]].reindex(columns=list(ATTRIBUTES)), scale) == {
        "arousal": values
    }


@pytest.mark.parametrize(
    ("values", "scale"),
    [((1, 7), (1, 7)), ((1.4, 6.4), (1, 7)), ((2, 6), (1, 7)), ((1.5, 4.6), (1, 5)), ((0, 1), (0, 1))],
)
def test_raters_means_reach_far_enough(values: tuple[float, float], scale: tuple[float, float]) -> None:
    assert unreached_scales(table_of(*values)[["arousal"]].reindex(columns=list(ATTRIBUTES)), scale) == {}


def test_few_values_say_nothing() -> None:
    assert unreached_scales(table_of(1, 5, rows=19), (1, 7)) == {}
    assert set(unreached_scales(table_of(1, 5, rows=20), (1, 7))) == {"arousal"}


def test_the_sentence_names_values_scale_and_key() -> None:
    assert warn_of_scale(unreached_scales(table_of(1, 5), (1, 7)), (1, 7)) == (
        "values stay away from an end of the scale 1..7: arousal 1..5; if the labels were given on another scale, set "
        "attribute_scale in the corpus's section"
    )
    assert warn_of_scale({}, (1, 7)) == ""
