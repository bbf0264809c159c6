from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tests.support.voices import voice
from utils.data.recordings import inspection_cache
from utils.data.recordings.excerpts import Windows, read_windows
from utils.data.recordings.signal_checks import BLOCK_FRAMES, Cancellation, listen
from utils.data.recordings.survey import survey
from utils.data.wav import read_waveform
from utils.errors import DataError


def judged(*paths: Path, is_deep: bool = True) -> list[str]:
    """The kind of problem of each recording, empty where there is none."""
    table = survey("JUDGED", [str(path) for path in paths], is_deep=is_deep).table
    return [str(kind) for kind in table["kind"].fillna("")]


def with_flac_length(path: Path, frames: int) -> None:
    """Write another length into the 36 bits of STREAMINFO."""
    content = bytearray(path.read_bytes())
    word = int.from_bytes(content[18:26], "big")
    content[18:26] = (word >> 36 << 36 | frames).to_bytes(8, "big")
    path.write_bytes(content)


@pytest.mark.parametrize("is_deep", [False, True])
def test_one_bad_file_never_ends_an_audit(tmp_path: Path, is_deep: bool) -> None:
    for name in ("unknown", "absurd", "good"):
        soundfile.write(tmp_path / f"{name}.flac", voice(), 16_000)
    with_flac_length(tmp_path / "unknown.flac", 0)
    with_flac_length(tmp_path / "absurd.flac", (1 << 36) - 1)
    (tmp_path / "folder.wav").mkdir()
    names = ("unknown.flac", "absurd.flac", "good.flac", "folder.wav", "a\0b.wav")
    paths = [str(tmp_path / name) for name in names]
    table = survey(f"BAD{is_deep}", paths, is_deep=is_deep).table
    assert table["kind"].fillna("").tolist() == ["unreadable", "unreadable", "", "unreadable", "unreadable"]
    assert table["problem"].tolist()[:2] == ["has no usable length in its header"] * 2


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_long_recordings_are_judged_as_if_decoded_at_once(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.clip(3 * voice(20.0), -1, 1)
    samples[len(samples) // 2 :] = 0
    soundfile.write(tmp_path / f"a.{suffix}", np.stack([samples, samples / 2], axis=1), 16_000)
    assert len(samples) > BLOCK_FRAMES
    with soundfile.SoundFile(tmp_path / f"a.{suffix}") as file:
        by_blocks, _ = listen(file)
    monkeypatch.setattr("utils.data.recordings.signal_checks.BLOCK_FRAMES", 1 << 22)
    with soundfile.SoundFile(tmp_path / f"a.{suffix}") as file:
        at_once, _ = listen(file)
    assert by_blocks is not None
    assert at_once is not None
    assert by_blocks[:4] == pytest.approx(at_once[:4])
    assert (by_blocks.clipped > 0.01) == (suffix in ("wav", "flac"))


def cut_in_half(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


FORMATS: dict[str, dict[str, str]] = {
    "a.wav": {},
    "b.wav": {"format": "WAV", "endian": "BIG"},
    "c.wav": {"format": "RF64"},
    "d.wav": {"format": "WAVEX", "subtype": "FLOAT"},
    "a.aiff": {},
    "b.aifc": {"format": "AIFF", "subtype": "FLOAT"},
    "a.ogg": {},
    "b.opus": {"format": "OGG", "subtype": "OPUS"},
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seconds", [0.5, 20.0])
def test_half_a_file_is_truncated_and_a_whole_one_is_not(tmp_path: Path, name: str, seconds: float) -> None:
    path = tmp_path / name
    soundfile.write(path, voice(seconds), 16_000, **FORMATS[name])
    assert judged(path) == [""]
    assert judged(cut_in_half(path), is_deep=False) == ["truncated"]


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_from_a_pipe_states_no_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(), 16_000)
    content = bytearray(path.read_bytes())
    content[4:8] = size.to_bytes(4, "little")
    if size:  # libsndfile reads nothing where `data` states nothing
        content[40:44] = size.to_bytes(4, "little")
    path.write_bytes(content)
    assert judged(path, is_deep=False) == [""]


def test_only_samples_that_are_missing_make_a_wav_truncated(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice(), 16_000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[4:8] = (len(content) + 500).to_bytes(4, "little")  # a list of titles was to follow
    (tmp_path / "a.wav").write_bytes(content)
    assert judged(tmp_path / "a.wav") == [""]
    content[4:8] = (len(content) - 508).to_bytes(4, "little")
    (tmp_path / "b.wav").write_bytes(content[:-500])
    assert judged(tmp_path / "b.wav") == ["truncated"]


def test_a_file_is_known_by_its_time_of_change_as_well(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(), 16_000)
    assert [survey("TIME", [str(path)]).opened for _ in range(2)] == [1, 0]
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert [survey("TIME", [str(path)]).opened for _ in range(2)] == [1, 0]


def test_what_another_program_found_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(), 16_000)
    assert [survey("VERSION", [str(path)]).opened for _ in range(2)] == [1, 0]
    monkeypatch.setattr(inspection_cache, "_version", lambda: b"another")
    assert [survey("VERSION", [str(path)]).opened for _ in range(2)] == [1, 0]


def test_a_folder_that_keeps_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inspection_cache.keeping_problem() is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = inspection_cache.keeping_problem()
    assert found is not None
    assert "name another folder with XDG_CACHE_HOME" in found


def test_a_file_that_changes_or_goes_is_judged_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "grows.wav", tmp_path / "goes.wav"]
    for path in paths:
        soundfile.write(path, voice(), 16_000)
    content = paths[0].read_bytes()
    cut_in_half(paths[0])

    def meanwhile(descriptor: int, size: int) -> bool:
        """The rest of the copy arrives after the first look."""
        monkeypatch.undo()
        paths[0].write_bytes(content)
        return True

    monkeypatch.setattr("utils.data.recordings.survey.is_cut_off", meanwhile)
    assert judged(paths[0]) == [""]
    state = os.stat(paths[1])
    monkeypatch.setattr(os, "stat", lambda path: state)
    paths[1].unlink()
    assert judged(paths[1]) == ["missing"]


def clipped_share(path: Path) -> float:
    return float(survey("CLIP", [str(path)], is_deep=True).table["clipped"].iloc[0])


@pytest.mark.parametrize(
    ("rate_hz", "level", "pitch_hz", "subtype"),
    [
        (16_000, 0.5, 120, "PCM_U8"),
        (48_000, 0.12, 120, "PCM_16"),
        (48_000, 0.12, 50, "PCM_16"),
        (16_000, 0.9, 80, "PCM_U8"),
        (48_000, 0.9, 120, "PCM_24"),
        (16_000, 0.5, 120, "FLOAT"),
    ],
)
def test_rounding_is_no_clipping(tmp_path: Path, rate_hz: int, level: float, pitch_hz: float, subtype: str) -> None:
    tone = level * np.sin(2 * np.pi * pitch_hz * np.arange(rate_hz) / rate_hz + 0.3)
    soundfile.write(tmp_path / "a.wav", tone, rate_hz, subtype=subtype)
    assert clipped_share(tmp_path / "a.wav") == 0


@pytest.mark.parametrize("level", [0.3, 0.6, 1.0])
@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        ("wav", "PCM_16"),
        ("wav", "FLOAT"),
        ("wav", "PCM_U8"),
        ("flac", "PCM_16"),
        ("flac", "PCM_24"),
    ],
)
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_cut_peaks_are_clipping(tmp_path: Path, level: float, suffix: str, subtype: str, rate_hz: int) -> None:
    cut = np.clip(6 * level * voice(2.0, rate_hz), -level, level)
    soundfile.write(tmp_path / f"a.{suffix}", cut, rate_hz, subtype=subtype)
    assert 0.001 < clipped_share(tmp_path / f"a.{suffix}") <= 1


