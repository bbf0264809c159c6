"""`python prepare_data.py pack` as a person runs it, and training from what it writes."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import main as program
import prepare_data
from tests.conftest import ROOT
from tests.support.experiment_files import BASE
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.config.corpus import CorpusConfig
from utils.data.loader import load_corpus
from utils.data.packing.shards import encode, pack, pack_shard, read_index
from utils.data.recordings.preflight import leave_out_unusable, require_all
from utils.data.wav import Crop, read_waveform
from utils.errors import DataError

KEYS = "[{name}]\nPATH_TO_LABEL = '{labels}'\nPATH_TO_AUDIO = '{audio}'\n{dataset}\n"
SMALL = ["--shard-mib", "0", "--workers", "2"]
"""Every recording is a shard of its own."""


def write_corpora(folder: Path, podcast: SyntheticPodcast, packed: Path | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    dataset = f"PATH_TO_DATASET = '{packed}'" if packed else ""
    text = KEYS.format(name="P", labels=podcast.labels, audio=podcast.audio, dataset=dataset)
    (folder / "config.toml").write_text(text)
    return folder / "config.toml"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "normalize"), [(0, "corpus"), (2, "utterance")])
def test_training_from_shards_is_training_from_files_bit_for_bit(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int, normalize: str
) -> None:
    """Crops of loose and of packed recordings are the same; so are weights, losses and predictions."""
    packed = write_corpora(tmp_path / "packed", podcast, tmp_path / "shards")
    loose = write_corpora(tmp_path / "loose", podcast, None)
    assert prepare_data.main(["pack", "P", "--config", str(packed)]) == 0
    listed = tmp_path / "experiments.toml"
    keys = f'max_seconds = 0.4, num_workers = {workers}, normalize = "{normalize}"'
    listed.write_text(f"{BASE}[[experiments]]\nname = 'one'\nconfig_update = {{ {keys} }}\n")
    for corpora in (loose, packed):
        arguments = ["--config", str(corpora), "--experiments", str(listed), "--device", "cpu"]
        arguments += ["--output", str(corpora.parent / "runs")]
        assert program.main(arguments) == 0
        assert program.main([*arguments, "--test"]) == 0
    assert "recordings are read from the shards of" in capsys.readouterr().out
    one, other = (corpora.parent / "runs" / "one" / "seed-42" for corpora in (loose, packed))
    for name in ("checkpoints/best/model.safetensors", "predictions/test1.csv", "predictions/development.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize(
    ("rate_hz", "channels", "subtype", "suffix"),
    [
        (16_000, 1, "PCM_16", "flac"),
        (44_100, 2, "PCM_16", "wav"),
        (16_000, 1, "PCM_24", "wav"),
        (8_000, 1, "FLOAT", "wav"),
    ],
)
def test_a_packed_recording_decodes_to_the_samples_of_the_original(
    tmp_path: Path, rate_hz: int, channels: int, subtype: str, suffix: str
) -> None:
    samples = 0.5 * np.random.default_rng(0).standard_normal((rate_hz, channels)).clip(-1.9, 1.9)
    original = tmp_path / "original.wav"
    soundfile.write(original, samples, rate_hz, subtype=subtype)
    audio, found, seconds = encode(str(original))
    assert (found, seconds) == (suffix, 1.0)
    (tmp_path / "packed").write_bytes(audio)
    for crop in (None, Crop(0.3, 0.7)):
        assert np.array_equal(read_waveform(str(original), crop), read_waveform(str(tmp_path / "packed"), crop))
    assert encode(str(original))[0] == audio, "the same bytes each time"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_webdataset_library_reads_the_shards(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    corpora = write_corpora(tmp_path, podcast, tmp_path / "shards")
    assert prepare_data.main(["pack", "P", "--config", str(corpora), "--shard-mib", "1"]) == 0
    shards = sorted(map(str, (tmp_path / "shards").glob("*.tar")))
    assert len(shards) > 1
    found = list(webdataset.WebDataset(shards, shardshuffle=False))
    rows = podcast.rows.set_index("FileName")
    assert [json.loads(sample["json"])["file"] for sample in found] == list(rows.index)
    for sample in found[::10]:
        document = json.loads(sample["json"])
        samples, _ = soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")
        assert np.array_equal(samples, read_waveform(str(podcast.audio / document["file"])))
        assert document["valence"] == rows.loc[document["file"], "EmoVal"]
        assert document["split"] == str(rows.loc[document["file"], "Split_Set"]).lower()
    gc.collect()  # the library leaves its files to the collector


@pytest.mark.slow
def test_packing_killed_again_and_again_gives_the_same_shards(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    """At twenty moments with PACKING_KILLS=20."""
    kills = int(os.environ.get("PACKING_KILLS", "8"))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    corpora = write_corpora(tmp_path / "one", podcast, whole)
    assert prepare_data.main(["pack", "P", "--config", str(corpora), *SMALL]) == 0
    corpora = write_corpora(tmp_path / "other", podcast, broken)
    command = [sys.executable, "prepare_data.py", "pack", "P", "--config", str(corpora), *SMALL]
    generator = np.random.default_rng(0)
    seen = set()
    for moment in range(kills):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 60
        wanted = (100 * moment + int(generator.integers(100))) // kills  # so many shards are there when the kill comes
        while len(list(broken.glob("*.tar"))) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(float(generator.uniform(0, 0.01)))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen.add(len(list(broken.glob("*.tar"))))
        assert read_index(broken) is None or moment == kills - 1
    assert len(seen) > kills / 2, "the kills came at different moments"
    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert contents(broken) == contents(whole)


def test_what_cannot_be_packed_is_listed_and_training_refuses_to_guess(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    for path in podcast.audio.iterdir():
        os.link(path, audio / path.name)
    missing, truncated = podcast.rows["FileName"][0], podcast.rows["FileName"][1]
    (audio / missing).unlink()
    content = (audio / truncated).read_bytes()
    (audio / truncated).unlink()
    (audio / truncated).write_bytes(content[: len(content) // 2])  # libsndfile reads the half that is there in silence
    shards = tmp_path / "shards"
    corpora = write_corpora(tmp_path, SyntheticPodcast(podcast.labels, audio, podcast.rows), shards)
    assert prepare_data.main(["pack", "P", "--config", str(corpora)]) == 1
    assert "2 recordings are not packed, see" in capsys.readouterr().out
    assert sorted(pd.read_csv(shards / "problems.csv")["file"]) == sorted([missing, truncated])
    config = CorpusConfig(PATH_TO_LABEL=podcast.labels, PATH_TO_AUDIO=audio, PATH_TO_DATASET=shards)
    table = load_corpus("P", config).table
    with pytest.raises(DataError, match="at most 1% .* is missing; .* is truncated: .* and pack again"):
        leave_out_unusable(table[table["split"] == "train"])
    (shards / "problems.csv").write_text("file,kind,problem,is_lasting\n")
    with pytest.raises(DataError, match="2 recordings, such as .* are neither in the shards of .* nor in problems.csv"):
        load_corpus("P", config)

    for name in (missing, truncated):
        (audio / name).write_bytes((podcast.audio / name).read_bytes())
    assert prepare_data.main(["pack", "P", "--config", str(corpora)]) == 0
    table = load_corpus("P", config).table
    assert require_all(table)["seconds"].gt(0).all()
    (shards / "shard-000000.tar").write_bytes(b"short")
    with pytest.raises(DataError, match="shard-000000.tar is missing or incomplete; copy it again"):
        load_corpus("P", config)


CHANGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "cut": ("wav", lambda path: os.truncate(path, 20_000), "changed while the corpus was packed"),
    "no recording any more": ("flac", lambda path: path.write_bytes(b"text"), "cannot be opened: "),
    "removed": ("wav", lambda path: path.unlink(), "is missing"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_recording_that_changes_between_looking_and_encoding_is_listed(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix, action, sentence = CHANGES[change]
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    paths = [tmp_path / f"{name}.{suffix}" for name in ("one", "other")]
    for path in paths:
        soundfile.write(path, noise, 16_000)
    table = pd.DataFrame({"file": [path.name for path in paths], "path": [str(path) for path in paths]})
    sources, missing = prepare_data.find_sources(table)
    assert not missing

    def encode_later(path: str) -> tuple[bytes, str, float]:
        if path == str(paths[0]):
            action(paths[0])
        return encode(path)

    monkeypatch.setattr("utils.data.packing.shards.encode", encode_later)
    packed = pack_shard(tmp_path, 0, sources)
    assert [member.file for member in packed.members] == [paths[1].name]
    assert [(problem.file, problem.is_lasting) for problem in packed.problems] == [(paths[0].name, False)]
    assert packed.problems[0].problem.startswith(sentence)


def test_what_may_have_passed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "one.wav", 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    table = pd.DataFrame({"file": ["one.wav"], "path": [str(tmp_path / "one.wav")]})
    sources, _ = prepare_data.find_sources(table)

    def fail(path: str) -> tuple[bytes, str, float]:
        raise MemoryError

    (tmp_path / "shards").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("utils.data.packing.shards.encode", fail)
        assert pack_shard(tmp_path / "shards", 0, sources).problems[0].problem.endswith("there is not enough memory")
    assert pack(sources, tmp_path / "shards", 1, lambda _: None) == []
    assert read_index(tmp_path / "shards") is not None


def test_what_cannot_be_reached_is_listed(tmp_path: Path) -> None:
    paths = [str(tmp_path / "a\0b.wav"), str(tmp_path / "gone.wav")]
    sources, missing = prepare_data.find_sources(pd.DataFrame({"file": ["nul", "gone"], "path": paths}))
    assert not sources
    assert [problem.problem for problem in missing] == ["cannot be opened: embedded null byte", "is missing"]


@pytest.mark.parametrize("fault", ["zeros in its middle", "a byte of a sample"])
def test_a_damaged_member_is_found_before_training(fault: str, podcast: SyntheticPodcast, tmp_path: Path) -> None:
    """Also where it would decode: what was packed has a checksum."""
    shards = tmp_path / "shards"
    corpora = write_corpora(tmp_path, podcast, shards)
    assert prepare_data.main(["pack", "P", "--config", str(corpora)]) == 0
    config = CorpusConfig(PATH_TO_LABEL=podcast.labels, PATH_TO_AUDIO=podcast.audio, PATH_TO_DATASET=shards)
    table = load_corpus("P", config).table
    split = table[table["split"] == "development"]
    assert require_all(split)["seconds"].gt(0).all()
    place = str(split["path"].iloc[3])
    shard, first = Path(place.partition("#")[0]), int(place.partition("#")[2].partition("+")[0])
    content = bytearray(shard.read_bytes())
    content[first + 500] ^= 1
    if "zeros" in fault:
        content[first + 400 : first + 600] = bytes(200)
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-000000.tar is damaged at [\d,]+; copy it again, or pack"):
        require_all(split)
    with pytest.raises(DataError, match="is damaged at"):
        read_waveform(place)


def test_wrong_names_are_one_sentence(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpora = write_corpora(tmp_path, podcast, None)
    for arguments, sentence in (
        (["Q"], "no corpus is called Q; known: P"),
        (["P"], "P.PATH_TO_DATASET: missing; name a folder for the shards"),
    ):
        assert prepare_data.main(["pack", *arguments, "--config", str(corpora)]) == 2
        told = capsys.readouterr().err
        assert sentence in told
        assert len(told.splitlines()) == 1
