"""Style of plots: sizes, fonts and colours for a paper's column, and files that are identical each time.

Colours are those of Okabe and Ito, which readers of every colour vision tell apart, and none of them is the only cue:
lines differ in style and marker too, and every cell of a matrix has its numbers.

Source: M. Okabe and K. Ito, "Color Universal Design (CUD): How to make figures and presentations that are friendly to
colorblind people", 2008.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import TextToPath

from experiment_runner.runtime.fonts import drawable, families
from utils.io.files import atomic_file

COLUMN_INCHES, PAGE_INCHES = 3.35, 7.0
POINTS_PER_INCH = 72.0
DOTS_PER_INCH = 300
SMALL, LARGE = 6.5, 8.0
"""Font sizes in points; no text is smaller than the first."""
TITLE_SIZE, TITLE_INCHES, TITLE_MARGIN_INCHES = 7.5, 0.135, 0.03
"""Size in points and height in inches of a line of a figure's title, and the room above and below."""
NARROWEST_CELL = 15.0
"""Minimum width of a matrix cell in points, needed for a percentage."""
LONGEST_NAME = 24
"""Maximum characters of a drawn name; longer ones keep beginning and end, which together tell names apart."""
BLUE, VERMILLION, GREEN, ORANGE, PURPLE = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7"
INK, GREY, PALE = "#222222", "#767676", "#e4e4e4"
SPLIT_MARKERS = (("o", VERMILLION), ("^", GREEN), ("D", ORANGE), ("s", PURPLE), ("v", INK), ("P", BLUE))
# Equal steps in Oklab from white to a dark blue, so that equal differences of a share look equal.
SHARES = LinearSegmentedColormap.from_list(
    "shares", ["#ffffff", "#dee6ee", "#beccde", "#9fb4cd", "#819cbc", "#6384ab", "#456c9a", "#275589", "#003e78"]
).with_extremes(bad=PALE)
SIDES = ("xtick", "ytick")
STYLE: dict[Any, Any] = {
    **dict.fromkeys(("figure.facecolor", "savefig.facecolor", "axes.facecolor"), "white"),
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", *(f"{side}.color" for side in SIDES)), INK),
    **dict.fromkeys(("font.size", "legend.fontsize", *(f"{side}.labelsize" for side in SIDES)), SMALL),
    **dict.fromkeys(("axes.linewidth", *(f"{side}.major.width" for side in SIDES)), 0.6),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
    **dict.fromkeys((f"{side}.major.size" for side in SIDES), 2.5),
    **{"font.family": list(families()), "axes.labelsize": 7, "axes.titlesize": 7.5},
    **{"lines.linewidth": 1, "lines.markersize": 3},
    **dict.fromkeys(("figure.autolayout", "figure.constrained_layout.use"), False),
    "pdf.fonttype": 42,  # fonts as journals ask for them: embedded, and text that stays text
}
LEGEND: dict[str, Any] = {"handletextpad": 0.5, "columnspacing": 1.0, "borderpad": 0.1}
styled = matplotlib.rc_context(STYLE)
"""Gives a function this module's style, whatever the user's matplotlib is set to."""
LETTERS = TextToPath()


def shortened(name: str) -> str:
    """Return a name shortened to leave room for its surroundings, in characters that can be drawn."""
    kept = LONGEST_NAME // 2
    return drawable(name if len(name) <= LONGEST_NAME else f"{name[: kept - 1]}…{name[-kept:]}")


def width_in_points(text: str, size: float) -> float:
    """Return the width of one line of text."""
    font = FontProperties(family=list(families()), size=size)
    width: float = LETTERS.get_text_width_height_descent(text, font, ismath=False)[0]
    return width


def matrix_inches(classes: int, beside: float) -> float:
    """Return the width of a matrix: a paper's column, its page, or more if cells would be too narrow.

    Args:
        classes: Number of cells in a row.
        beside: Width of the labels beside the cells, in points.
    """
    least = (beside + NARROWEST_CELL * classes) / POINTS_PER_INCH
    return COLUMN_INCHES if least <= COLUMN_INCHES else max(PAGE_INCHES, least)


def settled(figure: Figure, title: str, passes: int = 1) -> Figure:
    """Fix the layout of a figure while this module's style is in force, with a title above unless it is empty.

    The title tells what a plot shows even if it is cut out of its page. The figure grows by the title's height.

    Args:
        figure: A figure with constrained layout.
        title: The title.
        passes: How often the engine has to place the axes.
    """
    for _ in range(passes):
        ConstrainedLayoutEngine().execute(figure)
    figure.set_layout_engine(None)  # "none" leaves a placeholder, for which every file is drawn twice
    if title:
        _entitle(figure, title)
    return figure


def _entitle(figure: Figure, title: str) -> None:
    room = figure.get_figwidth() * POINTS_PER_INCH - 8
    lines = [line for paragraph in drawable(title).split("\n") for line in _title_lines(paragraph, room)]
    below = figure.get_figheight()
    height = below + TITLE_INCHES * len(lines) + 2 * TITLE_MARGIN_INCHES
    share = below / height
    for axes in figure.axes:
        left, bottom, width, tall = axes.get_position(original=True).bounds
        axes.set_position((left, share * bottom, width, share * tall))
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0, 0, 1, share), figure.transFigure)
    figure.set_figheight(height)
    place = (4 / POINTS_PER_INCH / figure.get_figwidth(), 1 - TITLE_MARGIN_INCHES / height)
    figure.text(*place, "\n".join(lines), ha="left", va="top", size=TITLE_SIZE, gid="title")


def _title_lines(text: str, room: float) -> list[str]:
    """Break a title between words, or anywhere within a word that is too long for a line."""
    lines: list[str] = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if width_in_points(longer, TITLE_SIZE) <= room:
            lines[-1] = longer
            continue
        lines += [""] * bool(lines[-1])
        for letter in word:
            if width_in_points(lines[-1] + letter, TITLE_SIZE) > room:
                lines.append("")
            lines[-1] += letter
    return lines


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or PDF, completely or not at all, and with the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, is_flushed=False) as partial:
        _write(figure, partial, path.suffix[1:])


def as_base64(figure: Figure, dots_per_inch: int = DOTS_PER_INCH) -> str:
    """Return a figure as a PNG in base64, for a page that contains it."""
    buffer = io.BytesIO()
    _write(figure, buffer, "png", dots_per_inch)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


@styled
def _write(figure: Figure, place: Path | io.BytesIO, kind: str, dots_per_inch: int = DOTS_PER_INCH) -> None:
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None}}[kind]
    figure.savefig(place, format=kind, dpi=dots_per_inch, metadata=undated)
