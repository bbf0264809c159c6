"""Tracking with the real wandb: offline files read back, faults, and tokens that must not get out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import main as program
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.interruption import EXIT_STATUS
from experiment_runner.tracking.tracker import Tracking
from experiment_runner.tracking.wandb_copy import change_state, read_state
from tests.conftest import ROOT
from tests.support.experiment_files import BASE, ONE, write_files
from tests.support.faulty_server import FAULTS, serve_fault
from tests.support.forked import commands
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.wandb_files import read_offline_run
from utils.config.schema import ExperimentConfig

TOKENS = {
    "HUGGINGFACE_TOKEN": "hf_" + "planted0" * 4,
    "WANDB_TOKEN": "c0ffee42" * 5,
    "GIT_AUTH_TOKEN": "ghp_" + "secret77" * 4,
}
TRACKED = BASE.replace('tracking = "none"', 'tracking = "wandb"')
RUNS = ("seed-1", "seed-2")


def run_program(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `main.py` with a home of its own, so that nothing of this machine's accounts is seen or changed."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in TOKENS and not name.startswith("WANDB")}
    whole = {**kept, "HOME": str(home), "PYTHONPATH": "", **environment}
    return commands.run([ROOT / "main.py", *arguments], folder, whole)


@pytest.mark.slow
def test_offline_files_hold_every_epoch_the_config_the_tags_and_the_test_figures(
    podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    arguments = write_files(tmp_path, podcast, ONE, TRACKED)
    trained = run_program(arguments, tmp_path)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert trained.stdout.count("-m wandb sync ") == 1
    identities = {}
    for seed in RUNS:
        run = tmp_path / "runs" / "one" / seed
        (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
        assert str(file.parent.relative_to(tmp_path)) in trained.stdout
        found = read_offline_run(file)
        identities[seed] = found.identity
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert len(lines) == 2
        epochs = [sent for sent in found.history if "epoch" in sent]
        for line, sent in zip(lines, epochs, strict=True):
            for name, value in line.items():
                key = name.replace("train_", "train/", 1).replace("development_", "development/", 1)
                assert sent[key] == value, name
        assert (found.name, found.project, found.exit_code) == (f"one/{seed}", "200AI", 0)
        expected = ["P", "categorical", "UpstreamFinetune", "WeightedCrossEntropy", "wavlm-tiny-random", "pilot"]
        assert sorted(found.tags) == sorted(expected)
        assert found.config["learning_rate"] == 1e-3
        assert found.config["resolved"]["seed"] == int(seed[-1])
        assert found.summary["best_epoch"] == json.loads((run / "result.json").read_text())["best_epoch"]

    tested = run_program([*arguments, "--test"], tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    for seed in RUNS:
        run = tmp_path / "runs" / "one" / seed
        (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
        found = read_offline_run(file)
        assert found.identity == identities[seed], "the test's figures go to the run of the training"
        assert len([sent for sent in found.history if "train/loss" in sent]) == 2, "the copy is whole by itself"
        metrics = json.loads((run / "evaluation" / "test1.json").read_text())
        assert found.summary["test1/macro_f1"] == metrics["macro_f1"]
        assert found.summary["test1/per_class/fear/recall"] == metrics["per_class"]["fear"]["recall"]


@contextmanager
def start_program(arguments: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": ""}
    with subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it, and so would this
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


STAND_IN = """
import time

class Image:
    def __init__(self, *_): pass

class Settings:
    sync_dir = "/nowhere"

    def __init__(self, **_): pass

class Run:
    settings, url, summary = Settings(), None, {{}}

    def __init__(self, name): self.name = name

    def define_metric(self, *_, **__): pass

    def log(self, *_, **__): {log}

    def finish(self, **_): {finish}

def init(name, **_):
    {init}
    return Run(name)
