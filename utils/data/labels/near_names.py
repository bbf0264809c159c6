"""Classes with names so similar that they may be one class: `anger` beside `angry`, `Angray`, `'angry'`.

Nothing is merged, since they are different words. The measure is meant to ignore names that only look alike, such as
contempt and content, sadness and madness, happy and unhappy, class 1 and class 2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

from utils.word_forms import skeleton

WORDS = re.compile(r"[^\W_]+")
SIGNS = re.compile(r"\+|^-|-$|\d+")
MOST_CLASSES = 300
"""A column with more holds free text instead of classes; comparing all pairs would take minutes."""
IRREGULAR = {
    "anger": "angry", "anxiety": "anxious", "boredom": "bored", "curiosity": "curious", "empathetic": "empathy",
    "enthusiastic": "enthusiasm", "hatred": "hate", "pride": "proud", "sympathetic": "sympathy",
}  # fmt: skip
ENDINGS = {
    "iness": "y", "ness": "", "ation": "", "ated": "", "ion": "", "ement": "", "ment": "", "istic": "", "ism": "",
    "ance": "", "ity": "", "ing": "", "ful": "", "ous": "", "ed": "", "ly": "", "e": "",
}  # fmt: skip
SHORTEST_STEM = 3
SHORTEST_MISTYPED = 5
"""Minimum letters of a word or stem for a typing mistake to be assumed: fear is not tear, nor is hat hate."""
SYNONYMS = (
    ("angry", "mad"),
    ("happy", "joy"),
    ("fear", "afraid", "scared", "anxiety"),
)
"""Groups of words that corpora use for one class. Calm is not neutral: RAVDESS has both."""


def near_names(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of names that may stand for one class, in the order of the names."""
    if len(names) > MOST_CLASSES:
        return []
    return [(one, other) for one, other in combinations(names, 2) if are_near(one, other)]


def find_near(name: str, others: Sequence[str]) -> str | None:
    """Return which of another corpus's names probably stands for a class; None if none does.

    Between corpora, synonyms are near as well, such as happy and joy, or angry and mad.

    Args:
        name: Name of the class.
        others: Names that the other corpus has and this one lacks.

    Returns:
        The near name of the most similar length; near spellings come before synonyms.
    """
    near = [other for other in others if are_near(name, other)]
    if near:
        return min(near, key=lambda other: abs(len(other) - len(name)))
    meanings = _meanings(name)
    return next((other for other in others if meanings & _meanings(other)), None)


def _meanings(name: str) -> set[str]:
    """Return the first word of every group of synonyms to which a name belongs."""
    return {words[0] for words in SYNONYMS if any(are_near(name, word) for word in words)}


def are_near(one: str, other: str) -> bool:
    """Return whether two names differ only by punctuation, accents, a typing mistake or the form of a word."""
    one, other = skeleton(one), skeleton(other)
    words, others = WORDS.findall(one), WORDS.findall(other)
    if not words or SIGNS.findall(one) != SIGNS.findall(other):
        return False
    if "".join(words) == "".join(others):
        return True
    return len(words) == len(others) and all(map(_are_near_words, words, others))


def _are_near_words(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    is_beginning = len(short) >= SHORTEST_STEM and long.startswith(short) and not long.endswith("less")
    if one == other or is_beginning:
        return True
    stems = _stem(one), _stem(other)
    return stems[0] == stems[1] or _is_typing_mistake(short, long) or _is_typing_mistake(*sorted(stems, key=len))


def _stem(word: str) -> str:
    """Return a word without the ending that makes it a noun, an adjective or a participle."""
    word = IRREGULAR.get(word, word)
    for ending, instead in ENDINGS.items():
        if word.endswith(ending) and len(word) - len(ending) >= SHORTEST_STEM:
            return word.removesuffix(ending) + instead
    return word


def _is_typing_mistake(short: str, long: str) -> bool:
    """Return whether one letter other than the first is missing, different, or swapped with the next."""
    if len(long) < SHORTEST_MISTYPED or len(short) < len(long) - 1 or short[0] != long[0]:
        return False
    start = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) < len(long):
        return short[start:] == long[start + 1 :]
    is_swapped = short[start : start + 2] == long[start : start + 2][::-1] and short[start + 2 :] == long[start + 2 :]
    return is_swapped or short[start + 1 :] == long[start + 1 :]
