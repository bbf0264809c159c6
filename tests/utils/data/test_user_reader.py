"""Corpora in a format of the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.support.user_code import Write
from utils.config.corpus import CorpusConfig
from utils.config.loading import load_corpora
from utils.data.loader import load_corpus
from utils.data.recordings.leaks import share_names
from utils.errors import ConfigurationError, DataError

ROW = '{"file": "a.wav", "speaker": "1"}'
READER = """
import pandas as pd
from utils.config.formats import CorpusFacts, CorpusFormat
from utils.data.labels.corpus import Reading

def read(name, config):
    return {returned}

MINE = {record}
"""
GERMAN = "[M]\nFORMAT = 'reader_of_mine:MINE'\nPATH_TO_AUDIO = '.'\n"


def write_reader(
    write: Write, folder: Path, returned: str, record: str = "CorpusFormat(read)", section: str = GERMAN
) -> Path:
    write("reader_of_mine", READER.format(returned=returned, record=record))
    (folder / "config.toml").write_text(section)
    return folder / "config.toml"


def test_the_users_reader_reads_emodb_as_the_registered_one_does(
    emodb_folder: Path, tmp_path: Path, write_module: Write
) -> None:
    text = """
from utils.config.formats import CorpusFacts, CorpusFormat
from utils.data.emodb import read as read_emodb

def read(name, config):
    return read_emodb(name, config).rows.drop(columns="path")

