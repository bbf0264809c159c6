"""`python main.py --demo` as a newcomer runs it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

import main as program

RUNS = ("Demo-Categorical", "Demo-Multitask")


@pytest.fixture
def demo(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """Where the demo was run, and what it showed: by CI, which names both, or now."""
    monkeypatch.delenv("WANDB_TOKEN", raising=False)
    if "DEMO_SCREEN" in os.environ:
        console = Path(os.environ["DEMO_SCREEN"])
        monkeypatch.chdir(console.parent)
        return console.parent, console.read_text()
    monkeypatch.chdir(tmp_path)
    assert program.main(["--demo"]) == 0
    return tmp_path, capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_ends_in_tables_pictures_and_good_figures(
    demo: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, shown = demo
    runs = {name: folder / "runs" / name / "seed-42" for name in RUNS}
    found = {name: json.loads((run / "evaluation" / "test1.json").read_text()) for name, run in runs.items()}
    seconds = sum(json.loads((run / "result.json").read_text())["seconds"] for run in runs.values())
    print(f"{seconds:.0f} s; " + "; ".join(f"{n} {f['macro_f1']:.3f} {f.get('mean_ccc')}" for n, f in found.items()))
    assert seconds < 300, "about eighty on two cores that do nothing else"
    assert found["Demo-Categorical"]["macro_f1"] >= 0.80
    assert found["Demo-Multitask"]["macro_f1"] >= 0.80
    assert found["Demo-Multitask"]["mean_ccc"] >= 0.60
    check_run_folders(folder)
    check_screen(shown)

    assert program.main(["--demo"]) == 0, "a second time nothing is made again"
    again = capsys.readouterr().out
    assert "writing" not in again
    assert again.count("finished before") == 2


def check_run_folders(folder: Path) -> None:
    for name in RUNS:
        run = folder / "runs" / name / "seed-42"
        figures = {path.name for path in (run / "pictures").glob("*.png")}
        assert {"training.png", "classes.png", "confusion-test1.png", "confusion-development.png"} <= figures
        assert ("attributes-test1.png" in figures) == (name == "Demo-Multitask")
        report = (run / "report.html").read_text(encoding="utf-8")
        assert report.count("data:image/png;base64,") == len(figures)
        assert "SYNTHETIC" in report
        classes = [c for c in pd.read_csv(run / "predictions" / "test1.csv").columns if c.startswith("prob_")]
        assert classes == ["prob_neutral", "prob_happy", "prob_angry", "prob_sad"]
        assert json.loads((run / "tracking.json").read_text())["finished"]


def check_screen(shown: str) -> None:
    """Plan, both trainings, both tables: each says that the corpus is synthetic; places and remedy stand at the end."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    assert shown.startswith(f"device: {device}, because")
    assert re.search(r"writing \d+ clips of SYNTHETIC voices to runs/demo-corpus", shown)
    for title in ("Plan", "Training", "Test", "Test by gender, mean over seeds"):
        table = shown.split(f"\n{title}\n")[1]
        below = next(
            at for at, line in enumerate(table.split("\n")) if "DEMO: SYNTHETIC recordings: the results" in line
        )
        assert below < 30, "it stands below its own table"
    assert "Demo-Categorical seed 42: categorical on SYNTHETIC DEMO" in shown
    assert "Demo-Multitask seed 42: multitask on SYNTHETIC DEMO" in shown
    assert shown.count("-m wandb sync runs/Demo-Categorical/seed-42/wandb/offline-run-") == 1
    end = shown[shown.index("Demo-Categorical: open runs/Demo-Categorical/seed-42/report.html in a browser") :]
    assert "Demo-Multitask: open runs/Demo-Multitask/seed-42/report.html in a browser" in end
    assert "SYNTHETIC, nobody spoke them" in end


def test_the_demo_takes_neither_corpora_nor_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["--demo", "--config", "mine.toml"])
    assert ended.value.code == 2
    assert "--demo brings its own corpus and experiments; leave --config" in capsys.readouterr().err


def test_a_folder_that_is_not_the_demos_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "demo-corpus" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert program.main(["--demo", "--output", str(tmp_path), "--device", "cpu"]) == 2
    assert "contains no demo corpus; move it away or name another folder" in capsys.readouterr().err
    assert mine.read_text() == "mine"
