"""The parts of the demo page that need no browser."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import predict as predict_program
from experiment_runner.models.model_origin import origin_of
from experiment_runner.publishing.ser_model import SERModel
from experiment_runner.runtime.device import choose_precision
from experiment_runner.storage.checkpoints import Checkpoint, CheckpointStore, TrainingState
from experiment_runner.webapp.answer import answer, cancelled
from experiment_runner.webapp.uploads import Uploads
from experiment_runner.webapp.workspace import PORTS
from predict import Windows, predict
from tests.conftest import ROOT
from tests.support.models import make_model
from tests.support.served_page import needs_gradio
from tests.support.voices import voice
from utils.errors import DataError

MODEL = "wavlm, layer norm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint by itself."""
    model = make_model(MODEL)
    documents = {"config.json": model.description.to_json(), "provenance.json": {}, "metrics.json": {}}
    checkpoint = Checkpoint(1, 1, model.network.state_dict(), documents, TrainingState({}, {}), is_best=True)
    store = CheckpointStore(tmp_path_factory.mktemp("run") / "checkpoints")
    store.save(checkpoint, keep=1)
    return store.find("best")


def call(model: Path, *arguments: object) -> int:
    return predict_program.main(["--model", str(model), "--device", "cpu", "--serve", *map(str, arguments)])


def words_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


ENDINGS = """
import os, signal, sys, threading, time
import httpx
import predict

def visit(port, number):
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=30).raise_for_status()
            break
        except httpx.ConnectError:
            time.sleep(0.05)
    os.kill(os.getpid(), number)

before = {name: value for name, value in os.environ.items() if name.startswith('GRADIO')}
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    visitor = threading.Thread(target=visit, args=(sys.argv[2], number))
    visitor.start()
    handlers = [signal.getsignal(other) for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    status = predict.main(["--model", sys.argv[1], "--device", "cpu", "--serve", "--port", sys.argv[2]])
    visitor.join()
    assert [signal.getsignal(other) for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers
    assert {name: value for name, value in os.environ.items() if name.startswith('GRADIO')} == before
    print(number.name, status)
"""


