from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.podcast_releases import RELEASES, write_partitions
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.config.corpus import CorpusConfig
from utils.data.corpora.podcast_ratings import CLASSES, read_ratings
from utils.data.labels.corpus import Corpus
from utils.data.loader import load_corpus, read_corpus
from utils.data.synthetic.demo_corpus import DemoSize, write_demo_corpus
from utils.errors import DataError

TINY = DemoSize(train=44, development=14, test1=14, test2=14, test3=8, at_least=1)
VOTES = [f"{kind}_{name}" for kind in ("votes", "secondary") for name in CLASSES]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_corpus(tmp_path_factory.mktemp("podcast"), TINY, say=lambda _: None).parent


@pytest.fixture(scope="module")
def labels(demo: Path) -> pd.DataFrame:
    return pd.read_csv(demo / "Labels" / "labels_consensus.csv", dtype={"SpkrID": str})


@pytest.fixture(scope="module")
def ratings(demo: Path) -> pd.DataFrame:
    return pd.read_csv(demo / "Labels" / "labels_detailed.csv", keep_default_na=False)


def load(audio: Path, path: Path) -> Corpus:
    return load_corpus("P", CorpusConfig(PATH_TO_AUDIO=audio, PATH_TO_LABEL=path))


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_gives_the_same_table(
    release: str, demo: Path, labels: pd.DataFrame, ratings: pd.DataFrame, tmp_path: Path
) -> None:
    """The truth is what was written; `labels.txt` knows neither speakers nor genders."""
    write, described = RELEASES[release]
    corpus = load(demo / "Audios", write(tmp_path, labels, ratings))
    assert described in corpus.notes[0]
    table = corpus.table.set_index("file")
    expected = labels.set_index("FileName")
    hidden = table[table["split"] == "test3"]
    assert len(hidden) == 8
    assert hidden[["emotion", "arousal"]].isna().all(axis=None)
    table = table.drop(index=hidden.index)
    assert list(table.index) == list(expected.index)
    assert (table["split"].str.lower() == expected["Split_Set"].str.lower()).all()
    assert table["arousal"].to_numpy() == pytest.approx(expected["EmoAct"].to_numpy())
    assert table["valence"].to_numpy() == pytest.approx(expected["EmoVal"].to_numpy())
    assert table["dominance"].to_numpy() == pytest.approx(expected["EmoDom"].to_numpy())
    assert table["emotion"].isna().tolist() == (expected["EmoClass"] == "X").tolist()
    assert {"angry", "contempt", "other"} <= set(table["emotion"].dropna())
    if release != "labels.txt":
        assert (table["gender"].fillna("unknown") == expected["Gender"].str.lower()).all()
        assert (table["speaker"].fillna("Unknown") == expected["SpkrID"]).all()
    check_votes(table, ratings)


def check_votes(table: pd.DataFrame, ratings: pd.DataFrame) -> None:
    """Count with a plain loop over what was written."""
    counted = pd.DataFrame(0, index=table.index, columns=VOTES)
    for _, rating in ratings.iterrows():
        major = str(rating["EmoClass_Major"]).lower()
        counted.loc[rating["FileName"], "votes_" + ("other" if major.startswith("other") else major)] += 1
        for word in str(rating["EmoClass_Second"]).lower().split(","):
            counted.loc[rating["FileName"], f"secondary_{word}"] += 1
    assert (table[VOTES] == counted).all(axis=None)
    assert table[[f"votes_{name}" for name in CLASSES]].sum(axis=1).between(5, 9).all()


def test_the_demos_votes_agree_with_its_consensus(demo: Path, labels: pd.DataFrame) -> None:
    votes = load(demo / "Audios", demo / "Labels").table.set_index("file").loc[labels["FileName"]]
    counts = votes[[f"votes_{name}" for name in CLASSES]].to_numpy()
    first, second = -np.sort(-counts, axis=1)[:, :2].T
    assert ((first == second) == (labels["EmoClass"] == "X")).all()
    chosen = np.array(CLASSES)[counts.argmax(axis=1)]
    agreed = (labels["EmoClass"] != "X").to_numpy()
    assert (chosen[agreed] == votes["emotion"].to_numpy()[agreed]).all()


