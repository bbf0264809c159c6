"""The tables at the end of a command: what became of each run, and its figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiment_runner.evaluate import FIGURES
from experiment_runner.screen import Screen

DEVELOPMENT_FIGURES = (("macro_f1", "dev macro-F1"), ("mean_ccc", "dev mean CCC"))
ABSENT = "*: no utterance of some class, which counts as 0 in macro-F1 and UAR"
STOPS = {"sma_f1": "score", "loss": "loss", "epochs": "last epoch"}
"""What ended training: words for what `result.json` calls it."""
FEWER = "†: over fewer classes than were trained, which is easier; not to be compared with the other rows"
Titles = Sequence[tuple[str, str]]
"""Figures by name, with the titles of their columns."""


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        experiment: Its name.
        seed: Its seed.
        found: `result.json` after training; figures by split after evaluation.
        status: `trained`, `finished before`, `evaluated` or `failed`.
    """

    experiment: str
    seed: int
    found: Mapping[str, Any]
    status: str

    @property
    def failed(self) -> bool:
        """Whether it failed; why was said when it did."""
        return self.status == "failed"


def show_training(outcomes: Sequence[Outcome], screen: Screen, note: str) -> None:
    """Print one row a run, and the mean and deviation over seeds."""
    developments = [outcome.found.get("development", {}) for outcome in outcomes]
    used = [
        (f"development_{key}", title)
        for key, title in DEVELOPMENT_FIGURES
        if any(f"development_{key}" in figures for figures in developments)
    ]
    rows = []
    for name, group in _by_experiment(outcomes).items():
        for outcome in group:
            found = outcome.found
            cells = [_number(found.get("development", {}).get(key)) for key, _ in used]
            epochs = f"{found['best_epoch']} of {found['epochs']}" if found else ""
            stop = str(found.get("stop", ""))
            rows.append([name, str(outcome.seed), *cells, epochs, STOPS.get(stop, stop), outcome.status])
        done = [outcome.found["development"] for outcome in group if not outcome.failed]
        rows += [[name, f"mean of {len(done)}", *_means(done, used), "", "", ""]] * (len(done) > 1)
    columns = ["experiment", "seed", *(title for _, title in used), "best epoch", "stopped by", "status"]
    screen.table("Training", columns, rows, numeric=range(2, 3 + len(used)), notes=[note], keys=2)


def show_evaluation(outcomes: Sequence[Outcome], screen: Screen, note: str) -> None:
    """Print one row a run and test split, and the mean and deviation over seeds; then the same by gender."""
    every = [figures for outcome in outcomes for figures in outcome.found.values()]
    used = [(key, title) for key, title in FIGURES if any(key in figures for figures in every)]
    rows = []
    for name, group in _by_experiment(outcomes).items():
        for split in _splits(group):
            evaluated = [outcome for outcome in group if split in outcome.found]
            marked = split + "†" * any(outcome.found[split].get("untested_classes") for outcome in evaluated)
            for outcome in evaluated:
                cells = [_number(outcome.found[split].get(key)) for key, _ in used]
                rows.append([name, marked, str(outcome.seed), *cells])
            found = [outcome.found[split] for outcome in evaluated]
            rows += [[name, marked, f"mean of {len(found)}", *_means(found, used)]] * (len(found) > 1)
        rows += [[name, "failed", str(outcome.seed), *("" for _ in used)] for outcome in group if outcome.failed]
    columns = ["experiment", "split", "seed", *(title for _, title in used)]
    if rows:
        notes = [note, _fewer_classes(outcomes)]
        screen.table("Test", columns, rows, numeric=range(3, 3 + len(used)), notes=notes, keys=3)
    _show_genders(outcomes, [(key, title) for key, title in used if key != "gender_accuracy"], screen, note)


def _fewer_classes(outcomes: Sequence[Outcome]) -> str:
    """Name the classes that test corpora lack, for the note below the table; empty where none lacks any."""
    untested = [
        f"{split} lacks {', '.join(figures['untested_classes'])}"
        for outcome in outcomes
        for split, figures in outcome.found.items()
        if figures.get("untested_classes")
    ]
    return f"{FEWER}: {'; '.join(dict.fromkeys(untested))}" if untested else ""


def _show_genders(outcomes: Sequence[Outcome], used: Titles, screen: Screen, note: str) -> None:
    """Print one row an experiment, test split and gender: the mean over seeds."""
    rows, lacks_classes = [], False
    for name, group in _by_experiment(outcomes).items():
        for split in _splits(group):
            found = [outcome.found[split].get("by_gender", {}) for outcome in group if split in outcome.found]
            for gender in sorted({gender for by_gender in found for gender in by_gender}):
                figures = [by_gender[gender] for by_gender in found if gender in by_gender]
                mark = "*" if figures[0].get("absent_classes") else ""
                lacks_classes |= bool(mark)
                rows.append([name, split, gender + mark, f"{figures[0]['utterances']:,}", *_means(figures, used)])
    columns = ["experiment", "split", "gender", "utterances", *(title for _, title in used)]
    notes = [note, ABSENT if lacks_classes else ""]
    if rows:
        screen.table(
            "Test by gender, mean over seeds", columns, rows, numeric=range(3, 4 + len(used)), notes=notes, keys=3
        )


def _means(found: Sequence[Mapping[str, Any]], used: Titles) -> list[str]:
    """Return mean and, of several, sample standard deviation of each figure; empty where it is not known."""
    cells = []
    for key, _ in used:
        values = [figures[key] for figures in found if _number(figures.get(key))]
        deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.3f}{deviation}" if values else "")
    return cells


def _splits(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(split for outcome in outcomes for split in outcome.found))


def _by_experiment(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.experiment, []).append(outcome)
    return groups


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3f}"
