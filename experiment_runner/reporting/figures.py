"""The plots of a run: matplotlib figures drawn from tables and never from a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiment_runner.reporting.figure_style import (
    BLUE,
    COLUMN_INCHES,
    GREEN,
    GREY,
    INK,
    LARGE,
    LEGEND,
    ORANGE,
    PAGE_INCHES,
    PALE,
    POINTS_PER_INCH,
    SHARES,
    SMALL,
    SPLIT_MARKERS,
    VERMILLION,
    matrix_inches,
    settled,
    shortened,
    styled,
    width_in_points,
)
from experiment_runner.results.prediction_columns import attributes_of
from experiment_runner.storage.stored_run import Course
from utils.metrics import Numbers, categorical_metrics, dimensional_metrics, split_head_mid_tail


@styled
def confusion_matrix_figure(predictions: pd.DataFrame, classes: Sequence[str], title: str) -> Figure:
    """Draw how often each true class (row) was predicted as each class (column).

    Args:
        predictions: Table that `tabulate_predictions` returned; rows without a label are left out.
        classes: The class list, in output order.
        title: Title of the plot.

    Raises:
        ValueError: If no row has a label, or a label is not one of the classes.
    """
    labelled = predictions[predictions["label"].notna()]
    found = categorical_metrics(list(labelled["label"]), list(labelled["prediction"]), classes)
    counts = np.array(found["confusion_matrix"], dtype=np.int64)
    names = [shortened(name) for name in classes]
    rows = _row_labels(names, counts.sum(axis=1))
    label_width = max(width_in_points(line, SMALL) for row in rows for line in row.split("\n"))
    name_width = max(width_in_points(name, SMALL) for name in names)
    width = matrix_inches(len(names), label_width + 28)
    cell_width = (width * POINTS_PER_INCH - label_width - 28) / len(names)
    cell_height = min(max(0.8 * cell_width, 21.0), 32.0)
    is_upright = name_width > cell_width - 3
    below = (name_width if is_upright else 8) + 46
    height = (len(names) * cell_height + below) / POINTS_PER_INCH
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    _fill_cells(axes, counts, cell_width)
    axes.set_xticks(range(len(names)), names, rotation=90 if is_upright else 0)
    axes.set_yticks(range(len(names)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("share of the row in %, utterances below it", loc="right", size=SMALL, color=GREY)
    axes.set(xlabel="prediction", ylabel="truth")
    return settled(figure, title)


def _row_labels(names: list[str], totals: npt.NDArray[np.int64]) -> list[str]:
    """Return labels such as `angry (123)`, on two lines if one would take room from the cells."""
    on_one_line = [f"{name} ({total})" for name, total in zip(names, totals, strict=True)]
    is_short = len(names) <= 6 and max(width_in_points(label, SMALL) for label in on_one_line) < 75
    return on_one_line if is_short else [f"{n}\n({t})" for n, t in zip(names, totals, strict=True)]


def _fill_cells(axes: Axes, counts: npt.NDArray[np.int64], cell_width: float) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
    edges = np.arange(len(counts) + 1) - 0.5
    axes.pcolormesh(edges, edges, np.ma.masked_invalid(shares), cmap=SHARES, vmin=0, vmax=1, ec=PALE, lw=0.4)
    axes.invert_yaxis()
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        colour = "white" if share > 0.65 else INK  # contrast of 4 to 1, or nearly, everywhere
        look: dict[str, Any] = {"color": colour, "ha": "center", "in_layout": False}
        percent = "–" if math.isnan(share) else f"{100 * share:.0f}"
        axes.text(column, row + 0.02, percent, size=LARGE, va="bottom", gid="share", **look)
        number = _number_that_fits(int(count), cell_width - 1)
        axes.text(column, row + 0.08, number, size=SMALL, va="top", gid="count", **look)


def _number_that_fits(count: int, points: float) -> str:
    """Return a count, in thousands if the cell is too narrow for all of its digits."""
    texts = (str(count), f"{count / 1000:.1f}k", f"{count / 1000:.0f}k")
    return next((text for text in texts if width_in_points(text, SMALL) <= points), texts[-1])


@styled
def training_curves_figure(
    epochs: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any] | None,
    loss_stop_ratio: float | None = None,
    title: str = "",
) -> Figure:
    """Draw the losses and the development scores of every epoch, which one was saved, and why training ended.

    Args:
        epochs: The lines of `metrics.jsonl`, at least one.
        result: `result.json`; None if training has not finished.
        loss_stop_ratio: The experiment's `loss_stop_ratio`; if given, the development loss limit is drawn.
        title: Title of the plot; none if empty.
    """
    course = Course(epochs, result, loss_stop_ratio)
    figure = Figure(figsize=(COLUMN_INCHES, 3.9), layout="constrained")
    losses, scores = figure.subplots(2, 1, sharex=True)
    _curve(losses, course, "train_loss", "train", color=BLUE, ls="--", marker="o")
    _curve(losses, course, "development_loss", "development", color=VERMILLION, ls="-", marker="s")
    _curve(scores, course, "development_macro_f1", "macro-F1", color=BLUE, lw=0.7, ls="--", marker="o")
    _curve(scores, course, "development_mean_ccc", "mean CCC", color=GREEN, lw=0.7, ls="-.", marker="^")
    _curve(scores, course, "smoothed_score", "smoothed score", color=INK, lw=1.8, ls="-", marker="")
    if loss_stop_ratio is not None and len(epochs) > 1:
        look: dict[str, Any] = {"color": GREY, "ls": ":", "drawstyle": "steps-mid", "gid": "limit", "zorder": 1.5}
        losses.plot(course.numbers, course.loss_limits(), label=f"{loss_stop_ratio:g} × smallest", **look)
    for axes, label in ((losses, "loss"), (scores, "development score")):
        axes.set_ylabel(label)
        # The automatic locator would change its ticks, and so the labels' width, during layout.
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        # Anchored at the right, so that a wide legend extends over the axis's numbers, where there is room.
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1.035), ncols=3, handlelength=2.2, borderaxespad=0, **LEGEND)
    marks = _mark_best(losses, scores, course) + _mark_end(losses, scores, course)
    figure.legend(handles=marks, loc="outside upper left", handlelength=1.2, borderpad=0.1)
    figure.align_ylabels()
    scores.set(xlabel="epoch", xlim=(course.numbers[0] - 0.5, course.numbers[-1] + 0.5))
    scores.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    return settled(figure, title)


def _curve(axes: Axes, course: Course, key: str, label: str, marker: str, **look: Any) -> None:  # noqa: ANN401
    values = course.values(key)
    if np.isfinite(values).any():
        shown = marker if len(values) <= 40 or not marker else ""  # more would run into each other
        axes.plot(course.numbers, values, label=label, marker=shown, mec="white", mew=0.3, **look)


def _mark_best(losses: Axes, scores: Axes, course: Course) -> list[Line2D]:
    """Mark the saved epoch with a star on the smoothed score; return the legend's entry."""
    best = course.best_epoch
    if best not in course.numbers:
        return []
    height = course.values("smoothed_score")[course.numbers.index(best)]
    look: dict[str, Any] = {"color": ORANGE, "marker": "*", "ms": 9, "mec": INK, "mew": 0.6, "ls": "none"}
    scores.plot([best], [height], zorder=5, gid="best", **look)
    for axes in (losses, scores):
        axes.axvline(best, color=ORANGE, lw=0.8, zorder=1)
    return [Line2D([], [], label=f"saved: epoch {best}, smoothed score {height:.3f}", **look)]


