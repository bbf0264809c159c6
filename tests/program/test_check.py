"""`main.py --check`: what becomes of each run, and everything that keeps one from being trained, at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import main as program
from experiment_runner import session
from experiment_runner.data.preparation import prepare
from experiment_runner.reporting.tables import Outcome
from experiment_runner.runtime.program_version import program_version
from experiment_runner.storage.checkpoints import Checkpoint, TrainingState
from experiment_runner.storage.environment import run_environment
from experiment_runner.storage.run_folder import RunFolder
from tests.conftest import ROOT
from tests.support.experiment_files import write_files
from tests.support.forked import commands
from tests.support.synthetic_podcast import SyntheticPodcast
from utils import load_plan
from utils.errors import DataError
from utils.io.folder_lock import locked

LISTED = """
[[experiments]]
name = "one"
config_update = { seeds = [1, 2, 3, 4, 5, 6, 7] }
"""
RESULT = {"stop": "epochs", "epochs": 2, "best_epoch": 1, "development": {}}


def words(text: str) -> str:
    return " ".join(text.split())


class Desk:
    """A list with the runs of one experiment, made without training.

    Args:
        podcast: The corpus.
        folder: Where everything lies.
        listed: The experiment.
    """

    def __init__(self, podcast: SyntheticPodcast, folder: Path, listed: str = LISTED) -> None:
        self.arguments = write_files(folder, podcast, listed)
        plan = load_plan(Path(self.arguments[1]), Path(self.arguments[3]))
        self.experiment = prepare(plan).experiments[0]
        self.output = folder / "runs"

    def begin(self, seed: int, processes: int = 1, **resolved: object) -> RunFolder:
        folder = RunFolder(self.output, self.experiment.config, seed)
        data = self.experiment.data
        precision = "fp32: mixed precision is off on the CPU"
        setting = run_environment(self.experiment.config, data, precision, is_gpu=False, ranks=processes)
        document = {**setting, "data_sha256": data.fingerprint(), "program": program_version(), **resolved}
        folder.start(document, data.left_out_recordings)
        return folder

    def save(self, folder: RunFolder) -> Path:
        state = TrainingState({"a": torch.zeros(1)}, {"epoch": 2, "taken": 5})
        return folder.checkpoints.save(Checkpoint(1, 25, {"a": torch.zeros(1)}, {"config.json": {}}, state, True))

    def finish(self, folder: RunFolder) -> None:
        folder.finish(RESULT)

    def command(self, *more: str) -> int:
        return program.main([*self.arguments, *more])


@pytest.fixture
def desk(podcast: SyntheticPodcast, tmp_path: Path) -> Desk:
    return Desk(podcast, tmp_path)


def make_every_kind(desk: Desk) -> None:
    """Runs that are finished, half done, not begun, changed, damaged, made by other code, and changed half-way."""
    desk.finish(desk.begin(1))
    desk.save(desk.begin(2))
    changed = desk.begin(4)
    desk.finish(changed)
    text = (changed.path / "experiment.toml").read_text()
    (changed.path / "experiment.toml").write_text(text.replace("learning_rate = 0.001", "learning_rate = 0.002"))
    (desk.save(desk.begin(5)) / "model.safetensors").write_bytes(b"")
    desk.finish(desk.begin(6, program={**program_version(), "code": "0000"}))
    desk.save(desk.begin(7, processes=2))


REFUSED = ("learning_rate 0.002 -> 0.001", "differs from its manifest")


def test_each_run_is_told_and_training_does_as_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_every_kind(desk)
    assert desk.command("--check") == 2
    said = capsys.readouterr()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.out.splitlines() if line.startswith("│")]
    assert {row[1]: row[2] for row in rows if row[0] == "one" and len(row) == 3} == {
        "1": "skipped: finished before",
        "2": "resumed from epoch 1, step 25",
        "3": "trained",
        "4": "refused",
        "5": "refused",
        "6": "skipped: finished before",
        "7": "resumed from epoch 1, step 25",
    }
    problems = said.err.splitlines()
    assert [line.split(":")[0] for line in problems] == ["one seed 4", "one seed 5"]
    assert all(part in line for part, line in zip(REFUSED, problems, strict=True))
    (told,) = [line for line in said.out.splitlines() if "made with other code" in line]
    assert told.startswith("WARNING: made with other code or packages than today's")
    assert "one seed 6 (code)" in told
    assert "all is well" not in said.out
    (told,) = [line for line in said.out.splitlines() if "processes so far" in line]
    assert told.startswith("WARNING: one seed 7: trained with 2 processes so far: resume with `")
    assert re.search(rf"torchrun --nproc-per-node 2 \S*main.py --config {re.escape(desk.arguments[1])} ", told)

    begun: dict[int, str | None] = {}

    def stop(run: Any, checkpoint: Path | None) -> None:  # noqa: ANN401
        begun[run.seed] = None if checkpoint is None else checkpoint.name
        raise DataError("ended by the test")

    monkeypatch.setattr(session, "run_train", stop)
    monkeypatch.setattr(session, "_report", lambda run: None)
    assert desk.command() == 1
    trained = words(capsys.readouterr().out)
    assert begun == {2: "epoch-1-step-25", 3: None}
    assert all(words(problem) in trained for problem in problems)
    assert "one seed 7: what" in trained
    assert "processes 2 -> 1" in trained
    assert trained.count("made with other code") == 1


def test_a_half_done_run_counts_with_the_processes_that_it_was_begun_with(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = 'batch_size = 1, loss_type = "WeightedCrossEntropy", seeds = [1, 2, 3]'
    desk = Desk(podcast, tmp_path, LISTED.replace("seeds = [1, 2, 3, 4, 5, 6, 7]", keys))
    assert desk.command("--check") == 2
    assert "batch_size 1 x accumulation_steps 1 x 1 process (as started; more with torchrun) is one" in (
        capsys.readouterr().err
    )
    for seed in (2, 3):
        desk.save(desk.begin(seed, processes=2))
    assert desk.command("--check") == 0
    said = capsys.readouterr()
    assert "WARNING: one seed 2, one seed 3: trained with 2 processes so far: resume with `" in said.out
    assert said.err == ""
    assert desk.command("--check", "--retrain") == 2, "it begins anew, with one process"
    (tmp_path / "runs" / "one" / "seed-2" / "experiment.toml").write_text("[resolved]\nprocesses = 'two'\n")
    assert desk.command("--check", "--only", "one") == 2
    assert "one seed 2: what" in capsys.readouterr().err


def test_a_retraining_is_told_as_one(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    make_every_kind(desk)
    assert desk.command("--check", "--retrain") == 0
    said = words(capsys.readouterr().out)
    assert said.count("trained again") == 3
    assert "made with other code" not in said


def test_evaluation_tells_other_code_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.finish(desk.begin(1, program={**program_version(), "torch": "2.0.0"}))
    monkeypatch.setattr(session, "evaluate_run", lambda run: Outcome(run.config.name, run.seed, {}, "evaluated"))
    assert desk.command("--test") == 0
    said = words(capsys.readouterr().out)
    assert f"one seed 1 (torch 2.0.0 -> {program_version()['torch']})" in said


def test_a_run_that_does_not_say_what_made_it_is_left_in_peace(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    folder = desk.begin(1)
    text = (folder.path / "experiment.toml").read_text()
    (folder.path / "experiment.toml").write_text(text.partition("[resolved.program]")[0])
    desk.finish(folder)
    assert desk.command("--check") == 0
    assert "made with other code" not in capsys.readouterr().out


def test_problems_of_files_device_and_folder_are_told_at_once(
    podcast: SyntheticPodcast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels, upstream, precision, recordings, output folder and device, each wrong by itself."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    listed = '[[experiments]]\nname = "one"\nconfig_update = { upstream_model = "wavlm-huge" }\n'
    listed += '[[experiments]]\nname = "two"\nconfig_update = { classes = ["angry", "happi"] }\n'
    audio = tmp_path / "audio"
    shutil.copytree(podcast.audio, audio)
    test1 = podcast.rows.loc[podcast.rows["Split_Set"] == "Test1", "FileName"].iloc[0]
    (audio / test1).write_bytes(b"")
    arguments = write_files(tmp_path, SyntheticPodcast(podcast.labels, audio, podcast.rows), listed)[:4]
    (tmp_path / "runs").write_text("no folder")
    output = ["--output", str(tmp_path / "runs")]
    assert program.main([*arguments, *output, "--check", "--device", "cuda"]) == 2
    told = capsys.readouterr().err
    parts = (
        "no CUDA GPU is available",
        "runs is a file or lies below one",
        "wavlm-huge",
        "happi",
        f"{test1} holds no byte",
    )
    assert [part for part in parts if part not in told] == []
    assert len(told.splitlines()) == len(parts)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("learning_rate = 'x'", "learning_rate: found"),
        ("loss_type = 'CrossEntrpy'", "CrossEntrpy"),
        ("[[", "is not valid TOML"),
    ],
)
def test_a_broken_file_is_told_beside_the_device(
    text: str,
    part: str,
    podcast: SyntheticPodcast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments = write_files(tmp_path, podcast, LISTED, f"[base_config]\ncorpus = 'P'\n{text}\n")[:6]
    for more in (["--check", "--device", "cuda"], [], ["--test"]):
        assert program.main([*arguments, *more]) == 2
        first, *others = capsys.readouterr().err.splitlines()
        assert first.startswith("no CUDA GPU is available on this machine; run with --device cpu")
        assert any(part in line for line in others)
    for more in (["--check"], ["--check", "--device", "cpu"], ["--device", "cpu"]):
        assert program.main([*arguments, *more]) == 2
        assert "CUDA" not in capsys.readouterr().err


def test_without_a_gpu_a_check_is_well_and_says_so_once(
    podcast: SyntheticPodcast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments = write_files(tmp_path, podcast, LISTED)[:6]
    assert program.main([*arguments, "--check"]) == 0
    assert capsys.readouterr().out.count("no CUDA GPU is available on this machine") == 1
    assert program.main([*arguments, "--check", "--device", "cpu"]) == 0
    assert "GPU" not in capsys.readouterr().out


def test_training_without_a_gpu_tells_files_and_labels_too_and_decodes_nothing(
    podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    silent = SyntheticPodcast(podcast.labels, tmp_path / "empty", podcast.rows)
    listed = LISTED + '[[experiments]]\nname = "two"\nconfig_update = { classes = ["angry", "happi"] }\n'
    listed += '[[experiments]]\nname = "three"\nconfig_update = { upstream_model = "wavlm-huge" }\n'
    arguments = write_files(tmp_path, silent, listed)[:6]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = commands.run(["main.py", *arguments], ROOT, environment)
    first, *others = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert first.startswith("no CUDA GPU is available on this machine; run with --device cpu to use the CPU instead (")
    assert len(others) == 2, "no recording is there, and none was looked for"
    assert "happi" in others[0]
    assert "wavlm-huge" in others[1]


@pytest.mark.parametrize("kind", ["file", "below a file", "link to nowhere", "in use"])
def test_an_output_folder_that_cannot_be_used_is_a_problem(
    kind: str, podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_files(tmp_path, podcast, LISTED)
    output = Path(arguments[5])
    if kind == "file":
        output.write_text("")
    elif kind == "below a file":
        output.write_text("")
        arguments[5] = str(output / "a" / "b")
    elif kind == "link to nowhere":
        output.symlink_to(tmp_path / "nowhere" / "at all")
    code = f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\n"
    code += "from utils.io.folder_lock import locked\nwith locked(Path(sys.argv[1]), ''):\n"
    code += "    print('locked', flush=True)\n    sys.stdin.read()\n"
    if kind == "in use":
        command = [sys.executable, "-c", code, str(output)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"locked\n"
            assert program.main([*arguments, "--check"]) == 2
            other.communicate()
        sentence = "runs is in use by process"
    else:
        before = sorted(tmp_path.rglob("*"))
        assert program.main([*arguments, "--check"]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        sentence = "cannot be written to (" if kind.startswith("link") else "is a file or lies below one"
    told = capsys.readouterr().err
    assert sentence in told
    assert "give another folder with --output" in told
    assert len(told.splitlines()) == 1


def test_a_folder_that_is_not_there_is_not_made(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    arguments = write_files(tmp_path, podcast, LISTED)
    assert program.main([*arguments, "--check"]) == 0
    assert not Path(arguments[5]).exists()
    with locked(Path(arguments[5]), ""):
        pass
    assert program.main([*arguments, "--check"]) == 0, "nobody holds the lock any more"


def test_an_experiment_whose_folder_is_a_file_is_refused_by_both(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.output.mkdir()
    (desk.output / "one").write_text("")
    for more, status in (("--check",), 2), ((), 1):
        assert desk.command(*more) == status
        said = capsys.readouterr()
        assert "one seed 1: " in said.out + said.err
        assert "one is a file or lies below one, where a folder is needed; give the experiment another name" in words(
            said.out + said.err
        )


@pytest.mark.parametrize(("amp", "device"), [("fp16", "cpu")])
def test_a_precision_that_the_device_lacks_is_refused_by_both(
    amp: str, device: str, podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = f'[[experiments]]\nname = "one"\nconfig_update = {{ amp = "{amp}" }}\n'
    arguments = write_files(tmp_path, podcast, listed)
    for more in (["--check"], []):
        assert program.main([*arguments, *more]) == 2
        assert f'one: amp = "{amp}" needs a GPU' in capsys.readouterr().err


def test_a_finished_run_is_refused_everywhere_after_a_row_was_removed(
    desk: Desk,
    podcast: SyntheticPodcast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed in desk.experiment.config.seeds:
        desk.finish(desk.begin(seed))
    rows = podcast.rows.drop(podcast.rows.index[podcast.rows["Split_Set"] == "Train"][0])
    rows.to_csv(tmp_path / "labels_consensus.csv", index=False)
    write_files(tmp_path, SyntheticPodcast(tmp_path, podcast.audio, rows), LISTED)
    monkeypatch.setattr(session, "run_train", lambda *_: pytest.fail("it was trained"))
    for more, status in (("--check",), 2), ((), 1), (("--test",), 1):
        assert desk.command(*more) == status
        said = capsys.readouterr()
        text = words(said.out + said.err)
        assert text.count("training or development data (files, splits, speakers, labels or scale)") == 7
        assert text.count("or train again with --retrain") == 7


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ("", "an upload needs HUGGINGFACE_TOKEN, and none is set; put one with write access into .env"),
        ("two words of it", "HUGGINGFACE_TOKEN is not a token"),
        ("short", "HUGGINGFACE_TOKEN is not a token"),
        ("hf_a_token_that_writes", ""),
    ],
)
def test_an_upload_without_a_token_is_told_before_training(
    token: str,
    sentence: str,
    podcast: SyntheticPodcast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HUGGINGFACE_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    listed = '[[experiments]]\nname = "one"\nconfig_update = { push_to_hub = "user/model" }\n'
    assert program.main([*write_files(tmp_path, podcast, listed), "--check"]) == 0
    said = words(capsys.readouterr().out)
    assert (f"WARNING: one: push_to_hub: {sentence}" in said) == bool(sentence)
    assert ("push_to_hub" in said) == bool(sentence)
