"""`python prepare_data.py audit` on a corpus with known faults: all of them are found, and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import prepare_data
from tests.support.planted_faults import SpoiltCorpus, write_spoilt_corpus
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.config.corpus import CorpusConfig
from utils.data.audit.audit import Audit, audit, count_findings, summarise_splits
from utils.data.audit.findings import KINDS
from utils.data.loader import read_corpus
from utils.data.recordings.signal_checks import flat_samples
from utils.data.recordings.survey import survey


@pytest.fixture(scope="module", params=["1.6", "1.9", "1.11", "2.0"])
def spoilt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SpoiltCorpus:
    return write_spoilt_corpus(tmp_path_factory.mktemp("spoilt"), request.param)


def found_in(findings: pd.DataFrame) -> Counter[tuple[str, str]]:
    return Counter(zip(findings["kind"], findings["file"], strict=True))


def run_audit(config: CorpusConfig, name: str = "P", is_deep: bool = False) -> Audit:
    return audit(read_corpus(name, config), config, is_deep)


def test_all_planted_faults_are_found_and_nothing_else(
    spoilt: SpoiltCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["audit", "SPOILT", "--config", str(spoilt.root / "config.toml"), "--output", str(tmp_path)]
    for options, expected in (([], spoilt.expected), (["--deep"], spoilt.expected + spoilt.decoded_only)):
        assert prepare_data.main([*arguments, *options]) == 1
        written = pd.read_csv(tmp_path / "SPOILT" / "findings.csv", dtype=str, keep_default_na=False)
        assert found_in(written) == expected
        assert dict(zip(written["kind"], written["severity"], strict=True)) == {
            kind: KINDS[kind].severity for kind, _ in expected
        }
        printed = capsys.readouterr().out
        assert "SYNTHETIC" in printed
        counts = Counter(kind for kind, _ in expected.elements())
        for kind, count in counts.items():
            assert re.search(rf"\b{kind}\b.*?\b{count}\b", printed), kind
        errors = sum(count for kind, count in counts.items() if KINDS[kind].severity == "error")
        assert f"{errors} errors" in printed
        assert "training would be refused or wrong" in printed
        assert "<html" in (tmp_path / "SPOILT" / "report.html").read_text(encoding="utf-8")


def test_every_kind_is_planted_somewhere(spoilt: SpoiltCorpus) -> None:
    """But for what the test after this one, `test_audit_spellings.py` and `test_audit_recordings.py` plant."""
    planted = {kind for kind, _ in spoilt.expected + spoilt.decoded_only}
    words = {"word-for-nothing", "class-spellings", "near-classes", "speaker-spellings", "unreached-scale"}
    channels = {"cancelling", "faint-mix"}
    assert set(KINDS) - planted == {"repeated-row", "no-split", "unlabelled", "unread-column"} | words | channels


def test_what_a_table_of_ones_own_can_have_wrong(tmp_path: Path) -> None:
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.sin(np.arange(8000 + ord(name)) / 9), 16_000)
    table = tmp_path / "table.csv"
    table.write_text("file,split,emotion,rater\na.wav,train,sad,x\na.wav,train,sad,x\nb.wav,test1,,y\n")
    found = run_audit(CorpusConfig(FORMAT="csv", PATH_TO_AUDIO=tmp_path, PATH_TO_LABEL=table), is_deep=True)
    assert found_in(found.findings) == Counter(
        {
            ("repeated-row", "a.wav"): 1,
            ("no-split", ""): 1,
            ("unlabelled", "b.wav"): 1,
            ("unread-column", ""): 1,
            ("scarce-class", ""): 1,
            ("unknown-speaker", ""): 1,
            ("duplicate", "a.wav"): 1,
        }
    )


def test_a_sound_corpus_passes(podcast: SyntheticPodcast, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Unknown speakers are told and are no error."""
    config = tmp_path / "config.toml"
    config.write_text(f"[P]\nPATH_TO_LABEL = '{podcast.labels}'\nPATH_TO_AUDIO = '{podcast.audio}'\n")
    assert prepare_data.main(["audit", "P", "--deep", "--config", str(config), "--output", str(tmp_path)]) == 0
    assert "no error" in capsys.readouterr().out
    unknown = int((podcast.rows["SpkrID"] == "Unknown").sum())
    kinds = count_findings(run_audit(CorpusConfig(PATH_TO_AUDIO=podcast.audio, PATH_TO_LABEL=podcast.labels)))
    assert kinds.loc[kinds["kind"] == "unknown-speaker", "count"].tolist() == [unknown]