"""
"""In place of wandb; the training, its processes and its files are real."""
RAISES, FILLS = "raise RuntimeError('the tracker is broken')", "raise OSError(28, 'No space left on device')"
HANGS = "time.sleep(60)"
STAND_INS = {
    "raises in init": ({"init": RAISES}, "RuntimeError: the tracker is broken"),
    "raises in log": ({"log": RAISES}, "RuntimeError: the tracker is broken"),
    "raises in finish": ({"finish": RAISES}, "RuntimeError: the tracker is broken"),
    "fills the disk": ({"log": FILLS}, "OSError: [Errno 28] No space left on device"),
    "hangs in init": ({"init": HANGS}, "not finished 30 s after its run"),
    "hangs in log and finish": (
        {"log": f"{HANGS} if self.name == 'one/seed-1' else None", "finish": HANGS},
        "not finished 30 s after its run",
    ),
}


def write_stand_in(folder: Path, stand_in: str) -> str:
    """Write a tracker that fails; return the folder that it is imported from."""
    package = folder / "fault" / "wandb"
    package.mkdir(parents=True)
    text = STAND_IN.format(**{"init": "pass", "log": "pass", "finish": "pass", **STAND_INS[stand_in][0]})
    (package / "__init__.py").write_text(text)
    return str(package.parent)


def check_sentences(shown: str, stand_in: str) -> None:
    """One warning, and one command for both copies."""
    warnings = [line for line in shown.splitlines() if "WARNING: tracking" in line]
    reason = STAND_INS[stand_in][1]
    assert warnings == [f"WARNING: tracking: W&B: {reason}; nothing is lost, metrics.jsonl has every figure"]
    assert shown.count("-m experiment_runner.tracking.wandb_copy runs/one/seed-1 runs/one/seed-2") == 1


@pytest.mark.slow
def test_a_tracker_that_hangs_does_not_hold_training_up(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    arguments = write_files(tmp_path, podcast, ONE, TRACKED)
    started = time.monotonic()
    done = run_program(arguments, tmp_path, PYTHONPATH=write_stand_in(tmp_path, "hangs in init"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < 150
    check_sentences(done.stdout, "hangs in init")
    for seed in RUNS:
        assert len((tmp_path / "runs" / "one" / seed / "metrics.jsonl").read_text().splitlines()) == 2
        assert (tmp_path / "runs" / "one" / seed / "result.json").is_file()
    check_later_copy(tmp_path, done.stdout)


@pytest.fixture(scope="module")
def trained(podcast: SyntheticPodcast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two finished runs that have not been copied."""
    folder = tmp_path_factory.mktemp("trained")
    assert program.main(write_files(folder, podcast, ONE)) == 0
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with those runs, which is the current one, with a home of its own."""
    shutil.copytree(trained / "runs", tmp_path / "runs", symlinks=True)
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name in TOKENS or name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    return tmp_path


def track(folder: Path) -> None:
    """Copy the runs as a session does."""
    tracking = Tracking(Console())
    config = ExperimentConfig.model_validate({"name": "one", "corpus": "P", "tracking": "wandb"})
    for seed in RUNS:
        tracking.follow(config, folder / "runs" / "one" / seed)
        tracking.look()
        tracking.release(folder / "runs" / "one" / seed)
    tracking.close()


@pytest.mark.slow
@pytest.mark.parametrize("stand_in", STAND_INS)
def test_a_tracker_that_fails_costs_one_sentence(
    copied: Path, stand_in: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", write_stand_in(copied, stand_in))
    track(copied)
    check_sentences(capsys.readouterr().out, stand_in)


def check_later_copy(folder: Path, shown: str) -> None:
    """The command that was shown makes whole copies."""
    (command,) = [line.split("later: ")[1] for line in shown.splitlines() if "not copied" in line]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    again = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**environment, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    for seed in RUNS:
        (file,) = (folder / "runs" / "one" / seed / "wandb").glob("offline-run-*/*.wandb")
        assert [sent["epoch"] for sent in read_offline_run(file).history if "epoch" in sent] == [1, 2]


@pytest.mark.slow
def test_an_interrupt_with_decoding_processes_leaves_a_whole_copy(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    """Workers hold the pipe to the copying process open as well; the interrupt must reach it all the same."""
    listed = ONE.replace("seeds = [1, 2]", "seeds = [1], epoch = 12, min_epochs = 12, patience = 12, num_workers = 2")
    arguments = write_files(tmp_path, podcast, listed, TRACKED)
    run = tmp_path / "runs" / "one" / "seed-1"
    with start_program(arguments, tmp_path) as process:
        wait_for(lambda: (run / "metrics.jsonl").is_file() and read_state(run).get("started"))
        interrupted = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == EXIT_STATUS, told
    assert time.monotonic() - interrupted < 20
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    found = read_offline_run(file)
    assert [sent["epoch"] for sent in found.history if "epoch" in sent] == [json.loads(line)["epoch"] for line in lines]
    assert found.exit_code == 1, "the training did not finish"
    assert run_program(arguments, tmp_path).returncode == 0
    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    whole = read_offline_run(file)
    assert [sent["epoch"] for sent in whole.history if "epoch" in sent] == list(range(1, 13))
    assert (whole.identity, whole.exit_code) == (found.identity, 0)


@pytest.mark.slow
def test_two_copies_of_one_run_take_turns(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    arguments = write_files(tmp_path, podcast, ONE.replace("[1, 2]", "[1]"))
    assert run_program(arguments, tmp_path).returncode == 0
    run = tmp_path / "runs" / "one" / "seed-1"
    command = [sys.executable, "-m", "experiment_runner.tracking.wandb_copy", str(run)]
    following = subprocess.Popen([*command, "--follow"], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: read_state(run).get("started"))
    by_hand = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    time.sleep(2)
    assert by_hand.poll() is None, "the second waits for the first"
    following.communicate(b"", timeout=60)
    by_hand.communicate(timeout=60)
    assert (following.returncode, by_hand.returncode) == (0, 0)
    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    assert [sent["epoch"] for sent in read_offline_run(file).history if "epoch" in sent] == [1, 2]
    assert read_state(run)["finished"]


def test_a_copy_that_cannot_be_started_costs_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No interpreter stands where the copying process is started with."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing" / "python"))
    tracking = Tracking(Console())
    tracking.follow(ExperimentConfig.model_validate({"name": "one", "corpus": "P"}), tmp_path)
    tracking.close()
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1
    assert "WARNING: tracking: W&B: the copying process cannot be started" in told[0]


NONSENSE = {
    "no text": b"\xff",
    "no JSON": b"{",
    "a list": b'["id"]',
    "nested too deeply": b"[" * 100_000,
    "a value nested deeply": b'{"started": true, "x": ' + b"[" * 900 + b"]" * 900 + b"}",
    "an error that is no text": b'{"error": {"a": 1}}',
    "files that are a number": b'{"mode": "offline", "files": 1}',
    "finished, and nothing else": b'{"finished": true}',
}


@pytest.mark.parametrize("content", NONSENSE)
def test_a_tracking_file_that_makes_no_sense_ends_nothing(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a copying process that fails at once has found."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    path = tmp_path / "tracking.json"
    path.write_bytes(NONSENSE[content])
    tracking = Tracking(Console())
    tracking.follow(ExperimentConfig.model_validate({"name": "one", "corpus": "P"}), tmp_path)
    path.write_bytes(NONSENSE[content])
    tracking.look()
    tracking.close()
    told = capsys.readouterr().out
    assert "the copying process ended with status 1" in told
    assert "tracking: not copied; to copy it later" in told
    change_state(tmp_path, started=False)
    assert read_state(tmp_path) == {"started": False}


@pytest.mark.slow
def test_without_tracking_nothing_of_it_is_imported(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    package = tmp_path / "trap" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    done = run_program(write_files(tmp_path, podcast, ONE), tmp_path, PYTHONPATH=str(package.parent))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "imported").exists()
    assert "tracking:" not in done.stdout
    assert not list((tmp_path / "runs").rglob("tracking.json"))


@pytest.fixture
def refused_address() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.mark.slow
def test_tokens_get_nowhere_even_when_the_real_tracker_fails_online(
    podcast: SyntheticPodcast, tmp_path: Path, refused_address: str
) -> None:
    """One experiment fails as well, with the tokens in its message, so that errors and tracebacks are covered."""
    listed = ONE + f'[[experiments]]\nname = "broken"\nconfig_update = {{ upstream_model = "{tmp_path}/broken" }}\n'
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps({"model_type": " ".join(TOKENS.values())}))
    (broken / "model.safetensors").touch()
    in_file, in_environment = "WANDB_TOKEN", {n: v for n, v in TOKENS.items() if n != "WANDB_TOKEN"}
    (tmp_path / ".env").write_text(f"{in_file}={TOKENS[in_file]}\n")
    arguments = write_files(tmp_path, podcast, listed, TRACKED)
    done = run_program(arguments, tmp_path, WANDB_BASE_URL=refused_address, **in_environment)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "<GIT_AUTH_TOKEN>" in done.stdout, "the message that held the tokens was printed without them"
    assert done.stdout.count("WARNING: tracking: W&B:") == 1
    assert leaks(tmp_path, done.stdout + done.stderr) == []
    assert (tmp_path / "runs" / "one" / "seed-2" / "result.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_costs_one_sentence(
    copied: Path, fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real wandb, online."""
    for name, value in TOKENS.items():
        monkeypatch.setenv(name, value)
    with serve_fault(fault) as (address, asked):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        track(copied)
    assert asked, "the tracker was asked"
    printed = capsys.readouterr()
    assert printed.out.count("WARNING: tracking: W&B:") == 1
    assert printed.out.count("tracking: not copied") == 1
    assert leaks(copied, printed.out + printed.err) == []


def leaks(folder: Path, shown: str) -> list[str]:
    """Return where a token stands: on the screen, in a file (but for `.env` and the planted model) or in its name."""
    planted = {folder / ".env", folder / "broken" / "config.json"}
    found = [f"screen: {name}" for name, value in TOKENS.items() if value in shown]
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() and path not in planted else b""
        found += [
            f"{path}: {name}" for name, value in TOKENS.items() if value.encode() in content or value in str(path)
        ]
    return found
