"""`process_labels_for_categorical.py` as a person runs it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pandas as pd
import pytest

import process_labels_for_categorical as program
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.config.corpus import CorpusConfig
from utils.data.loader import load_corpus
from utils.data.synthetic.demo_corpus import DemoSize, write_demo_corpus
from utils.errors import DataError

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
    counts = {line.split("│")[1].strip(): line.split("│")[2:7] for line in lines if line.startswith("│")}
    assert [cell.strip() for cell in counts["other (O)"]] == ["2"] * 4 + ["8"]
    assert [cell.strip() for cell in counts["no agreement (X)"]] == ["2"] * 4 + ["8"]
    assert [cell.strip() for cell in counts["contempt"]] == ["3"] * 4 + ["0"]


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
        ("nowhere", "x.csv", "nowhere is not a file"),
        ("labels_consensus.csv", "labels_consensus.csv", "already exists; remove it, or give another --output"),
        ("labels_consensus.csv", ".", "already exists"),
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


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = DemoSize(train=44, development=14, test1=14, test2=14, test3=8, at_least=1)
    return write_demo_corpus(tmp_path_factory.mktemp("demo"), size, say=lambda _: None).parent


@pytest.mark.parametrize("keep_other", [False, True])
def test_soft_labels_are_the_shares_of_primary_votes(demo: Path, tmp_path: Path, keep_other: bool) -> None:
    """Counted with a plain loop over the ratings; recordings without agreement are kept."""
    output = tmp_path / "soft.csv"
    assert program.main([str(demo / "Labels"), "--soft", "--output", str(output), *["--keep-other"] * keep_other]) == 0
    table = pd.read_csv(output).set_index("FileName")
    columns = ORDER + ["Other"] * keep_other
    assert list(table) == [*columns, "Split_Set"]
    votes: dict[str, list[str]] = {}
    for _, rating in pd.read_csv(demo / "Labels" / "labels_detailed.csv").iterrows():
        word = str(rating["EmoClass_Major"]).split("-")[0]
        votes.setdefault(rating["FileName"], []).extend([word] * (word in columns))
    rated = {file: words for file, words in votes.items() if words}
    assert set(table.index) == set(rated)
    shares = dict(zip(table.index, table[columns].to_numpy().tolist(), strict=True))
    for file, words in rated.items():
        assert shares[file] == pytest.approx([words.count(column) / len(words) for column in columns], abs=1e-6)
    consensus = pd.read_csv(demo / "Labels" / "labels_consensus.csv").set_index("FileName")
    assert (consensus.loc[table.index, "EmoClass"] == "X").any()


def test_other_can_be_kept_as_a_ninth_class_and_is_read_back(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    output = tmp_path / "nine.csv"
    assert program.main([str(podcast.labels), "--keep-other", "--output", str(output)]) == 0
    table = pd.read_csv(output)
    assert list(table) == ["FileName", *ORDER, "Other", "Split_Set"]
    assert table["Other"].sum() == 8
    corpus = load_corpus("P", CorpusConfig(PATH_TO_AUDIO=podcast.audio, PATH_TO_LABEL=output))
    assert (corpus.table["emotion"] == "other").sum() == 8


def test_soft_labels_need_ratings(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([str(podcast.labels), "--soft", "--output", str(tmp_path / "x.csv")]) == 2
    assert "holds no votes, which --soft needs; add labels_detailed.csv" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def write_corpora(folder: Path, *sections: str) -> None:
    (folder / "config.toml").write_text("".join(sections))


def msp(name: str, podcast: SyntheticPodcast) -> str:
    return f"[{name}]\nPATH_TO_AUDIO = '{podcast.audio}'\nPATH_TO_LABEL = '{podcast.labels}'\n"


EMODB = "[E]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '.'\n"


def test_without_arguments_the_msp_podcast_section_is_taken(
    podcast: SyntheticPodcast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpora(tmp_path, EMODB, msp("MSP", podcast))
    assert program.main([]) == 0
    assert (tmp_path / "processed_labels.csv").read_bytes() == process(podcast, tmp_path / "x.csv").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "config.toml").rename(tmp_path / "elsewhere" / "config.toml")
    assert program.main(["--config", "elsewhere/config.toml", "--output", "y.csv"]) == 0


def test_of_several_sections_each_is_named_with_its_command(
    podcast: SyntheticPodcast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpora(tmp_path, msp("A", podcast), msp("B", podcast))
    assert program.main(["--keep-other", "--output", "it's.csv"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == 'config.toml has 2 corpora of FORMAT = "msp-podcast"; name the labels of one:'
    assert [line.split(": ")[0] for line in told[1:]] == ["A", "B"]
    words = shlex.split(told[1].removeprefix("A: "))
    assert Path(words[1]).name == "process_labels_for_categorical.py"
    assert program.main(words[2:]) == 0
    assert "Other" in pd.read_csv("it's.csv").columns


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (EMODB, 'config.toml has no corpus of FORMAT = "msp-podcast"; name the release\'s label folder'),
        (None, "config.toml: no such file; name another with --config FILE"),
        ("[E]\nFORMAT = 'nothing'\nPATH_TO_AUDIO = '.'\n", "config.toml: E.FORMAT: found"),
    ],
)
def test_without_such_a_section_that_is_said(
    text: str | None,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        write_corpora(tmp_path, text)
    assert program.main([]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1