def test_what_may_not_be_read_is_no_fault_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    paths = [tmp_path / "a.wav", tmp_path / "closed" / "b.wav"]
    for path in paths:
        soundfile.write(path, voice(), 16_000)
    paths[0].chmod(0)
    (tmp_path / "closed").chmod(0)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # everything is permitted to root
        table = survey("CLOSED", [str(path) for path in paths]).table
    finally:
        os.seteuid(user)
        (tmp_path / "closed").chmod(0o700)
    assert table["kind"].tolist() == ["unreadable"] * 2
    assert table["problem"].tolist() == ["is not permitted to be read; give read permission"] * 2
    paths[0].chmod(0o600)
    assert judged(*paths) == ["", ""]


def test_what_is_found_is_kept_while_others_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.data.recordings.survey.SECONDS_BETWEEN_LOOKS", 0.001)
    monkeypatch.setattr("utils.data.recordings.survey.SECONDS_BETWEEN_KEEPING", 0.0)
    soundfile.write(tmp_path / "0.flac", voice(20.0), 16_000)
    paths = [str(tmp_path / f"{number}.flac") for number in range(60)]
    for path in paths[1:]:
        os.link(paths[0], path)
    known: list[int] = []
    survey("DURING", paths, lambda _: known.append(len(inspection_cache.recall("DURING"))), is_deep=True)
    assert any(0 < number < len(paths) for number in known)


