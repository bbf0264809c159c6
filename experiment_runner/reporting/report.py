"""The plots and the report page of a run, from its folder alone: `python -m experiment_runner.reporting.report FOLDER`.

Neither model nor corpus is needed, so both can be made again at any time, even for an old run. With `--with-audio` the
corpus's labels are read to find recordings, which the page then plays from their place on this machine; they are not
copied, and the page is not uploaded.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiment_runner.reporting.figure_style import COLUMN_INCHES, DOTS_PER_INCH, save_figure
from experiment_runner.reporting.figures import (
    attribute_scatter_figure,
    class_shares_figure,
    confusion_matrix_figure,
    training_curves_figure,
)
from experiment_runner.reporting.pages import number, render_page
from experiment_runner.reporting.report_audio import find_recordings
from experiment_runner.reporting.report_contents import (
    MOST_MISTAKES,
    Mistake,
    attribute_errors,
    changed_keys,
    class_mistakes,
    commands_of,
    duration,
    findings_of,
)
from experiment_runner.results.prediction_columns import attributes_of, classes_of
from experiment_runner.results.row_counts import IN_TEMPLATES, note_fewer
from experiment_runner.results.statistics import titles_in
from experiment_runner.runtime.fonts import font_note
from experiment_runner.storage.run_folder import SKIPPED, RunError
from experiment_runner.storage.stored_experiment import has_random_upstream, synthetic_corpora
from experiment_runner.storage.stored_run import SplitReport, StoredRun, read_run
from utils.errors import ConfigurationError, DataError
from utils.io.files import atomic_write
from utils.word_forms import counted

REPORT = "report.html"
PICTURES = "pictures"
TEMPLATE = "reporting/report.html.jinja"
CAPTIONS = {
    "training": "Losses and development scores by epoch: the star is the saved epoch, the triangle the end.",
    "classes": "Share of each class in the training split (bar, with its count) and in the other splits (markers).",
    "confusion": "Confusion matrix of {split}: rows are the truth, columns the prediction, colour is the row's share.",
    "attributes": "Truth against prediction in {split}, one point an utterance; on the dashed line both are equal.",
}


def draw_figures(folder: Path) -> list[Path]:
    """Write the plots of a run into `figures/`, each as PNG and as PDF.

    Raises:
        RunError: If the folder is not a run.
    """
    written = []
    for name, figure in _figures(read_run(folder)):
        for suffix in ("png", "pdf"):
            written.append(folder / PICTURES / f"{name}.{suffix}")
            save_figure(figure, written[-1])
    return written


def _figures(run: StoredRun) -> Iterator[tuple[str, Figure]]:
    if run.course.epochs:
        course = run.course
        title = f"{run.title}: training, {_sizes(run)}"
        yield "training", training_curves_figure(course.epochs, course.result, course.loss_stop_ratio, title)
    if run.groups:
        yield "classes", class_shares_figure(_class_counts(run), run.groups, f"{run.title}: classes")
    for split in run.splits:
        classes = classes_of(split.predictions)
        if classes and split.metrics.get("macro_f1") is not None:
            labelled = int(split.predictions["label"].notna().sum())
            metrics = f"macro-F1 {number(split.metrics['macro_f1'])}, UAR {number(split.metrics['uar'])}"
            title = f"{run.title}: {split.label}, n = {labelled:,}\n{metrics}"
            yield f"confusion-{split.label}", confusion_matrix_figure(split.predictions, classes, title)
    for split in run.splits:
        attributes = attributes_of(split.predictions)
        if attributes and split.predictions[attributes].notna().any(axis=None):
            rated = int(split.predictions[attributes].notna().any(axis=1).sum())
            title = f"{run.title}: {split.label}, n = {rated:,}"
            scale = _scale(run, split, attributes)
            yield f"attributes-{split.label}", attribute_scatter_figure(split.predictions, scale, title)


def _sizes(run: StoredRun) -> str:
    """Return the numbers of training and development utterances, as far as the run stores them."""
    known = run.resolved.get("splits", {})
    sizes = {split: known.get(split, {}).get("utterances") for split in ("train", "development")}
    return ", ".join(f"{split} n = {size:,}" for split, size in sizes.items() if size is not None) or "n unknown"


def _class_counts(run: StoredRun) -> dict[str, dict[str, int]]:
    """Return utterances by class and split; other corpora have other classes and are left out."""
    counts = {"train": dict(zip(run.description["classes"], run.description["class_counts"], strict=True))}
    for split in run.splits:
        if split.is_own_corpus and "per_class" in split.metrics:
            counts[split.label] = {name: row["support"] for name, row in split.metrics["per_class"].items()}
    return counts


def _scale(run: StoredRun, split: SplitReport, attributes: Sequence[str]) -> tuple[float, float]:
    """Return the scale of a split's corpus; another corpus's scale is not stored, so it is taken from the values."""
    values = split.predictions[[*attributes, *(f"pred_{name}" for name in attributes)]]
    low, high = float(values.min().min()), float(values.max().max())
    if split.is_own_corpus and "attribute_scale" in run.description:
        own_low, own_high = run.description["attribute_scale"]
        return min(low, own_low), max(high, own_high)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def write_report(
    folder: Path, figures: Sequence[Path] | None = None, recordings: Mapping[str, Mapping[str, str]] | None = None
) -> Path:
    """Write `report.html` into a run's folder, as one self-contained page.

    Args:
        folder: The run's folder.
        figures: Plots that `draw_figures` returned; drawn now if left out.
        recordings: Recordings that `find_recordings` returned, if the page is to play them.

    Raises:
        RunError: If the folder is not a run.
    """
    drawn = draw_figures(folder) if figures is None else figures
    page = _render(read_run(folder), drawn, recordings or {})
    atomic_write(folder / REPORT, page)
    return folder / REPORT


def _render(run: StoredRun, figures: Sequence[Path], recordings: Mapping[str, Mapping[str, str]]) -> str:
    judged = run.tested or run.splits
    return render_page(
        TEMPLATE,
        run=run,
        seed=run.resolved.get("seed", "?"),
        commands=commands_of(run.folder),
        warnings=_warnings(run),
        ending=_ending(run),
        verdicts=[(split, findings_of(split.predictions, split.metrics)) for split in judged],
        mistakes=list(_mistakes(judged, recordings)),
        changed=changed_keys(run.experiment, run.resolved.get("published", {})),
        plays=bool(recordings),
        most=MOST_MISTAKES,
        metrics=titles_in(split.metrics for split in run.splits),
        gender_metrics=titles_in((split.metrics for split in run.splits), of_parts=True),
        detailed=[split for split in judged if "per_class" in split.metrics],
        gendered=[split for split in run.splits if split.metrics.get("by_gender")],
        fewer=note_fewer((split.label, split.metrics) for split in run.splits),
        **IN_TEMPLATES,
        group_of={name: group for group, members in run.groups.items() for name in members},
        figures=[_embedded(path) for path in figures if path.suffix == ".png"],
    )


def _mistakes(
    splits: Sequence[SplitReport], recordings: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, str, list[Mistake]]]:
    """Yield, for each split with mistakes, its label, a description of the list, and the list."""
    for split in splits:
        places = recordings.get(split.label, {})
        yield split.label, "classes", class_mistakes(split.predictions, places)
        yield split.label, "attributes", attribute_errors(split.predictions, places)


def _embedded(path: Path) -> dict[str, object]:
    kind, _, split = path.stem.partition("-")
    data = path.read_bytes()
    is_wide = int.from_bytes(data[16:20]) > 1.5 * COLUMN_INCHES * DOTS_PER_INCH  # width in the PNG header
    caption = CAPTIONS[kind].format(split=split)
    return {"is_wide": is_wide, "caption": caption, "data": base64.b64encode(data).decode("ascii")}


def cautions(run: StoredRun) -> list[str]:
    """Return cautions that must accompany every number of this run: that its data or its upstream are not real."""
    warnings = []
    synthetic = synthetic_corpora(run.resolved)
    if synthetic:
        warnings.append(f"SYNTHETIC data: {', '.join(synthetic)}. These figures say nothing about speech.")
    if has_random_upstream(run.config, run.resolved):
        warnings.append(f"RANDOM weights: the upstream {run.config.upstream_model} was not pre-trained.")
    return warnings


def _warnings(run: StoredRun) -> list[str]:
    """Return the warnings above a report: cautions, unusable files, and metrics that mean less than they seem to."""
    warnings = cautions(run)
    left_out = run.resolved.get("left_out_recordings", "none")
    if left_out != "none":
        warnings.append(f"Unusable training recordings that were left out: {left_out}, see {SKIPPED}.")
    warnings += [f"{split.label}: {remark}." for split in run.splits for remark in split.metrics["remarks"]]
    return warnings + list(run.problems)


def _ending(run: StoredRun) -> str:
    """Say how training ended, in sentences."""
    course, most = run.course, run.config.epoch
    if course.result is None:
        return f"Training has not finished: {course.ending} (at most {most})."
    result = course.result
    sentences = [
        f"Training ended after {result.get('epochs', '?')} of at most {counted(most, 'epoch')} "
        f"and {duration(result.get('seconds'))}: {course.ending}.",
        f"The model of epoch {result.get('best_epoch', '?')} is kept, with a smoothed development score of "
        f"{number(result.get('best_score'))}.",
    ]
    if course.epochs and course.epochs[-1].get("stop"):
        sentences.append(f"The last decision: {course.epochs[-1].get('decision', '?')}.")
    if result.get("refused_steps"):
        sentences.append(f"Steps skipped because gradients were not finite: {result['refused_steps']}.")
    return " ".join(sentences)


def main(arguments: Sequence[str] | None = None) -> int:
    """Redraw the plots and rewrite the report of each folder; return 1 if one of them is not a run."""
    parser = argparse.ArgumentParser(
        prog="python -m experiment_runner.reporting.report", description="Draw and write again."
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER", help="such as runs/Mine/seed-42")
    parser.add_argument("--with-audio", action="store_true", help="let the page play recordings from this machine")
    parser.add_argument("--config", type=Path, default=Path("config.toml"), help="where they lie; default: %(default)s")
    options = parser.parse_args(arguments)
    status = 0
    for folder in options.folders:
        try:
            _draw_again(folder, options.config if options.with_audio else None)
        except (RunError, ConfigurationError, DataError) as error:
            print(error, file=sys.stderr)
            status = 1
    return status


def _corpora_of(run: StoredRun) -> dict[str, str]:
    """Return the corpus of each split that has predictions."""
    return {s.label: run.config.corpus if s.is_own_corpus else s.label.rpartition("-")[0] for s in run.splits}


def _draw_again(folder: Path, corpora_file: Path | None) -> None:
    """Write a run's plots and report; with its recordings if `corpora_file` tells where they are."""
    run = read_run(folder)
    recordings = None if corpora_file is None else find_recordings(_corpora_of(run), corpora_file)
    figures = draw_figures(folder)
    for path in (*figures, write_report(folder, figures, recordings)):
        print(path)
    note = font_note([run.title, *run.description.get("classes", ())])
    if note:
        print(note, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
