from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from utils.data.recordings.preflight import require_all
from utils.data.wav import Crop, read_waveform
from utils.dataset.normalisation import Normalisation, measure_corpus
from utils.errors import DataError


def sine(seconds: float, rate_hz: int, pitch_hz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * pitch_hz * np.arange(int(seconds * rate_hz)) / rate_hz)


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("wav", "PCM_16"), ("flac", "PCM_16"), ("wav", "FLOAT"), ("ogg", "VORBIS")]
)
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_any_rate_becomes_16_khz_mono(suffix: str, subtype: str, rate_hz: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([sine(1.0, rate_hz), sine(1.0, rate_hz)], axis=1), rate_hz, subtype=subtype)
    samples = read_waveform(str(path))
    assert samples.dtype == np.float32
    assert samples.shape == (16_000,)
    middle = slice(4_000, 12_000)
    assert np.abs(samples[middle] - sine(1.0, 16_000)[middle]).max() < (0.05 if suffix == "ogg" else 2e-3)


def test_channels_are_averaged(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([np.full(800, 0.5), np.full(800, -0.25)], axis=1), 16_000)
    assert np.allclose(read_waveform(str(tmp_path / "a.wav")), 0.125, atol=1e-4)


def test_crops_stay_inside_and_reach_both_ends(tmp_path: Path) -> None:
    ramp = np.arange(32_000) / 40_000
    soundfile.write(tmp_path / "a.wav", ramp, 16_000, subtype="FLOAT")
    starts = [read_waveform(str(tmp_path / "a.wav"), Crop(1.0, p))[0] for p in (0.0, 0.5, 1 - 1e-12)]
    assert np.allclose(starts, [0.0, 8_000 / 40_000, 16_000 / 40_000], atol=1e-4)
    assert len(read_waveform(str(tmp_path / "a.wav"), Crop(5.0, 0.7))) == 32_000, "shorter than the crop: all of it"


@pytest.mark.parametrize("content", [b"", b"this is no sound", None])
def test_what_cannot_be_decoded_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=str(path)):
        read_waveform(str(path))


def test_memory_that_is_not_enough_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError  # as the interpreter raises it: without a text

    soundfile.write(tmp_path / "a.wav", sine(1.0, 16_000), 16_000)
    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    with pytest.raises(DataError, match="cannot be decoded: there is not enough memory"):
        read_waveform(str(tmp_path / "a.wav"))


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan, 0.1]), 16_000, subtype="FLOAT")
    with pytest.raises(DataError, match="not finite"):
        read_waveform(str(tmp_path / "a.wav"))


def test_a_truncated_flac_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=str(path)):
        read_waveform(str(path))


def test_a_truncated_wav_is_noticed_in_its_header(tmp_path: Path) -> None:
    """libsndfile reads what is there of a truncated WAV without a word."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(16_000), 16_000)
    table = pd.DataFrame({"corpus": ["C"], "file": ["a.wav"], "split": ["test1"], "path": [str(path)]})
    assert require_all(table)["seconds"].tolist() == [1.0]
    path.write_bytes(path.read_bytes()[:16_000])
    assert len(soundfile.read(path)[0]) < 16_000
    with pytest.raises(DataError, match="is truncated"):
        require_all(table)


def test_utterance_normalisation_is_that_of_transformers() -> None:
    from transformers import Wav2Vec2FeatureExtractor

    samples = np.random.default_rng(0).normal(0.3, 0.02, 5_000).astype(np.float32)
    expected = Wav2Vec2FeatureExtractor(do_normalize=True)(samples, sampling_rate=16_000)["input_values"][0]
    assert np.abs(Normalisation("utterance")(samples) - expected).max() < 1e-5
    assert Normalisation("none")(samples) is samples


def test_corpus_normalisation_measures_all_samples(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    parts = [generator.normal(0.1, 0.05, size) for size in (1_000, 30_000)]
    for index, part in enumerate(parts):
        soundfile.write(tmp_path / f"{index}.wav", part, 16_000, subtype="FLOAT")
    constants = measure_corpus([str(tmp_path / "0.wav"), str(tmp_path / "1.wav")])
    together = np.concatenate(parts)
    assert constants.mean == pytest.approx(together.mean(), rel=1e-5)
    assert constants.deviation == pytest.approx(together.std(), rel=1e-5)
    assert np.allclose(constants(together.astype(np.float32)).std(), 1, atol=1e-4)
