from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.podcast_releases import RELEASES, write_partitions
from utils.configuration import CorpusConfig
from utils.data import Corpus, DataError, load_corpus
from utils.data.demo_corpus import DemoSize, write_demo_corpus
from utils.data.podcast_ratings import CLASSES, read_ratings

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
    write_partitions(tmp_path / "Partitions.txt", pd.concat([moved, missing]), ["MSP-PODCAST_test3_0007.wav"])
    corpus = load(demo / "Audios", folder)
    assert corpus.table.loc[corpus.table["split"] == "test3", "file"].tolist() == ["MSP-PODCAST_test3_0007.wav"]
    first = labels["FileName"][0]
    was = labels["Split_Set"][0].lower()
    assert corpus.table.loc[corpus.table["file"] == first, "split"].tolist() == [was], "Split_Set counts"
    told = "\n".join(corpus.notes)
    assert ("1 recordings into other splits" in told) == (was != "test1")
    assert "1 recordings of Partitions.txt have no label and are left out (first MSP-PODCAST_9999_0001.wav)" in told


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop(columns="EmoVal"), "no column EmoVal"),
        (lambda t: t.assign(EmoClass=["Q", *t["EmoClass"][1:]]), 'line 2: EmoClass is "Q"'),
        (lambda t: t.assign(EmoAct=[7.5, *t["EmoAct"][1:]]), "arousal is 7.5, outside 1..7"),
        (lambda t: pd.concat([t, t.iloc[[3]]]), "stands in 2 rows; keep one row a file"),
        (lambda t: t.assign(Split_Set=["Dev", *t["Split_Set"][1:]]), 'line 2: Split_Set is "Dev"'),
        (lambda t: t.assign(EmoDom=["high", *t["EmoDom"][1:]]), 'line 2: EmoDom is "high"; give a number'),
    ],
)
def test_bad_labels_are_named(change: object, sentence: str, demo: Path, labels: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "labels_consensus.csv").write_text(change(labels).to_csv(index=False))  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        load(demo / "Audios", tmp_path)
    assert sentence in str(caught.value)


def test_a_mangled_rating_is_reported_or_read_right_and_never_anything_else(
    ratings: pd.DataFrame, tmp_path: Path
) -> None:
    """2,000 lines of both layouts with random cuts, swaps and insertions: none crashes, none is counted twice or wrong.

    A line whose beginning up to the primary label and whose end are intact must give that label.
    """
    generator = np.random.default_rng(0)
    for layout in ("1.11", "2.0"):
        folder = tmp_path / layout
        RELEASES[layout][0](folder, pd.DataFrame({c: [] for c in ("FileName", "Split_Set")}), ratings)
        path = next(folder.rglob("labels_detailed.csv"))
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        intact, spoilt = [], []
        for number in range(1000):
            line = lines[number % len(lines)]
            intact.append(line)
            spoilt.append(mangle(line, generator))
        path.write_text("\n".join([header, *spoilt]) + "\n", encoding="utf-8")
        found = read_ratings("P", path)
        filled = sum(bool(line.strip()) for line in spoilt)
        assert len(found.table) + len(found.unreadable) == filled
        assert len({item.line for item in found.unreadable}) == len(found.unreadable)
        path.write_text("\n".join([header, *intact]) + "\n", encoding="utf-8")
        truth = read_ratings("P", path)
        assert (len(truth.table), len(truth.unreadable)) == (1000, 0)
        same = [a == b for a, b in zip(intact, spoilt, strict=True)]
        kept = truth.table[same]
        assert len(kept) > 50
        rows = found.table.merge(kept.drop_duplicates(), how="inner")
        assert len(rows) >= len(kept.drop_duplicates())


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
    assert first.notes == second.notes

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
