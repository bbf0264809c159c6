"""What an audit says of recordings, whatever format, state or place they are in, and how it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import prepare_data
from tests.support.voices import voice
from utils.config.corpus import CorpusConfig
from utils.data.audit.audit import Audit, audit
from utils.data.loader import load_corpus, read_corpus
from utils.data.recordings import inspection_cache
from utils.data.recordings.preflight import leave_out_unusable, require_all
from utils.data.recordings.survey import survey
from utils.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


def write_corpus(folder: Path, rows: str, columns: str = "file,split,emotion") -> CorpusConfig:
    (folder / "table.csv").write_text(f"{columns}\n{rows}", encoding="utf-8")
    return CorpusConfig(FORMAT="csv", PATH_TO_AUDIO=folder, PATH_TO_LABEL=folder / "table.csv")


def look(config: CorpusConfig, is_deep: bool = True, name: str = "P") -> Audit:
    return audit(read_corpus(name, config), config, is_deep)


def found_of(found: Audit, *kinds: str) -> list[tuple[str, str]]:
    rows = found.findings[found.findings["kind"].isin(kinds)]
    return list(zip(rows["kind"], rows["file"], strict=True))


def test_a_file_in_two_rows_is_looked_at_once_and_trained_on_once_repaired(tmp_path: Path) -> None:
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", voice(1 + ord(name) / 100), 16_000)
    config = write_corpus(tmp_path, "a.wav,train,sad\na.wav,train,sad\n./a.wav,train,sad\nb.wav,development,sad\n")
    for is_deep in (True, True, False):
        found = look(config, is_deep)
        assert found_of(found, "repeated-row") == [("repeated-row", "./a.wav"), ("repeated-row", "a.wav")]
        assert len(found.recordings) == 4
    assert found.opened == 0
    with pytest.raises(DataError, match="is listed in 3 rows"):
        load_corpus("P", config)
    write_corpus(tmp_path, "a.wav,train,sad\nb.wav,development,sad\n")
    assert require_all(load_corpus("P", config).table)["seconds"].tolist() == pytest.approx([1.97, 1.98])


def test_names_that_are_no_utf8_and_control_characters_are_shown_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", voice(), 16_000)
    shutil.copy(tmp_path / "a.wav", tmp_path / os.fsdecode(b"\xff\x1b[31m.wav"))
    write_corpus(tmp_path, "a.wav,train,sad\n")
    (tmp_path / "c.toml").write_text(f"[P]\nFORMAT='csv'\nPATH_TO_AUDIO='{tmp_path}'\nPATH_TO_LABEL='table.csv'\n")
    assert prepare_data.main(["audit", "P", "--config", str(tmp_path / "c.toml"), "--output", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "\\xff\\x1b[31m.wav" in printed
    assert "\x1b" not in printed


def test_what_was_not_foreseen_is_told_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_data, "load_corpora", lambda _: 1 / 0)
    assert prepare_data.main(["audit", "P"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("ZeroDivisionError: division by zero; the traceback is in ")
    Path(told.strip().rpartition(" ")[2]).unlink()


def test_what_decoding_showed_is_known_to_a_plain_look_and_to_training(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        soundfile.write(tmp_path / f"{name}.flac", voice(seed=seed), 16_000)
    cut = tmp_path / "c.flac"
    cut.write_bytes(cut.read_bytes()[:-3000])
    soundfile.write(tmp_path / "d.wav", np.zeros(16_000), 16_000)
    shutil.copy(tmp_path / "a.flac", tmp_path / "e.flac")
    config = write_corpus(tmp_path, "".join(f"{n},train,sad\n" for n in ("a.flac", "b.flac", "c.flac", "d.wav")))
    sample_kinds = ("silent", "duplicate", "unreadable", "truncated")
    assert found_of(look(config, is_deep=False, name="K"), *sample_kinds) == []
    deep = look(config, name="K")
    write_corpus(tmp_path, "".join(f"{n},train,sad\n" for n in ("a.flac", "b.flac", "c.flac", "d.wav", "e.flac")))
    plain = look(config, is_deep=False, name="K")
    assert plain.opened == 1
    assert found_of(plain, *sample_kinds) == found_of(deep, *sample_kinds)
    assert [file for _, file in found_of(plain, *sample_kinds)] == ["c.flac", "d.wav"]
    assert (
        "5 of 5 recordings checked by their headers, 3 of them decoded by an earlier run; 1 opened now" in plain.scope
    )
    assert "of the others are found with --deep" in plain.scope
    with pytest.raises(DataError, match="c.flac"):
        require_all(read_corpus("K", config).table)


def test_the_same_samples_are_found_however_they_are_encoded(tmp_path: Path) -> None:
    samples = np.round(voice() * 32768) / 32768
    subtypes = {"a.wav": "PCM_16", "b.wav": "PCM_24", "c.flac": "PCM_16", "d.wav": "FLOAT", "e.aiff": "PCM_16"}
    for name, subtype in subtypes.items():
        soundfile.write(tmp_path / name, samples, 16_000, subtype=subtype)
    soundfile.write(tmp_path / "f.wav", np.stack([samples, samples], axis=1), 16_000)
    soundfile.write(tmp_path / "g.wav", np.stack([samples, -samples], axis=1), 16_000)
    soundfile.write(tmp_path / "h.wav", voice() + 1e-5, 16_000, subtype="FLOAT")
    names = [*subtypes, "f.wav", "g.wav", "h.wav"]
    found = look(write_corpus(tmp_path, "".join(f"{name},train,sad\n" for name in names)))
    assert [file for _, file in found_of(found, "duplicate")] == names[1:6]


def wait_for(is_done: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_done():
        assert time.monotonic() < until
        time.sleep(0.001)


def is_reading(process: int) -> bool:
    try:
        return any(os.readlink(link).endswith(".flac") for link in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return False


@pytest.mark.slow
def test_a_terminated_audit_goes_on_where_it_was(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "0.flac", voice(60.0), 16_000)
    names = [f"{number}.flac" for number in range(400)]
    for name in names[1:]:
        os.link(tmp_path / "0.flac", tmp_path / name)
    write_corpus(tmp_path, "".join(f"{name},train,sad\n" for name in names))
    (tmp_path / "c.toml").write_text(f"[CUT]\nFORMAT='csv'\nPATH_TO_AUDIO='{tmp_path}'\nPATH_TO_LABEL='table.csv'\n")
    command = ["prepare_data.py", "audit", "CUT", "--deep", "--config", tmp_path / "c.toml", "--output", tmp_path]
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: is_reading(process.pid))
    time.sleep(0.3)
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "interrupted; the same command continues with what is missing\n")
    known = inspection_cache.recall("CUT")
    assert 0 < len(known) < len(names)
    assert survey("CUT", [str(tmp_path / name) for name in names], is_deep=True).opened == len(names) - len(known)


def test_speakers_are_allowed_by_names_that_exist(tmp_path: Path) -> None:
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", voice(seed=number), 16_000)
    rows = "0.wav,train,sad,x\n1.wav,development,sad,x\n2.wav,development,sad,y\n3.wav,test1,sad,y\n"
    config = write_corpus(tmp_path, rows, "file,split,emotion,speaker")
    found = look(config)
    assert found_of(found, "shared-speaker", "heard-speaker") == [("shared-speaker", ""), ("heard-speaker", "")]
    details = found.findings.set_index("kind")["detail"]
    assert details["heard-speaker"] == "speaker y: 1 in development, 1 in test1"
    allowed = config.model_copy(update={"allow_speaker_overlap": ("x",)})
    assert found_of(look(allowed), "shared-speaker", "heard-speaker") == [("heard-speaker", "")]
    allowed = config.model_copy(update={"allow_speaker_overlap": True})
    assert found_of(look(allowed), "shared-speaker", "heard-speaker") == []
    with pytest.raises(DataError, match='allow_speaker_overlap: found "z"; no such speaker'):
        look(config.model_copy(update={"allow_speaker_overlap": ("z",)}))


def test_leaks_name_what_was_trained_on(tmp_path: Path) -> None:
    groups = {"a": ["test1", "train", "test2"], "b": ["test1", "development"], "c": ["test1", "test2"]}
    rows = ""
    for seed, (group, splits) in enumerate(groups.items()):
        for split in splits:
            soundfile.write(tmp_path / f"{group}_{split}.wav", voice(seed=seed), 16_000)
            rows += f"{group}_{split}.wav,{split},{'happy' if (group, split) == ('a', 'test2') else 'sad'}\n"
    found = look(write_corpus(tmp_path, rows)).findings
    found = found[found["kind"].isin(["leaked", "duplicate"])]
    assert sorted(zip(found["kind"], found["file"], found["detail"], strict=True)) == [
        ("duplicate", "c_test2.wav", "the same samples as c_test1.wav in test1"),
        ("leaked", "a_test1.wav", "the same samples as a_train.wav in train"),
        ("leaked", "a_test2.wav", "the same samples as a_train.wav in train, with another emotion"),
        ("leaked", "b_test1.wav", "the same samples as b_development.wav in development"),
    ]


def test_a_packed_corpus_is_told_that_its_loose_recordings_were_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", voice(seed=number), 16_000)
    write_corpus(tmp_path, "0.wav,train,sad\n1.wav,development,happy\n")
    keys = {"FORMAT": "csv", "PATH_TO_AUDIO": tmp_path, "PATH_TO_LABEL": "table.csv", "PATH_TO_DATASET": "shards"}
    (tmp_path / "c.toml").write_text("[P]\n" + "".join(f"{key} = '{value}'\n" for key, value in keys.items()))
    arguments = ["P", "--config", str(tmp_path / "c.toml")]
    sentence = f"checking the loose recordings below {tmp_path}"
    for is_packed in (False, True):
        assert prepare_data.main(["audit", *arguments, "--output", str(tmp_path / "audits")]) == 0, "warnings alone"
        assert (sentence in capsys.readouterr().out) == is_packed
        assert (sentence in (tmp_path / "audits" / "P" / "report.html").read_text(encoding="utf-8")) == is_packed
        assert prepare_data.main(["pack", *arguments, "--workers", "1"]) == 0


def test_a_constant_is_silent_and_not_clipped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(16_000, 0.5), 16_000)
    soundfile.write(tmp_path / "b.wav", np.full(16_000, 0.0002), 16_000)
    found = look(write_corpus(tmp_path, "a.wav,train,sad\nb.wav,train,sad\n")).findings
    silent = found[found["kind"] == "silent"]
    assert silent["detail"].tolist() == ["all samples are nearly equal", "never louder than -60 dB below full scale"]
    assert "clipped" not in set(found["kind"])


def test_a_place_for_results_is_made_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "c.toml").write_text(f"[P]\nFORMAT='csv'\nPATH_TO_AUDIO='{tmp_path}'\nPATH_TO_LABEL='absent.csv'\n")
    arguments = ["audit", "P", "--config", str(tmp_path / "c.toml"), "--output", str(tmp_path / "file")]
    assert prepare_data.main(arguments) == 2
    assert "name another folder" in capsys.readouterr().err


def test_surplus_recordings_are_found_behind_links(tmp_path: Path) -> None:
    audio, other = tmp_path / "audio", tmp_path / "other"
    for folder in (audio / "named", other):
        folder.mkdir(parents=True)
    for place in (audio / "named" / "a.wav", other / "b.wav", audio / "._c.wav", audio / "D.WAV"):
        soundfile.write(place, voice(seed=len(place.name)), 16_000, format="WAV")
    (audio / "far").symlink_to(other)
    (audio / "link").symlink_to(audio / "named")
    (other / "loop").symlink_to(audio)
    rows = "link/a.wav,train,sad\nd.wav,train,sad\n"
    found = look(write_corpus(tmp_path, rows).model_copy(update={"PATH_TO_AUDIO": audio}))
    assert found_of(found, "surplus") == [("surplus", "D.WAV"), ("surplus", "far/b.wav")]
    missing = found.findings[found.findings["kind"] == "missing"]
    assert missing["detail"].tolist() == ["is missing; D.WAV is there, which differs in case"]


def test_durations_are_odd_below_and_above(tmp_path: Path) -> None:
    seconds = {"a": 0.2, "b": 0.3, "c": 1.0, "d": 1.0, "e": 1.0, "f": 1.0, "g": 1.0, "h": 3.9, "i": 4.2}
    for seed, (name, value) in enumerate(seconds.items()):
        soundfile.write(tmp_path / f"{name}.wav", voice(value, seed=seed), 16_000)
    found = look(write_corpus(tmp_path, "".join(f"{name}.wav,train,sad\n" for name in seconds)), is_deep=False)
    assert Counter(found_of(found, "odd-duration")) == Counter(("odd-duration", f"{name}.wav") for name in "ai")


def test_a_corpus_whose_channels_cancel_is_an_error_and_is_not_trained_on(tmp_path: Path) -> None:
    samples = {name: voice(seed=seed) for seed, name in enumerate("abc")}
    for name, other in (("a", -1.0), ("b", -0.9), ("c", 0.5)):
        soundfile.write(tmp_path / f"{name}.wav", np.stack([samples[name], other * samples[name]], axis=1), 16_000)
    config = write_corpus(tmp_path, "a.wav,train,sad\nb.wav,train,sad\nc.wav,train,sad\n")
    found = look(config).findings.set_index("kind")
    assert tuple(found.loc["cancelling", ["severity", "file"]]) == ("error", "a.wav")
    assert tuple(found.loc["faint-mix", ["severity", "file"]]) == ("warning", "b.wav")
    assert found.loc["faint-mix", "detail"] == "mixed, the channels lose 23 dB"
    table = read_corpus("P", config).table
    with pytest.raises(DataError, match=r"1 of 3 recordings of train are unusable.* keep one of them \(sox IN.wav"):
        leave_out_unusable(table)
    with pytest.raises(DataError, match="all are needed: .*a.wav has channels that cancel"):
        require_all(table)


def test_one_recording_in_a_hundred_whose_channels_cancel_is_left_out(tmp_path: Path) -> None:
    samples = voice(0.1)
    for number in range(100):
        gain = -1.0 if number == 7 else 1.0
        soundfile.write(tmp_path / f"{number}.wav", np.stack([samples, gain * samples], axis=1), 16_000)
    rows = "".join(f"{number}.wav,train,sad\n" for number in range(100))
    parted = leave_out_unusable(read_corpus("P", write_corpus(tmp_path, rows)).table)
    assert parted.left_out[["file", "kind"]].to_numpy().tolist() == [["7.wav", "cancelling"]]
    assert len(parted.usable) == 99


def test_surplus_are_all_formats_and_films_and_nothing_that_a_system_left(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    for name, kind in (("a.wav", "WAV"), ("b.caf", "CAF"), ("c.sph", "NIST"), ("d.au", "AU")):
        soundfile.write(audio / name, voice(seed=ord(name[0])), 16_000, format=kind)
    for name in ("._a.wav", ".DS_Store", "Thumbs.db", "e.m4a", "f.txt"):
        (audio / name).write_bytes(b"no sound")
    found = look(write_corpus(tmp_path, "a.wav,train,sad\n").model_copy(update={"PATH_TO_AUDIO": audio})).findings
    surplus = found[found["kind"] == "surplus"]
    assert sorted(surplus["file"]) == ["b.caf", "c.sph", "d.au", "e.m4a"]
    assert f"`ffmpeg -i {audio}/e.m4a {audio}/e.wav`" in surplus.set_index("file")["detail"].to_dict()["e.m4a"]
