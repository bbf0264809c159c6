from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import SHARED_DATA
from utils.config.corpus import CorpusConfig
from utils.data.labels.corpus import Corpus
from utils.data.loader import load_corpus
from utils.errors import DataError

EMOTIONS = {"A": "angry", "D": "disgust", "F": "fear", "H": "happy", "N": "neutral", "S": "sad"}


@pytest.fixture(scope="module")
def votes_folder() -> Path:
    folder = SHARED_DATA / "cremad_votes"
    if not folder.is_dir():
        pytest.skip(f"CREMA-D's votes are not at {folder}")
    return folder


def load(labels: Path, audio: Path) -> Corpus:
    return load_corpus("C", CorpusConfig(FORMAT="crema-d", PATH_TO_AUDIO=audio, PATH_TO_LABEL=labels))


def test_votes_ties_and_genders_are_those_of_the_files(votes_folder: Path, tmp_path: Path) -> None:
    """Counts as the corpus's own `emoVote` has them, which names every emotion of a tie."""
    corpus = load(votes_folder, tmp_path)
    table = corpus.table.set_index("file")
    votes = table[[f"votes_{name}" for name in EMOTIONS.values()]]
    assert (len(table), int(votes.to_numpy().sum()), int(table["emotion"].isna().sum())) == (7442, 68_568, 644)
    assert corpus.notes[0] == "68,568 votes on 7,442 clips of voice_only_votes.csv; 644 ties have no emotion"
    counts = dict(zip(votes.index, votes.to_numpy().tolist(), strict=True))
    emotions = table["emotion"].fillna("tie").to_dict()
    with (votes_folder / "voice_only_votes.csv").open() as file:
        for row in csv.DictReader(file):
            found = emotions[row["FileName"] + ".wav"]
            assert counts[row["FileName"] + ".wav"] == [int(row[code]) for code in EMOTIONS]
            assert found == EMOTIONS.get(row["emoVote"], "tie")
    assert Counter(table.groupby("speaker")["gender"].first()) == {"male": 48, "female": 43}
    assert set(table["split"]) == {"train", "development", "test1"}
    assert table.groupby("speaker")["split"].nunique().eq(1).all()


def test_a_folder_with_several_conditions_is_refused(votes_folder: Path, tmp_path: Path) -> None:
    for name in ("voice_only_votes.csv", "face_only_votes.csv"):
        (tmp_path / name).write_bytes((votes_folder / "voice_only_votes.csv").read_bytes())
    with pytest.raises(DataError, match=r"holds 2 files called \*votes\*\.csv"):
        load(tmp_path, tmp_path)


def test_clips_that_were_converted_stand_for_those_of_the_votes(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text(
        "FileName,A,D,F,H,N,S\n1001_A,5,0,0,0,0,1\n1002_B,0,0,0,5,0,1\n1003_C,0,0,0,0,5,1\n"
    )
    sexes = "".join(f"{number},Male\n" for number in (1001, 1002, 1003))
    (tmp_path / "VideoDemographics.csv").write_text(f"ActorID,Sex\n{sexes}")
    for name in ("1001_A.flac", "1002_B.wav", "1002_B.flac", "._1003_C.wav"):
        (tmp_path / name).touch()
    table = load(tmp_path / "votes.csv", tmp_path).table
    assert table["file"].tolist() == ["1001_A.wav", "1002_B.wav", "1003_C.wav"], "as the votes name them"
    assert [Path(path).name for path in table["path"]] == ["1001_A.flac", "1002_B.wav", "1003_C.wav"]
