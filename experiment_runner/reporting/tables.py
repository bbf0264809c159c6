"""The tables at the end of a command: the outcome of each run, and its metrics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiment_runner.results.row_counts import (
    describe_part,
    mark_fewer,
    note_fewer,
    show_attributes,
    show_labelled,
    show_present,
)
from experiment_runner.results.statistics import STATISTICS, titles_in
from experiment_runner.runtime.console import Console

STOPS = {"sma_f1": "score", "loss": "loss", "epochs": "last epoch"}
"""Words for the reasons in `result.json` why training ended."""
Titles = Sequence[tuple[str, str]]
"""Names of metrics, with the titles of their columns."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one run.

    Attributes:
        experiment: Name of the experiment.
        seed: Seed of the run.
        found: Content of `result.json` after training; metrics by split after evaluation.
        status: `trained`, `finished before`, `evaluated` or `failed`.
        development_rows: After training, number of labelled utterances behind its metrics, for a table.
    """

    experiment: str
    seed: int
    found: Mapping[str, Any]
    status: str
    development_rows: str = ""

    @property
    def failed(self) -> bool:
        """Whether it failed; the reason was printed at the time."""
        return self.status == "failed"


def show_training(outcomes: Sequence[Outcome], console: Console, note: str) -> None:
    """Print one row per run, and the mean and deviation over seeds."""
    developments = [outcome.found.get("development", {}) for outcome in outcomes]
    used = [
        (f"development_{key}", f"dev {item.title}")
        for key, item in STATISTICS.items()
        if item.is_score and any(f"development_{key}" in metrics for metrics in developments)
    ]
    rows = []
    for name, group in _by_experiment(outcomes).items():
        for outcome in group:
            found = outcome.found
            cells = [_number(found.get("development", {}).get(key)) for key, _ in used]
            epochs = f"{found['best_epoch']} of {found['epochs']}" if found else ""
            stop = str(found.get("stop", ""))
            known = [name, str(outcome.seed), outcome.development_rows]
            rows.append([*known, *cells, epochs, STOPS.get(stop, stop), outcome.status])
        done = [outcome.found["development"] for outcome in group if not outcome.failed]
        rows += [[name, _mean_of(len(done), len(group)), "", *_means(done, used), "", "", ""]] * (len(done) > 1)
    columns = ["experiment", "seed", "dev n", *(title for _, title in used), "best epoch", "stopped by", "status"]
    console.table("Training", columns, rows, numeric=range(2, 4 + len(used)), notes=[note], keys=2)


def show_evaluation(outcomes: Sequence[Outcome], console: Console, note: str) -> None:
    """Print one row per run and test split, and the mean and deviation over seeds; then the same by gender."""
    every = [metrics for outcome in outcomes for metrics in outcome.found.values()]
    used = titles_in(every)
    rows = []
    for name, group in _by_experiment(outcomes).items():
        for split in _splits(group):
            evaluated = [outcome for outcome in group if split in outcome.found]
            marked = _mark(split, evaluated)
            for outcome in evaluated:
                cells = [_cell(outcome.found[split], key) for key, _ in used]
                rows.append([name, marked, str(outcome.seed), show_labelled(outcome.found[split]), *cells])
            found = [outcome.found[split] for outcome in evaluated]
            rows += [[name, marked, _mean_of(len(found), len(group)), "", *_means(found, used)]] * (len(found) > 1)
        rows += [[name, "failed", str(outcome.seed), "", *("" for _ in used)] for outcome in group if outcome.failed]
    columns = ["experiment", "split", "seed", "n", *(title for _, title in used)]
    if rows:
        notes = [note, _fewer_classes(outcomes)]
        console.table("Test", columns, rows, numeric=range(3, 4 + len(used)), notes=notes, keys=3)
    _show_genders(outcomes, titles_in(every, of_parts=True), console, note)


def _fewer_classes(outcomes: Sequence[Outcome]) -> str:
    """Name the classes that test corpora lack, for the note below the table; empty if none lacks any."""
    return note_fewer((split, metrics) for outcome in outcomes for split, metrics in outcome.found.items())


def _mark(split: str, evaluated: Sequence[Outcome]) -> str:
    return max((mark_fewer(split, outcome.found[split]) for outcome in evaluated), key=len)


def _show_genders(outcomes: Sequence[Outcome], used: Titles, console: Console, note: str) -> None:
    """Print one row per experiment, test split and gender: the mean over seeds."""
    rows: list[list[str]] = []
    lacking: list[str] = []
    for name, group in _by_experiment(outcomes).items():
        for split in _splits(group):
            found = [outcome.found[split].get("by_gender", {}) for outcome in group if split in outcome.found]
            marked = _mark(split, [outcome for outcome in group if split in outcome.found])
            for gender in sorted({gender for by_gender in found for gender in by_gender}):
                metrics = [by_gender[gender] for by_gender in found if gender in by_gender]
                counts = [show_labelled(metrics[0]), show_present(metrics[0])]
                rows.append([name, marked, gender, *counts, *_means(metrics, used)])
                lacks = describe_part(gender, metrics[0])
                lacking += [f"{name}, {split}, {lacks}"] if lacks else []
    columns = ["experiment", "split", "gender", "n", "classes", *(title for _, title in used)]
    if rows:
        title, numeric, notes = (
            "Test by gender, mean over seeds",
            range(3, 5 + len(used)),
            [note, _fewer_classes(outcomes), *lacking],
        )
        console.table(title, columns, rows, numeric=numeric, notes=notes, keys=3)


def _means(found: Sequence[Mapping[str, Any]], used: Titles) -> list[str]:
    """Return the mean and (of several runs) sample standard deviation of each metric; empty if unknown.

    A metric that some runs lack, such as the CCC of constants, states how many runs its mean covers.
    """
    if len(found) == 1:
        return [_cell(found[0], key) for key, _ in used]
    cells = []
    for key, _ in used:
        values = [metrics[key] for metrics in found if _number(metrics.get(key))]
        deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        part = f" ({len(values)} of {len(found)})" if len(values) < len(found) else ""
        cells.append(f"{statistics.mean(values):.3f}{deviation}{part}" if values else "")
    return cells


def _mean_of(number: int, seeds: int) -> str:
    return f"mean of {number}" + (f" of {seeds}" if number < seeds else "")


def _cell(metrics: Mapping[str, Any], key: str) -> str:
    """Return a metric of one run; a mean CCC that does not cover all attributes states how many it covers."""
    part = show_attributes(metrics) if key == "mean_ccc" else ""
    return _number(metrics.get(key)) + (f" ({part})" if part else "")


def _splits(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(split for outcome in outcomes for split in outcome.found))


def _by_experiment(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    names = dict.fromkeys(outcome.experiment for outcome in outcomes)
    return {name: [outcome for outcome in outcomes if outcome.experiment == name] for name in names}


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3f}"
