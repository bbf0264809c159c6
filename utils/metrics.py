"""The reported metrics, each computed over a whole split at once and over the full class list.

A class that is absent from truth and prediction counts as 0 in every mean over classes (scikit-learn's
`zero_division=0` over all labels): leaving it out would let the class list vary with the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Metrics = dict[str, Any]


def categorical_metrics(truth: Sequence[str], prediction: Sequence[str], classes: Sequence[str]) -> Metrics:
    """Return macro and weighted F1, accuracy, UAR, per-class metrics and the confusion matrix.

    Args:
        truth: Class name of each utterance.
        prediction: Predicted class name of each utterance.
        classes: The full class list, in output order.

    Returns:
        `macro_f1`, `weighted_f1`, `accuracy`, `uar` (the mean of recalls over the class list), `per_class` (by name:
        precision, recall, f1, support), `confusion_matrix` (rows are truth, columns prediction, in class order),
        `absent_classes` (without support), `labelled` (utterances with a class).

    Raises:
        ValueError: If there is no utterance, or one of an unknown class.

    Examples:
        >>> metrics = categorical_metrics(["a", "a", "b", "b", "d"], ["a", "a", "b", "a", "d"], ["a", "b", "c", "d"])
        >>> round(metrics["macro_f1"], 3)
        0.617
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support  # takes a second, for few commands

    names = list(classes)
    if len(truth) == 0 or not set(truth) | set(prediction) <= set(names):
        raise ValueError(f"need at least one utterance, all of the classes {names}")
    precision, recall, f1, support = precision_recall_fscore_support(
        list(truth), list(prediction), labels=names, zero_division=0
    )
    confusion = confusion_matrix(list(truth), list(prediction), labels=names)
    rows = zip(precision, recall, f1, support, strict=True)
    return {
        "labelled": len(truth),
        "macro_f1": float(np.mean(f1)),
        "weighted_f1": float(np.average(f1, weights=support)),
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "uar": float(np.mean(recall)),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, (p, r, f, s) in zip(names, rows, strict=True)
        },
        "absent_classes": [name for name, count in zip(names, support, strict=True) if count == 0],
        "confusion_matrix": confusion.tolist(),
    }


def over_present_classes(metrics: Metrics) -> Metrics:
    """Return categorical metrics averaged over only the classes that occur in the truth.

    For a group of a split's utterances, such as one gender: which classes occur in the group is accidental, and a
    missing class would count as 0 however good the model is.

    Args:
        metrics: As `categorical_metrics` returns them.

    Returns:
        The same, with `classes` (those that occur), and `macro_f1` and `uar` over these.
    """
    present = [name for name, row in metrics["per_class"].items() if row["support"]]
    rows = [metrics["per_class"][name] for name in present]
    means = {"macro_f1": "f1", "uar": "recall"}
    return {
        **metrics,
        "classes": present,
        **{mean: float(np.mean([row[kind] for row in rows])) for mean, kind in means.items()},
    }


def split_head_mid_tail(counts: Mapping[str, int]) -> dict[str, list[str]]:
    """Group classes by their share of the training split: head >= 1/C, tail < 1/(8 C), mid between."""
    total, number = sum(counts.values()), len(counts)
    groups: dict[str, list[str]] = {"head": [], "mid": [], "tail": []}
    for name, count in counts.items():
        share = count / total
        groups["head" if share >= 1 / number else "tail" if share < 1 / (8 * number) else "mid"].append(name)
    return groups


def group_metrics(per_class: Mapping[str, Mapping[str, float]], groups: Mapping[str, Sequence[str]]) -> Metrics:
    """Return mean F1 and recall over the classes of each group; a group without classes has None.

    Args:
        per_class: As `categorical_metrics` returns it.
        groups: Class names by group.

    Returns:
        By group: `classes`, `macro_f1`, `recall`.
    """
    metrics: Metrics = {}
    for group, members in groups.items():
        present = [name for name in members if name in per_class]
        metrics[group] = {
            "classes": present,
            "macro_f1": float(np.mean([per_class[name]["f1"] for name in present])) if present else None,
            "recall": float(np.mean([per_class[name]["recall"] for name in present])) if present else None,
        }
    return metrics


def rater_divergence(shares: Numbers, probabilities: Numbers) -> float:
    """Return the mean Kullback-Leibler divergence of a model's probabilities from the raters' votes, in nats.

    D = Σ v log(v / p) over the classes, with 0 log 0 = 0, averaged over the utterances whose votes are known. NaN if
    there are none.

    Source: S. Kullback and R. A. Leibler, "On Information and Sufficiency", Annals of Mathematical Statistics 22, 1951.

    Args:
        shares: Shares of the votes, (utterances, classes), NaN where unknown.
        probabilities: Probabilities of the model, (utterances, classes), each above 0.

    Examples:
        >>> round(rater_divergence(np.array([[0.5, 0.5], [np.nan, np.nan]]), np.array([[0.25, 0.75], [0.5, 0.5]])), 4)
        0.1438
    """
    known = ~np.isnan(shares).any(axis=1)
    if not known.any():
        return float("nan")
    votes, predicted = shares[known], np.maximum(probabilities[known], np.finfo(np.float64).tiny)
    logarithms = np.log(np.where(votes > 0, votes, 1.0) / np.where(votes > 0, predicted, 1.0))
    return float((votes * logarithms).sum(axis=1).mean())


