"""Recordings on both sides of an evaluation, by their files, names, speakers and samples."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import prepare_data
from tests.support.voices import voice
from utils.config.corpus import CorpusConfig
from utils.data.labels.columns import as_utterance_table
from utils.data.labels.corpus import Corpus
from utils.data.loader import load_corpus
from utils.data.recordings.leaks import (
    RealFiles,
    heard_speakers,
    list_pairs,
    same_files,
    same_names,
    same_samples,
    share_names,
)
from utils.data.recordings.preflight import require_all


def rows_of(*paths: Path, split: str = "train", speaker: str | None = None) -> pd.DataFrame:
    rows = [{"file": path.name, "path": str(path), "split": split, "speaker": speaker} for path in paths]
    return as_utterance_table("P", pd.DataFrame(rows))


def copy(source: Path, place: Path) -> Path:
    shutil.copy2(source, place)
    return place


def link_folder(source: Path, place: Path) -> Path:
    (place.parent / "linked").symlink_to(source.parent, target_is_directory=True)
    return place.parent / "linked" / source.name


def link(source: Path, place: Path) -> Path:
    place.symlink_to(source)
    return place


def link_twice(source: Path, place: Path) -> Path:
    return link(link(source, place.with_suffix(".1")), place)


def hard_link(source: Path, place: Path) -> Path:
    place.hardlink_to(source)
    return place


def walk_back(source: Path, place: Path) -> Path:
    return place.parent / ".." / source.parent.name / source.name


@pytest.mark.parametrize(
    ("rename", "is_same"),
    [
        (link_folder, True),
        (link, True),
        (link_twice, True),
        (hard_link, True),
        (walk_back, True),
        (copy, False),
    ],
)
def test_a_file_is_known_under_every_name(tmp_path: Path, rename: Callable[[Path, Path], Path], is_same: bool) -> None:
    """A copy is another file, even with the same size and times; its samples are compared elsewhere."""
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    source = tmp_path / "here" / "a.wav"
    source.write_bytes(b"no recording, and nobody opens it")
    other = rename(source, tmp_path / "elsewhere" / "b.wav")
    evaluated = rows_of(tmp_path / "here" / "absent.wav", other, split="test1").set_axis([5, 7])
    pairs = same_files(evaluated, rows_of(source), RealFiles())
    assert pairs.index.tolist() == [7] * is_same
    if is_same:
        assert pairs.iloc[0].to_list() == [other.name, "a.wav", "train"]


def test_names_that_no_file_can_have_and_endless_links_are_files_of_their_own(tmp_path: Path) -> None:
    loop = tmp_path / "loop.wav"
    loop.symlink_to(loop)
    odd = rows_of(loop, tmp_path / "a\0.wav", tmp_path / "gone.wav", split="test1")
    assert same_files(odd, rows_of(tmp_path / "other.wav"), RealFiles()).empty
    assert len(same_files(odd, rows_of(tmp_path / "gone.wav"), RealFiles())) == 1, "one path, though no file yet"


def test_a_packed_corpus_and_the_same_one_outside_its_shards(tmp_path: Path) -> None:
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", voice(0.3, seed=ord(name)), 16_000)
    (tmp_path / "table.csv").write_text("file,split\na.wav,train\nb.wav,development\nc.wav,test1\n")
    section = "FORMAT = 'csv'\nPATH_TO_AUDIO = '.'\nPATH_TO_LABEL = 'table.csv'\n"
    toml = tmp_path / "config.toml"
    toml.write_text(f"[P]\n{section}PATH_TO_DATASET = 'shards'\n[Q]\n{section}")
    assert prepare_data.main(["pack", "P", "--config", str(toml), "--workers", "1"]) == 0
    loose = CorpusConfig(FORMAT="csv", PATH_TO_AUDIO=tmp_path, PATH_TO_LABEL=tmp_path / "table.csv")
    shards = loose.model_copy(update={"PATH_TO_DATASET": tmp_path / "shards"})
    moved = shards.model_copy(update={"PATH_TO_AUDIO": tmp_path / "other"})
    (tmp_path / "other").mkdir()
    in_shards, outside, elsewhere = (load_corpus("P", section).table for section in (shards, loose, moved))
    assert in_shards["path"].str.contains("#").all()
    for one, other in ((in_shards, outside), (outside, in_shards), (in_shards, elsewhere), (outside, outside)):
        pairs = same_files(one, other, RealFiles())
        assert pairs["file"].tolist() == pairs["partner"].tolist() == ["a.wav", "b.wav", "c.wav"]
    for one, other in ((in_shards[:1], outside[1:]), (in_shards[:1], elsewhere[1:])):
        assert same_files(one, other, RealFiles()).empty


def corpus_of(form: str, labels: Path | None = None) -> Corpus:
    section = CorpusConfig.model_validate({"FORMAT": form, "PATH_TO_AUDIO": "audio", "PATH_TO_LABEL": labels})
    return Corpus("P", pd.DataFrame(), (), (1, 7), section=section)


def test_names_say_something_within_one_published_corpus_alone(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").symlink_to(tmp_path / "table.csv")
    podcast = corpus_of("msp-podcast", tmp_path / "1.11")
    assert share_names(podcast, corpus_of("msp-podcast", tmp_path / "2.0"))
    assert share_names(corpus_of("emodb"), corpus_of("emodb"))
    assert not share_names(corpus_of("emodb"), corpus_of("ravdess"))
    assert not share_names(podcast, corpus_of("csv", tmp_path / "table.csv"))
    mine = corpus_of("csv", tmp_path / "table.csv")
    assert share_names(mine, corpus_of("csv", tmp_path / "labels.csv"))
    assert not share_names(mine, corpus_of("csv", tmp_path / "other.csv"))


def test_file_names_are_the_same_in_other_folders_and_encodings() -> None:
    trained = rows_of(Path("MSP-PODCAST_0001_0008.wav"), Path("b.wav"))
    evaluated = rows_of(Path("x/MSP-PODCAST_0001_0008.flac"), Path("c.wav"), split="test1")
    evaluated["file"] = ["x/MSP-PODCAST_0001_0008.flac", "c.wav"]
    pairs = same_names(evaluated, trained)
    assert pairs["file"].tolist() == ["x/MSP-PODCAST_0001_0008.flac"]
    evaluated["file"] = ["1/b.wav", "2/b.wav"]
    assert same_names(evaluated, trained).empty, "names that repeat by folder are no names of recordings"


def test_speakers_are_allowed_by_name_or_all_at_once() -> None:
    trained = pd.concat([rows_of(Path(name), speaker=name) for name in ("1", "2", "3")])
    evaluated = pd.concat([rows_of(Path(f"{n}.wav"), split="test1", speaker=n) for n in ("3", "2", "4", None)])
    trained = pd.concat([trained, rows_of(Path("u"), speaker=None)])
    assert heard_speakers(evaluated, trained, (False, False)) == ["2", "3"]
    assert heard_speakers(evaluated, trained, (("2",), False)) == ["3"]
    assert heard_speakers(evaluated, trained, (("2",), ("3",))) == []
    assert heard_speakers(evaluated, trained, (False, True)) == []


def test_samples_are_the_same_in_other_encodings_and_silence_is_nobodys(tmp_path: Path) -> None:
    samples = (32_767 * voice(0.3)).astype(np.int16)  # floats would be rounded differently by FLAC and WAV
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    soundfile.write(tmp_path / "b.flac", samples, 16_000)
    soundfile.write(tmp_path / "c.wav", np.stack([samples, samples], axis=1), 16_000)
    soundfile.write(tmp_path / "d.aiff", samples, 16_000)
    soundfile.write(tmp_path / "e.wav", samples // 2, 16_000)
    for name in ("s.wav", "t.wav"):
        soundfile.write(tmp_path / name, np.zeros(4_800), 16_000)
    trained = require_all(rows_of(tmp_path / "a.wav", tmp_path / "s.wav"))
    names = ("b.flac", "c.wav", "d.aiff", "e.wav", "t.wav")
    evaluated = require_all(rows_of(*(tmp_path / name for name in names), split="test1"))
    assert same_samples(evaluated, trained)["file"].tolist() == ["b.flac", "c.wav", "d.aiff"]


def test_of_many_pairs_the_first_are_named() -> None:
    pairs = pd.DataFrame({"file": list("abcdefg"), "partner": list("ABCDEFG"), "split": ["train"] * 7})
    assert list_pairs(pairs[:2]) == "a (as A in train); b (as B in train)"
    assert list_pairs(pairs).endswith("e (as E in train); and 2 more")


def test_many_paths_are_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    lstat = os.lstat

    def count(path: str) -> os.stat_result:
        asked.append(path)
        return lstat(path)

    table = rows_of(*(tmp_path / f"{number}.wav" for number in range(2_500)))
    files = RealFiles()
    monkeypatch.setattr(os, "lstat", count)
    for _ in range(3):
        assert len(same_files(table, table, files)) == 2_500
    assert sorted(path for path in asked if path.endswith(".wav")) == sorted(table["path"])