def test_partitions_name_hidden_recordings_and_disagreements_are_told(
    demo: Path, labels: pd.DataFrame, ratings: pd.DataFrame, tmp_path: Path
) -> None:
    folder = RELEASES["2.0"][0](tmp_path, labels, ratings)
    moved = labels.assign(Split_Set=["Test1", *labels["Split_Set"][1:]])
    missing = pd.DataFrame({"FileName": ["MSP-PODCAST_9999_0001.wav"], "Split_Set": ["Train"]})
    names = ["MSP-PODCAST_test3_0007", "MSP-PODCAST_test3_9999.wav"]  # one without its suffix, one that is not there
    write_partitions(tmp_path / "Partitions.txt", pd.concat([moved, missing]), names)
    corpus = load(demo / "Audios", folder)
    hidden = corpus.table.loc[corpus.table["split"] == "test3", "file"]
    assert len(hidden) == 8, "those of the folder as well as those that are named"
    first = labels["FileName"][0]
    was = labels["Split_Set"][0].lower()
    assert corpus.table.loc[corpus.table["file"] == first, "split"].tolist() == [was], "Split_Set counts"
    told = "\n".join(corpus.notes)
    assert ("1 recording into other splits" in told) == (was != "test1")
    assert "1 recording of Partitions.txt has no label and is left out (first MSP-PODCAST_9999_0001.wav)" in told
    assert corpus.hidden == ("test3",)
    assert "1 recording of Partitions.txt has neither label nor file (first MSP-PODCAST_test3_9999.wav)" in told


def test_capitals_stray_files_and_an_empty_inner_folder_are_no_trap(
    labels: pd.DataFrame, ratings: pd.DataFrame, tmp_path: Path
) -> None:
    folder = RELEASES["2.0"][0](tmp_path, labels, ratings)
    audio = tmp_path / "Audios"
    (audio / "audio").mkdir(parents=True)
    for name in ("MSP-PODCAST_Test3_0001.wav", "MSP-PODCAST_test3_0002.wav.part", "MSP-PODCAST_test3_list.txt"):
        (audio / name).touch()
    corpus = load(audio, folder)
    hidden = corpus.table[corpus.table["split"] == "test3"]
    assert hidden["path"].tolist() == [str(audio / "MSP-PODCAST_Test3_0001.wav")]


@pytest.mark.parametrize("text", ["[1, 2]", "3", '{"a.wav": [1]}', "{", '{"a": {"W": 3}}', "{}"])
def test_json_ratings_of_another_shape_are_one_sentence(
    text: str, demo: Path, labels: pd.DataFrame, tmp_path: Path
) -> None:
    labels.to_csv(tmp_path / "labels_consensus.csv", index=False)
    (tmp_path / "labels_detailed.json").write_text(text)
    with pytest.raises(DataError, match=r"labels_detailed\.json (cannot be read as ratings|contains no rating)"):
        load(demo / "Audios", tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop(columns="EmoVal"), "no column EmoVal"),
        (lambda t: t.assign(EmoClass=["Q", *t["EmoClass"][1:]]), 'line 2: EmoClass is "Q"'),
        (lambda t: t.assign(EmoAct=[7.5, *t["EmoAct"][1:]]), "arousal is 7.5, outside 1..7"),
        (lambda t: pd.concat([t, t.iloc[[3]]]), "is listed in 2 rows; keep one row per file"),
        (lambda t: t.assign(Split_Set=["Eval", *t["Split_Set"][1:]]), 'line 2: Split_Set is "Eval"'),
        (lambda t: t.assign(Gender=["w", *t["Gender"][1:]]), 'line 2: Gender is "w"; allowed: Male, Female, Unknown'),
        (lambda t: t.assign(EmoDom=["high", *t["EmoDom"][1:]]), 'line 2: EmoDom is "high"; give a number'),
    ],
)
def test_bad_labels_are_named(
    change: object, sentence: str, demo: Path, labels: pd.DataFrame, ratings: pd.DataFrame, tmp_path: Path
) -> None:
    ratings.to_csv(tmp_path / "labels_detailed.csv", index=False)
    (tmp_path / "labels_consensus.csv").write_text(change(labels).to_csv(index=False))  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        load(demo / "Audios", tmp_path)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("layout", ["1.9", "labels.txt"])
