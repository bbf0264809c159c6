from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.support.synthetic_podcast import SyntheticPodcast
from utils.config.corpus import CorpusConfig
from utils.data.labels.corpus import Corpus
from utils.data.loader import load_corpus
from utils.data.recordings.preflight import require_all
from utils.data.splits import assign_splits, check_speakers
from utils.errors import DataError


def podcast_corpus(labels: Path, audio: Path) -> Corpus:
    return load_corpus("P", CorpusConfig(PATH_TO_LABEL=labels, PATH_TO_AUDIO=audio))


def csv_corpus(folder: Path, text: str, **keys: object) -> Corpus:
    (folder / "table.csv").write_text(text)
    config = {"FORMAT": "csv", "PATH_TO_LABEL": folder / "table.csv", "PATH_TO_AUDIO": folder, **keys}
    return load_corpus("C", CorpusConfig.model_validate(config))


def test_emodb_is_read_from_its_file_names(emodb_folder: Path) -> None:
    splits = {"development": ["13", "14"], "test1": ["15", "16"]}
    corpus = load_corpus("E", CorpusConfig(FORMAT="emodb", PATH_TO_AUDIO=emodb_folder, split_speakers=splits))
    assert corpus.classes == ("angry", "sad", "happy", "neutral")
    assert corpus.table["emotion"].value_counts().to_dict() == {"angry": 127, "neutral": 79, "happy": 71, "sad": 62}
    assert corpus.table["split"].value_counts().to_dict() == {"train": 189, "development": 77, "test1": 73}
    row = corpus.table.set_index("file").loc["03a01Wa.flac"]
    assert (row["speaker"], row["gender"], row["emotion"], row["split"]) == ("03", "male", "angry", "train")


def test_ravdess_is_read_from_its_file_names(ravdess_folder: Path) -> None:
    corpus = load_corpus("R", CorpusConfig(FORMAT="ravdess", PATH_TO_AUDIO=ravdess_folder))
    assert corpus.classes == ("angry", "sad", "happy", "surprise", "fear", "disgust", "neutral", "calm")
    assert len(corpus.table) == 480
    assert corpus.table.groupby("split")["speaker"].agg(lambda s: sorted(set(s))).to_dict() == {
        "development": ["04", "07"],
        "test1": ["01", "05"],
        "train": ["02", "03", "06", "08"],
    }, "the default split is the same on every machine"
    row = corpus.table.set_index("file").loc["03-01-05-01-01-02-04.flac"]
    assert (row["speaker"], row["gender"], row["emotion"]) == ("04", "female", "angry")


