"""Columns by other names, and columns that nobody reads."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.support.own_tables import HEADER, load, table_text
from utils.config.corpus import CorpusConfig
from utils.config.loading import load_corpora
from utils.data.audit.audit import audit
from utils.data.corpora.column_names import SEGMENT, guess_target, guess_targets
from utils.errors import ConfigurationError, DataError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def renamed(**names: str) -> str:
    return table_text(header=tuple(names.get(name, name) for name in HEADER))


def suggestion(error: DataError) -> dict[str, str]:
    """Return the key that a sentence tells to write, as TOML reads it."""
    line = re.search(r"columns = \{.*?\}", str(error))
    assert line is not None, str(error)
    return dict(tomllib.loads(line[0])["columns"])


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("split", "partition set usage Split_Set subset partitions SplitSet data_split Set spilt"),
        (
            "emotion",
            "label class emo EmoClass emotion_label target Label emotion.label gold_label emotoin lable",
        ),
        ("gender", "sex Sex speaker_gender speaker_sex gendre spk_sex"),
        ("speaker", "spk client_id speaker_id SpkrID actor Actor_ID subject participant spk_id speakr"),
        ("arousal", "activation EmoAct arousal_mean mean_arousal arousl"),
        ("valence", "pleasure EmoVal valence_mean valance"),
        ("dominance", "EmoDom dominance_avg dominence"),
        ("file", "filename path wav audio FileName file_path wav_file audio_path fname"),
        (
            SEGMENT,
            "start end start_time end_time onset offset begin StartTime seg_start end_ms",
        ),
        (SEGMENT, "t_start t_end tmin xmax start_idx audio_start"),
        (None, "duration transcript age corpus rater n_votes speaker_age arousal_std state table num_speakers text"),
    ],
)
def test_usual_names_are_known(target: str | None, names: str) -> None:
    assert {name: guess_target(name) for name in names.split()} == dict.fromkeys(names.split(), target)


@pytest.mark.parametrize(
    ("names", "targets"),
    [
        ("act val dom", "arousal valence dominance"),
        ("Act_mean Val_mean Dom_mean", "arousal valence dominance"),
        ("aro val dom", "arousal valence dominance"),
        ("arousal val dom", "arousal valence dominance"),
        ("from to", f"{SEGMENT} {SEGMENT}"),
        ("From_s To_s", f"{SEGMENT} {SEGMENT}"),
        ("act val", ""),
        ("from text", ""),
        ("dom to", ""),
    ],
)
def test_some_names_mean_something_together_alone(names: str, targets: str) -> None:
    assert guess_targets(names.split()) == dict(zip(names.split(), targets.split(), strict=False))


def _as_cell(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"' if '"' in name else name


@pytest.mark.parametrize(
    "names",
    [
        {"emotion": "label"},
        {"file": "filename", "emotion": "label", "gender": "sex", "split": "Split_Set", "speaker": "client_id"},
        {"arousal": "activation"},
        {"split": "Data Split", "speaker": 'actor "id"'},
    ],
)
def test_the_line_that_is_told_reads_the_table(names: dict[str, str], tmp_path: Path) -> None:
    text = renamed(**{target: _as_cell(name) for target, name in names.items()})
    with pytest.raises(DataError) as caught:
        load(tmp_path, text)
    columns = suggestion(caught.value)
    assert columns == names
    assert load(tmp_path, text, columns=columns).table.equals(load(tmp_path, table_text()).table)


def test_all_columns_are_told_at_once_and_segments_are_refused(tmp_path: Path) -> None:
    rows = "a.wav,train,sad,0.5,2\nb.wav,development,sad,0,1\n"
    with pytest.raises(DataError, match='"start" and "end_time" mark utterances within recordings') as caught:
        load(tmp_path, "path,usage,emo,start,end_time\n" + rows)
    columns = suggestion(caught.value)
    assert columns == {"file": "path", "split": "usage", "emotion": "emo", "start": "", "end_time": ""}
    assert load(tmp_path, "path,usage,emo,start,end_time\n" + rows, columns=columns).notes == ()


def test_several_candidates_and_cells_of_another_kind(tmp_path: Path) -> None:
    text = "file,fold,partition,speaker\na.wav,1,train,1\nb.wav,2,dev,2\n"
    with pytest.raises(DataError, match='no column "split", which is probably "fold" or "partition"') as caught:
        load(tmp_path, text)
    assert suggestion(caught.value) == {"fold": "", "split": "partition"}
    text = "file,fold,speaker\na.wav,1,1\nb.wav,2,2\nc.wav,3,3\n"
    with pytest.raises(
        DataError, match='no column "split", and "fold" contains words that do not name a split'
    ) as caught:
        load(tmp_path, text)
    assert suggestion(caught.value) == {"fold": ""}
    assert "the labels name no splits" in load(tmp_path, text, columns={"fold": ""}).notes[-1]


def test_what_was_chosen_before_stays_in_the_line(tmp_path: Path) -> None:
    text = renamed(emotion="label", gender="sex")
    with pytest.raises(DataError) as caught:
        load(tmp_path, text, columns={"emotion": "label"})
    assert suggestion(caught.value) == {"emotion": "label", "gender": "sex"}


def test_ratings_in_short_and_the_ends_of_segments_are_told(tmp_path: Path) -> None:
    text = "file,split,act,val,dom,from,to\na.wav,train,1,2,3,0,2\nb.wav,development,3,2,1,0,1\n"
    with pytest.raises(DataError, match='no column "arousal", which is probably "act".*"from" and "to" mark') as caught:
        load(tmp_path, text)
    columns = suggestion(caught.value)
    assert columns == {"arousal": "act", "valence": "val", "dominance": "dom", "from": "", "to": ""}
    assert load(tmp_path, text, columns=columns).table["arousal"].tolist() == [1, 3]


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        str.title,
        lambda name: f"  {name} ",
        lambda name: f"{name}\u200b",
        lambda name: f"\ufeff{name}",
        lambda name: f"\u00a0{name}\u00a0",
        lambda name: name[0] + "\u00ad" + name[1:],
    ],
)
def test_names_that_differ_in_case_or_by_what_cannot_be_seen_are_read(change: object, tmp_path: Path) -> None:
    header = tuple(map(change, HEADER))  # type: ignore[call-overload]
    assert load(tmp_path, table_text(header=header)).table.equals(load(tmp_path, table_text()).table)


def test_a_column_that_is_named_is_read_in_place_of_the_usual_one(tmp_path: Path) -> None:
    corpus = load(
        tmp_path, "file,split,emotion,Label\na.wav,train,sad,x\nb.wav,dev,sad,y\n", columns={"emotion": "label"}
    )
    assert corpus.table["emotion"].tolist() == ["x", "y"]
    assert corpus.unread == ("emotion",)


def test_unread_columns_are_told_and_found_by_an_audit(tmp_path: Path) -> None:
    text = "file,split,duration,rater,empty,,partition\na.wav,train,3,x,,1,p\nb.wav,development,4,y,,2,q\n"
    corpus = load(tmp_path, text)
    assert corpus.notes == ("columns that are not read: duration, rater, column 6, which has no name, partition",)
    config = CorpusConfig(FORMAT="csv", PATH_TO_AUDIO=tmp_path, PATH_TO_LABEL=tmp_path / "table.csv")
    found = audit(corpus, config).findings
    rows = found.loc[found["kind"] == "unread-column", ["severity", "detail"]].to_numpy().tolist()
    assert [["note", name] for name in corpus.unread] == sorted(rows, key=lambda row: corpus.unread.index(row[1]))


def test_votes_are_counts(tmp_path: Path) -> None:
    table = "file,split,votes_sad,votes_angry\na.wav,train,2,1\nb.wav,development,0,3\n"
    assert load(tmp_path, table).table["votes_angry"].tolist() == [1, 3]
    for cell in ("", "x", "-1", "1.5"):
        with pytest.raises(DataError, match="line 2: votes_sad is .*; give a count of votes, or ignore the column"):
            load(tmp_path, table.replace("train,2", f"train,{cell}"))
    assert "votes_sad" not in load(tmp_path, table.replace("train,2", "train,x"), columns={"votes_sad": ""}).table


def test_votes_are_read_whatever_the_case_of_their_names(tmp_path: Path) -> None:
    text = "file,split,Votes_Sad,VOTES_ANGRY,Secondary_Sad\u200b\na.wav,train,2,1,1\nb.wav,development,0,3,0\n"
    table = load(tmp_path, text).table
    assert [list(table[name]) for name in ("votes_sad", "votes_angry", "secondary_sad")] == [[2, 0], [1, 3], [1, 0]]
    with pytest.raises(DataError, match='line 2: Votes_Sad is "x"; give a count of votes'):
        load(tmp_path, text.replace("train,2", "train,x"))


@pytest.mark.parametrize(
    ("text", "columns", "sentence"),
    [
        (
            "file,Votes_Sad,votes_sad\na.wav,1,2\n",
            {},
            'the columns "Votes_Sad" and "votes_sad" would both be read as votes_sad; remove or rename one of them',
        ),
        ("file,votes_sad,votes_sad\na.wav,1,2\n", {}, 'the columns "votes_sad" and "votes_sad" would both be read'),
        ("file,split\na.wav,train\n", {"emotion": "labl"}, 'columns.emotion: the table has no column "labl"'),
        ("file,label\na.wav,sad\n", {"emotion": "labl"}, 'no column "labl"; did you mean "label"?'),
        ("file,split\na.wav,train\n", {"fold": ""}, 'columns.fold: the table has no column "fold"'),
        ("File,file\na.wav,b.wav\n", {}, 'the columns "File" and "file" would both be read as file; say which in [C]'),
        ("file,split,split\na.wav,train,test\n", {}, 'the columns "split" and "split" would both be read as split'),
        ("file,label,label\na.wav,x,y\n", {"emotion": "label"}, '"label" appears twice in the header'),
        (
            "file,Label\na.wav,x\n",
            {"emotion": "Label", "speaker": "label"},
            'columns.speaker: the column "Label" is in',
        ),
        ("file,label\na.wav,x\n", {"emotion": "label", "label": ""}, 'columns.label: the column "label" is in'),
        (
            "alpha,beta\n1,2\n",
            {},
            'no column "file", but "alpha", "beta"; in [C] name the one that holds the recordings',
        ),
    ],
)
def test_columns_that_cannot_be_told_are_refused(text: str, columns: object, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(sentence)):
        load(tmp_path, text, columns=columns)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            'columns = { emotoin = "label" }',
            'columns: found "emotoin"; no such column of an utterance table; did you mean',
        ),
        ('columns = { emotion = "x", gender = "x" }', 'columns: found "x" for emotion and gender; name each column'),
        ("columns = { emotion = 3 }", "columns: found emotion = 3; name a column in quotes"),
        ('columns = "label"', 'columns: found "label"; allowed: a table'),
        (
            'FORMAT = "emodb"\ncolumns = { emotion = "x" }',
            'columns: FORMAT = "emodb" knows its columns; remove the key',
        ),
        (
            "split_speakers = { development = [10], test1 = [11] }",
            'in the labels: development = ["10"]; found test1 = [11]',
        ),
        ("split_speakers = { development = [1, 2.5] }", "found development = [1, 2.5]; speakers stand in quotes"),
    ],
)
def test_keys_that_cannot_be_right_are_refused(keys: str, sentence: str, tmp_path: Path) -> None:
    layout = "" if "FORMAT" in keys else 'FORMAT = "csv"\nPATH_TO_LABEL = "t.csv"\n'
    (tmp_path / "config.toml").write_text(f'[C]\nPATH_TO_AUDIO = "wav"\n{layout}{keys}\n')
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        load_corpora(tmp_path / "config.toml")


def test_further_columns_are_read_as_texts_with_one_name_per_class(tmp_path: Path) -> None:
    rows = table_text(header=(*HEADER[:-1], "Age Group")).replace("2.5", "Old").replace(",3\n", ",old\n")
    keys = {"further_columns": ["age_group"], "columns": {"age_group": "Age Group"}}
    corpus = load(tmp_path, rows.replace("4.25", "n/a"), **keys)
    assert list(corpus.table["age_group"].fillna("")) == ["old", "old", "", "1"]
    assert 'age_group: "Old" 1 read as "old"' in list(corpus.cells.notes())
    assert "age_group" not in load(tmp_path, rows).table


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"further_columns": ["arousl"]}, 'further_columns: the table has no column "arousl"; did you mean "arousal"?'),
        ({"further_columns": ["path"]}, 'found "path"; another column has that name or could have it; choose another'),
        (
            {"further_columns": ["Age"]},
            'found "Age"; allowed: lower-case letters, digits and _, beginning with a letter',
        ),
        ({"further_columns": ["age", "age"]}, 'found "age" twice; name each column once'),
        (
            {"further_columns": ["age"], "FORMAT": "emodb", "PATH_TO_LABEL": None},
            'FORMAT = "emodb" knows its columns; remove the key',
        ),
    ],
)
def test_further_columns_that_cannot_be_read_are_named(keys: dict[str, object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises((DataError, ValidationError)) as raised:
        load(tmp_path, table_text(), **keys)
    assert sentence in str(raised.value)
