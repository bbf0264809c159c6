"""Output of predictions: a table on the console, a file, and plots over time."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path

import pandas as pd

from experiment_runner.models.loaded_model import LoadedModel
from experiment_runner.results.prediction_columns import (
    END,
    MODEL_WARNING,
    PREDICTION,
    START,
    as_clock,
    attributes_of,
    auxiliary_of,
    classes_of,
)
from experiment_runner.runtime.console import Console
from utils.config.heads import head_title
from utils.data.recordings.file_names import list_problems
from utils.io.files import atomic_write
from utils.word_forms import counted

STANDARD_OUTPUT = "-"
FORMATS = (".csv", ".jsonl")
PROBLEMS = ".problems.csv"
"""Suffix of the file beside the output that lists recordings not predicted, with reasons."""
MOST_ROWS = 40
"""Maximum number of rows shown on the console."""


def keep(table: pd.DataFrame, output: str | None, console: Console, cautions: Sequence[str] = ()) -> None:
    """Write predictions to the output that the command line names, else show them.

    Args:
        table: The predictions.
        output: Output file of the command line, if any.
        console: Where they are shown.
        cautions: Cautions about the model, written into every row since files are read without the console messages.
    """
    if cautions:
        table = table.assign(**{MODEL_WARNING: " ".join(cautions)})
    if output is None:
        show(table, console)
    elif output == STANDARD_OUTPUT:
        sys.stdout.write(table.to_csv(index=False))
    else:
        path = Path(output)
        is_csv = path.suffix == ".csv"
        lines = "" if is_csv else table.to_json(orient="records", lines=True, double_precision=15)
        atomic_write(path, table.to_csv(index=False) if is_csv else lines or "")
        console.line(f"{path}: {counted(len(table), 'row')} of {counted(table['file'].nunique(), 'recording')}")


def report_problems(problems: Mapping[str, str], requested: int, output: str | None, console: Console) -> None:
    """Report recordings not predicted, with reasons: all on the console, or the first ones, with all in a file.

    Args:
        problems: Reasons by path.
        requested: Number of requested recordings.
        output: Output file of the command line, if any; the list is written beside it.
        console: Where they are reported.
    """
    number = f"{len(problems):,} of {requested:,} recordings were not predicted"
    if output is None or output == STANDARD_OUTPUT:
        if problems:
            console.error(f"{number}: {list_problems(problems.items(), len(problems))}")
        return
    path = Path(output).with_suffix(PROBLEMS)
    path.unlink(missing_ok=True)
    if problems:
        table = pd.DataFrame({"file": list(problems), "problem": list(problems.values())})
        atomic_write(path, table.to_csv(index=False).encode(errors="backslashreplace"))
        console.error(f"{number}: {list_problems(problems.items())} ({path} lists all)")


def show(table: pd.DataFrame, console: Console) -> None:
    """Show the predictions for each recording or segment in readable form."""
    if table.empty:
        return
    shown = table.head(MOST_ROWS)
    cells = {"file": list(shown["file"])}
    if START in shown:
        cells["from"], cells["to"] = (list(map(as_clock, shown[name])) for name in (START, END))
    if "prediction" in shown:
        highest = shown[[f"prob_{name}" for name in classes_of(shown)]].max(axis=1)
        cells["emotion"] = list(shown["prediction"])
        cells["probability"] = [f"{value:.2f}" for value in highest]
    for name in attributes_of(shown):
        cells[name] = [f"{value:.2f}" for value in shown[f"pred_{name}"]]
    for name in auxiliary_of(shown):
        cells[head_title(name)] = list(shown[f"{name}{PREDICTION}"])
    more = len(table) - len(shown)
    notes = [f"{counted(more, 'more row')}; --output FILE.csv writes all of them"] if more else []
    keys = 3 if START in shown else 1
    console.table("", list(cells), zip(*cells.values(), strict=True), range(1, len(cells)), notes, keys=keys)


def draw(table: pd.DataFrame, model: LoadedModel, folder: Path, console: Console) -> None:
    """Plot each recording's predictions over time."""
    from experiment_runner.reporting.course_figure import course_figure
    from experiment_runner.reporting.figure_style import save_figure
    from experiment_runner.runtime.fonts import font_note

    taken: set[str] = set()
    of_one_name = Counter(Path(str(name)).name for name in table["file"].unique())
    for name, course in table.groupby("file", sort=False):
        stem = Path(str(name)).stem
        free = next(stem + end for end in chain([""], map("-{}".format, count(2))) if stem + end not in taken)
        taken.add(free)
        short = Path(str(name)).name
        title = short if of_one_name[short] == 1 else str(name)
        save_figure(course_figure(course, model.description.attribute_scale, title), folder / f"{free}.png")
    console.line(f"{folder}: {counted(len(taken), 'picture')}")
    console.warn(font_note([*map(str, of_one_name), *classes_of(table)]))
