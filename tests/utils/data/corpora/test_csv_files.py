"""Names of recordings as other systems write them, and the file that a label probably means."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from tests.support.own_tables import load
from utils.data.audit.recording_findings import recording_findings
from utils.data.recordings.near_files import NearFiles
from utils.data.recordings.preflight import require_all
from utils.data.recordings.survey import survey
from utils.errors import DataError


def files_of(folder: Path, *names: str, **keys: object) -> list[str]:
    rows = "".join(f'"{name}",train\n' for name in names)
    return load(folder, f"file,split\n{rows}other.wav,development\n", **keys).table["file"].tolist()[:-1]


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A folder of recordings, none of which holds a sound."""
    for name in ("a.wav", "b.flac", "c.wav", "c.flac", "deep/d.WAV", "Ses01.F000.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_paths_of_other_systems_are_read(audio: Path) -> None:
    names = ["deep\\d.WAV", f"{audio}/a.wav", f"..\\{audio.name}\\b.flac", str(audio / "deep" / "d.WAV"), "x/../c.wav"]
    (audio.parent / "link").unlink(missing_ok=True)
    assert files_of(audio, *names[:3], names[4]) == ["deep/d.WAV", "a.wav", "b.flac", "c.wav"]
    assert files_of(audio, names[3]) == ["deep/d.WAV"]


def test_absolute_paths_are_read_through_links_too(audio: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    link = tmp_path_factory.mktemp("links") / "audio"
    link.symlink_to(audio)
    assert files_of(audio, f"{audio}/a.wav", PATH_TO_AUDIO=link) == ["a.wav"]
    assert files_of(audio, f"{link}/a.wav", PATH_TO_AUDIO=link) == ["a.wav"]


@pytest.mark.parametrize("name", ["/elsewhere/a.wav", "C:\\data\\a.wav", "..\\a.wav", "\\\\server\\a.wav"])
def test_paths_that_lead_elsewhere_are_refused_together(name: str, audio: Path) -> None:
    with pytest.raises(DataError) as caught:
        files_of(audio, "a.wav", name, f"{name}2.wav")
    (sentence,) = caught.value.problems
    assert f"line 3: {name} leads out of PATH_TO_AUDIO (2 such rows)" in sentence


def test_names_without_an_extension_are_completed_where_one_file_is_meant(audio: Path) -> None:
    assert files_of(audio, "a", "b", "deep\\d", "Ses01.F000") == ["a.wav", "b.flac", "deep/d.WAV", "Ses01.F000.wav"]
    notes = load(audio, "file,split\na,train\nother,development\n").notes
    assert notes == ("1 name without an extension was completed, such as a to a.wav",)
    with pytest.raises(DataError, match=r'line 2: file is "c"; c.flac and c.wav exist; write which'):
        files_of(audio, "c")
    assert files_of(audio, "A", "gone", "a.mp4") == ["A", "gone", "a.mp4"], "what else is near is only named"


def test_names_behind_a_second_link_to_a_folder_are_completed_and_near(audio: Path) -> None:
    (audio / "link").symlink_to(audio / "deep")
    (audio / "up").symlink_to(audio)
    assert files_of(audio, "link/d", "deep/d", "up/link/d") == ["link/d.WAV", "deep/d.WAV", "up/link/d.WAV"]
    with pytest.raises(DataError, match=r"link/D\.wav .*\(link/d\.WAV is there, which differs in case\)"):
        require_all(load(audio, "file,split\nlink/D.wav,train\nx.wav,development\n").table.head(1))


def test_the_disk_is_not_looked_at_without_need(audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "walk", None)
    assert files_of(audio, "gone.wav", "deep\\d.wav", f"{audio}/e.opus") == ["gone.wav", "deep/d.wav", "e.opus"]


NEAR = {
    "A.wav": "a.wav is there, which differs in case",
    "DEEP/d.wav": "deep/d.WAV is there, which differs in case",
    "a.flac": "a.wav is there, which differs in extension",
    "c.mp3": "c.flac and c.wav are there, which differ in extension",
    "Deep/D": "deep/d.WAV is there, which differs in extension",
    "deep/a.wav": "a.wav is there, which differs in folder",
    "d.wav": "deep/d.WAV is there, which differs in folder",
}


@pytest.mark.parametrize("file", NEAR)
def test_the_near_file_is_named_by_training_and_audit(file: str, audio: Path) -> None:
    table = load(audio, f"file,split\n{file},train\nother.wav,development\n").table
    table.loc[0, "file"], table.loc[0, "path"] = file, f"{audio}/{file}"
    expected = NEAR[file]
    with pytest.raises(DataError) as caught:
        require_all(table[:1])
    assert f"{file} is missing ({expected})" in str(caught.value)
    assert "files with similar names exist, which differ: 1 in " in str(caught.value)
    found = recording_findings(table, survey("C", table["path"].tolist()).table, audio)
    details = {name: detail for kind, name, _, detail in found if kind == "missing"}
    assert details == {file: f"is missing; {expected}", "other.wav": "is missing"}


def test_letters_that_are_encoded_otherwise_are_near() -> None:
    names = NearFiles([unicodedata.normalize("NFD", "wütend.wav")])
    assert "in the encoding of their letters" in str(names.find(unicodedata.normalize("NFC", "wütend.wav")))
    assert names.find("traurig.wav") is None


def test_many_missing_files_are_counted_by_what_differs(audio: Path) -> None:
    rows = [("A.wav", "train"), ("B.flac", "train"), ("a.mp3", "train"), ("gone.wav", "train")]
    table = pd.DataFrame(rows, columns=["file", "split"]).assign(corpus="C")
    table["path"] = [f"{audio}/{file}" for file in table["file"]]
    with pytest.raises(DataError, match="files with similar names exist, which differ: 2 in case, 1 in extension"):
        require_all(table)