def _mark_end(losses: Axes, scores: Axes, course: Course) -> list[Line2D]:
    """Mark the last epoch, and ring the value that the stopping rule used; return the legend's entry."""
    last, result = course.numbers[-1], course.result or {}
    marker = "v" if result else ">"
    look: dict[str, Any] = {"color": INK, "marker": marker, "ms": 5, "mec": "white", "mew": 0.4, "ls": "none"}
    for axes in (losses, scores):
        axes.axvline(last, color=INK, lw=0.6, ls=(0, (4, 2)), zorder=1)
        axes.plot([last], [1.0], transform=axes.get_xaxis_transform(), clip_on=False, gid="stop", **look)
    if result.get("stop") == "loss":
        _ring(losses, last, course.values("development_loss")[-1])
    if result.get("stop") == "sma_f1" and course.best_epoch is not None:
        smoothed = course.values("smoothed_score")
        _ring(scores, last, smoothed[-1])
        scores.plot([course.best_epoch, last], [np.nanmax(smoothed)] * 2, color=GREY, lw=0.8, ls=":", zorder=2)
    return [Line2D([], [], label=course.ending, **look)]


def _ring(axes: Axes, epoch: int, height: float) -> None:
    axes.plot([epoch], [height], "o", ms=7, mfc="none", mec=INK, mew=0.8, zorder=6, gid="reason")


