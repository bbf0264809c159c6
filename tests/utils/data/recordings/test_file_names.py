"""What counts as a recording in folders as people have them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
import soundfile

from tests.support.voices import voice
from utils.config.corpus import CorpusConfig
from utils.data.loader import load_corpus
from utils.data.recordings.file_names import (
    AMBIGUOUS,
    SUFFIXES,
    by_wav_name,
    find_recordings,
    is_recording,
    look_below,
    why_not_read,
)
from utils.errors import DataError

WRITTEN: dict[str, tuple[str, str]] = {
    **{".bwf": ("WAV", "PCM_16"), ".rf64": ("RF64", "PCM_16"), ".w64": ("W64", "PCM_16"), ".oga": ("OGG", "VORBIS")},
    **{".opus": ("OGG", "OPUS"), ".aifc": ("AIFF", "PCM_16"), ".snd": ("AU", "PCM_16"), ".caf": ("CAF", "PCM_16")},
    **{".sph": ("NIST", "PCM_16"), ".nist": ("NIST", "PCM_16"), ".voc": ("VOC", "PCM_16"), ".avr": ("AVR", "PCM_16")},
    **{".ircam": ("IRCAM", "PCM_16"), ".paf": ("PAF", "PCM_16"), ".pvf": ("PVF", "PCM_16"), ".svx": ("SVX", "PCM_16")},
    **{".mat": ("MAT5", "PCM_16"), ".htk": ("HTK", "PCM_16")},
}
"""Format and encoding of recordings by what their names end with, beside those that every test here writes."""
MPEG4 = b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00M4A mp42isom" + bytes(500)


def write(path: Path, kind: str = "WAV", subtype: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, voice(0.5), 8_000 if kind == "VOC" else 16_000, format=kind, subtype=subtype)
    return path


def below(folder: Path) -> tuple[list[str], dict[str, str], dict[str, int]]:
    """Look below a folder; paths begin there."""
    found = look_below(folder)
    names = [os.path.relpath(path, folder) for path in found.recordings]
    return names, {os.path.relpath(path, folder): why for path, why in found.left_out.items()}, dict(found.others)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_recording_is_one_in_every_format_that_libsndfile_writes(suffix: str, tmp_path: Path) -> None:
    kind, subtype = WRITTEN[suffix]
    assert kind in soundfile.available_formats()
    write(tmp_path / f"a{suffix}", kind, subtype)
    write(tmp_path / f"B{suffix.upper()}", kind, subtype)
    assert below(tmp_path) == ([f"B{suffix.upper()}", f"a{suffix}"], {}, {})


def test_what_systems_leave_in_folders_is_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    for name in ("._a.wav", "._b.FLAC", "._c.m4a", "__MACOSX/._a.wav", ".DS_Store", "deep/.DS_Store", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert below(tmp_path) == (["a.wav"], {}, {})
    assert [is_recording(name) for name in ("._a.wav", "a._wav", "a.wav._", ".a.wav")] == [False, False, False, True]


def test_other_media_are_named_and_other_files_counted(tmp_path: Path) -> None:
    for name in ("a.m4a", "b.WEBM", "c d.mp4", "-e.aac", "it's.wma"):
        (tmp_path / name).write_bytes(MPEG4)
    for name in ("notes.txt", "more.TXT", "LICENSE", "data.mat", "x.raw"):
        (tmp_path / name).write_text("no sound")
    recordings, left_out, others = below(tmp_path)
    assert recordings == []
    for name, why in left_out.items():
        command = why.removeprefix("is in an unsupported format; convert it with `").removesuffix("`")
        target = tmp_path / f"{os.path.splitext(name)[0]}.wav"
        assert shlex.split(command) == ["ffmpeg", "-i", str(tmp_path / name), str(target)]
    assert sorted(left_out) == ["-e.aac", "a.m4a", "b.WEBM", "c d.mp4", "it's.wma"]
    assert (why_not_read("-e.aac") or "").endswith("`ffmpeg -i ./-e.aac ./-e.wav`"), "no option"
    assert others == {".txt": 2, "without an ending": 1, ".mat": 1, ".raw": 1}


def test_what_is_called_a_film_and_holds_a_wav_is_a_recording(tmp_path: Path) -> None:
    write(tmp_path / "wav.m4a")
    write(tmp_path / "flac.mp4", "FLAC")
    os.mkfifo(tmp_path / "pipe.m4a")
    recordings, left_out, _ = below(tmp_path)
    assert recordings == ["flac.mp4", "wav.m4a"]
    assert list(left_out) == ["pipe.m4a"], "and nobody waits for it"


def test_links_are_followed_unless_they_lead_back(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    write(folder / "one" / "a.wav")
    write(elsewhere / "deep" / "b.wav")
    links = {"two": folder / "one", "far": elsewhere, "link.wav": folder / "one" / "a.wav", "one/up": folder}
    links |= {
        "one/self": folder / "one",
        "gone.wav": tmp_path / "g.wav",
        "away": tmp_path / "gone",
        "x.txt": folder / "y",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (elsewhere / "deep" / "back").symlink_to(elsewhere)
    (folder / "itself").symlink_to("itself")
    recordings, left_out, others = below(folder)
    assert recordings == ["far/deep/b.wav", "gone.wav", "link.wav", "one/a.wav"]
    assert left_out == {
        "away": f"is a link to {tmp_path / 'gone'}, which is missing",
        "itself": "is a link to itself, which is missing",
        "x.txt": f"is a link to {folder / 'y'}, which is missing",
    }
    assert others == {}


def test_a_folder_is_entered_once_under_its_own_name_or_that_of_the_first_link(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    write(folder / "z" / "deep" / "a.wav")
    write(elsewhere / "b.wav")
    for link, target in {
        "a": folder / "z" / "deep",
        "zz": folder / "z",
        "second": elsewhere,
        "first": elsewhere,
        "z/deep/third": elsewhere,
    }.items():
        (folder / link).symlink_to(target)
    assert below(folder)[0] == ["first/b.wav", "z/deep/a.wav"]
    (tmp_path / "link").symlink_to(folder)
    assert below(tmp_path / "link")[0] == ["first/b.wav", "z/deep/a.wav"], "what is named itself may be a link"


def test_links_between_neighbours_do_not_multiply(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(12)]
    for name in names:
        write(tmp_path / name / "a.wav")
        for other in names:
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    assert below(tmp_path)[0] == [f"{name}/a.wav" for name in names]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    (tmp_path / "closed").mkdir(mode=0)
    assert below(tmp_path)[1] == {"closed": "is a folder that cannot be listed; give read permission"}


def test_every_ending_has_one_meaning() -> None:
    assert not [name for name in (*SUFFIXES, *AMBIGUOUS) if why_not_read(f"a{name}")]


def test_converted_recordings_stand_for_the_names_of_labels(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "b.flac", "c.WAV", "._d.wav", "e.txt"):
        (tmp_path / name).touch()
    assert by_wav_name(tmp_path) == {"a.wav": "a.wav", "b.wav": "b.flac", "c.WAV": "c.WAV"}


def test_readers_of_file_names_take_every_format(tmp_path: Path) -> None:
    kinds = {".wav": "WAV", ".ogg": "OGG", ".caf": "CAF", ".sph": "NIST"}
    for number, (suffix, kind) in enumerate(kinds.items()):
        write(tmp_path / "emodb" / f"0{number}a01Wa{suffix}", kind)
        write(tmp_path / "ravdess" / f"Actor_0{number + 1}" / f"03-01-05-01-01-02-0{number + 1}{suffix}", kind)
    for folder in (tmp_path / "emodb", tmp_path / "ravdess" / "Actor_01"):
        (folder / "._03a01Wa.wav").write_bytes(b"\0\5\x16\7")
        (folder / "01-01-05-01-01-02-01.mp4").write_bytes(MPEG4)
    (tmp_path / "emodb" / "linked").symlink_to(tmp_path / "emodb")
    for name in ("emodb", "ravdess"):
        splits = {"development": ["01"], "test1": ["02"]}
        config = CorpusConfig.model_validate(
            {"FORMAT": name, "PATH_TO_AUDIO": tmp_path / name, "split_speakers": splits}
        )
        corpus = load_corpus("C", config)
        assert sorted(Path(file).suffix for file in corpus.table["file"]) == sorted(kinds)
        (warning,) = corpus.warnings
        assert warning.startswith("1 file is not used: ")
        assert "01-01-05-01-01-02-01.mp4 is in an unsupported format; convert it with `ffmpeg" in warning


def test_one_file_by_two_paths_is_one_recording_and_two_files_of_a_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.wav")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert find_recordings(tmp_path).by_stem == {"x": tmp_path / "a" / "x.wav"}
    write(tmp_path / "c" / "x.flac", "FLAC")
    with pytest.raises(DataError, match=r"c/x\.flac and .*a/x\.wav have the same name; keep one of them"):
        find_recordings(tmp_path)
