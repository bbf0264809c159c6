from __future__ import annotations

import unicodedata

import pytest

from utils.word_forms import clean, counted, fold, shown, skeleton, some

ONE_WORD = {
    "case": "ANGRY",
    "zero-width space": "angry\u200b",
    "byte order mark": "\ufeffangry",
    "soft hyphen": "an\u00adgry",
    "no-break space": "angry\u00a0",
    "right-to-left mark": "\u200fangry",
    "word joiner": "ang\u2060ry",
    "variation selector": "angry\ufe0f",
    "tab": "\tangry ",
    "full width": "ａｎｇｒｙ",
    "empty braille cell": "\u2800angry",
    "Hangul filler": "angry\u3164",
    "control character": "angry\x7f",
}


@pytest.mark.parametrize("form", ONE_WORD)
def test_the_forms_of_one_word_are_folded_to_one(form: str) -> None:
    assert fold(ONE_WORD[form]) == "angry"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (unicodedata.normalize("NFD", "wütend"), "wütend"),
        (unicodedata.normalize("NFD", "WÜTEND"), "wütend"),
        ("ΘΥΜΟΣ", "θυμος"),
        ("GROSS", "groß"),
        ("very  angry", "very\u00a0angry"),
        ("می\u200cشود", "میشود"),
        ("ｶﾅｼｲ", "カナシイ"),
        ("e\u200b\u0301mu", "ému"),
    ],
)
def test_other_alphabets_are_folded_too(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(("one", "other"), [("angry", "anger"), ("生气", "高兴"), ("colère", "colere"), ("😠", "😊")])
def test_different_words_stay_different(one: str, other: str) -> None:
    assert fold(one) != fold(other)


def test_what_is_cleaned_keeps_case_letters_and_the_joiners_of_its_script() -> None:
    assert clean("  Very\u00a0 Angry\u200b ") == "Very Angry"
    assert clean("می\u200cشود") == "می\u200cشود"
    assert clean("ab\u200cc") == "abc"
    assert clean(unicodedata.normalize("NFD", "Wütend")) == "Wütend"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("angry", '"angry"'),
        ("angry\u200b", '"angry\\u200b"'),
        ("angry\u00a0", '"angry\\xa0"'),
        ("wütend", '"wütend"'),
        (unicodedata.normalize("NFD", "wütend"), '"wu\\u0308tend"'),
        ("angry\ufe0f", '"angry\\ufe0f"'),
        ("\u0430ngry", '"\\u0430ngry"'),
        ("гнев", '"гнев"'),
        ("生气", '"生气"'),
        ("\x1b[31m", '"\\x1b[31m"'),
        ("x" * 60, '"' + "x" * 39 + '…"'),
    ],
)
def test_what_hides_is_shown(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_a_skeleton_knows_lookalikes_and_no_accents() -> None:
    assert skeleton("\u0430ngry") == "angry"
    assert skeleton("Colère") == "colere"
    assert skeleton("カナシイ") != skeleton("ガナシイ"), "a voicing mark is no accent"


def test_five_examples_are_enough() -> None:
    assert some("abc") == "a, b, c"
    assert some("abcdefg", separator="; ") == "a; b; c; d; e; and 2 more"


def test_one_is_singular() -> None:
    assert [counted(number, "row") for number in (0, 1, 2, 1234)] == ["0 rows", "1 row", "2 rows", "1,234 rows"]
    assert [counted(number, "class is", "classes are") for number in (1, 2)] == ["1 class is", "2 classes are"]
