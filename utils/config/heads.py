"""Auxiliary heads: further classes of an utterance that a model learns beside the emotions.

A new head is a row of `HEADS`, a new model type a row of `MODEL_TYPES`; the user's own model type is a tuple of `Head`.
A head is known by its name alone: it is the column of the utterance table that the head learns, its parameters are
`<name>_head.*`, its predictions `<name>_prediction`, its metric `<name>_accuracy` and its loss `<name>_loss`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from utils.config.types import TABLE_COLUMNS
from utils.registry import Registered, is_user_code, load

LABEL_NAME = re.compile(r"[a-z][a-z0-9_]*")
TAKEN_NAMES = frozenset({
    *TABLE_COLUMNS, "attribute", "attributes", "cancelled_db", "content", "corpus", "from", "is_lasting", "kind",
    "label", "loose_path", "path", "place", "probability", "problem", "rank", "seconds", "to",
})  # fmt: skip
"""Names of other columns, of utterance tables and of predictions, and of other heads."""
TAKEN_STARTS, TAKEN_END = ("pred_", "prob_", "secondary_", "share_", "votes_"), "prediction"


@dataclass(frozen=True)
class Head:
    """An auxiliary head, which tells the class of an utterance from the pooled frames.

    Its loss is the cross-entropy, averaged over the utterances whose class is known. It influences neither the
    selection of the model nor early stopping.

    Attributes:
        name: Its name, and the column of the utterance table that it learns.
        weight: Factor of its loss, or the key of an experiment that holds it.
        classes: Its classes in output order, in lower case; empty for those of the training rows, sorted.
    """

    name: str
    weight: float | str = 1.0
    classes: tuple[str, ...] = ()


HEADS = {"gender": Head("gender", "gender_loss_weight", ("female", "male"))}
MODEL_TYPES: dict[str, tuple[str, ...]] = {"UpstreamFinetune": (), "UpstreamGender": ("gender",)}
"""Names of the auxiliary heads, by model type."""
HEAD_WEIGHTS = "head_loss_weights"
"""Key of a stored run with the weights of the heads that are not registered, since reading a run imports no code."""


@dataclass(frozen=True)
class TupleOfHeads:
    """The contract of a model type: a tuple of heads with different names, registered ones or new ones."""

    def problem(self, value: object) -> str | None:
        """See `utils.registry.Contract`."""
        if not isinstance(value, tuple) or not value or not all(isinstance(head, Head) for head in value):
            return "is not a tuple of utils.config.heads.Head, such as (Head(...),)"
        problems = [problem for head in value if (problem := _problem_of(head))]
        if not problems and len({head.name for head in value}) < len(value):
            problems.append("contains two heads with the same name")
        return problems[0] if problems else None


def _problem_of(head: Head) -> str | None:
    """Say what is wrong with a head of the user's own, as the rest of a sentence."""
    if head in HEADS.values():
        return None
    problem = label_name_problem(head.name)
    if problem is not None:
        return f"contains the name {head.name!r}; {problem}"
    if isinstance(head.weight, bool) or not isinstance(head.weight, int | float) or not head.weight > 0:
        return f"contains weight = {head.weight!r} for {head.name}; allowed: a number > 0"
    names = head.classes
    is_list = isinstance(names, tuple) and all(isinstance(name, str) and name == name.lower() for name in names)
    if not is_list or len(names) == 1 or len(set(names)) < len(names):
        return f"contains classes = {names!r} for {head.name}; allowed: different texts in lower case, or ()"
    return None


def label_name_problem(name: object) -> str | None:
    """Say why a name cannot be that of a further label, as the rest of a sentence; None if it can."""
    if not isinstance(name, str) or LABEL_NAME.fullmatch(name) is None:
        return "allowed: lower-case letters, digits and _, beginning with a letter"
    if name in TAKEN_NAMES or name.startswith(TAKEN_STARTS) or name.endswith(TAKEN_END):
        return "another column has that name or could have it; choose another"
    return None


MODEL_TYPE = Registered(tuple(MODEL_TYPES), TupleOfHeads())


def heads_of(model_type: str) -> tuple[Head, ...]:
    """Return the auxiliary heads of a model type; the user's own must have been imported."""
    if is_user_code(model_type):
        heads: tuple[Head, ...] = load(model_type)
        return heads
    return tuple(HEADS[name] for name in MODEL_TYPES[model_type])


def stored_heads(document: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the classes of each auxiliary head of a checkpoint, from its `config.json`.

    Gender has a key of its own, which is older than the other heads' and missing in the oldest checkpoints.
    """
    heads = {"gender": document.get("genders", ()), **document.get("heads", {})}
    return {name: tuple(classes) for name, classes in heads.items() if classes}


def head_title(name: str) -> str:
    """Return the name of a head in words."""
    return name.replace("_", " ")
