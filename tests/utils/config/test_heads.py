"""Heads of the user's own, and the names that they can have."""

from __future__ import annotations

import pytest

from utils.config.heads import HEADS, Head, TupleOfHeads, label_name_problem


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ((Head("age"), HEADS["gender"]), None),
        ((Head("age", 0.3, ("old", "young")),), None),
        (Head("age"), "is not a tuple of"),
        ((), "is not a tuple of"),
        (("age",), "is not a tuple of"),
        ((Head("gender"),), "contains the name 'gender'; another column has that name"),
        ((Head("Age"),), "contains the name 'Age'; allowed: lower-case letters"),
        ((Head("age"), Head("age", 0.5)), "contains two heads with the same name"),
        ((Head("age", "gender_loss_weight"),), "contains weight = 'gender_loss_weight' for age; allowed: a number > 0"),
        ((Head("age", 0.0),), "contains weight = 0.0 for age"),
        ((Head("age", float("nan")),), "contains weight = nan for age"),
        ((Head("age", 1.0, ("old",)),), "contains classes = ('old',) for age"),
        ((Head("age", 1.0, ("old", "Young")),), "contains classes = ('old', 'Young') for age"),
        ((Head("age", 1.0, ("old", "old")),), "contains classes = ('old', 'old') for age"),
    ],
)
def test_a_model_type_is_a_tuple_of_heads(value: object, problem: str | None) -> None:
    found = TupleOfHeads().problem(value)
    assert found is None if problem is None else str(found).startswith(problem)


@pytest.mark.parametrize("name", ["emotion", "prediction", "age_prediction", "pred_age", "votes_age", "path", "1st"])
def test_a_name_that_would_be_ambiguous_is_refused(name: str) -> None:
    assert label_name_problem(name) is not None