def test_podcast_columns_are_read_by_name(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    shuffled = podcast.rows[["Split_Set", "EmoDom", "EmoVal", "EmoAct", "Gender", "SpkrID", "EmoClass", "FileName"]]
    shuffled.to_csv(tmp_path / "labels_concensus.csv", index=False)
    one, other = podcast_corpus(podcast.labels, podcast.audio), podcast_corpus(tmp_path, podcast.audio)
    pd.testing.assert_frame_equal(one.table, other.table)
    first, row = podcast.rows.iloc[0], one.table.iloc[0]
    assert (row["arousal"], row["valence"], row["dominance"]) == (first["EmoAct"], first["EmoVal"], first["EmoDom"])
    assert one.table["speaker"].isna().sum() == (podcast.rows["SpkrID"] == "Unknown").sum()
    assert one.table["emotion"].isna().sum() == 8, "X is no class"
    assert (one.table["emotion"] == "other").sum() == 8
    assert one.classes == ("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral")


def test_validation_is_development(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    rows = podcast.rows.replace({"Split_Set": {"Development": "Validation"}})
    rows.to_csv(tmp_path / "labels_consensus.csv", index=False)
    splits = podcast_corpus(tmp_path / "labels_consensus.csv", podcast.audio).table["split"]
    assert set(splits) == {"train", "development", "test1", "test2"}


FAULTS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "missing column": (lambda r: r.drop(columns="EmoVal"), "no column EmoVal"),
    "unknown code": (lambda r: r.assign(EmoClass=["Z", *r["EmoClass"][1:]]), 'line 2: EmoClass is "Z"'),
    "empty code": (lambda r: r.assign(EmoClass=["", *r["EmoClass"][1:]]), "line 2: EmoClass is empty"),
    "unknown split": (lambda r: r.assign(Split_Set=[*r["Split_Set"][:-1], "Held-out"]), 'Split_Set is "Held-out"'),
    "text for a number": (
        lambda r: r.assign(EmoAct=["high", *r["EmoAct"][1:].astype(str)]),
        'line 2: EmoAct is "high"',
    ),
    "outside the scale": (lambda r: r.assign(EmoAct=[7.5, *r["EmoAct"][1:]]), "arousal is 7.5, outside 1..7"),
    "duplicate row": (lambda r: pd.concat([r, r.iloc[:1]]), "keep one row per file"),
    "leaking speaker": (lambda r: r.assign(SpkrID="7"), "1 speaker is in both train and development: 7"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_labels_are_refused_with_row_and_remedy(fault: str, podcast: SyntheticPodcast, tmp_path: Path) -> None:
    change, expected = FAULTS[fault]
    change(podcast.rows).to_csv(tmp_path / "labels_consensus.csv", index=False)
    with pytest.raises(DataError) as caught:
        podcast_corpus(tmp_path, podcast.audio)
    assert expected in str(caught.value)


def test_speakers_are_allowed_by_name(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    rows = podcast.rows.copy()
    rows.loc[rows["Split_Set"] == "Development", "SpkrID"] = "1"
    rows.to_csv(tmp_path / "labels_consensus.csv", index=False)
    config = {"PATH_TO_LABEL": tmp_path, "PATH_TO_AUDIO": podcast.audio}
    for allowed in (["1"], True):
        load_corpus("P", CorpusConfig.model_validate({**config, "allow_speaker_overlap": allowed}))
    with pytest.raises(DataError, match="both train and development: 1;"):
        load_corpus("P", CorpusConfig.model_validate({**config, "allow_speaker_overlap": ["2"]}))
    with pytest.raises(DataError, match='allow_speaker_overlap: found "99"; no such speaker'):
        load_corpus("P", CorpusConfig.model_validate({**config, "allow_speaker_overlap": ["99"]}))


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    text = (
        "file,split,speaker,emotion,arousal\na.wav,train,1,Angry,2\nb.wav,Train,2,tired,\nc.wav,development,3,angry,5\n"
    )
    corpus = csv_corpus(tmp_path, text, attribute_scale=[1, 5])
    assert corpus.classes == ("angry", "tired"), "classes of one's own follow the canonical ones"
    assert corpus.attribute_scale == (1, 5)
    assert corpus.table["path"].tolist() == [str(tmp_path / name) for name in ("a.wav", "b.wav", "c.wav")]
    assert np.isnan(corpus.table["arousal"][1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name\na.wav\n", 'no column "file"'),
        ("file,emotoin\na.wav,angry\n", 'no column "emotion", which is probably "emotoin"'),
        ("file,split\na.wav,held-out\n", 'line 2: split is "held-out"'),
        ("file,gender\na.wav,w\n", 'line 2: gender is "w"'),
        ("file,emotion\na.wav,angry\n", "a.wav has no speaker"),
        ("file,split\na.wav,train,\nb.wav,train,\n", "a row has more cells than the header"),
        ("file,split\n\n\na.wav,held-out\n", 'line 4: split is "held-out"'),
        ("file,split\n", "no utterance was found"),
        ("file,split\na.wav,train\na.wav,train\n", "a.wav is listed in 2 rows"),
        ("file,split\na.wav,train\nb.wav,\n", "b.wav has no split"),
    ],
)
def test_faulty_tables_are_refused(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        csv_corpus(tmp_path, text)
    assert expected in str(caught.value)


def test_further_columns_and_unknown_speakers_of_ones_own_table(tmp_path: Path) -> None:
    text = "file,split,speaker,gender,duration\na.wav,train,Unknown,unknown,3\nb.wav,development,unknown,female,4\n"
    table = csv_corpus(tmp_path, text).table
    assert table["speaker"].isna().all()
    assert table["gender"].isna().tolist() == [True, False]


def test_a_folder_for_a_table_is_refused(tmp_path: Path) -> None:
    config = CorpusConfig(FORMAT="csv", PATH_TO_LABEL=tmp_path, PATH_TO_AUDIO=tmp_path)
    with pytest.raises(DataError, match="Is a directory; correct the path"):
        load_corpus("C", config)


def table_of(speakers: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"file": [f"{i}.wav" for i in range(len(speakers))], "speaker": speakers, "split": np.nan})


def test_shares_give_disjoint_speakers_that_depend_on_the_seed() -> None:
    table = table_of([str(i % 10) for i in range(50)])
    one = assign_splits("C", table, {"development": 0.2, "test1": 0.3, "seed": 1})
    assert one.groupby("split")["speaker"].nunique().to_dict() == {"development": 2, "test1": 3, "train": 5}
    other = assign_splits("C", table, {"development": 0.2, "test1": 0.3, "seed": 2})
    assert not one["split"].equals(other["split"])
    shuffled = assign_splits("C", table.sample(frac=1, random_state=0), {"development": 0.2, "test1": 0.3, "seed": 1})
    assert one["split"].equals(shuffled["split"].sort_index()), "the order of rows does not matter"


def test_splits_that_were_made_are_described(tmp_path: Path) -> None:
    text = "file,speaker\n" + "".join(f"{i}.wav,{i % 5}\n" for i in range(20))
    (drawn,) = csv_corpus(tmp_path, text).notes
    assert "20% of the speakers to development, 20% of the speakers to test1" in drawn
    assert "drawn with seed 0 (the default; split_speakers changes it)" in drawn
    assert "train 12 utterances of 3 speakers; development 4 utterances of 1 speaker; test1 4" in drawn
    (asked,) = csv_corpus(tmp_path, text, split_speakers={"development": 0.4, "seed": 7}).notes
    assert "40% of the speakers to development, the others to train, drawn with seed 7 (as split_speakers a" in asked
    (listed,) = csv_corpus(tmp_path, text, split_speakers={"development": ["0"], "test2": ["1", "2"]}).notes
    assert "by the speakers that split_speakers lists: train 8 utterances of 2 speakers; development 4" in listed
    assert csv_corpus(tmp_path, "file,split\na.wav,train\nb.wav,development\n").notes == ()


def test_unknown_speakers_in_split_speakers_are_refused() -> None:
    with pytest.raises(DataError, match='found "33"; no such speaker'):
        assign_splits("C", table_of(["3", "4"]), {"development": ["33"]})


def test_speakers_in_two_splits_are_counted() -> None:
    rows = pd.DataFrame({"speaker": ["1", "1", "2", "2"], "split": ["train", "test1", "train", "train"]})
    with pytest.raises(DataError, match=r'^C: 1 speaker is in both train and test1: 1; .* = \["1"\] in the corpus'):
        check_speakers("C", rows, allowed=False)
    with pytest.raises(DataError, match=r'^C: 2 speakers are in both train and test1: 1, 2; .* = \["1", …\] in'):
        check_speakers("C", rows.assign(split=["train", "test1"] * 2), allowed=False)
    with pytest.raises(DataError, match="^C: 1 speaker leaves none to train on"):
        assign_splits("C", table_of(["3"]), {"development": ["3"]})


def test_headers_are_measured_and_unusable_recordings_are_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.wav", np.zeros((22_050, 2)), 44_100)
    soundfile.write(tmp_path / "short.wav", np.zeros(399), 16_000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    (tmp_path / "text.wav").write_text("this is no sound")
    names = ["good", "short", "empty", "text", "gone"]
    files = [f"{name}.wav" for name in names]
    paths = [str(tmp_path / file) for file in files]
    table = pd.DataFrame({"corpus": "C", "split": "test1", "file": files, "path": paths})
    assert require_all(table[:1])["seconds"].tolist() == [0.5]
    with pytest.raises(DataError) as caught:
        require_all(table)
    assert "4 of 5 recordings of test1 are unusable, and all are needed" in str(caught.value)
    said = str(caught.value)
    assert f"all are needed: below {tmp_path}/, short.wav " in said
    assert said.count(str(tmp_path)) == 1, "each is named as in the labels"
    assert "; gone.wav is missing; " in said
    table.loc[4, "path"] = "/elsewhere/gone.wav"
    with pytest.raises(DataError, match=f"{tmp_path}/short.wav .*; /elsewhere/gone.wav is missing; "):
        require_all(table)
