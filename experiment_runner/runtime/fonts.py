"""Fonts of plots: one that comes with matplotlib, then the usual ones for Chinese, Japanese and Korean.

Matplotlib would warn of every glyph that no font has. Here such a character is drawn as a box, and the program says
in a sentence what to install.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

LATIN = "DejaVu Sans"
CJK_FONTS = (
    *(f"Noto Sans CJK {region}" for region in ("SC", "TC", "HK", "JP", "KR")),
    *(f"Noto Sans {region}" for region in ("SC", "TC", "HK", "JP", "KR")),
    *(f"Source Han Sans{region}" for region in ("", " SC", " TC", " HC", " CN", " TW", " HK", " JP", " KR", " K")),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "AR PL UMing CN", "AR PL UKai CN"),
    *("Microsoft YaHei", "Microsoft JhengHei", "SimHei", "SimSun", "Yu Gothic", "Meiryo", "MS Gothic", "Malgun Gothic"),
    *("PingFang SC", "PingFang TC", "PingFang HK", "Hiragino Sans GB", "Hiragino Sans", "Hiragino Kaku Gothic ProN"),
    *("Heiti SC", "Heiti TC", "STHeiti", "Apple SD Gothic Neo", "AppleGothic", "Arial Unicode MS"),
    *("IPAexGothic", "IPAGothic", "IPAPGothic", "TakaoGothic", "TakaoPGothic", "VL Gothic", "VL PGothic"),
    *("NanumGothic", "NanumBarunGothic", "UnDotum", "Baekmuk Gulim"),
)
"""CJK fonts of Linux, Windows and macOS; matplotlib takes a character from the first font that has it."""
BOX = "\N{WHITE VERTICAL RECTANGLE}"
MOST_NAMED = 12


@cache
def families() -> tuple[str, ...]:
    """Return the installed fonts, in the order in which a character is looked up."""
    installed = set(fontManager.get_font_names())
    return (LATIN, *(name for name in CJK_FONTS if name in installed))


@cache
def _characters(family: str) -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=family))).get_charmap())


def lacking(text: str) -> str:
    """Return the characters of a text that no font has, each once."""
    return "".join(dict.fromkeys(c for c in text if c != "\n" and not _is_known(c)))


def _is_known(character: str) -> bool:
    return character.isascii() or any(ord(character) in _characters(family) for family in families())


def drawable(text: str) -> str:
    """Return a text with a box in place of each character that no font has."""
    return text.translate(dict.fromkeys(map(ord, lacking(text)), BOX))


def font_note(texts: Iterable[str]) -> str:
    """Say which characters plots cannot show, and what to install; empty if the fonts have all of them."""
    characters = lacking("".join(texts))
    if not characters:
        return ""
    named = characters if len(characters) <= MOST_NAMED else f"{characters[:MOST_NAMED]}…"
    return (
        f"no installed font has the characters {named}, which pictures show as {BOX}; install one, such as Noto Sans "
        "CJK (Debian and Ubuntu: apt-get install fonts-noto-cjk; elsewhere: https://fonts.google.com/noto)"
    )
