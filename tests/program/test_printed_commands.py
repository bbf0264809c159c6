"""Commands that the program prints work as printed: each is read by the parser of the program that it names."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiment_runner.publishing.ser_model import SERModel
from experiment_runner.reporting.report_contents import commands_of
from experiment_runner.runtime import device
from experiment_runner.storage.checkpoints import CheckpointError
from tests.conftest import ROOT
from tests.support.typed_commands import read_as_typed, remembered
from utils.commands import RUN_OPTIONS, evaluation_command, python_command, repeating, script_command, torchrun_command
from utils.data.recordings.preflight import _refuse
from utils.errors import DataError
from utils.hub.upstreams import UpstreamError, find_upstream

GIVEN = {
    "--config": Path("my corpora.toml"),
    "--experiments": Path("lists/a.toml"),
    "--only": ["one", "two"],
    "--device": "cpu",
    "--output": Path("other runs"),
}
PRODUCT = [
    *ROOT.glob("*.py"),
    *(path for name in ("experiment_runner", "net", "utils") for path in ROOT.glob(f"{name}/**/*.py")),
]
TYPED = re.compile(r"\b(?:python3?|torchrun) (?:-m )?(?:[\w.<{-]|$)")
WRITTEN_ELSEWHERE = {
    "utils/commands.py": "makes them",
    "utils/config/docs.py": "writes a page of the documentation, as README.md is one",
}


RUN = Path("a run/seed-1")


def said_by(action: Callable[[], object], error: type[Exception]) -> str:
    with pytest.raises(error) as told:
        action()
    return str(told.value)


def missing_upstream() -> str:
    return said_by(lambda: find_upstream("user/model with a space"), UpstreamError)


def model_of_git() -> str:
    return said_by(
        lambda: SERModel.from_pretrained("git+https://example.org/lab/model.git", revision="v2"), CheckpointError
    )


def refused_recordings(is_packed: bool) -> str:
    table = pd.DataFrame({"corpus": ["My-Corpus"], "file": ["a.wav"], "split": ["train"], "path": ["a.wav"]})
    table = table.assign(problem=pd.Series([pd.NA])) if is_packed else table
    problems = pd.DataFrame({"kind": ["empty"], "problem": ["holds no byte"]})
    return said_by(lambda: _refuse(table, problems, "at most 1% may be"), DataError)


def too_many_processes() -> str:
    class Many:
        local_ranks, local_rank = 4, 3

    return said_by(lambda: device._own_gpu(Many()), device.DeviceError)  # type: ignore[arg-type]


HINTS: dict[str, Callable[[], str]] = {
    "an upstream that is not there": missing_upstream,
    "a model of git that is not there": model_of_git,
    "recordings that cannot be used": lambda: refused_recordings(is_packed=False),
    "recordings that were not packed": lambda: refused_recordings(is_packed=True),
    "more processes than GPUs": too_many_processes,
    "an evaluation": lambda: f"`{evaluation_command(Path('runs/one/seed-1'))}`",
    "a training": lambda: f"`{script_command('main.py', repeat=RUN_OPTIONS)}`",
    "an upload": lambda: f"`{python_command('utils.hf_uploader', [RUN, 'user/model', '--license', 'mit'])}`",
    "a report": lambda: f"`{python_command('experiment_runner.reporting.report', [RUN])}`",
    "recordings in a report": lambda: f"`{commands_of(RUN)['audio']}`",
    "a copy": lambda: f"`{python_command('experiment_runner.tracking.wandb_copy', [RUN])}`",
    "labels": lambda: f"`{script_command('process_labels_for_categorical.py', [Path('my labels'), '--soft'])}`",
}


def command_in(sentence: str) -> str:
    quoted = re.search(r"`([^`]+)`", sentence)
    torchrun = re.search(r"\S*torchrun .*", sentence)
    assert quoted or torchrun, sentence
    return quoted[1] if quoted else torchrun[0] if torchrun else ""


@pytest.mark.parametrize("given", [{}, GIVEN], ids=["defaults", "options"])
@pytest.mark.parametrize("place", ["the program's folder", "another"])
@pytest.mark.parametrize("name", HINTS)
def test_a_printed_command_is_understood_by_its_program(
    name: str, place: str, given: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "more processes than GPUs":
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.chdir(ROOT if place == "the program's folder" else tmp_path)
    with repeating(given):  # type: ignore[arg-type]
        command = command_in(HINTS[name]())
    options = vars(read_as_typed(command))
    repeated = {key.removeprefix("--"): value for key, value in GIVEN.items()} if given else {}
    needed = {"an evaluation", "a training", "more processes than GPUs"}
    expected = repeated if name in needed else {"config": repeated["config"]} if given and "recordings" in name else {}
    assert {key: options[key] for key in expected} == expected


def test_an_evaluation_names_the_folder_that_a_run_lies_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert read_as_typed(evaluation_command(Path("there/one/seed-1"))).output == Path("there")
    assert "--output" not in evaluation_command(Path("runs/one/seed-1"))


def test_an_option_is_not_repeated_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with repeating({"--config": Path("a.toml"), "--device": None}):
        command = script_command("main.py", ["--config", "b.toml", "--test"], RUN_OPTIONS)
        assert command.endswith("main.py --config b.toml --test")
        assert torchrun_command(2, "main.py", repeat=RUN_OPTIONS).endswith("--config a.toml")
    assert script_command("main.py", repeat=RUN_OPTIONS).endswith("main.py")


@pytest.mark.parametrize("command", ["--help", "-m utils.hf_uploader", "download_model.py --list"])
def test_a_printed_command_runs_in_a_shell(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = {
        "--help": script_command("main.py", ["--help"]),
        "-m utils.hf_uploader": python_command("utils.hf_uploader", [Path("a run"), "user/model"]),
        "download_model.py --list": script_command("download_model.py", ["--list"]),
    }[command]
    monkeypatch.setenv("HUGGINGFACE_TOKEN", "")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    done = subprocess.run(["sh", "-c", printed], capture_output=True, text=True)
    assert done.returncode == (1 if "uploader" in command else 0), done.stderr
    assert "No module" not in done.stderr


def literal_commands(path: Path) -> list[str]:
    """Return texts of a source, but for docstrings, in which a command stands that nobody made."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in documents]
    usages = {id(k.value) for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords if k.arg == "prog"}
    texts = [n.value for n in constants if isinstance(n.value, str) and id(n) not in usages]
    return [text for text in texts if TYPED.search(text)]