@styled
def attribute_scatter_figure(predictions: pd.DataFrame, scale: tuple[float, float], title: str) -> Figure:
    """Draw truth against prediction, one panel per attribute, with its CCC.

    Args:
        predictions: Table that `tabulate_predictions` returned; rows without an attribute are left out of its panel.
        scale: Lowest and highest value of the corpus.
        title: Title of the plot.
    """
    names = attributes_of(predictions)
    truth = {name: predictions[name].to_numpy(dtype=np.float64) for name in names}
    guess = {name: predictions[f"pred_{name}"].to_numpy(dtype=np.float64) for name in names}
    found = dimensional_metrics(truth, guess)
    figure = Figure(figsize=(PAGE_INCHES, PAGE_INCHES / 3 + 0.15), layout="constrained")
    for name, axes in zip(names, _panels(figure, len(names)), strict=True):
        _scatter(axes, truth[name], guess[name], scale)
        ccc = found[f"ccc_{name}"]
        axes.set_title(shortened(name), loc="left")
        axes.set_title(f"CCC {'–' if math.isnan(ccc) else f'{ccc:.3f}'}", loc="right", gid="ccc")
        axes.set_xlabel("truth")
    figure.axes[0].set_ylabel("prediction")
    return settled(figure, title, passes=2)  # square axes need a second one to leave room below them


def _panels(figure: Figure, number: int) -> Iterator[Axes]:
    for axes in np.ravel(figure.subplots(1, number, sharex=True, sharey=True, squeeze=False)):
        axes.set_aspect("equal")
        yield axes


def _scatter(axes: Axes, truth: Numbers, guess: Numbers, scale: tuple[float, float]) -> None:
    known = np.isfinite(truth) & np.isfinite(guess)
    opacity = float(np.clip(60 / max(known.sum(), 1) ** 0.75, 0.04, 0.7))
    size = 9.0 if known.sum() < 500 else 4.0
    margin = 0.04 * (scale[1] - scale[0])
    limits = (scale[0] - margin, scale[1] + margin)
    axes.plot(scale, scale, color=INK, lw=0.8, ls=(0, (4, 2)), zorder=3)
    axes.scatter(truth[known], guess[known], s=size, c=BLUE, alpha=opacity, lw=0, rasterized=True, zorder=2)
    axes.set(xlim=limits, ylim=limits)
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(*scale)
    inside = [tick for tick in ticks if scale[0] <= tick <= scale[1]]
    axes.set_xticks(inside)
    axes.set_yticks(inside)