def is_constant(values: Numbers) -> bool:
    """Return whether values differ by at most a few units in the last place, like one number computed twice.

    The range decides, not the variance: by rounding, the mean of equal numbers may differ from each of them, and so
    their deviations from 0.
    """
    return len(values) > 0 and bool(np.ptp(values) <= _rounding(values))


def _rounding(*values: Numbers) -> float:
    """Return how far numbers of this magnitude may differ by rounding alone: four units in the last place."""
    largest = max(float(np.abs(part).max()) for part in values)
    return max(4 * float(np.finfo(np.result_type(part, np.float16)).eps) * largest for part in values)


def concordance(truth: Numbers, prediction: Numbers) -> float:
    """Return the concordance correlation coefficient, with population moments.

    CCC = 2 cov(x, y) / (var(x) + var(y) + (mean(x) − mean(y))²). 0 where either is constant (see `is_constant`), since
    its covariance with anything is 0. NaN for fewer than two values, and where truth and prediction are the same
    constant, for which it is not defined.

    Source: L. I-K. Lin, "A Concordance Correlation Coefficient to Evaluate Reproducibility", Biometrics 45(1), 1989.

    Examples:
        >>> round(concordance(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0])), 6)
        0.666667
        >>> concordance(np.full(3, 3.3), np.full(3, 3.3))
        nan
    """
    if len(truth) < 2:
        return float("nan")
    constants = is_constant(truth), is_constant(prediction)
    if all(constants) and abs(truth[0] - prediction[0]) <= _rounding(truth, prediction):
        return float("nan")
    if any(constants):
        return 0.0
    centred_truth, centred_prediction = truth - truth.mean(), prediction - prediction.mean()
    spread = np.square(centred_truth).sum() + np.square(centred_prediction).sum()
    spread += len(truth) * (truth.mean() - prediction.mean()) ** 2
    return float(2 * (centred_truth @ centred_prediction) / spread)


def pearson(truth: Numbers, prediction: Numbers) -> float:
    """Return Pearson's correlation; NaN for fewer than two values or where either is constant (see `is_constant`)."""
    if len(truth) < 2 or is_constant(truth) or is_constant(prediction):
        return float("nan")
    centred_truth, centred_prediction = truth - truth.mean(), prediction - prediction.mean()
    spread = np.sqrt(np.square(centred_truth).sum() * np.square(centred_prediction).sum())
    return float(centred_truth @ centred_prediction / spread)


def dimensional_metrics(truth: Mapping[str, Numbers], prediction: Mapping[str, Numbers]) -> Metrics:
    """Return CCC, Pearson's r and RMSE of each attribute over the utterances whose attribute is known.

    Args:
        truth: True values by attribute, (utterances,), NaN where missing.
        prediction: Predicted values by attribute, (utterances,), on the same scale.

    Returns:
        `labelled_<attribute>` (utterances whose attribute is known), `ccc_<attribute>`, `pearson_<attribute>`,
        `rmse_<attribute>`, `mean_ccc` over the attributes whose CCC is defined, NaN where none is, and
        `mean_ccc_attributes`, which names them.
    """
    metrics: Metrics = {}
    for name, values in truth.items():
        known = ~np.isnan(values)
        metrics[f"labelled_{name}"] = int(known.sum())
        metrics[f"ccc_{name}"] = concordance(values[known], prediction[name][known])
        metrics[f"pearson_{name}"] = pearson(values[known], prediction[name][known])
        errors = np.square(values[known] - prediction[name][known])
        metrics[f"rmse_{name}"] = float(np.sqrt(errors.mean())) if len(errors) else float("nan")
    defined = [name for name in truth if not np.isnan(metrics[f"ccc_{name}"])]
    metrics["mean_ccc"] = float(np.mean([metrics[f"ccc_{name}"] for name in defined])) if defined else float("nan")
    metrics["mean_ccc_attributes"] = defined
    return metrics


def krippendorff_alpha(counts: npt.NDArray[Any]) -> float:
    """Return Krippendorff's alpha of nominal labels: 1 for perfect agreement, 0 for agreement by chance.

    Source: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", University of Pennsylvania, 2011.

    Args:
        counts: Number of raters per unit and label, (units, labels); units with fewer than two raters do not count.

    Returns:
        NaN where no unit has two ratings, or all ratings are the same label.
    """
    paired = counts[counts.sum(axis=1) >= 2].astype(np.float64)
    raters = paired.sum(axis=1)
    observed = np.sum((raters**2 - np.sum(paired**2, axis=1)) / (raters - 1))
    labels = paired.sum(axis=0)
    total = labels.sum()
    expected = (total**2 - np.sum(labels**2)) / (total - 1) if total else 0.0
    return float(1 - observed / expected) if expected else float("nan")
