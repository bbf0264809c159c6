from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.font_manager import FontProperties, findfont, get_font

from experiment_runner.reporting import figure_style
from experiment_runner.reporting.figure_style import save_figure, shortened
from experiment_runner.reporting.figures import class_shares_figure
from experiment_runner.runtime import fonts as figure_fonts
from experiment_runner.runtime.fonts import BOX, LATIN, drawable, font_note, lacking
from utils.metrics import split_head_mid_tail

OTHER = "STIXGeneral"
"""It comes with matplotlib as well, and has characters that the first font lacks."""


def characters_of(family: str) -> set[str]:
    return {chr(code) for code in get_font(findfont(FontProperties(family=family))).get_charmap()}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Whatever this machine has, no font is looked for but those that a test names."""
    monkeypatch.setattr(figure_fonts, "CJK_FONTS", ())
    figure_fonts.families.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    figure_fonts.families.cache_clear()


def look_for(installed: pytest.MonkeyPatch, *fonts: str) -> None:
    installed.setattr(figure_fonts, "CJK_FONTS", fonts)
    figure_fonts.families.cache_clear()
    installed.setitem(figure_style.STYLE, "font.family", list(figure_fonts.families()))


@pytest.mark.parametrize("name", ["悲しみ", "喜び (joy)", "기쁨", "快乐", "angry 🦤"])
def test_what_no_font_has_is_a_box_and_a_sentence(name: str, installed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    look_for(installed)
    unknown = [character for character in name if not character.isascii()]
    assert list(lacking(name)) == unknown
    assert drawable(name) == "".join(BOX if character in unknown else character for character in name)
    note = font_note(["angry", name])
    assert f"no installed font has the characters {''.join(unknown)}, which pictures show as {BOX}" in note
    assert "fonts-noto-cjk" in note
    counts = {name: 3, "angry": 2}
    figure = class_shares_figure({"train": counts}, split_head_mid_tail(counts), f"{name}, seed 1")
    save_figure(figure, tmp_path / "classes.png")  # a warning of a glyph would be an error here
    assert f"{drawable(name)} (3)" in [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_a_character_is_taken_from_whichever_font_has_it(installed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    look_for(installed, "a font that nobody has", OTHER)
    assert figure_fonts.families() == (LATIN, OTHER)
    name = "".join(sorted(c for c in characters_of(OTHER) - characters_of(LATIN) if c.isprintable())[:3])
    assert len(name) == 3
    assert drawable(name) == name
    assert font_note([name]) == ""
    counts = {name: 3, "angry": 2}
    figure = class_shares_figure({"train": counts}, split_head_mid_tail(counts), name)
    save_figure(figure, tmp_path / "classes.png")
    save_figure(figure, tmp_path / "classes.pdf")
    look_for(installed)
    assert drawable(name) == 3 * BOX


def test_usual_names_need_no_other_font(installed: pytest.MonkeyPatch) -> None:
    look_for(installed)
    assert font_note(["fröhlich", "élève", "грусть", "λύπη", "±×…–"]) == ""


def test_long_names_that_differ_at_one_end_stay_apart() -> None:
    names = ["overwhelming surprise that is good", "overwhelming surprise that is bad", "a" * 24, "embarrassment"]
    assert len({shortened(name) for name in names}) == len(names)
    assert [shortened(name) for name in names[2:]] == names[2:]
    assert all(len(shortened(name)) <= 24 for name in names)
