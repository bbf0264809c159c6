"""The plots of an audit: the contents of a corpus, by split and by gender, and how far its raters agree.

Drawn only from tables, in the size and colours of `experiment_runner.reporting.figures`. Utterances are counted and
never drawn one by one, so that a corpus of a hundred thousand takes as long as one of a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from experiment_runner.reporting.figure_style import (
    BLUE,
    COLUMN_INCHES,
    GREY,
    INK,
    LEGEND,
    PAGE_INCHES,
    PALE,
    POINTS_PER_INCH,
    SHARES,
    SMALL,
    VERMILLION,
    matrix_inches,
    settled,
    shortened,
    styled,
    width_in_points,
)
from utils.metrics import Numbers

ROW_INCHES, ROOM_INCHES = 0.44, 0.62
"""Height of a row, and total height above and below the rows."""
TALLEST = 0.56
"""Height of the tallest bar as a share of the row's; the median's number stands above it."""
MARKERS = (("o", VERMILLION, -0.13), ("s", BLUE, 0.13))
"""Shape, colour, and shift in rows, so that neither of two equal shares hides the other."""
MOST_BINS, FEWEST_BINS = 48, 10


@dataclass(frozen=True)
class Panel:
    """Distributions of one quantity, one row each.

    Attributes:
        title: Title above the panel.
        label: Label of its axis, with the unit.
        values: Finite numbers by row; a row may hold none.
        edges: Edges of the bins, ascending; values outside are counted beside the row.
        unit: Unit printed after the median.
        decimals: Decimals of the median.
        is_log: Whether the axis is logarithmic.
    """

    title: str
    label: str
    values: Mapping[str, Numbers]
    edges: Numbers
    unit: str = ""
    decimals: int = 1
    is_log: bool = False


def even_bins(low: float, high: float, number: int) -> Numbers:
    """Return edges at round numbers from `low` to `high`, as many as suit `number` values."""
    wanted = float(np.clip(np.sqrt(number), FEWEST_BINS, MOST_BINS))
    least = max(high - low, 1e-6) / wanted
    power = 10.0 ** np.floor(np.log10(least))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= 0.999 * least)
    first, last = np.floor(low / step + 1e-6), np.ceil(high / step - 1e-6)
    return np.asarray(step * np.arange(first, max(last, first + 1) + 1), dtype=np.float64)


def widening_bins(high: float) -> Numbers:
    """Return edges at 1, 2, 3, 4, 6, 8, 11, 16, … until beyond `high`: two bins for every doubling."""
    return np.unique(np.round(2.0 ** (np.arange(2 * np.floor(np.log2(high)) + 3) / 2)))


@styled
def rows_figure(panels: Sequence[Panel], columns: Sequence[str], title: str = "") -> Figure:
    """Draw panels side by side, each with the same rows: the share of a row's values in every bin, median, quartiles.

    Args:
        panels: Panels to draw; one takes a paper's column width, several its page width.
        columns: Text to the left of each row, in the order of the first panel's rows.
        title: Title of the plot; none if empty.
    """
    rows = list(panels[0].values)
    width = COLUMN_INCHES if len(panels) == 1 else PAGE_INCHES
    figure = Figure(figsize=(width, ROOM_INCHES + ROW_INCHES * len(rows)), layout="constrained")
    for panel, axes in zip(panels, np.ravel(figure.subplots(1, len(panels), sharey=True, squeeze=False)), strict=True):
        _draw_panel(axes, panel, rows)
    figure.axes[0].set_yticks([len(rows) - 0.72 - index for index in range(len(rows))], columns)
    return settled(figure, title)


def _draw_panel(axes: Axes, panel: Panel, rows: list[str]) -> None:
    shares = {row: _shares(panel.values[row], panel.edges) for row in rows}
    tallest = max(float(share.max()) for share in shares.values())
    for index, row in enumerate(rows):
        _draw_row(axes, panel, shares[row] / (tallest or 1.0), panel.values[row], len(rows) - 1 - index)
    if panel.is_log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(_powers_of_two(panel.edges[-1])))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.set(xlim=(panel.edges[0], panel.edges[-1]), ylim=(-0.14, len(rows)), xlabel=panel.label)
    axes.set_title(panel.title, loc="left")
    axes.set_title(f"tallest bar {_percent(tallest)}", loc="right", size=SMALL, color=GREY)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _powers_of_two(high: float) -> list[float]:
    """Return up to nine evenly spaced powers of two from 1 to `high`."""
    number = int(np.log2(high)) + 1
    return [2.0**power for power in range(0, number, 1 + number // 10)]


def _shares(values: Numbers, edges: Numbers) -> Numbers:
    """Return the share of all values, including those outside the bins, in each bin."""
    # Means of ratings fall on the edges, where rounding errors would decide the bin.
    lower = edges[:-1] - 1e-6 * np.diff(edges)
    return np.asarray(np.histogram(values, [*lower, edges[-1]])[0] / max(len(values), 1), dtype=np.float64)


def _draw_row(axes: Axes, panel: Panel, heights: Numbers, values: Numbers, base: int) -> None:
    axes.axhline(base, color=PALE, lw=0.6, zorder=1)
    if not len(values):
        return
    axes.stairs(base + TALLEST * heights, panel.edges, baseline=base, fill=True, color=BLUE, alpha=0.55, zorder=2)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    axes.plot([low, high], [base, base], color=INK, lw=2, solid_capstyle="butt", zorder=3, gid="quartiles")
    if panel.edges[0] <= middle <= panel.edges[-1]:
        look: dict[str, Any] = {"mfc": "white", "mec": INK, "mew": 0.8, "zorder": 4, "clip_on": False}
        axes.plot([middle], [base], "o", ms=3.6, gid="median", **look)
    beyond = int(((values < panel.edges[0]) | (values > panel.edges[-1])).sum())
    text = f"median {middle:,.{panel.decimals}f}{panel.unit}" + (f"; {beyond:,} beyond the axis" if beyond else "")
    beside = axes.get_yaxis_transform()
    axes.text(0.995, base + 0.87, text, transform=beside, ha="right", va="top", gid="row", zorder=5)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


@styled
def paired_shares_figure(counts: Mapping[str, Mapping[str, int]], of: str, title: str = "") -> Figure:
    """Draw each class's share of two groups of utterances, as two markers on a line.

    Args:
        counts: Utterances by group and class; both groups have the same classes.
        of: What the shares refer to, for the axis label.
        title: Title of the plot; none if empty.
    """
    first = next(iter(counts.values()))
    names = sorted(first, key=lambda name: -sum(group[name] for group in counts.values()))
    figure = Figure(figsize=(COLUMN_INCHES, ROOM_INCHES + 0.2 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    shares = {group: [100 * row[name] / max(sum(row.values()), 1) for name in names] for group, row in counts.items()}
    places = range(len(names))
    axes.hlines(places, np.min(list(shares.values()), axis=0), np.max(list(shares.values()), axis=0), color=GREY, lw=1)
    for (group, row), (marker, colour, shift) in zip(shares.items(), MARKERS, strict=True):
        look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 4.5, "mec": "white", "mew": 0.5, "ls": "none"}
        label = f"{group} ({sum(counts[group].values()):,})"
        axes.plot(row, np.add(places, shift), label=label, clip_on=False, gid=group, **look)
    axes.set_yticks(places, [shortened(name) for name in names])
    axes.set(xlabel=f"share of {of}, %", ylim=(len(names) - 0.5, -0.5), xlim=(0, None))
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.2, borderaxespad=0.4, **LEGEND)
    return settled(figure, title)


@styled
def votes_figure(votes: pd.DataFrame, title: str = "") -> Figure:
    """Draw which classes raters chose for each consensus class: each row's votes in percent.

    Args:
        votes: Primary votes by consensus (rows) and chosen class (columns); no row is empty.
        title: Title of the plot; none if empty.
    """
    shares = votes.to_numpy(dtype=np.float64) / votes.sum(axis=1).to_numpy()[:, None]
    rows = [shortened(str(name)) for name in votes.index]
    columns = [shortened(str(name)) for name in votes.columns]
    longest = max(width_in_points(name, SMALL) for name in columns)
    beside = max(width_in_points(name, SMALL) for name in rows) + 28
    width = matrix_inches(len(columns), beside)
    figure = Figure(figsize=(width, 0.55 + longest / POINTS_PER_INCH + 0.24 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    across, down = np.arange(len(columns) + 1) - 0.5, np.arange(len(rows) + 1) - 0.5
    axes.pcolormesh(across, down, shares, cmap=SHARES, vmin=0, vmax=1, ec=PALE, lw=0.4)
    axes.invert_yaxis()
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.65 else INK
        look: dict[str, Any] = {"ha": "center", "va": "center", "in_layout": False, "gid": "share"}
        axes.text(column, row, f"{100 * share:.0f}", color=colour, **look)
        if votes.index[row] == votes.columns[column]:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=INK, lw=0.8, zorder=3))
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("% of the row's votes", loc="right", size=SMALL, color=GREY)
    axes.set(xlabel="chosen by a rater", ylabel="consensus")
    return settled(figure, title)
