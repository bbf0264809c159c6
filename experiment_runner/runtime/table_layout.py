"""Fits a table to the screen, with unbroken names and numbers at any width.

The first choice is a table with a box. If that is too wide, the lines are dropped; after that, the columns are split
into several tables below each other, or every row becomes a block with one line per cell, whichever takes fewer lines.
A name or a number is broken only if it alone is longer than the screen.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.cells import cell_len, chop_cells
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

NARROWEST = 40
"""Assumed minimum width of a screen in cells: a narrower table would be unreadable."""
LEAST_PROSE = 20
"""Minimum width in cells of a column of sentences, unless all of them are shorter."""
GAP, INDENT = 2, 2
Row = Sequence[str]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: Heading of the column.
        is_number: Whether its cells are aligned right and its heading may take several lines.
        break_after: Characters after which its cells may be broken, at a space that follows; any space if empty;
            never if None.
    """

    title: str
    is_number: bool = False
    break_after: str | None = None

    def wrap(self, text: str, width: int) -> list[str]:
        """Return the lines of a cell."""
        return wrapped(text, width, self.break_after)

    def natural(self, rows_of_cells: Iterable[str]) -> int:
        """Return the width at which nothing is broken except headings of numbers."""
        title = _longest_part(self.title, "") if self.is_number else cell_len(self.title)
        return max([title, *map(cell_len, rows_of_cells)])

    def least(self, cells: Sequence[str]) -> int:
        """Return the width below which a name, a figure or a word would be broken."""
        longest = max((_longest_part(cell, self.break_after) for cell in cells), default=0)
        readable = min(LEAST_PROSE, max(map(cell_len, cells), default=0)) if self.break_after == "" else 0
        return max(_longest_part(self.title, ""), longest, readable)


class Layout(NamedTuple):
    """A table as it is printed.

    Attributes:
        parts: Parts to be printed one below the other.
        lines: Number of lines that they take.
    """

    parts: list[RenderableType]
    lines: int


def describe_columns(
    titles: Sequence[str], numeric: Container[int], prose: Container[int] = (), lists: Container[int] = ()
) -> list[Column]:
    """Return the columns of a table from their titles.

    Args:
        titles: Titles of all columns.
        numeric: Indices of numeric columns.
        prose: Indices of columns of sentences, which are broken between words.
        lists: Indices of columns of lists, which are broken after commas.
    """
    breaks = {place: "" if place in prose else "," for place in range(len(titles)) if place in prose or place in lists}
    return [Column(title, place in numeric, breaks.get(place)) for place, title in enumerate(titles)]


def choose_layout(columns: Sequence[Column], rows: Sequence[Row], width: int, keys: int = 1) -> Layout:
    """Lay a table out for a screen.

    Args:
        columns: Columns of the table.
        rows: Cells of each row.
        width: Width of the screen, in cells.
        keys: Number of columns, from the left, that name a row.
    """
    width = max(width, NARROWEST)
    wide = _boxed(columns, rows, width) or _open(columns, rows, width)
    if wide is not None:
        return wide
    panels, records = _in_panels(columns, rows, width, keys), _as_records(columns, rows, width, keys)
    return panels if panels is not None and panels.lines < records.lines else records


def wrapped(text: str, width: int, break_after: str | None = "") -> list[str]:
    """Split a text into lines of at most `width` cells; only a part longer than that is broken anywhere.

    Args:
        text: Text on one line.
        width: Width in cells.
        break_after: See `Column`.
    """
    pieces = (piece for part in _parts(text, break_after) for piece in chop_cells(part, max(width, 1)) or [""])
    return filled(pieces, width)