def test_bad_labels_without_lines_are_named_by_their_recording(
    layout: str, demo: Path, labels: pd.DataFrame, ratings: pd.DataFrame, tmp_path: Path
) -> None:
    wrong = labels.assign(EmoAct=["high", *labels["EmoAct"].astype(str)[1:]])
    if layout == "labels.txt":
        wrong = labels.assign(EmoClass=["Q", *labels["EmoClass"][1:]])
    place = RELEASES[layout][0](tmp_path, wrong, ratings)
    column = 'EmoClass is "Q"' if layout == "labels.txt" else 'EmoAct is "high"'
    with pytest.raises(DataError, match=f"{labels['FileName'].iloc[0]}: {column}"):
        load(demo / "Audios", place)


@pytest.mark.parametrize("layout", ["1.11", "2.0"])
def test_a_mangled_rating_is_reported_or_read_right_and_never_anything_else(
    layout: str, ratings: pd.DataFrame, tmp_path: Path
) -> None:
    """1,000 lines of each layout with random cuts and insertions: none crashes, none is lost, doubled or wrong.

    Every line has a worker of its own, by which a rating is found again; its primary label must be the one that a
    plain split of its own line shows.
    """
    generator = np.random.default_rng(0)
    numbered = ratings.iloc[np.arange(1000) % len(ratings)].assign(Worker=[f"WORKER{n:08d}" for n in range(1000)])
    labels = pd.DataFrame({"FileName": [], "Split_Set": []})
    path = next(RELEASES[layout][0](tmp_path, labels, numbered).rglob("labels_detailed.csv"))
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    spoilt = [mangle(line, generator) for line in lines]
    path.write_text("\n".join([header, *spoilt]) + "\n", encoding="utf-8")
    found = read_ratings("P", path)
    told = len(found.unreadable) + found.repeated + found.joined
    assert len(found.table) + told == sum(bool(line.strip()) for line in spoilt)
    by_worker = dict(zip(map(str, found.table["worker"]), found.table["primary"], strict=True))
    untouched = 0
    for number, (line, before) in enumerate(zip(spoilt, lines, strict=True)):
        worker = f"WORKER{number:08d}"
        if line == before:
            assert worker in by_worker, "what is whole is read"
            untouched += 1
        if worker in by_worker and worker in line:
            shown = re.split(r'[";,]+', line.split(worker, 1)[1].lstrip('";, '))[0].strip().lower()
            assert CLASSES[by_worker[worker]] == ("other" if shown.startswith("other") else shown), line
    assert untouched > 100


def mangle(line: str, generator: np.random.Generator) -> str:
    """Cut, insert, swap or repeat at random places; one line in eight stays as it is."""
    for _ in range(int(generator.integers(0, 4))):
        place = int(generator.integers(len(line) + 1))
        insert = str(
            generator.choice([",", ";", '"', ":", "/", " ", "Other-", "\t", "é", "WORKER", "A:", "-", "9", ""])
        )
        end = place + int(generator.integers(0, 6))
        line = line[:place] + insert + line[end:]
    return line