@styled
def class_shares_figure(
    counts_by_split: Mapping[str, Mapping[str, int]], groups: Mapping[str, Sequence[str]], title: str = ""
) -> Figure:
    """Draw each class's share of the training split as a bar and of every other split as a marker beside it.

    Args:
        counts_by_split: Utterances by class and split; `train` among the splits decides the order.
        groups: Head, mid and tail classes; the limits between them are drawn if shares decided them.
        title: Title of the plot; none if empty.
    """
    train = counts_by_split["train"]
    names = sorted(train, key=lambda name: -train[name])
    others = [split for split in counts_by_split if split != "train"][: len(SPLIT_MARKERS)]
    height = 0.62 + 0.13 * math.ceil((1 + len(others)) / 2) + (0.18 + 0.035 * len(others)) * len(names)
    figure = Figure(figsize=(COLUMN_INCHES, height), layout="constrained")
    axes = figure.add_subplot()
    bars = [100 * train[name] / sum(train.values()) for name in names]
    bar = axes.barh(
        range(len(names)),
        bars,
        height=0.76,
        color=BLUE,
        alpha=0.75,
        label=f"train, n = {sum(train.values()):,}",
        zorder=2,
    )
    for index, split in enumerate(others):
        _mark_shares(axes, names, counts_by_split[split], split, index, len(others))
    _band_groups(axes, names, groups)
    if {group: set(members) for group, members in groups.items()} == _by_share(train):
        _draw_limits(axes, len(names))
    axes.set_yticks(range(len(names)), [f"{shortened(name)} ({train[name]})" for name in names])
    axes.set(xlabel="share of the split, %", ylim=(len(names) - 0.5, -0.5))
    axes.set_xlim(0, None)
    axes.tick_params(axis="y", length=0)
    handles = [bar, *(line for line in axes.lines if str(line.get_gid()).startswith("split"))]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=1.2, borderaxespad=0.4, **LEGEND)
    return settled(figure, title)


def _by_share(counts: Mapping[str, int]) -> dict[str, set[str]]:
    return {group: set(members) for group, members in split_head_mid_tail(counts).items()}


def _mark_shares(axes: Axes, names: list[str], counts: Mapping[str, int], split: str, index: int, splits: int) -> None:
    marker, colour = SPLIT_MARKERS[index]
    total = max(sum(counts.values()), 1)
    known = [(row, 100 * counts[name] / total) for row, name in enumerate(names) if name in counts]
    shift = 0.76 * ((index + 0.5) / splits - 0.5)
    rows, shares = [row + shift for row, _ in known], [share for _, share in known]
    look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 4.2, "mec": "white", "mew": 0.5, "ls": "none"}
    axes.plot(
        shares,
        rows,
        label=f"{shortened(split)}, n = {sum(counts.values()):,}",
        clip_on=False,
        zorder=4,
        gid=f"split-{split}",
        **look,
    )


def _band_groups(axes: Axes, names: list[str], groups: Mapping[str, Sequence[str]]) -> None:
    """Shade every other block of rows of the same group, and name it at the right."""
    group_of = {name: group for group, members in groups.items() for name in members}
    start = 0
    for index, (group, members) in enumerate(groupby(names, key=lambda name: group_of.get(name, ""))):
        end = start + len(list(members))
        axes.axhspan(start - 0.5, end - 0.5, color=PALE if index % 2 else "white", alpha=0.6, lw=0, zorder=0)
        middle, beside = (start + end - 1) / 2, axes.get_yaxis_transform()
        axes.text(1.02, middle, group, transform=beside, va="center", size=7, gid="group")
        start = end


def _draw_limits(axes: Axes, number: int) -> None:
    """Draw the shares that separate head from mid, and mid from tail."""
    for share, label, side, style in ((1 / number, " 1/C", "left", "--"), (1 / (8 * number), "1/(8 C)", "right", ":")):
        axes.axvline(100 * share, color=INK, lw=0.8, ls=style, zorder=3)
        above = axes.get_xaxis_transform()
        axes.text(100 * share, 1.01, label, transform=above, ha=side, va="bottom", gid="limit")
