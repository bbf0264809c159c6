"""Plot of emotion over the time of a recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiment_runner.reporting.figure_style import (
    BLUE,
    COLUMN_INCHES,
    GREEN,
    GREY,
    SHARES,
    SMALL,
    VERMILLION,
    settled,
    shortened,
    styled,
)
from experiment_runner.results.prediction_columns import END, START, as_clock, attributes_of, classes_of
from utils.metrics import Numbers

MOST_COLUMNS = 350
"""Maximum number of columns that the width can show; longer courses are drawn as means over several segments."""
ROW_INCHES, CURVE_INCHES, ROOM_INCHES = 0.24, 1.1, 0.75
LINES = (("-", BLUE), ("--", VERMILLION), ("-.", GREEN))


@styled
def course_figure(course: pd.DataFrame, scale: tuple[float, float], title: str) -> Figure:
    """Draw the probability of each emotion, darker where it is likelier, and attributes as lines, over time.

    Args:
        course: Rows of one recording, as `predict` returns them with windows.
        scale: Scale of the attributes.
        title: Title of the plot; the number of segments is appended.
    """
    classes, attributes = classes_of(course), attributes_of(course)
    columns = [*(f"prob_{name}" for name in classes), *(f"pred_{name}" for name in attributes)]
    times, means, merged = _binned(course, columns)
    heights = [height for height in (ROW_INCHES * len(classes), CURVE_INCHES if attributes else 0.0) if height]
    figure = Figure(figsize=(COLUMN_INCHES, sum(heights) + ROOM_INCHES), layout="constrained")
    panels = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    if classes:
        _draw_probabilities(figure, panels[0], times, means[:, : len(classes)], classes)
    if attributes:
        _draw_attributes(panels[-1], times, means[:, len(classes) :], attributes, scale)
    panels[-1].set_xlabel("time" if merged == 1 else f"time; each column is the mean of {merged} segments")
    panels[-1].set_xlim(times[0], times[-1])
    panels[-1].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 1.5, 2, 3, 6, 10]))
    panels[-1].xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: as_clock(seconds)))
    return settled(figure, f"{title}, {len(course):,} segments")


def _binned(course: pd.DataFrame, columns: Sequence[str]) -> tuple[Numbers, Numbers, int]:
    """Return the borders between columns in seconds (n + 1,), their values (n, columns), and the segments in each."""
    merged = math.ceil(len(course) / MOST_COLUMNS)
    groups = np.arange(len(course)) // merged
    values = course[list(columns)].groupby(groups).mean().to_numpy(np.float64)
    centres = ((course[START] + course[END]) / 2).to_numpy(np.float64)
    borders = (centres[merged::merged] + centres[merged - 1 : -1 : merged]) / 2
    times = np.concatenate([course[START].iloc[:1], borders[: len(values) - 1], course[END].iloc[-1:]])
    return times, values, merged


def _draw_probabilities(figure: Figure, axes: Axes, times: Numbers, means: Numbers, classes: Sequence[str]) -> None:
    mesh = axes.pcolormesh(times, np.arange(len(classes) + 1), means.T, cmap=SHARES, vmin=0, vmax=1, rasterized=True)
    axes.invert_yaxis()
    axes.set_yticks(np.arange(len(classes)) + 0.5, [shortened(name) for name in classes])
    axes.tick_params(axis="y", length=0)
    likeliest = means.argmax(1) + 0.5
    axes.hlines(likeliest, times[:-1], times[1:], color=VERMILLION, lw=1.8, gid="likeliest")
    axes.set_title("bars: the likeliest emotion", loc="right", size=SMALL, color=GREY)
    bar = figure.colorbar(mesh, ax=axes, pad=0.01, aspect=12, ticks=[0, 0.5, 1])
    bar.outline.set_visible(False)
    bar.set_label("probability", size=SMALL)


def _draw_attributes(
    axes: Axes,
    times: Numbers,
    means: Numbers,
    attributes: Sequence[str],
    scale: tuple[float, float],
) -> None:
    middles = (times[1:] + times[:-1]) / 2
    for values, name, (dash, colour) in zip(means.T, attributes, cycle(LINES), strict=False):
        axes.plot(middles, values, dash, color=colour, label=name)
    margin = 0.02 * (scale[1] - scale[0])
    axes.set_ylim(scale[0] - margin, scale[1] + margin)
    axes.set_ylabel("attribute")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=3, handlelength=2.2, borderaxespad=0.2)