def filled(parts: Iterable[str], width: int) -> list[str]:
    """Join parts, with spaces, into lines of at most `width` cells; a longer part has a line of its own."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1]) + 1 + cell_len(part) <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return lines


def _parts(text: str, break_after: str | None) -> list[str]:
    """Return the parts of a text that must not be broken."""
    if break_after is None:
        return [text]
    parts: list[str] = []
    for word in text.split(" "):
        if parts and break_after and not parts[-1].endswith(tuple(break_after)):
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    return parts


def _longest_part(text: str, break_after: str | None) -> int:
    return max(map(cell_len, _parts(text, break_after)))


def _widths(columns: Sequence[Column], rows: Sequence[Row], room: int) -> list[int] | None:
    """Return the width of each column; None if they do not fit."""
    cells = [[row[place] for row in rows] for place in range(len(columns))]
    widths = [column.least(texts) for column, texts in zip(columns, cells, strict=True)]
    spare = room - sum(widths)
    if spare < 0:
        return None
    missing = [
        max(column.natural(texts) - least, 0) for column, texts, least in zip(columns, cells, widths, strict=True)
    ]
    for done, place in enumerate(sorted(range(len(columns)), key=missing.__getitem__)):
        more = min(missing[place], spare // (len(columns) - done))
        widths[place] += more
        spare -= more
    return widths


def _boxed(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Layout | None:
    """Draw lines around all cells."""
    widths = _widths(columns, rows, width - 3 * len(columns) - 1)
    if widths is None:
        return None
    table = Table()
    lines = 3 + max(len(wrapped(c.title, size)) for c, size in zip(columns, widths, strict=True))
    for column, size in zip(columns, widths, strict=True):
        title = "\n".join(wrapped(column.title, size))
        table.add_column(Text(title), justify="right" if column.is_number else "left", width=size, no_wrap=True)
    for row in rows:
        cells = [column.wrap(cell, size) for column, cell, size in zip(columns, row, widths, strict=True)]
        table.add_row(*(Text("\n".join(cell)) for cell in cells))
        lines += max(map(len, cells))
    return Layout([table], lines)


def _open(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Layout | None:
    """Put columns side by side, with a line only below their titles."""
    widths = _widths(columns, rows, width - GAP * (len(columns) - 1))
    if widths is None:
        return None
    lines = _head(columns, widths)
    for row in rows:
        lines += _row(columns, row, widths)
    return Layout([*lines], len(lines))


def _in_panels(columns: Sequence[Column], rows: Sequence[Row], width: int, keys: int) -> Layout | None:
    """Split the columns into tables below each other, each with the columns that name a row."""
    panels = _panels(columns, rows, width, keys, 1)
    if not panels:
        return None
    even = _panels(columns, rows, width, keys, len(panels))
    panels = even if len(even) == len(panels) else panels
    parts = [part for panel in panels for part in (*panel.parts, Text(""))][:-1]
    return Layout(parts, sum(panel.lines + 1 for panel in panels) - 1)


def _panels(columns: Sequence[Column], rows: Sequence[Row], width: int, keys: int, number: int) -> list[Layout]:
    """Return `number` tables of about equal size, or more if they are too wide; none if a column does not fit."""
    panels: list[Layout] = []
    begin = keys
    while begin < len(columns):
        most = math.ceil((len(columns) - begin) / max(number - len(panels), 1))
        for end in range(min(begin + most, len(columns)), begin, -1):
            shown = [*range(keys), *range(begin, end)]
            cells = [[row[place] for place in shown] for row in rows]
            panel = _open([columns[place] for place in shown], cells, width)
            if panel is not None:
                break
        else:
            return []
        panels.append(panel)
        begin = end
    return panels


def _as_records(columns: Sequence[Column], rows: Sequence[Row], width: int, keys: int) -> Layout:
    """Give every row a block: its name cells, then a line per other cell; the name cells' titles come first of all."""
    titles = [column.title for column in columns[:keys]]
    lines = _names(titles, width) if any(titles) else []
    for row in rows:
        lines += _names(row[:keys], width)
        for column, cell in zip(columns[keys:], row[keys:], strict=True):
            if cell:
                lines += _field(column, cell, max(cell_len(column.title) for column in columns[keys:]), width)
    return Layout([*lines], len(lines))


def _names(cells: Sequence[str], width: int) -> list[Text]:
    """Return the heading of a block, or that of all blocks."""
    return [Text(line, style="bold") for line in wrapped(", ".join(filter(None, cells)), width, ",")]


def _field(column: Column, cell: str, title_width: int, width: int) -> list[Text]:
    """Return `title  cell`; a cell that is too wide beside the title is put below it."""
    beside = INDENT + title_width + GAP
    is_beside = _longest_part(cell, column.break_after) <= width - beside
    indent = beside if is_beside else 2 * INDENT
    first, *others = column.wrap(cell, width - indent)
    title = " " * INDENT + _padded(column.title, title_width)
    begun = [f"{title}{' ' * GAP}{first}"] if is_beside else [title.rstrip(), " " * indent + first]
    return [Text(line) for line in [*begun, *(" " * indent + line for line in others)]]


def _head(columns: Sequence[Column], widths: Sequence[int]) -> list[Text]:
    """Return the titles of columns, and a line below each."""
    titles = [wrapped(column.title, width) for column, width in zip(columns, widths, strict=True)]
    most = max(map(len, titles))
    lines = [_line(columns, texts, widths, "bold") for texts in _beside(titles, most, at_end=True)]
    return [*lines, _line(columns, ["-" * width for width in widths], widths)]


def _row(columns: Sequence[Column], row: Row, widths: Sequence[int]) -> list[Text]:
    cells = [column.wrap(cell, width) for column, cell, width in zip(columns, row, widths, strict=True)]
    return [_line(columns, texts, widths) for texts in _beside(cells, max(map(len, cells)))]


def _beside(cells: Sequence[list[str]], lines: int, at_end: bool = False) -> list[tuple[str, ...]]:
    """Return multi-line cells line by line, padded below or above."""
    fill = [[""] * (lines - len(cell)) for cell in cells]
    return list(zip(*(f + c if at_end else c + f for c, f in zip(cells, fill, strict=True)), strict=True))


def _line(columns: Sequence[Column], texts: Sequence[str], widths: Sequence[int], style: str = "") -> Text:
    cells = [
        _padded(text, width, is_right=column.is_number)
        for column, text, width in zip(columns, texts, widths, strict=True)
    ]
    return Text((" " * GAP).join(cells).rstrip(), style=style)


def _padded(text: str, width: int, is_right: bool = False) -> str:
    fill = " " * (width - cell_len(text))
    return fill + text if is_right else text + fill
