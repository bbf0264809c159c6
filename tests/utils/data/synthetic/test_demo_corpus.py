from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import soundfile

from utils.config.loading import load_plan
from utils.data.loader import load_corpus
from utils.data.synthetic.demo_corpus import MARKER, DemoSize, write_demo_corpus
from utils.data.synthetic.voices import MEANS, Prosody, draw_prosody, draw_speaker, rosenberg_pulse, speak
from utils.errors import DataError

TINY = DemoSize(train=44, development=14, test1=14, test2=14, test3=8, at_least=1)
EXPERIMENTS = Path(__file__).resolve().parents[4] / "configs" / "demo_experiments.toml"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_corpus(tmp_path_factory.mktemp("demo"), TINY, say=lambda _: None).parent


@pytest.fixture(scope="module")
def labels(demo: Path) -> pd.DataFrame:
    return pd.read_csv(demo / "Labels" / "labels_consensus.csv", dtype={"SpkrID": str})


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def silent(_: str) -> None:
    """Say nothing."""


def test_another_folder_holds_the_same_bytes(demo: Path, tmp_path: Path) -> None:
    write_demo_corpus(tmp_path / "new" / "corpus", TINY, silent)
    one, other = contents(demo), contents(tmp_path / "new" / "corpus")
    assert sorted(one) == sorted(other)
    assert [name for name in one if one[name] != other[name]] == []


def test_labels_have_the_layout_of_msp_podcast(labels: pd.DataFrame) -> None:
    expected = ["FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set"]
    assert list(labels.columns) == expected
    assert labels["FileName"].is_unique
    assert labels["FileName"].str.fullmatch(r"MSP-PODCAST_\d{4}_\d{4}\.wav").all()
    codes = labels.groupby("Split_Set")["EmoClass"].agg(lambda column: "".join(sorted(set(column))))
    assert codes.to_dict() == dict.fromkeys(("Train", "Development", "Test1", "Test2"), "ACDFHNOSUX")
    ratings = labels[["EmoAct", "EmoVal", "EmoDom"]].to_numpy()
    assert ((ratings >= 1) & (ratings <= 7)).all()
    assert set(labels["Gender"]) == {"Male", "Female", "Unknown"}


def test_classes_are_as_skewed_as_in_msp_podcast(labels: pd.DataFrame) -> None:
    counts = labels.loc[labels["Split_Set"] == "Train", "EmoClass"].value_counts()
    assert list(counts.index[:5]) == ["N", "H", "X", "A", "S"]
    assert counts["N"] >= 10 * counts["F"]


def test_speakers_do_not_leak_from_training(labels: pd.DataFrame) -> None:
    known = labels[labels["SpkrID"] != "Unknown"].groupby("Split_Set")["SpkrID"].agg(set)
    assert not known["Train"] & (known["Development"] | known["Test1"] | known["Test2"])
    assert not known["Development"] & (known["Test1"] | known["Test2"])
    assert set(labels.loc[labels["SpkrID"] == "Unknown", "Split_Set"]) == {"Train"}
    assert labels.groupby("SpkrID")["Gender"].nunique().drop("Unknown").eq(1).all()


def test_test3_is_audio_alone(demo: Path, labels: pd.DataFrame) -> None:
    lines = (demo / "Partitions.txt").read_text().splitlines()
    split_of = {file: split for split, file in (line.split("; ") for line in lines)}
    hidden = {f"MSP-PODCAST_test3_{number:04d}.wav" for number in range(1, 9)}
    assert {file for file, split in split_of.items() if split == "Test3"} == hidden
    assert not hidden & set(labels["FileName"])
    assert dict(zip(labels["FileName"], labels["Split_Set"], strict=True)) == {
        file: split for file, split in split_of.items() if split != "Test3"
    }
    assert {path.name for path in (demo / "Audios").iterdir()} == set(split_of)