def stereo(gain: float, noise: float = 0.0, seconds: float = 20.0) -> npt.NDArray[np.float64]:
    """Speech and its opposite, which is quieter by a gain, each with noise of its own."""
    samples, generator = voice(seconds), np.random.default_rng(5)
    channels = np.stack([samples, -gain * samples], axis=1)
    return channels + noise * generator.standard_normal(channels.shape)


CANCELLING = {
    "16-bit.wav": (stereo(1.0), {}),
    "float.wav": (stereo(1.0), {"subtype": "FLOAT"}),
    "dithered.wav": (stereo(1.0, 1 / 32768), {}),
    "lossless.flac": (stereo(1.0), {}),
    "joint.mp3": (stereo(1.0), {}),
    "offset.wav": (0.5 * stereo(1.0) + [[0.3, 0.1]], {}),
    "four.wav": (np.concatenate([stereo(1.0), stereo(1.0)[::-1]], axis=1), {}),
    "three.wav": (stereo(0.5)[:, [0, 1, 1]], {"subtype": "FLOAT"}),
}


@pytest.mark.parametrize("name", CANCELLING)
def test_channels_that_cancel_are_a_fault(name: str, tmp_path: Path) -> None:
    samples, keys = CANCELLING[name]
    soundfile.write(tmp_path / name, samples, 16_000, **keys)
    assert judged(tmp_path / name) == ["cancelling"]
    assert judged(tmp_path / name, is_deep=False) == ["cancelling"], "a plain look knows"
    with pytest.raises(DataError, match=r"has channels that cancel: .*; keep one of them \(sox"):
        read_waveform(str(tmp_path / name), cancellation=Cancellation())
    with pytest.raises(DataError, match=f"{name} has channels that cancel"):
        list(read_windows(str(tmp_path / name), Windows(3.0, 3.0)))


@pytest.mark.parametrize(
    ("samples", "lost_db"),
    [
        (voice()[:, None], 0.0),
        (np.stack([voice(), voice()], axis=1), 0.0),
        (np.stack([voice(), 0 * voice()], axis=1), 0.0),
        (np.stack([voice(seed=1), *[0 * voice()] * 5], axis=1), 0.0),
        (np.zeros((16_000, 2)), 0.0),
        (stereo(1.0, seconds=1.0) * 1e-4, 0.0),  # silence, whatever becomes of it
        (np.concatenate([stereo(1.0), stereo(-1.0)]), 0.0),
        (stereo(0.9, seconds=1.0), 22.6),
        (stereo(0.99, seconds=1.0), 43.0),
    ],
)
def test_what_can_be_heard_in_the_mix_is_no_fault(
    samples: npt.NDArray[np.float64], lost_db: float, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="PCM_24")
    table = survey("HEARD", [str(tmp_path / "a.wav")], is_deep=True).table
    assert table["kind"].isna().all()
    assert table["cancelled_db"].iloc[0] == pytest.approx(lost_db, abs=0.5)
    read_waveform(str(tmp_path / "a.wav"), cancellation=Cancellation())


def test_the_mix_is_what_levels_are_of(tmp_path: Path) -> None:
    samples = voice(20.0)
    for name, other in (
        ("half", 0 * samples),
        ("same", samples),
        ("late", np.where(np.arange(320_000) < 2e5, 0, -samples)),
    ):
        soundfile.write(tmp_path / f"{name}.wav", np.stack([samples, other], axis=1), 16_000, subtype="FLOAT")
        mix = read_waveform(str(tmp_path / f"{name}.wav"))
        with soundfile.SoundFile(tmp_path / f"{name}.wav") as file:
            sound, _ = listen(file)
        assert sound is not None
        assert sound.peak == pytest.approx(np.abs(mix).max(), rel=1e-5)
        assert sound.swing == pytest.approx(np.ptp(mix) / 2, rel=1e-5)
    soundfile.write(
        tmp_path / "b.wav", np.stack([samples, np.where(np.arange(320_000) < 1.6e5, 0, -samples)], 1), 16_000
    )
    with soundfile.SoundFile(tmp_path / "b.wav") as file:
        sound, _ = listen(file)
    assert sound is not None
    assert sound.silent_end
