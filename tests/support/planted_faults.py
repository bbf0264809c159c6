"""Plants every fault that an audit must find in a demo corpus, in the layout of any release, and lists them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile

from tests.support.podcast_releases import LABELS, RELEASES, write_partitions
from utils.data.synthetic.demo_corpus import DemoSize, write_demo_corpus

SMALL = DemoSize(train=60, development=30, test1=30, test2=24, test3=8)
CONFIG = "[SPOILT]\nPATH_TO_LABEL = '{labels}'\nPATH_TO_AUDIO = '{audio}'\nsynthetic = true\n"
DEEP = ("not-finite", "silent", "clipped", "leaked", "duplicate")
"""Kinds that only decoding can show."""
FREE_TEXT = 'Other-well, "hm"; so: I/O, 50 % A:3'
Free = dict[str, Iterator[str]]
"""Recordings by split that nothing has been done to yet."""


@dataclass
class SpoiltCorpus:
    """A corpus with faults.

    Attributes:
        root: Its folder, with `config.toml`.
        expected: How often each (kind, file) must be found; file is empty for what is of no single one.
        decoded_only: Those that a look at headers cannot find.
    """

    root: Path
    expected: Counter[tuple[str, str]] = field(default_factory=Counter)
    decoded_only: Counter[tuple[str, str]] = field(default_factory=Counter)

    def plant(self, kind: str, file: str = "", is_deep: bool = False) -> None:
        """Expect a finding."""
        (self.decoded_only if is_deep else self.expected)[kind, file] += 1


def write_spoilt_corpus(root: Path, release: str) -> SpoiltCorpus:
    """Write a demo corpus, spoil recordings and labels, and write the labels as a release does."""
    write_demo_corpus(root, SMALL, lambda text: None)
    spoilt = SpoiltCorpus(root)
    labels = pd.read_csv(root / "Labels" / "labels_consensus.csv", dtype=str, keep_default_na=False)[LABELS]
    ratings = pd.read_csv(root / "Labels" / "labels_detailed.csv", dtype=str, keep_default_na=False)
    ratings = ratings.rename(columns={ratings.columns[1]: "Worker"})
    for column in ("EmoAct", "EmoVal", "EmoDom"):
        ratings[column] = ratings[column].astype(float)
    for file, speaker, gender in zip(labels["FileName"], labels["SpkrID"], labels["Gender"], strict=True):
        if speaker == "Unknown":
            spoilt.plant("unknown-speaker", file)
        if gender == "Unknown":
            spoilt.plant("unknown-gender", file)
    plain = labels[(labels["SpkrID"] != "Unknown") & labels["EmoClass"].isin(["N", "H", "S", "A"])]
    free = {str(split): iter(rows["FileName"].tolist()) for split, rows in plain.groupby("Split_Set")}
    _spoil_recordings(root / "Audios", spoilt, free)
    ratings = _spoil_labels(labels, ratings, spoilt, free)
    hidden = sorted(path.name for path in (root / "Audios").glob("MSP-PODCAST_test3_*.wav"))
    shutil.rmtree(root / "Labels")
    place = RELEASES[release][0](root, labels, ratings)
    write_partitions(root / "Partitions.txt", labels, hidden)
    (root / "config.toml").write_text(CONFIG.format(labels=place, audio=root / "Audios"), encoding="utf-8")
    return spoilt


def _spoil_recordings(audio: Path, spoilt: SpoiltCorpus, free: Free) -> None:
    def take(split: str, *kinds: str, is_deep: bool = False) -> Path:
        path = audio / next(free[split])
        for kind in kinds:
            spoilt.plant(kind, path.name, is_deep)
        return path

    def samples_of(path: Path) -> npt.NDArray[np.float64]:
        samples: npt.NDArray[np.float64] = soundfile.read(path, dtype="float64")[0]
        return samples

    stereo = take("Train", "rate", "channels")
    soundfile.write(stereo, np.tile(samples_of(stereo)[:, None], (3, 2)), 44_100)
    take("Test1", "missing").unlink()
    take("Train", "empty").write_bytes(b"")
    soundfile.write(take("Development", "empty"), np.zeros(0), 16_000)
    take("Train", "unreadable").write_text("no audio", encoding="utf-8")
    cut = take("Test2", "truncated")
    cut.write_bytes(cut.read_bytes()[:-2000])
    soundfile.write(take("Train", "short"), np.full(160, 0.1), 16_000)
    long = take("Train", "odd-duration")
    soundfile.write(long, np.tile(samples_of(long), 20), 16_000)
    broken = samples_of(take("Train", "not-finite", is_deep=True))
    soundfile.write(audio / "n.wav", np.where(np.arange(len(broken)) == 500, np.nan, broken), 16_000, subtype="FLOAT")
    (audio / "n.wav").replace(audio / list(spoilt.decoded_only)[-1][1])
    soundfile.write(take("Test1", "silent", is_deep=True), np.zeros(16_000), 16_000)
    half = take("Train", "silent", is_deep=True)
    soundfile.write(half, np.concatenate([samples_of(half), np.zeros(len(samples_of(half)) + 8)]), 16_000)
    loud = take("Development", "clipped", is_deep=True)
    soundfile.write(loud, np.clip(8 * samples_of(loud), -1, 1), 16_000)
    flac = take("Test1", "unreadable", is_deep=True)
    soundfile.write(audio / "f.flac", samples_of(flac), 16_000)
    flac.write_bytes((audio / "f.flac").read_bytes()[:-3000])
    (audio / "f.flac").unlink()
    first, second = take("Train"), take("Train")
    shutil.copy(first, second)
    spoilt.plant("duplicate", second.name, is_deep=True)
    training, copy = take("Train"), take("Test2")
    soundfile.write(copy, samples_of(training), 16_000, format="FLAC")  # other bytes, the same samples
    training, link = take("Train"), take("Test1", "shared-file")
    link.unlink()
    link.hardlink_to(training)
    for name in ("surplus.wav", "further/surplus.flac"):
        (audio / name).parent.mkdir(exist_ok=True)
        soundfile.write(audio / name, np.full(800, 0.1), 16_000)
        spoilt.plant("surplus", name)
    (audio / "readme.txt").write_text("no recording", encoding="utf-8")
    spoilt.plant("leaked", copy.name, is_deep=True)
    spoilt.plant("leaked", link.name, is_deep=True)


def _spoil_labels(labels: pd.DataFrame, ratings: pd.DataFrame, spoilt: SpoiltCorpus, free: Free) -> pd.DataFrame:
    """Change labels in place; return the ratings that are left."""
    by_file = labels.reset_index().set_index("FileName")["index"]

    def change(split: str, column: str, value: str, kind: str) -> str:
        file = str(next(free[split]))
        labels.loc[by_file[file], column] = value
        spoilt.plant(kind, file)
        return file

    change("Train", "EmoAct", "", "no-attributes")
    change("Test1", "Gender", "", "unknown-gender")
    change("Train", "SpkrID", "", "unknown-speaker")
    change("Train", "EmoVal", "7.5", "off-scale")
    outvoted = change("Train", "EmoClass", "N", "outvoted")
    index = by_file[outvoted]
    chosen = Counter(ratings.loc[ratings["FileName"] == outvoted, "EmoClass_Major"]).most_common(1)[0][0]
    labels.loc[index, "EmoClass"] = "S" if chosen == "Neutral" else "N"
    training = labels[(labels["Split_Set"] == "Train") & (labels["Gender"] == "Male")]
    file = next(f for f in free["Development"] if labels.loc[by_file[f], "Gender"] == "Male")
    labels.loc[by_file[file], "SpkrID"] = training.loc[training["SpkrID"].str.isdigit(), "SpkrID"].iloc[0]
    spoilt.plant("shared-speaker")
    heard = labels[(labels["Split_Set"] == "Development") & (labels["Gender"] == "Female")]
    file = next(f for f in free["Test1"] if labels.loc[by_file[f], "Gender"] == "Female")
    labels.loc[by_file[file], "SpkrID"] = heard.loc[heard["SpkrID"].str.isdigit(), "SpkrID"].iloc[0]
    spoilt.plant("heard-speaker")
    file = next(f for f in free["Test2"] if labels.loc[by_file[f], "Gender"] == "Male")
    labels.loc[by_file[file], "Gender"] = "Female"
    spoilt.plant("two-genders")
    labels.loc[(labels["EmoClass"] == "F") & (labels["Split_Set"] == "Train"), "EmoClass"] = "X"
    training_rows = labels.loc[labels["Split_Set"] == "Train", "EmoClass"].value_counts()
    for code, rows in training_rows.drop(["X", "O"], errors="ignore").items():
        if rows < 5 or (labels["EmoClass"] == code).groupby(labels["Split_Set"]).sum().min() == 0:
            spoilt.plant("scarce-class")
    for _ in set(labels.loc[labels["EmoClass"] == "F", "Split_Set"]):
        spoilt.plant("untrained-class")
    ratings.loc[ratings["EmoClass_Major"].str.startswith("Other"), "EmoClass_Major"] = FREE_TEXT
    unrated = str(next(free["Test1"]))
    spoilt.plant("unrated", unrated)
    return ratings[ratings["FileName"] != unrated]