def test_clips_are_audible_and_not_clipped(demo: Path) -> None:
    for path in (demo / "Audios").iterdir():
        info, (samples, _) = soundfile.info(path), soundfile.read(path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert 1 <= info.duration <= 3
        assert np.sqrt(np.mean(samples**2)) > 0.003
        assert np.abs(samples).max() < 0.95


def test_the_reader_of_msp_podcast_reads_it(demo: Path) -> None:
    plan = load_plan(demo / "config.toml", EXPERIMENTS, None)
    assert plan.corpora["DEMO"].synthetic
    corpus = load_corpus("DEMO", plan.corpora["DEMO"])
    assert set(corpus.classes) >= {"neutral", "happy", "angry", "sad"}
    labelled = corpus.table[corpus.table["split"] != "test3"]
    assert len(labelled) == len(pd.read_csv(demo / "Labels" / "labels_consensus.csv"))
    assert len(corpus.table) == len(labelled) + 8
    assert all(Path(path).is_file() for path in corpus.table["path"])


def test_a_complete_corpus_is_left_alone_and_another_size_is_made_anew(demo: Path, tmp_path: Path) -> None:
    root, said = tmp_path / "corpus", list[str]()
    shutil.copytree(demo, root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_demo_corpus(root, TINY, said.append) == root / "config.toml"
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert said == []
    smaller = DemoSize(train=10, development=10, test1=10, test2=10, test3=0, at_least=1)
    write_demo_corpus(root, smaller, said.append)
    rows = pd.read_csv(root / "Labels" / "labels_consensus.csv")
    assert {path.name for path in (root / "Audios").iterdir()} == set(rows["FileName"]), "no clip of the other size"
    assert "SYNTHETIC" in said[0]


def test_an_interrupted_corpus_is_completed(demo: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(demo, root)
    (root / MARKER).unlink()
    lost = sorted((root / "Audios").iterdir())[3:]
    for path in lost:
        path.unlink()
    lost[0].with_name(lost[0].name + ".1.partial").write_bytes(b"RIFF")
    (root / "Labels" / "labels_consensus.csv").unlink()
    write_demo_corpus(root, TINY, silent)
    assert contents(root) == contents(demo)


def with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("mine")


@pytest.mark.parametrize("make", [with_a_file, lambda path: path.write_text("mine")])
def test_what_is_not_its_own_is_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    make(root)
    before = contents(tmp_path)
    with pytest.raises(DataError, match="contains no demo corpus; move it away or name another folder"):
        write_demo_corpus(root, TINY, silent)
    assert contents(tmp_path) == before


def pitch_hz(samples: npt.NDArray[np.float64]) -> float:
    """Median over 40 ms frames of the lag, 2.5 to 16 ms, at which the autocorrelation is highest."""
    found = []
    for frame in np.array_split(samples, len(samples) // 640):
        centred = frame - frame.mean()
        correlation = np.correlate(centred, centred, "full")[len(frame) - 1 :]
        lag = 40 + int(np.argmax(correlation[40:256]))
        if np.std(frame) > 0.5 * np.std(samples) and correlation[lag] > 0.4 * correlation[0]:
            found.append(16_000 / lag)
    return float(np.median(found))


def test_pitch_is_heard_as_planned() -> None:
    plain = {**vars(MEANS["N"]), "swing": 0.2, "rise": 0.0}
    for level in (0.0, 6.0):
        samples = speak(Prosody(**{**plain, "level": level}), draw_speaker(1), np.random.default_rng(0))
        assert pitch_hz(samples) == pytest.approx(draw_speaker(1).pitch_hz * 2 ** (level / 12), rel=0.04)


@pytest.mark.parametrize("gender", ["Male", "Female"])
def test_angry_and_happy_voices_are_higher(gender: str, demo: Path, labels: pd.DataFrame) -> None:
    rows = labels[(labels["Gender"] == gender) & labels["EmoClass"].isin(list("NHAS"))]
    pitch = [pitch_hz(soundfile.read(demo / "Audios" / file)[0]) for file in rows["FileName"]]
    mean = rows.assign(pitch=pitch).groupby("EmoClass")["pitch"].mean()
    assert min(mean["A"], mean["H"]) > 1.1 * max(mean["N"], mean["S"])


def test_attributes_follow_the_emotion(labels: pd.DataFrame) -> None:
    mean = labels.groupby("EmoClass")[["EmoAct", "EmoVal", "EmoDom"]].mean()
    arousal, valence, dominance = (mean[column].to_dict() for column in ("EmoAct", "EmoVal", "EmoDom"))
    assert arousal["S"] + 1 < arousal["N"] < min(arousal["H"], arousal["A"]) - 1
    assert max(valence["A"], valence["S"]) + 0.5 < valence["N"] < valence["H"] - 1
    assert max(dominance, key=lambda code: dominance[code]) == "A"


def test_mixtures_lie_between_two_codes() -> None:
    generator = np.random.default_rng(1)
    levels = [draw_prosody("X", generator).level for _ in range(200)]
    assert min(p.level for p in MEANS.values()) < np.mean(levels) < max(p.level for p in MEANS.values())
    assert np.std(levels) > 1.3, "mixtures of different codes differ more than clips of one code"


def test_the_glottis_opens_closes_and_rests() -> None:
    flow = rosenberg_pulse(np.array([0.0, 0.2, 0.4, 0.5, 0.6, 0.9]), 0.6)
    np.testing.assert_allclose(flow, [0, 0.5, 1, np.cos(np.pi / 4), 0, 0], atol=1e-12)