MINE = CorpusFormat(read, facts=CorpusFacts("de", "German", "acted speech"))
"""
    write_module("reader_of_mine", text)
    corpora = tmp_path / "config.toml"
    corpora.write_text(GERMAN.replace("'.'", f"'{emodb_folder}'"))
    corpus = load_corpus("M", load_corpora(corpora)["M"])
    registered = load_corpus("M", CorpusConfig(FORMAT="emodb", PATH_TO_AUDIO=emodb_folder))
    pd.testing.assert_frame_equal(corpus.table, registered.table)
    assert corpus.classes == registered.classes
    assert (corpus.facts and corpus.facts.language, registered.facts) == ("de", None)


RETURNED = {
    "1 / 0": r"fails: .*reader_of_mine.py, line 7: ZeroDivisionError: division by zero; correct it",
    "pd.read_csv('absent.csv')": r"reader_of_mine.py, line 7: FileNotFoundError",
    "[1]": r"returns a list; it must be a pandas.DataFrame, or a Reading that contains one",
    "pd.DataFrame([{'speaker': '1'}])": "returns a table without the column file",
    "pd.DataFrame([{'file': 'a.wav', 'Emotion': 'sad'}])": 'the column "Emotion", .* did you mean "emotion"',
    "pd.DataFrame([{'file': 'a.wav', 'age': '20'}])": 'the column "age", which no corpus has and further_columns does',
    "pd.DataFrame([['a.wav'] * 2], columns=['file'] * 2)": 'the column "file" twice; leave one out',
    "pd.DataFrame([{'file': 'a.wav'}, {'file': None}])": "file = nan in row 1; allowed: a name in every row",
    "pd.DataFrame([{'file': 'a.wav', 'split': 'dev'}])": "split = 'dev' in row 0; allowed: train, development, test1",
    "pd.DataFrame([{'file': 'a.wav', 'gender': 'F'}])": "gender = 'F' in row 0; allowed: female, male, or None",
    "pd.DataFrame([{'file': 'a.wav', 'speaker': 1}])": "speaker = .*1.* in row 0; allowed: a text, or None",
    "pd.DataFrame([{'file': 'a.wav', 'arousal': '3'}])": "arousal = '3' in row 0; allowed: a number, or None",
    "pd.DataFrame([{'file': 'a.wav', 'votes_sad': 0.5}])": "votes_sad = .*0.5.* in row 0; allowed: a count of raters",
    "pd.DataFrame([{'file': 'a.wav', 'votes_sad': None}])": "votes_sad = None in row 0; allowed: a count of raters",
    "pd.DataFrame([])": "returns a table without the column file",
    "pd.DataFrame({'file': []})": "no utterance was found",
    "pd.DataFrame([{'file': '../a.wav', 'speaker': '1'}])": "leads out of PATH_TO_AUDIO",
    "pd.DataFrame([{'file': 'a.wav', 'speaker': s, 'split': s} for s in ('train', 'test1')])": "is listed in 2 rows",
    f"Reading(pd.DataFrame([{ROW}]), hidden=('test3',))": "hidden splits, which MSP-PODCAST alone has",
}


@pytest.mark.parametrize("returned", RETURNED)
def test_a_table_that_cannot_be_used_is_one_sentence(returned: str, tmp_path: Path, write_module: Write) -> None:
    config = load_corpora(write_reader(write_module, tmp_path, returned))["M"]
    with pytest.raises(DataError, match=RETURNED[returned]) as caught:
        load_corpus("M", config)
    assert str(caught.value).startswith("M: ")
    assert len(caught.value.problems) == 1


RECORDS = {
    "CorpusFormat(read, needs_labels=True)": "M.PATH_TO_LABEL: missing; FORMAT = .reader_of_mine:MINE. needs it",
    "read": "is not an instance of utils.config.formats.CorpusFormat; docs/extending.md has a complete example",
    "CorpusFormat(read, sources=lambda name: [])": r"mine.py, line 9: TypeError: sources cannot be called with ",
    "CorpusFormat(read, facts=CorpusFacts('German', 'German', ''))": 'line 9: ValueError: language = "German" is no',
}


@pytest.mark.parametrize("record", RECORDS)
def test_a_format_that_does_not_fit_is_one_sentence(record: str, tmp_path: Path, write_module: Write) -> None:
    corpora = write_reader(write_module, tmp_path, "None", record)
    with pytest.raises(ConfigurationError, match=RECORDS[record]) as caught:
        load_corpora(corpora)
    assert len(caught.value.problems) == 1


def test_labels_and_columns_are_refused_where_the_format_has_none(tmp_path: Path, write_module: Write) -> None:
    section = f"{GERMAN}PATH_TO_LABEL = '.'\ncolumns = {{ emotion = 'label' }}\n"
    with pytest.raises(ConfigurationError) as caught:
        load_corpora(write_reader(write_module, tmp_path, "None", section=section))
    labels, columns = map(str, caught.value.problems)
    assert "M.PATH_TO_LABEL: FORMAT" in labels
    assert "M.columns: FORMAT" in columns


@pytest.mark.parametrize("is_one", [True, False])
def test_equal_names_in_two_sections_are_one_person_if_the_format_says_so(
    is_one: bool, tmp_path: Path, write_module: Write
) -> None:
    returned = f"pd.DataFrame([dict({ROW}, speaker=s, file=s, split='train') for s in '12'])"
    section = f"{GERMAN}{GERMAN.replace('[M]', '[N]')}"
    corpora = load_corpora(
        write_reader(write_module, tmp_path, returned, f"CorpusFormat(read, is_one_corpus={is_one})", section=section)
    )
    one, other = (load_corpus(name, config) for name, config in corpora.items())
    assert share_names(one, other) == is_one


def test_further_columns_are_texts_that_the_section_lists(tmp_path: Path, write_module: Write) -> None:
    """They are the same in a table that was kept."""
    section = f"{GERMAN}further_columns = ['age', 'region']\n"
    names, splits, ages = ["a", "b", "c"], ["train", "development", "test1"], ["Old", "unknown", "young"]
    returned = f"pd.DataFrame({dict(file=names, speaker=names, split=splits, age=ages, region=[None] * 3)})"
    record = "CorpusFormat(read, sources=lambda name, config: [])"
    config = load_corpora(write_reader(write_module, tmp_path, returned, record, section))["M"]
    read, kept = (load_corpus("M", config) for _ in range(2))
    assert read.table["age"].fillna("missing").tolist() == ["old", "missing", "young"]
    pd.testing.assert_frame_equal(read.table, kept.table)


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (f"pd.DataFrame([dict({ROW}, age=71)])", "age = .*71.* in row 0; allowed: a text, or None"),
        (f"pd.DataFrame([{ROW}])", "returns a table without the column age, which further_columns lists"),
    ],
)
def test_a_further_column_that_cannot_be_used_is_one_sentence(
    returned: str, sentence: str, tmp_path: Path, write_module: Write
) -> None:
    section = f"{GERMAN}further_columns = ['age']\n"
    config = load_corpora(write_reader(write_module, tmp_path, returned, section=section))["M"]
    with pytest.raises(DataError, match=sentence):
        load_corpus("M", config)


PROGRAM = """
from pathlib import Path
from utils.config.loading import load_corpora
from utils.data.loader import load_corpus
print(load_corpus("M", load_corpora(Path("config.toml"))["M"]).table["emotion"].iloc[0])
"""


def test_a_kept_table_is_forgotten_when_the_reader_changes(tmp_path: Path, write_module: Write) -> None:
    """A reader that says what it reads is called again if its code changes, and not before."""
    reads = "[print('read'), pd.DataFrame([dict(file='a', speaker=s, emotion='sad', split=t) for s, t in "
    returned = reads + "zip('123', ('train', 'development', 'test1'))])][1].assign(file=list('abc'))"
    write_reader(
        write_module,
        tmp_path,
        returned,
        "CorpusFormat(read, sources=lambda name, config: [config.PATH_TO_AUDIO / 'config.toml'])",
    )

    def load() -> list[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert load() == ["read", "sad"]
    assert load() == ["sad"]
    module = tmp_path / "reader_of_mine.py"
    module.write_text(module.read_text().replace("'sad'", "'fear'"))
    assert load() == ["read", "fear"]
