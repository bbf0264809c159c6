"""The forms in which one word can be written: case, Unicode form, and invisible characters.

A person reads `Angry`, `angry` with a zero-width space behind it, and `ａｎｇｒｙ` as one word; a program reads three.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from utils.text import printable

JOINERS = "\u200c\u200d"
"""Invisible, but part of how Persian words, Indic words and some emoji are written."""
INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | {
    chr(code) for first, last in ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF)) for code in range(first, last + 1)
}
"""Invisible characters that Unicode counts as letters or marks; formatting characters are invisible too."""
EMPTY_BRAILLE = "\u2800"
LOOKALIKES = str.maketrans("аеорсухіјѕһԁԛԝοανρικυı", "aeopcyxijshdqwoavpikui")
"""Cyrillic, Greek and Turkish small letters, with the Latin ones that they look like."""
MOST_SHOWN = 40
"""Maximum number of a name's characters shown in a sentence."""
MOST = 5
"""Maximum number of items listed in a sentence, before it says how many more there are."""


def clean(text: str) -> str:
    """Return a text in Unicode's composed form (NFC), without invisible characters, with single spaces."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    characters = [_seen(c, text[max(i - 1, 0) : i], text[i + 1 : i + 2]) for i, c in enumerate(text)]
    return " ".join(unicodedata.normalize("NFC", "".join(characters)).split())


def fold(text: str) -> str:
    """Return a key that is equal for all forms of one word, for comparison only, never shown.

    Compatibility forms are equal too (NFKC): full-width letters, ligatures, half-width kana.
    """
    plain = clean(text)
    if plain.isascii():
        return plain.lower()
    for joiner in JOINERS:
        plain = plain.replace(joiner, "")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).casefold())
    return " ".join(folded.split())


def skeleton(text: str) -> str:
    """Return a folded text without accents, with lookalike letters replaced by Latin ones."""
    folded = fold(text)
    if folded.isascii():
        return folded
    decomposed = unicodedata.normalize("NFD", folded)
    letters = "".join(c for c in decomposed if not (unicodedata.combining(c) and ord(c) < 0x370))
    return unicodedata.normalize("NFC", letters).translate(LOOKALIKES)


def shown(text: str) -> str:
    """Return a text in quotes in which two forms of a word look different: hidden characters are escaped."""
    is_composed = unicodedata.is_normalized("NFC", text)
    is_mixed = any("a" <= c.lower() <= "z" for c in text)
    short = text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"
    return '"' + "".join(_escaped(c) if _hides(c, is_composed, is_mixed) else printable(c) for c in short) + '"'


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun.

    Args:
        number: The count.
        one: Singular, such as `speaker is`.
        many: Form for any other number; `one` with an s where None.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def some(parts: Iterable[str], most: int = MOST, separator: str = ", ") -> str:
    """Join the first parts of a sentence and say how many more there are."""
    listed = list(parts)
    more = [f"and {len(listed) - most:,} more"] * (len(listed) > most)
    return separator.join([*listed[:most], *more])


def _seen(character: str, before: str, after: str) -> str:
    """Return a character as a reader sees it: itself, a space, or nothing."""
    category = unicodedata.category(character)
    if category in ("Zs", "Zl", "Zp", "Cc") or character == EMPTY_BRAILLE:
        return " "
    if character in JOINERS and before > "\x7f" and after > "\x7f":
        return character
    return "" if category == "Cf" or character in INVISIBLE else character


def _hides(character: str, is_composed: bool, is_mixed: bool) -> bool:
    if character in INVISIBLE or character == EMPTY_BRAILLE:
        return True
    if not is_composed and unicodedata.combining(character):
        return True
    return is_mixed and ord(character.lower()[0]) in LOOKALIKES


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
