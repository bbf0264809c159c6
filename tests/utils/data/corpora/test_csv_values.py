"""Words for splits and genders, and every cell that cannot be read at once."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

import prepare_data
from tests.support.own_tables import load, table_text
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.config.corpus import CorpusConfig
from utils.data.corpora.csv_values import LISTED_BELOW, MOST_SHOWN
from utils.data.labels.label_words import read_gender, read_split
from utils.data.loader import load_corpus
from utils.errors import DataError


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("train", "train Train TRAIN training trn"),
        ("development", "development dev Dev devel val valid validation Validation VAL"),
        ("test", "test Test testing"),
        ("test1", "test1 Test1 TEST1 test_1 Test-1 test01 Test_001"),
        ("test10", "test10 test_010"),
        ("test0", "test0"),
        (None, "eval evaluation holdout 1 fold1 trainee test² all"),
    ],
)
def test_words_for_splits(split: str | None, words: str) -> None:
    assert {word: read_split(word) for word in words.split()} == dict.fromkeys(words.split(), split)
    assert read_split("Test 2") == "test2"


@pytest.mark.parametrize(
    ("gender", "words"),
    [
        ("female", "f F female Female FEMALE woman Woman"),
        ("male", "m M male Male man"),
        (None, "w weiblich männlich 0 1 other diverse x"),
    ],
)
def test_words_for_genders(gender: str | None, words: str) -> None:
    assert {word: read_gender(word) for word in words.split()} == dict.fromkeys(words.split(), gender)


def test_words_that_are_read_as_others_are_told(tmp_path: Path) -> None:
    text = "file,Set,gender\na.wav,Train,f\nb.wav,dev,F\nc.wav,val,Male\nd.wav,Test,unknown\ne.wav,dev,\n"
    corpus = load(tmp_path, text, columns={"split": "Set"})
    assert corpus.table["split"].tolist() == ["train", "development", "development", "test", "development"]
    assert corpus.table["gender"].fillna("-").tolist() == ["female", "female", "male", "-", "-"]
    assert set(corpus.notes) == {
        'Set: "dev" 2, "val" 1 read as development',
        'gender: "f" 1, "F" 1 read as female',
        'gender: "unknown" 1 read as missing',
    }


@pytest.mark.parametrize("word", ["N/A", "nan", "-", "None"])
def test_words_for_nothing_are_missing_splits_genders_and_numbers(word: str, tmp_path: Path) -> None:
    table = load(tmp_path, f"file,split,gender,arousal\na.wav,train,{word},{word}\nb.wav,dev,m,2\n").table
    assert table["gender"].isna().tolist() == table["arousal"].isna().tolist() == [True, False]
    with pytest.raises(DataError, match="a.wav has no split; give every row one"):
        load(tmp_path, f"file,split\na.wav,{word}\nb.wav,train\n")


def test_readers_share_the_words(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    rows = podcast.rows.replace({"Split_Set": {"Development": "Dev"}, "Gender": {"Male": "M", "Female": "f"}})
    rows.to_csv(tmp_path / "labels_consensus.csv", index=False, sep=";")
    config = CorpusConfig(PATH_TO_LABEL=tmp_path, PATH_TO_AUDIO=podcast.audio)
    plain = CorpusConfig(PATH_TO_LABEL=podcast.labels, PATH_TO_AUDIO=podcast.audio)
    assert load_corpus("P", config).table.equals(load_corpus("P", plain).table)


FAULTS = ("file,split,gender,arousal,votes_sad", ",train,f,2,1", "b.wav,eval,w,high,1", "c.wav,train,f,inf,-1")


def test_every_cell_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load(tmp_path, "\n".join(FAULTS))
    sentences = [problem.removeprefix(f"C: {tmp_path}/table.csv: ") for problem in caught.value.problems]
    assert sentences == [
        "line 2: file is empty; name the recording, or remove the row",
        'line 3: arousal is "high"; give a number',
        'line 3: gender is "w"; allowed: female (f, woman), male (m, man), unknown or empty',
        'line 3: split is "eval"; it means development to some and test to others; write which one',
        'line 4: arousal is "inf"; give a number',
        "6 cells cannot be read; all are listed in audits/C/label_problems.csv",
    ]
    listed = pd.read_csv("audits/C/label_problems.csv", keep_default_na=False)
    assert listed.columns.tolist() == ["line", "column", "value", "problem"]
    assert listed.iloc[[0, -1], :3].to_numpy().tolist() == [[2, "file", ""], [4, "votes_sad", "-1"]]


def test_few_problems_are_not_listed_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load(tmp_path, "file,split\n" + "a.wav,x\n" * MOST_SHOWN)
    assert len(caught.value.problems) == MOST_SHOWN
    assert not LISTED_BELOW.exists()


def test_a_list_that_cannot_be_written_costs_only_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("audits").write_text("")
    with pytest.raises(
        DataError, match="7 cells cannot be read; all would be listed in audits/C/label_problems.csv, whi"
    ):
        load(tmp_path, "file,split\n" + "a.wav,x\n" * 7)


def test_columns_are_called_as_in_the_file(tmp_path: Path) -> None:
    text = table_text().replace("arousal", "EmoAct").replace("2.5", "x")
    with pytest.raises(DataError, match='line 2: EmoAct is "x"; give a number'):
        load(tmp_path, text, columns={"arousal": "EmoAct"})


def test_an_audit_prints_each_problem_on_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text("\n".join(FAULTS))
    Path("config.toml").write_text('[C]\nFORMAT = "csv"\nPATH_TO_AUDIO = "."\nPATH_TO_LABEL = "table.csv"\n')
    assert prepare_data.main(["audit", "C"]) == 2
    assert re.findall(r"line (\d)", capsys.readouterr().err) == ["2", "3", "3", "3", "4"]