def test_the_second_reading_comes_from_the_cache_and_changes_are_noticed(
    demo: Path, labels: pd.DataFrame, ratings: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = RELEASES["2.0"][0](tmp_path, labels, ratings)
    first = load(demo / "Audios", folder)
    (kept,) = (tmp_path / "cache" / "200ai" / "tables").iterdir()
    second = load(demo / "Audios", folder)
    pd.testing.assert_frame_equal(first.table, second.table)
    assert (first.notes, first.release) == (second.notes, second.release)

    kept.write_bytes(b"damaged")
    pd.testing.assert_frame_equal(load(demo / "Audios", folder).table, first.table)
    consensus = folder / "labels_consensus.csv"
    changed = labels.assign(EmoAct=1.0)
    changed.to_csv(consensus, index=False)
    os.utime(consensus, ns=(1, 1))
    labelled = load(demo / "Audios", folder).table["arousal"].dropna()
    assert (labelled == 1.0).all()
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    assert (load(demo / "Audios", folder).table["arousal"].dropna() == 1.0).all(), "no cache, no harm"


ODD = [
    ('A.wav,W1,"Other-a, b","Sad",3,4,3', ("other", {"sad"})),
    ('A.wav,W1,Other-a, b,"Sad,Frustrated",3,4,3', ("other", {"sad"})),
    ("A.wav,W1,Other-annoyed, sad,Happy,3,4,3", ("other", {"happy"})),
    ('A.wav,W1,Other-x,"Amused,Sad",3,4,3,', ("other", {"sad"})),
    ('A.wav,W1,"Other-line\nbreak",Neutral,3,4,3', ("other", {"neutral"})),
    ("A.wav,W1,Happy,,3,NaN,3", ("happy", set())),
    ("A.wav,W1,other (tired),Fear,3,4,3", ("other", {"fear"})),
    ("A,W1,Sad,Sad,3,4,3", ("sad", {"sad"})),
    ('A.wav,W1,Happy,"Amused,Sad",3,4,three', None),
    ("A.wav,W1,Happyish,Sad,3,4,3", None),
    ("B.wav,W1,Sad,Sad,3,4", None),
]


@pytest.mark.parametrize(("line", "expected"), ODD)
def test_odd_ratings_in_columns(line: str, expected: tuple[str, set[str]] | None, tmp_path: Path) -> None:
    header = "FileName,Worker,EmoClass_Major,EmoClass_Second,EmoAct,EmoVal,EmoDom"
    check_odd(tmp_path, header, line.replace("A", "MSP-PODCAST_1", 1), "MSP-PODCAST_2.wav,W2,Fear,Fear,1,2,3", expected)


ODD_STRINGS = [
    ('A.wav,"W1; Sad; Sad,Happy; A:3.0; V:4.0; D:3.0;",', ("sad", {"sad", "happy"})),
    ("A,W1; Sad; ; A:3; V:4; D:3", ("sad", set())),
    ('A.wav,"W1; Other-a; b:c; Neutral,Amused; A:3.0; V:4.0; D:3.0;"', ("other", {"neutral"})),
    ('A.wav,"W1; Other-tired\nWORKER, hm; Sad; A:3.0; V:4.0; D:3.0;"', ("other", {"sad"})),
    ('A.wav,"W1; Sad; Sad; A:3.0; V:4.0;"', None),
]


@pytest.mark.parametrize(("line", "expected"), ODD_STRINGS)
def test_odd_ratings_in_strings(line: str, expected: tuple[str, set[str]] | None, tmp_path: Path) -> None:
    whole = 'MSP-PODCAST_2.wav,"W2; Fear; Fear; A:1; V:2; D:3;"'
    check_odd(tmp_path, "FileName,EmoDetail", line.replace("A", "MSP-PODCAST_1", 1), whole, expected)


def check_odd(folder: Path, header: str, line: str, whole: str, expected: tuple[str, set[str]] | None) -> None:
    """A line is read as expected, or reported; the whole line after it, and its repetition, count once."""
    source = folder / "labels_detailed.csv"
    source.write_text("\n".join([header, line, whole, whole, ""]), encoding="utf-8")
    found = read_ratings("P", source)
    assert found.repeated == 1
    assert len(found.unreadable) == (expected is None)
    rows = found.table[found.table["file"] == "MSP-PODCAST_1.wav"]
    assert len(found.table) == 1 + len(rows)
    if expected is not None:
        (primary,), (secondary,) = rows["primary"], rows["secondary"]
        assert (CLASSES[primary], {n for i, n in enumerate(CLASSES) if secondary >> i & 1}) == expected


def test_recordings_that_were_converted_stand_for_those_of_the_labels(
    podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    """As FLAC below a folder above them, with what macOS leaves beside each."""
    audio = tmp_path / "Release" / "Audios"
    audio.mkdir(parents=True)
    for name in podcast.rows["FileName"]:
        (audio / name).with_suffix(".flac").touch()
        (audio / f"._{name}").touch()
    config = CorpusConfig(PATH_TO_LABEL=podcast.labels, PATH_TO_AUDIO=tmp_path / "Release")
    converted, original = (
        read_corpus("P", config),
        read_corpus("P", config.model_copy(update={"PATH_TO_AUDIO": podcast.audio})),
    )
    assert converted.table["path"].tolist() == [
        str((audio / name).with_suffix(".flac")) for name in converted.table["file"]
    ]
    pd.testing.assert_frame_equal(converted.table.drop(columns="path"), original.table.drop(columns="path"))