@pytest.mark.slow
@needs_gradio
def test_three_signals_end_the_page_well(folder: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"}
    command = [sys.executable, "-c", ENDINGS, str(folder), str(port)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[::4] == [f"http://127.0.0.1:{port} serves the page to this machine only; Ctrl-C stops it"] * 3
    for tunnel in lines[1::4]:
        assert re.fullmatch(rf"from your own machine: ssh -N -L {port}:127.0.0.1:{port} \S+@\S+, and .*", tunnel)
    assert lines[2::4] == ["stopped; recordings that were sent to the page are deleted"] * 3
    assert lines[3::4] == ["SIGINT 0", "SIGTERM 0", "SIGHUP 0"]
    folders = list(tmp_path.glob("200ai-page-*"))
    assert len(folders) <= 1, "gradio makes the first one again for the second page of one process"
    assert not [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_a_port_in_use_is_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert call(folder, "--port", port) == 1
    said = capsys.readouterr().err
    assert said == f"port {port} cannot be used (Address already in use); name another one with --port\n"


def test_without_gradio_it_says_what_to_install(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert call(folder) == 1
    said = capsys.readouterr().err
    assert said == (
        "the page needs gradio, which is not installed; "
        "install it with `pip install -r requirements-extras.txt -c constraints.txt`\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.wav", "--serve"], "name recordings to predict, or --export FILE.onnx, or --serve"),
        (["a.wav", "--port", "7860"], "--port needs --serve"),
        (["--serve", "--port", "70000"], "70000 is not a port; give one from 1 to 65535"),
        (["--serve", "--output", "a.csv"], "--output and --segment-seconds are for recordings"),
        (["--serve", "--segment-seconds", "3"], "--output and --segment-seconds are for recordings"),
    ],
)
def test_options_that_a_page_does_not_take(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        predict_program.main(["--model", "x", *arguments])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


@needs_gradio
def test_a_prediction_that_goes_on_does_not_hold_the_program_up() -> None:
    script = (
        "import threading, time\n"
        "from experiment_runner.webapp.server import leave_predictions\n"
        "before = threading.enumerate()\n"
        "threading.Thread(target=time.sleep, args=[1000]).start()\n"
        "print('said before', flush=False)\n"
        "leave_predictions(before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "said before\n", "")


def test_the_answer_says_what_predict_says(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice(2.5), 16_000)
    model = make_model(MODEL)
    (expected,) = predict(model, [tmp_path / "a.wav"]).to_dict("records")
    (shown,) = answer(model, choose_precision("off", model.device), tmp_path / "a.wav", "<b>&.wav")
    words = words_of(shown.answer)
    shares = {name: 100 * expected[f"prob_{name}"] for name in model.description.classes}
    first = expected["prediction"]
    assert words == (
        f"&lt;b&gt;&amp;.wav , 0:02.5 {first} {shares[first]:.0f} % probability of each emotion "
        + " ".join(f"{name} {share:.1f} %" for name, share in shares.items())
        + " attributes, from 1 to 7 "
        + " ".join(f"{name} {expected[f'pred_{name}']:.2f}" for name in model.description.attributes)
        + f" 1 7 gender: {expected['gender_prediction']}"
    )
    assert words_of(shown.course) == "Course over time It takes more than 3 s; this recording lasts 2.5 s."


def test_a_recording_too_long_for_one_prediction_has_the_mean_of_its_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiment_runner.webapp.answer.LONGEST_SECONDS", 30.0)
    soundfile.write(tmp_path / "a.wav", np.concatenate([voice(30.0), 0.1 * voice(30.0, seed=1)]), 16_000)
    model = make_model(MODEL)
    shown = list(answer(model, choose_precision("off", model.device), tmp_path / "a.wav", "a.wav"))
    assert [re.search(r"(\d+) of 60 s", words_of(part.course)) is not None for part in shown] == [True] * 4 + [False]
    assert all("is shown here at the end" in part.answer for part in shown[:-1])
    course = predict(model, [tmp_path / "a.wav"], Windows(3.0, 1.0))
    assert f"the mean of {len(course)} segments" in shown[-1].answer
    for name in model.description.classes:
        assert f"{name} {100 * course[f'prob_{name}'].mean():.1f} %" in words_of(shown[-1].answer)
    assert 'src="data:image/png;base64,' in shown[-1].course
    assert "It was cancelled." in cancelled(shown[0].course)
    assert cancelled(shown[-1].course) == shown[-1].course


def test_a_model_tells_where_it_comes_from(folder: Path) -> None:
    model = SERModel.from_pretrained(folder)
    bare = origin_of(model, "user/model")
    assert (bare.name, bare.corpus) == ("user/model", "")
    assert bare.cautions == (
        "RANDOM weights: the upstream has the shape of wavlm-tiny-random, and was not pre-trained.",
    )
    larger = replace(model.description, upstream={**model.description.upstream, "hidden_size": 768})
    assert origin_of(replace(model, description=larger), "x").cautions == ()
    experiment = folder.parents[1] / "experiment.toml"
    experiment.write_text(
        '[experiment]\nname = "E"\ncorpus = "MINE"\nupstream_model = "wavlm-large"\n'
        '[resolved]\nseed = 7\nsynthetic_corpora = ["MINE"]\nupstream = "wavlm-large"\n'
    )
    found = origin_of(model, "x")
    assert (found.name, found.corpus) == ("E, seed 7", "MINE")
    assert found.cautions == ("SYNTHETIC data: nobody spoke MINE. Its predictions on speech mean nothing.",)
    experiment.write_text("damaged")
    assert origin_of(model, "x") == replace(bare, name="x")
    experiment.unlink()


def asked(uploads: Uploads, session: str) -> tuple[Path, str] | None:
    found = uploads.requested(session)
    return (found.path, found.name) if found else None


def test_a_session_reads_and_deletes_its_own_recording_alone(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "sent")
    paths = [tmp_path / "sent" / name / "a.wav" for name in ("one", "other")]
    for path in (*paths, tmp_path / "mine.wav"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"sound")
    assert asked(uploads, "s") is None
    uploads.take("s", {"path": str(paths[0]), "orig_name": "my voice.wav"})
    assert asked(uploads, "s") == (paths[0], "my voice.wav")
    uploads.take("t", {"path": str(paths[0]), "orig_name": None})
    assert asked(uploads, "t") == (paths[0], "a.wav")
    for missing in (tmp_path / "mine.wav", tmp_path / "sent" / ".." / "mine.wav", tmp_path / "sent" / "gone.wav"):
        with pytest.raises(DataError, match="no longer there; choose it again"):
            uploads.take("s", {"path": str(missing), "orig_name": "x.wav"})
        assert asked(uploads, "s") is None, "what cannot be taken replaces what was asked before"
    uploads.take("s", {"path": str(paths[1]), "orig_name": "x"})
    assert asked(uploads, "s") == (paths[1], "x")
    assert paths[0].exists(), "the other session has sent it, too"
    uploads.withdraw("t")
    assert asked(uploads, "t") is None
    assert uploads.holds("t")
    assert paths[0].exists(), "it may be asked about again"
    uploads.forget("t")
    assert not uploads.holds("t")
    assert not paths[0].parent.exists()
    uploads.forget("s")
    uploads.forget("s")
    assert not list((tmp_path / "sent").iterdir())
    assert (tmp_path / "mine.wav").exists()
    shutil.rmtree(tmp_path / "sent")


@needs_gradio
def test_the_first_free_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from experiment_runner.webapp.workspace import demo_place

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setattr("experiment_runner.webapp.workspace.PORTS", range(taken, taken + 50))
        with demo_place(None) as place:
            assert taken < place.door.getsockname()[1] < taken + 50
            assert place.door.getsockname()[0] == "127.0.0.1"
            assert place.folder.stat().st_mode & 0o777 == 0o700
    assert PORTS[0] == 7860


@pytest.mark.parametrize(("seconds", "trained", "is_warned"), [(5.5, 2.0, True), (4.5, 2.0, False), (9.0, None, False)])
def test_the_page_warns_of_a_recording_far_longer_than_those_of_training(
    seconds: float, trained: float | None, is_warned: bool, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", voice(seconds), 16_000)
    model = make_model(MODEL)
    *_, shown = answer(model, choose_precision("off", model.device), tmp_path / "a.wav", "a.wav", trained)
    sentence = "This recording lasts 0:05.5, and in training the model heard at most 2 s at a time."
    assert (sentence in words_of(shown.answer)) == is_warned
    assert ("ser-caution" in shown.answer) == is_warned


def test_the_page_refuses_channels_that_cancel(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([voice(), -voice()], axis=1), 16_000)
    model = make_model(MODEL)
    with pytest.raises(DataError, match=r"^x has channels that cancel: .* keep one of them \(sox .* remix 1\)$"):
        list(answer(model, choose_precision("off", model.device), tmp_path / "a.wav", "x"))


@pytest.mark.parametrize(
    ("text", "synthetic", "seconds"),
    [
        ('{"synthetic_corpora": ["A", "B"], "max_seconds": 5.5}', ["A, B"], 5.5),
        ('{"synthetic_corpora": []}', [], None),
        ('{"synthetic_corpora": "A", "max_seconds": "long"}', [], None),
        ('{"max_seconds": true}', [], None),
        ("[1]", [], None),
        ("no JSON", [], None),
    ],
)
def test_a_model_without_its_run_tells_by_its_provenance(
    text: str, synthetic: list[str], seconds: float | None, tmp_path: Path
) -> None:
    (tmp_path / "provenance.json").write_text(text)
    origin = origin_of(replace(make_model("hubert, group norm"), folder=tmp_path), "user/model")
    expected = [f"SYNTHETIC data: nobody spoke {names}. Its predictions on speech mean nothing." for names in synthetic]
    assert list(origin.cautions) == expected
    assert origin.trained_seconds == seconds
