"""Windows of a recording."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from utils.data.recordings.excerpts import Windows, read_windows
from utils.data.wav import read_waveform
from utils.errors import DataError


def write(path: Path, seconds: float, rate_hz: int = 16_000, channels: int = 1) -> str:
    count = round(seconds * rate_hz)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(count) / rate_hz + np.arange(channels)[:, None]).T
    soundfile.write(path, tone, rate_hz)
    return str(path)


@pytest.mark.parametrize(
    ("seconds", "windows", "places"),
    [
        (2.0, Windows(3.0, 1.0), [(0, 2)]),
        (3.0, Windows(3.0, 1.0), [(0, 3)]),
        (5.0, Windows(3.0, 1.0), [(0, 3), (1, 4), (2, 5)]),
        (5.5, Windows(3.0, 1.0), [(0, 3), (1, 4), (2, 5), (3, 5.5)]),
        (25.0, Windows(3.0, 10.0), [(0, 3), (10, 13), (20, 23)]),
        (21.0, Windows(3.0, 10.0), [(0, 3), (10, 13), (20, 21)]),
        (20.02, Windows(3.0, 10.0), [(0, 3), (10, 13)]),  # less than a frame is left
        (31.0, Windows(12.0, 12.0), [(0, 12), (12, 24), (24, 31)]),
    ],
)
def test_windows_begin_every_hop_until_one_reaches_the_end(
    seconds: float, windows: Windows, places: list[tuple[float, float]], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.wav", seconds)
    found = list(read_windows(path, windows))
    assert np.array([(window.start, window.end) for window in found]) == pytest.approx(np.array(places))
    samples = read_waveform(path)
    for window in found:
        assert np.array_equal(window.samples, samples[round(window.start * 16_000) : round(window.end * 16_000)])


@pytest.mark.parametrize(("rate_hz", "name"), [(44_100, "a.flac"), (8_000, "a.wav"), (48_000, "a.ogg")])
def test_other_rates_and_channels_are_resampled_as_a_whole_is(rate_hz: int, name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, 24.3, rate_hz, channels=2)
    found = np.concatenate([window.samples for window in read_windows(path, Windows(2.0, 2.0))])
    expected = read_waveform(path)
    assert len(found) == len(expected)
    assert np.abs(found - expected).max() < 1e-3


def test_what_is_broken_in_the_middle_is_no_recording(tmp_path: Path) -> None:
    samples = np.zeros(16_000 * 30)
    samples[16_000 * 25] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(DataError, match="a.wav contains samples that are not finite numbers"):
        list(read_windows(str(tmp_path / "a.wav"), Windows(3.0, 3.0)))


@pytest.mark.parametrize(("seconds", "hop"), [(0.0, 1.0), (1.0, 0.0), (np.nan, 1.0), (1.0, np.inf), (301, 1)])
def test_windows_that_cannot_be_are_refused(seconds: float, hop: float) -> None:
    with pytest.raises(DataError, match=r"a (segment|hop) has "):
        Windows(seconds, hop)


def test_hours_take_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    peaks = []
    for minutes in (1, 8):
        with soundfile.SoundFile(tmp_path / "a.wav", "w", 16_000, 1) as file:
            for _ in range(minutes):
                file.write(np.zeros(60 * 16_000))
        tracemalloc.start()
        for _ in read_windows(str(tmp_path / "a.wav"), Windows(3.0, 1.0)):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