def test_no_command_is_written_by_hand() -> None:
    places = {path.relative_to(ROOT).as_posix(): literal_commands(path) for path in PRODUCT}
    assert {name: texts for name, texts in places.items() if texts and name not in WRITTEN_ELSEWHERE} == {}
    pages = [path for path in ROOT.glob("experiment_runner/**/*.html.jinja") if TYPED.search(path.read_text())]
    assert pages == []


def test_a_command_that_was_written_by_hand_is_seen(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    source.write_text('"""`python main.py` here is a docstring."""\nraise ValueError(f"run `python {name}`")\n')
    assert literal_commands(source) == ["run `python "]


def test_a_command_that_its_program_does_not_understand_fails_the_test_that_prints_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with remembered() as printed:
        monkeypatch.chdir(tmp_path)
        evaluation_command(Path("there/one/seed-1"))
        python_command("wandb", ["sync", "--whatever"])
        script_command("predict.py", ["--help"])
        monkeypatch.chdir(ROOT)
        printed.check()
        script_command("main.py", ["--tests"])
        with pytest.raises(AssertionError, match="does not understand .*main.py --tests`"):
            printed.check()
        printed.check()
        python_command("experiment_runner.no_such_program", [])
        with pytest.raises(ModuleNotFoundError):
            printed.check()
        with monkeypatch.context() as patch:
            patch.setattr("sys.executable", "/bin/false")
            script_command("main.py", ["--tests"])
        printed.check()
