"""Models on their way to the hub and back, with the real client over real HTTP."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

import main as program
from experiment_runner.publishing.publish import gather
from experiment_runner.storage.run_folder import RunError
from tests.conftest import ROOT
from tests.support.checkpoints import resign
from tests.support.experiment_files import write_files
from tests.support.hub_server import Hub, serve_hub
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.uploads import PREDICT, TOKEN, UPLOADED, VALIDATE, call, environment_of
from utils import hf_uploader
from utils.hub.repositories import HubError, find_token_problem
from utils.hub.upload import upload


@pytest.fixture(scope="module")
def run(podcast: SyntheticPodcast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uploader")
    arguments = write_files(folder, podcast, '[[experiments]]\nname = "one"\n')
    assert program.main(arguments) == program.main([*arguments, "--test"]) == 0
    return folder / "runs" / "one" / "seed-42"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub(tokens={TOKEN: "user"}) as hub:
        yield hub


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


UPLOAD = ("-m", "utils.hf_uploader")


@pytest.mark.slow
def test_what_is_uploaded_predicts_what_the_run_did(
    run: Path, hub: Hub, podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    done = call(hub, tmp_path, *UPLOAD, run, "user/model")
    assert done.returncode == 0, done.stderr
    assert "user/model: private, revision " in done.stdout
    assert hub.is_private("user/model")
    files = hub.files("user/model", "main")
    names = {name for name in files if "/" not in name} - {".gitattributes"}
    assert names == UPLOADED
    assert {name.partition("/")[0] for name in files if "/" in name} == {"pictures", "evaluation"}
    assert json.loads(files["evaluation/test1.json"]) == json.loads((run / "evaluation" / "test1.json").read_text())
    assert not list(run.glob("upload-*"))
    evaluated = pd.read_csv(run / "predictions" / "test1.csv")
    recordings = evaluated["file"].tolist()
    for name, content in files.items():
        for secret in (TOKEN, str(run.parents[2]), *recordings):
            assert secret.encode() not in content, name

    (tmp_path / "audio").symlink_to(podcast.audio)
    corpora = (run.parents[2] / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(corpora.replace(str(podcast.audio), "audio"))
    validated = call(hub, tmp_path, *VALIDATE, run, "user/model")
    assert validated.returncode == 0, validated.stderr + validated.stdout
    assert re.search(r"run's checkpoint, here +│ 24 recordings, at most \S+ apart; allowed: 1e-05", validated.stdout)
    assert re.search(r"run's predictions, fp32 on cpu +│ 24 recordings, at most \S+ apart", validated.stdout)

    found = call(hub, tmp_path, *PREDICT, *(podcast.audio / name for name in recordings[:4]))
    assert found.returncode == 0, found.stderr
    columns = [name for name in evaluated if str(name).startswith("prob_")]
    predicted = pd.read_csv(tmp_path / "out.csv")[columns].to_numpy(np.float64)
    assert predicted == pytest.approx(evaluated[columns].to_numpy(np.float64)[:4], abs=1e-5)

    fetched = call(hub, tmp_path, ROOT / "download_model.py", "user/model")
    assert fetched.returncode == 0, fetched.stderr
    source = json.loads((tmp_path / "models" / "user--model" / "source.json").read_text())
    assert done.stdout.strip().endswith(source["revision"])
    hub.requests.clear()
    assert call(hub, tmp_path, *PREDICT, podcast.audio / recordings[0]).returncode == 0
    assert hub.requests == [], "what lies in models/ asks nobody"


@pytest.mark.slow
def test_a_flipped_byte_is_noticed(run: Path, hub: Hub, podcast: SyntheticPodcast, tmp_path: Path) -> None:
    assert call(hub, tmp_path, *UPLOAD, run, "user/model").returncode == 0
    hub.flip_byte("user/model", "model.safetensors")
    recording = podcast.audio / str(podcast.rows["FileName"][0])
    predicted = call(hub, tmp_path, *PREDICT, recording)
    assert predicted.returncode == 2
    assert "model.safetensors differs from its manifest" in predicted.stderr
    fetched = call(hub, tmp_path, ROOT / "download_model.py", "user/model")
    assert fetched.returncode == 1
    assert '"user/model" was damaged in transit: model.safetensors; the same command fetches it again' in fetched.stderr
    assert not (tmp_path / "models" / "user--model").exists()
    corpora = ("--config", run.parents[2] / "config.toml")
    validated = call(hub, tmp_path, *VALIDATE, run, "user/model", *corpora)
    assert validated.returncode == 1
    assert '"user/model" was damaged in transit: model.safetensors' in validated.stderr


@pytest.mark.slow
def test_an_upload_that_is_not_what_the_run_is_is_named(run: Path, hub: Hub, tmp_path: Path) -> None:
    assert call(hub, tmp_path, *UPLOAD, run, "user/model").returncode == 0
    for name, content in hub.files("user/model", "main").items():
        (tmp_path / "other" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "other" / name).write_bytes(content)
    weights = load_file(tmp_path / "other" / "model.safetensors")
    weights["emotion_head.5.bias"][0] += 0.01
    save_file(weights, tmp_path / "other" / "model.safetensors")
    (tmp_path / "other" / "more.csv").write_text("file,label")
    (tmp_path / "other" / ".cache-run.py").write_text("print()")
    card = tmp_path / "other" / "README.md"
    card.write_text(card.read_text() + "It is very good.\n")
    resign(tmp_path / "other")
    hub.publish("user/model", tmp_path / "other")
    corpora = ("--config", run.parents[2] / "config.toml")
    validated = call(hub, tmp_path, *VALIDATE, run, "user/model", *corpora)
    assert validated.returncode == 1
    said = " ".join(validated.stdout.split())
    assert "differs from" in said
    wrong = ".cache-run.py, more.csv, against the run's checkpoint, here"
    assert f"README.md, manifest.json, model.safetensors, {wrong}" in said


@pytest.mark.slow
def test_a_licence_that_nobody_gave_is_noticed(run: Path, hub: Hub, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run", symlinks=True))
    (copy / "published.json").unlink(missing_ok=True)
    gather(copy, make_folder(tmp_path / "forged"), "user/model", "apache-2.0")
    hub.publish("user/model", tmp_path / "forged", private=True)
    forged = call(hub, tmp_path, *VALIDATE, copy, "user/model", "--config", run.parents[2] / "config.toml")
    assert forged.returncode == 1
    assert " ".join(forged.stdout.split()).endswith(": README.md; upload it again")


@pytest.mark.slow
def test_a_licence_that_was_given_stays(run: Path, hub: Hub, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run", symlinks=True))
    assert call(hub, tmp_path, *UPLOAD, copy, "user/model", "--license", "cc-by-nc-4.0").returncode == 0
    gather(copy, make_folder(tmp_path / "again"), "user/model")
    card = (tmp_path / "again" / "README.md").read_bytes()
    assert hub.files("user/model", "main")["README.md"] == card
    assert b"license: cc-by-nc-4.0\n" in card


def test_what_is_no_licence_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        hf_uploader.main(["run", "user/model", "--license", "all rights reserved"])
    assert '"all rights reserved" is not a licence; give an identifier that https://' in capsys.readouterr().err


@pytest.mark.slow
def test_a_validation_can_be_interrupted(run: Path, hub: Hub, tmp_path: Path) -> None:
    hub.publish("user/model", ROOT / "configs")
    hub.after("GET /api/models/user/model", lambda: os.kill(validation.pid, signal.SIGINT))
    command = [sys.executable, *VALIDATE, str(run), "user/model", "--config", str(run.parents[2] / "config.toml")]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment_of(hub, tmp_path), stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it, and so would this
    ) as validation:  # fmt: skip
        _, said = validation.communicate(timeout=120)
    assert (validation.returncode, said) == (130, "interrupted; nothing was changed\n")


@pytest.mark.slow
def test_what_goes_wrong_is_one_sentence(run: Path, hub: Hub, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    refused = call(hub, tmp_path, *UPLOAD, run, "user/model", token="hf_a_wrong_token")
    assert refused.returncode == 1
    assert '"user/model" cannot be uploaded: ' in refused.stderr
    assert "the same command uploads it later" in refused.stderr
    assert "hf_a_wrong_token" not in refused.stderr + refused.stdout
    nowhere = call(hub, tmp_path, *UPLOAD, tmp_path, "user/model")
    assert nowhere.returncode == 2
    assert "is not a run" in nowhere.stderr
    wrong = call(hub, tmp_path, *UPLOAD, run, "not a name/x/y")
    assert wrong.returncode == 2
    assert "cannot be a repository of the hub" in wrong.stderr
    missing = call(hub, tmp_path, *PREDICT, "a.wav")
    assert missing.returncode == 2
    assert '"user/model" is not a folder, and cannot be fetched from the hub: ' in missing.stderr
    for done in (refused, nowhere, wrong, missing):
        assert "Traceback" not in done.stderr
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert {path: time for path, time in after.items() if path != run} == before


@pytest.mark.slow
def test_a_server_that_fails_for_a_while_gets_it_all_the_same(run: Path, hub: Hub, tmp_path: Path) -> None:
    hub.fail(1, status=500, on="/commit/")
    done = call(hub, tmp_path, *UPLOAD, run, "user/model")
    assert done.returncode == 0, done.stderr
    assert set(hub.files("user/model", "main")) > UPLOADED


@pytest.mark.slow
def test_nothing_gets_where_everybody_can_read_it_unasked(run: Path, hub: Hub, tmp_path: Path) -> None:
    hub.publish("user/model", ROOT / "configs")
    before = hub.files("user/model", "main")
    refused = call(hub, tmp_path, *UPLOAD, run, "user/model")
    assert refused.returncode == 1
    assert 'everybody can read "user/model"; name another, make it private, or add --public (in' in refused.stderr
    assert hub.files("user/model", "main") == before
    assert call(hub, tmp_path, *UPLOAD, run, "user/model", "--public").returncode == 0


def test_links_and_places_are_not_uploaded(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run", symlinks=True))
    best = (copy / "checkpoints" / "best").resolve()
    document = json.loads((best / "config.json").read_text())
    document["upstream"]["_name_or_path"] = "/home/somebody/models"
    (best / "config.json").write_text(json.dumps(document))
    resign(best)
    (tmp_path / "made").mkdir()
    gather(copy, tmp_path / "made", "user/model")
    assert not any(b"/home/somebody" in path.read_bytes() for path in (tmp_path / "made").rglob("*") if path.is_file())
    assert not list((tmp_path / "made").rglob("attributes-*")), "each of its points is a label"
    (tmp_path / "secret").write_text("TOKEN")
    picture = copy / "pictures" / "confusion-test1.png"
    picture.unlink()
    picture.symlink_to(tmp_path / "secret")
    (tmp_path / "again").mkdir()
    with pytest.raises(RunError, match="confusion-test1.png is a link, which is not uploaded"):
        gather(copy, tmp_path / "again", "user/model")
    with pytest.raises(RunError, match='"model" cannot be a repository of the hub; name it <user>/<name>'):
        gather(copy, tmp_path / "again", "model")


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ("", "an upload needs HUGGINGFACE_TOKEN, and none is set; put one with write access into .env"),
        ("hf_two words", "HUGGINGFACE_TOKEN is not a token of the hub"),
        ('"hf_quoted_token"', "HUGGINGFACE_TOKEN is not a token of the hub"),
        ("hf_töken_of_letters", "HUGGINGFACE_TOKEN is not a token of the hub"),
        ("hf_...", "HUGGINGFACE_TOKEN is not a token of the hub"),
    ],
)
def test_without_a_token_an_upload_ends_before_it_begins(
    token: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is not there, and no hub either: neither is looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUGGINGFACE_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("utils.hub.upload.patient_api", lambda token: pytest.fail("the hub was asked"))
    assert hf_uploader.main(["nowhere", "user/model"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(sentence)
    assert told.endswith("; the run is unchanged, and the same command uploads it later\n")
    assert len(told.splitlines()) == 1
    assert not token or token not in told
    with pytest.raises(HubError, match=sentence.split(":")[0]):
        upload(tmp_path, "user/model", token or None)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    assert find_token_problem(None) is None, "the hub's client keeps one"
