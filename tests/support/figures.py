"""The contents of a drawn figure."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def with_gid(figure: Figure, gid: str) -> list[Any]:
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def check_texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn at print resolution lies inside the figure, is large enough, and covers no other text."""
    drawn: list[Text] = []
    original = Text.draw

    def draw(self: Text, renderer: Any) -> None:  # noqa: ANN401
        original(self, renderer)
        if self.get_visible() and self.get_text().strip():
            drawn.append(self)

    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", draw)
        figure.set_dpi(300)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in drawn]
    assert len(boxes) > 10
    assert not any(text.get_parse_math() for text in drawn), "a name is no formula"
    assert min(float(text.get_fontsize()) for text in drawn) >= 6.5
    width, height = figure.get_size_inches() * 300
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for (first, one), (second, other) in combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        down = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert across <= 0.5 or down <= 0.5, f"{first!r} and {second!r} overlap"
