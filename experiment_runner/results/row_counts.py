"""Number of rows behind a metric: those that carry the label, never all rows of the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

LABELLED = "labelled"
"""Key that counts utterances with a class; followed by an attribute's name, those with the attribute."""

FEWER = "†: over fewer classes than were trained, which is easier; do not compare with the other rows"
UNTESTED = "untested_classes"
"""Key, among a split's metrics, of the trained classes that its corpus lacks, if any."""


def find_untested(trained: Iterable[str], metrics: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return, under the key `UNTESTED`, the trained classes that a split's metrics do not cover."""
    tested = metrics.get("per_class", {})
    untested = [name for name in trained if name not in tested] if tested else []
    return {UNTESTED: untested} if untested else {}


def mark_fewer(label: str, metrics: Mapping[str, Any]) -> str:
    """Return a split's label, with a mark if its metrics cover fewer classes than were trained.

    Examples:
        >>> mark_fewer("OTHER-test1", {"untested_classes": ["angry"]})
        'OTHER-test1†'
    """
    return label + "†" * bool(metrics.get(UNTESTED))


def note_fewer(splits: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Name the classes that test corpora lack, for the note below a table; empty if none lacks any.

    Args:
        splits: Labels of splits with their metrics.
    """
    lacking = [f"{label} lacks {', '.join(metrics[UNTESTED])}" for label, metrics in splits if metrics.get(UNTESTED)]
    return f"{FEWER}: {'; '.join(dict.fromkeys(lacking))}" if lacking else ""


def count_labelled(table: pd.DataFrame, classes: Sequence[str], attributes: Sequence[str]) -> dict[str, int]:
    """Return, by metric key, how many rows of an utterance table have a class and each attribute.

    Args:
        table: Utterance table of a split.
        classes: Classes in use; may be empty.
        attributes: Attributes in use; may be empty.
    """
    counts = {LABELLED: int(table["emotion"].isin(list(classes)).sum())} if classes else {}
    return counts | {f"{LABELLED}_{name}": int(table[name].notna().sum()) for name in attributes}


def show_labelled(metrics: Mapping[str, Any]) -> str:
    """Return the n of a row of metrics: one number if it is the same for all of them, else one per kind.

    Metrics written before attributes had their own counts show the number of utterances of the split.

    Examples:
        >>> show_labelled({"labelled": 1200, "labelled_arousal": 1200, "labelled_valence": 1200})
        '1,200'
        >>> show_labelled({"labelled": 20, "labelled_arousal": 24, "labelled_valence": 23})
        'classes 20, arousal 24, valence 23'
    """
    counts = {"classes": metrics[LABELLED]} if LABELLED in metrics else {}
    kinds = {key.removeprefix(f"{LABELLED}_"): key for key in metrics if key.startswith(f"{LABELLED}_")}
    attributes = {name: metrics[key] for name, key in kinds.items()}
    if len(set(attributes.values())) == 1 and len(attributes) > 1:
        attributes = {"attributes": next(iter(attributes.values()))}
    counts |= attributes
    if len(set(counts.values())) <= 1:
        return f"{next(iter(counts.values()), metrics.get('utterances', 0)):,}"
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def show_present(metrics: Mapping[str, Any]) -> str:
    """Return how many classes a group's means cover, as `3 of 4`; empty if no classes were predicted."""
    return f"{len(metrics['classes'])} of {len(metrics['per_class'])}" if "classes" in metrics else ""


def show_attributes(metrics: Mapping[str, Any]) -> str:
    """Return how many attributes a mean CCC covers, as `2 of 3`; empty if it covers all of them."""
    attributes = [key for key in metrics if key.startswith(f"{LABELLED}_")]
    defined = len(metrics.get("mean_ccc_attributes", attributes))
    return f"{defined} of {len(attributes)}" if 0 < defined < len(attributes) else ""


def describe_part(gender: str, metrics: Mapping[str, Any]) -> str:
    """Name what a gender's means cover, if it lacks classes or attributes with a CCC; else empty.

    Examples:
        >>> classes = {"angry": {"support": 3}, "sad": {"support": 0}}
        >>> describe_part("male", {"classes": ["angry"], "per_class": classes})
        'male: macro-F1 and UAR over angry (3); no sad'
    """
    parts = [_describe_classes(metrics)]
    if show_attributes(metrics):
        parts.append(f"mean CCC over {', '.join(metrics['mean_ccc_attributes'])}")
    counts = "; ".join(part for part in parts if part)
    return f"{gender}: {counts}" if counts else ""


def _describe_classes(metrics: Mapping[str, Any]) -> str:
    counts = {name: row["support"] for name, row in metrics.get("per_class", {}).items()}
    absent = [name for name, count in counts.items() if not count]
    if "classes" not in metrics or not absent:
        return ""
    present = ", ".join(f"{name} ({counts[name]:,})" for name in metrics["classes"])
    return f"macro-F1 and UAR over {present}; no {', '.join(absent)}"


IN_TEMPLATES = {
    "labelled": show_labelled,
    "present": show_present,
    "describe_part": describe_part,
    "marked": mark_fewer,
    "note_fewer": note_fewer,
}
"""Functions that the report and the model card call, by their names in the templates."""