def test_the_splits_are_summed_up(podcast: SyntheticPodcast) -> None:
    found = run_audit(CorpusConfig(PATH_TO_AUDIO=podcast.audio, PATH_TO_LABEL=podcast.labels))
    summary = summarise_splits(found)
    assert list(summary.index) == ["train", "development", "test1", "test2"]
    rows = podcast.rows[podcast.rows["Split_Set"] == "Test1"]
    seconds = [soundfile.info(podcast.audio / name).duration for name in rows["FileName"]]
    test1 = summary.loc["test1"]
    assert test1["utterances"] == len(rows)
    assert test1["hours"] == pytest.approx(sum(seconds) / 3600)
    assert (test1["shortest"], test1["longest"]) == pytest.approx((min(seconds), max(seconds)))
    assert test1["female"] == (rows["Gender"] == "Female").sum()
    assert test1["speakers"] == rows.loc[rows["SpkrID"] != "Unknown", "SpkrID"].nunique()
    assert np.isnan(test1["agreement"])


def test_what_has_not_changed_is_not_opened_again(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    names = sorted(path.name for path in podcast.audio.glob("*.wav"))[:6]
    for name in names:
        (tmp_path / name).write_bytes((podcast.audio / name).read_bytes())
    paths = [str(tmp_path / name) for name in names]
    assert [survey("KEPT", paths).opened, survey("KEPT", paths).opened] == [6, 0]
    first = survey("KEPT", paths, is_deep=True)
    again = survey("KEPT", paths, is_deep=True)
    assert (first.opened, again.opened) == (6, 0)
    pd.testing.assert_frame_equal(first.table, again.table)
    assert survey("KEPT", paths).opened == 0
    (tmp_path / names[2]).write_bytes(b"RIFF")
    changed = survey("KEPT", paths, is_deep=True)
    assert changed.opened == 1
    assert changed.table["kind"].notna().tolist() == [False, False, True, False, False, False]
    assert survey("KEPT", paths).opened == 0, "also what cannot be used is known while it stays as it is"
    assert survey("OTHER", paths).opened == 6


def test_an_interrupted_survey_keeps_what_it_found(podcast: SyntheticPodcast) -> None:
    paths = [str(path) for path in sorted(podcast.audio.glob("*.wav"))]

    def stop(count: int) -> None:
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        survey("STOPPED", paths, stop, is_deep=True)
    assert survey("STOPPED", paths, is_deep=True).opened < len(paths)


@pytest.mark.parametrize(
    ("samples", "count"),
    [
        ([0, 90, 90, 90, 1, -9, -9, 0, 0, 0], 3),
        ([0, 90, 90, 1, 90, 90, 0, -9, 0, -9], 0),
        ([90, 90, 90, 0, 1, 0, 90, 90, 90, 90], 7),
        ([91, 90, 90, 90, 90, 90, 90, 90, 0, -2], 0),
        ([85, 90, 90, 90, 90, 85, 0, 1, 0, 0], 0),
        ([90, 90, 90, 90, 90, 90, 90, 90, 90, 90], 0),
    ],
)
def test_flat_tops_are_runs_of_three_at_an_extreme_that_end_with_a_bend(samples: list[int], count: int) -> None:
    assert flat_samples(np.array(samples, dtype=np.int16), max(samples)) == count
