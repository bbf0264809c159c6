"""`process_labels_for_categorical.py` as a person runs it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import process_labels_for_categorical as program
from tests.synthetic_podcast import SyntheticPodcast
from utils.configuration import CorpusConfig
from utils.data import DataError, load_corpus

ORDER = ["Angry", "Sad", "Happy", "Surprise", "Fear", "Disgust", "Contempt", "Neutral"]
CODES = dict(zip(ORDER, "ASHUFDCN", strict=True))


def process(podcast: SyntheticPodcast, output: Path) -> Path:
    assert program.main([str(podcast.labels), "--output", str(output)]) == 0
    return output


def test_every_class_and_split_keeps_its_count(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    table = pd.read_csv(process(podcast, tmp_path / "processed_labels.csv"), dtype=str)
    assert list(table) == ["FileName", *ORDER, "Split_Set"]
    assert set(table[ORDER].to_numpy().ravel()) == {"0.0", "1.0"}
    for name, code in CODES.items():
        for split in ("Train", "Development", "Test1", "Test2"):
            kept = table[(table[name] == "1.0") & (table["Split_Set"] == split)]
            consensus = podcast.rows[(podcast.rows["EmoClass"] == code) & (podcast.rows["Split_Set"] == split)]
            assert kept["FileName"].tolist() == consensus["FileName"].tolist()
    assert len(table) == podcast.rows["EmoClass"].isin(list(CODES.values())).sum()


def test_the_screen_counts_what_is_left_out(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process(podcast, tmp_path / "one.csv")
    lines = capsys.readouterr().out.splitlines()
    counts = {line.split("│")[1].strip(): line.split("│")[2:6] for line in lines if line.startswith("│")}
    assert [cell.strip() for cell in counts["other (O), left out"]] == ["2"] * 4
    assert [cell.strip() for cell in counts["no agreement (X), left out"]] == ["2"] * 4
    assert [cell.strip() for cell in counts["contempt"]] == ["3"] * 4


def test_the_reader_takes_the_one_hot_labels(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    processed = process(podcast, tmp_path / "processed_labels.csv")
    one_hot, consensus = (
        load_corpus("P", CorpusConfig(PATH_TO_AUDIO=podcast.audio, PATH_TO_LABEL=labels)).table.set_index("file")
        for labels in (processed, podcast.labels)
    )
    kept = consensus[consensus["emotion"].notna() & (consensus["emotion"] != "other")]
    assert one_hot["emotion"].to_dict() == kept["emotion"].to_dict()
    assert one_hot["split"].to_dict() == kept["split"].to_dict()
    assert one_hot[["speaker", "gender", "arousal"]].isna().all(axis=None)


def test_what_is_not_one_hot_is_named_by_line(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    processed = process(podcast, tmp_path / "processed_labels.csv")
    lines = processed.read_text().splitlines()
    lines[4] = lines[4].replace("0.0", "0.5", 1)
    processed.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 5: one class must be 1\.0"):
        load_corpus("P", CorpusConfig(PATH_TO_AUDIO=podcast.audio, PATH_TO_LABEL=processed))


@pytest.mark.parametrize(
    ("labels", "output", "sentence"),
    [
        ("nowhere", "x.csv", "nowhere is no file"),
        ("labels_consensus.csv", "labels_consensus.csv", "is there already; remove it, or give another --output"),
        ("labels_consensus.csv", ".", "is there already"),
        ("labels_consensus.csv", "missing/x.csv", "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_and_loses_nothing(
    podcast: SyntheticPodcast, capsys: pytest.CaptureFixture[str], labels: str, output: str, sentence: str
) -> None:
    before = (podcast.labels / "labels_consensus.csv").read_bytes()
    assert program.main([str(podcast.labels / labels), "--output", str(podcast.labels / output)]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1
    assert (podcast.labels / "labels_consensus.csv").read_bytes() == before
    assert [path.name for path in podcast.labels.iterdir()] == ["labels_consensus.csv"]
