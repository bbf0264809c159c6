"""Other common names for the columns of an utterance table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain

from utils.config.types import TABLE_COLUMNS
from utils.word_forms import clean, fold

SEGMENT = "segment"
"""Stands for a column with the beginning or end of an utterance within a recording."""
CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


SPEAKERS = _set(
    "speaker spk spkr spkid spkrid speakerid speakername client clientid actor actorid actress performer "
    "subject subjectid subj participant participantid person personid talker singer user userid voice"
)
AVERAGES = _set("mean avg average median rating ratings score value level norm normalised normalized emo")
NUMBERS = _set("id ids name no nr num number code key")
WORDS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    SEGMENT: (
        _set("start end begin beginning onset offset stop starttime endtime startsec endsec tmin tmax xmin xmax"),
        _set(
            "time times sec secs second seconds s ms msec sample samples frame frames segment seg utterance utt clip "
            "pos position timestamp at of in t idx index audio"
        ),
    ),
    "gender": (_set("gender genders sex"), SPEAKERS | NUMBERS),
    "arousal": (_set("arousal activation emoact aro"), AVERAGES | {"act"}),
    "valence": (_set("valence pleasure pleasantness emoval"), AVERAGES | {"val"}),
    "dominance": (_set("dominance emodom potency"), AVERAGES | {"dom"}),
    "speaker": (SPEAKERS, NUMBERS),
    "split": (
        _set("split splits splitset partition partitions subset subsets set fold folds usage datasplit"),
        _set("data cv train val test name id no nr number type"),
    ),
    "emotion": (
        _set(
            "emotion emotions emo emoclass emotional label labels class classes category target affect mood "
            "emotionlabel emotionclass annotation"
        ),
        _set("gold true name id code final consensus majority primary main discrete categorical type"),
    ),
    "file": (
        _set(
            "file files filename filepath filenames path wav wavs wave wavfile wavpath wavname audio audiofile "
            "audiopath audiofilepath recording clip fname utterance utt stimulus sound"
        ),
        NUMBERS | _set("relative rel absolute abs full to of"),
    ),
}
"""By target, the words of which a name must contain at least one, and further words that it may contain."""
PAIRS: Mapping[frozenset[str], str] = {
    frozenset({"emo", "act"}): "arousal",
    frozenset({"emo", "val"}): "valence",
    frozenset({"emo", "dom"}): "dominance",
}
TOGETHER: Sequence[Sequence[tuple[str, frozenset[str], frozenset[str]]]] = (
    (
        ("arousal", _set("act aro arousal activation"), AVERAGES),
        ("valence", _set("val valence"), AVERAGES),
        ("dominance", _set("dom dominance"), AVERAGES),
    ),
    ((SEGMENT, _set("from"), WORDS[SEGMENT][1]), (SEGMENT, _set("to"), WORDS[SEGMENT][1])),
)
"""Sets of names that have a meaning only together: the target of each name, its own words, and further allowed ones."""
SURE, LIKELY = 0.75, 0.8
"""Minimum similarity of a misspelt name to a column's own name, and to another usual one."""


def guess_targets(names: Iterable[str]) -> dict[str, str]:
    """Return the utterance-table column that each name of a header probably means; other names are left out.

    In addition to `guess_target`, this recognises names with a meaning only together: `act`, `val` and `dom`, or `from`
    and `to`.
    """
    guessed = {name: guess_target(name) for name in names}
    for group in TOGETHER:
        found = [
            {name: target for name in guessed if _words(name) & core and _words(name) <= core | further}
            for target, core, further in group
        ]
        if all(found):
            guessed.update(chain.from_iterable(part.items() for part in found))
    return {name: target for name, target in guessed.items() if target is not None}


def guess_target(name: str) -> str | None:
    """Return the column of an utterance table that a name probably means, if any.

    `SEGMENT` is returned for the beginning or end of an utterance within a recording.
    """
    words = _word_list(name)
    compact = "".join(words)
    for target, (core, _) in WORDS.items():
        if compact in core:
            return target
    if frozenset(words) in PAIRS:
        return PAIRS[frozenset(words)]
    for target, (core, further) in WORDS.items():
        if core & set(words) and set(words) <= core | further:
            return target
    return _misspelt(compact) if len(words) == 1 else None


def _word_list(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", fold(CAMEL_CASE.sub(" ", clean(name)))) if word]


def _words(name: str) -> frozenset[str]:
    return frozenset(_word_list(name))


def _misspelt(word: str) -> str | None:
    near = get_close_matches(word, TABLE_COLUMNS, 1, SURE)
    if near:
        return near[0]
    usual = {name: target for target, (core, _) in WORDS.items() for name in core if len(name) >= 5}
    usual = {name: target for name, target in usual.items() if target != SEGMENT}  # "state" is similar to "start"
    close = get_close_matches(word, usual, 1, LIKELY)
    return usual[close[0]] if close else None
