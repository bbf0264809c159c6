from __future__ import annotations

import unicodedata

import numpy as np
import pandas as pd
import pytest

from utils.data.labels.speaker_names import may_leak, speaker_key, warn_of_spellings, warn_of_unknown, written_twice

ONE = [
    ("03", "3"), ("8.0", "08"), ("Ann", "ann"), ("S03", "s03"), ("S03", "3"), ("Spk03", "spk 3"), ("speaker_12", "12"),
    ("Müller", unicodedata.normalize("NFD", "Müller")), ("Ann\u200b", "Ann"), ("Ann\u00a0Lee", "ann lee"), ("３", "3"),
    ("Müller", "muller"), ("ann_lee", "Ann-Lee"), ("'Ann'", "Ann"), ("actor_07", "Actor07"), ("M01", "m1"), ("٣", "3"),
    ("\u0410nn", "Ann"), ("00", "0"), ("3.", "3"),
]  # fmt: skip
TWO = [
    ("03", "30"), ("M01", "F01"), ("M01", "1"), ("1.1", "1.10"), ("S1_1", "S11"), ("Ann", "Anne"), ("10", "1"),
    ("李", "王"), ("a1", "a11"), ("Ses01F", "Ses01M"), ("😀", "😎"), ("spk", "s"), ("-", "?"),
]  # fmt: skip


def table_of(*rows: tuple[str | float, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["speaker", "split"])


@pytest.mark.parametrize(("one", "other"), ONE)
def test_spellings_of_one_speaker_have_one_key(one: str, other: str) -> None:
    assert speaker_key(one) == speaker_key(other)


@pytest.mark.parametrize(("one", "other"), TWO)
def test_two_speakers_have_two(one: str, other: str) -> None:
    assert speaker_key(one) != speaker_key(other)


def test_both_spellings_are_named_with_their_splits() -> None:
    table = table_of(("03", "train"), ("03", "train"), ("3", "development"), ("3", "test1"), ("4", "train"))
    groups = written_twice(table)
    assert groups == [{"03": {"train": 2}, "3": {"development": 1, "test1": 1}}]
    assert warn_of_spellings(groups) == (
        'one speaker may be written in several ways: "03" (train 2) and "3" (development 1, test1 1); a leak between '
        "training and evaluation cannot be excluded; write each speaker in one way"
    )


def test_a_leak_is_claimed_where_training_and_evaluation_differ_alone() -> None:
    table = table_of(("Ann", "train"), ("ann", "train"), ("Bob", "test1"), ("bob", "development"))
    groups = written_twice(table)
    assert [may_leak(group) for group in groups] == [False, False]
    assert "leak" not in warn_of_spellings(groups)
    leaking = written_twice(table_of(("a", "test1"), ("A", "test1"), ("b", "train"), ("B", "test1")))
    assert [sorted(group) for group in leaking] == [["B", "b"], ["A", "a"]], "what may leak comes first"


def test_five_speakers_are_enough() -> None:
    table = table_of(*[(f"{n}.0" if twice else f"{n}", "train") for n in range(1, 9) for twice in (0, 1)])
    assert warn_of_spellings(written_twice(table)).endswith("; and 3 more; write each speaker in one way")


def test_a_speaker_written_in_one_way_is_no_news() -> None:
    assert written_twice(table_of(("1", "train"), ("1", "test1"), (np.nan, "train"), ("2", "train"))) == []
    assert warn_of_spellings([]) == ""


def test_rows_without_a_speaker_are_counted_by_split() -> None:
    some = table_of(("1", "train"), (np.nan, "train"), (np.nan, "test1"), ("2", "development"), (np.nan, "development"))
    assert warn_of_unknown(some) == (
        "the speakers of some rows are unknown (train 1 of 2, development 1 of 2, test1 1 of 1): whether they are in "
        "another split cannot be checked"
    )
    assert warn_of_unknown(table_of((np.nan, "test1"), (np.nan, "train"), (np.nan, "train"))) == (
        "no row names its speaker (train 2, test1 1): whether a speaker is in two splits cannot be checked"
    )
    assert warn_of_unknown(table_of(("1", "train"))) == ""
