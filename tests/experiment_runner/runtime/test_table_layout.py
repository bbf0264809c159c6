from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len

import download_model
from experiment_runner.data import preparation
from experiment_runner.data.experiment_data import EvaluationSplit, ExperimentData
from experiment_runner.data.preparation import PreparedExperiment, check_recordings, show_plan
from experiment_runner.prediction.output import show
from experiment_runner.reporting.audit_tables import show_audit
from experiment_runner.reporting.tables import Outcome, show_evaluation, show_training
from experiment_runner.results.statistics import STATISTICS
from experiment_runner.runtime import console as console
from experiment_runner.runtime.console import PLAIN_WIDTH, Console, at_words
from experiment_runner.runtime.table_layout import Column, Layout, choose_layout, wrapped
from process_labels_for_categorical import show as show_labels
from utils.config.schema import ExperimentConfig
from utils.data.audit.audit import Audit
from utils.data.audit.findings import as_table
from utils.data.labels.columns import ATTRIBUTES
from utils.data.labels.corpus import Corpus

WIDTHS = (80, 100, 120)
EIGHT = ("angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise")
FOURTEEN = (*EIGHT, "amusement", "awe", "embarrassment", "overwhelming surprise", "disappointment", "悲しみ")
NAMES = ("WavLM-large-balanced-softmax-eight-classes-layer-weighting", "Short", "日本語の実験-マルチタスク")
SPLITS = ("test1", "test2", "MSP-PODCAST-1.12-test1")
SEEDS = (42, 43, 44)


def metrics(draw: random.Random) -> dict[str, float]:
    return {key: draw.random() for key in STATISTICS} | {"utterances": 30_647, "labelled": 30_647}


def outcomes() -> list[Outcome]:
    draw = random.Random(0)
    genders = ("female", "male")
    return [
        Outcome(
            name,
            seed,
            {s: {**metrics(draw), "by_gender": {g: metrics(draw) for g in genders}} for s in SPLITS},
            "evaluated",
        )
        for name in NAMES
        for seed in SEEDS
    ]


def trained() -> list[Outcome]:
    development = {"development_macro_f1": 0.5123, "development_mean_ccc": -0.0123}
    result = {"development": development, "best_epoch": 17, "epochs": 123, "stop": "sma_f1"}
    return [Outcome(name, seed, result, "finished before") for name in NAMES for seed in SEEDS]


def utterances() -> pd.DataFrame:
    """A table with every class in every split, as readers return it."""
    rows = [(split, name) for split in ("train", "development", *SPLITS[:2]) for name in FOURTEEN]
    table = pd.DataFrame(rows, columns=["split", "emotion"]).assign(speaker="1", gender="female", seconds=1234.5)
    table = table.assign(corpus="A-Corpus-With-A-Long-Name", content=None)
    table["file"] = [f"A recording with a long name {number:04}.wav" for number in range(len(table))]
    return table.assign(path=table["file"], **dict.fromkeys(ATTRIBUTES, 4.0))


def experiments() -> list[PreparedExperiment]:
    table = utterances()
    tests = tuple(
        EvaluationSplit("MSP-PODCAST-1.12", split, table, FOURTEEN, (1.0, 7.0), split != "test2", split == "test3")
        for split in ("test1", "test2", "test3")
    )
    counts = np.arange(1000, 15_000, 1000)
    data = ExperimentData(FOURTEEN, (), (1.0, 7.0), counts, table, table, tests, {})
    corpus, upstream = "A-Corpus-With-A-Long-Name", "facebook/wav2vec2-large-xlsr-53"
    return [
        PreparedExperiment(ExperimentConfig(name=name, corpus=corpus, upstream_model=upstream, seeds=SEEDS), data)
        for name in ("WavLM-large-balanced-softmax-eight-classes-layer-weighting", "Short")
    ]


def audited() -> Audit:
    table = utterances()
    corpus = Corpus("A-Corpus-With-A-Long-Name", table, FOURTEEN, (1.0, 7.0))
    recordings = pd.DataFrame({"path": table["path"], "seconds": table["seconds"]})
    findings = [(kind, table["file"][0], "train", "a detail in words " * 4) for kind in ("missing", "shared-speaker")]
    return Audit(corpus, recordings, as_table(findings), False, 0)


def predicted() -> pd.DataFrame:
    table = pd.DataFrame({"file": [f"/data/recordings/of a long path/{name}/1.wav" for name in NAMES]})
    table["start_seconds"], table["end_seconds"] = 3723.5, 3726.5
    table["prediction"] = FOURTEEN[-3:]
    table = table.assign(**{f"prob_{name}": 1 / 14 for name in FOURTEEN})
    return table.assign(**{f"pred_{name}": 4.25 for name in ATTRIBUTES}, gender_prediction="female")


def show_models(console: Console) -> None:
    folder = Path("no such folder")
    download_model.show_models(folder, folder, console)


def labels(console: Console) -> None:
    show_labels(utterances().rename(columns={"file": "FileName"}), set(), console)


TABLES: dict[str, Callable[[Console], object]] = {
    "Test": lambda console: show_evaluation(outcomes(), console, "a note"),
    "Training": lambda console: show_training(trained(), console, "a note"),
    "Plan": lambda console: show_plan(experiments(), console),
    "Recordings": lambda console: check_recordings(experiments(), console),
    "audit": lambda console: show_audit(audited(), console),
    "models": show_models,
    "predictions": lambda console: show(predicted(), console),
    "labels": labels,
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", TABLES)
def test_names_and_figures_stand_whole_at_every_width(
    kind: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables: list[tuple[Sequence[Column], Sequence[Sequence[str]], int]] = []

    def watched(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, keys: int) -> Layout:
        tables.append((columns, rows, keys))
        return choose_layout(columns, rows, width, keys)

    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(console, "choose_layout", watched)
    monkeypatch.setattr(preparation, "check_training_recordings", lambda config, data, *_: data)
    monkeypatch.setattr(preparation, "require_all", lambda table, advance: table)
    TABLES[kind](Console())
    shown = capsys.readouterr().out
    assert tables
    assert max(map(cell_len, shown.splitlines())) <= width
    for columns, rows, keys in tables:
        assert all(word in shown for column in columns[:keys] for word in column.title.split())
        for place, column in enumerate(columns):
            cells = [row[place] for row in rows if cell_len(row[place]) <= width]
            separator = {None: None, ",": ", ", "": " "}[column.break_after]
            assert all(part in shown for cell in cells for part in (cell.split(separator) if separator else [cell]))
            if column.is_number:
                assert all(word in shown for word in column.title.split())
                assert all(shown.count(cell) >= cells.count(cell) for cell in cells if cell), column.title


def test_what_ended_a_training_is_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    done = trained()[0]
    outcomes = [replace(done, found={**done.found, "stop": stop}) for stop in ("sma_f1", "loss", "epochs")]
    show_training(outcomes, Console(), "")
    shown = capsys.readouterr().out
    assert all(f"│ {word} " in shown for word in ("score", "loss", "last epoch"))
    assert "sma_f1" not in shown


@pytest.mark.parametrize("width", [40, *WIDTHS])
def test_only_what_is_longer_than_the_screen_is_broken(width: int) -> None:
    name, rest = "x" * (width + 7), ["0.123", "a sentence of several words"]
    columns = [Column("name"), Column("figure", is_number=True), Column("remark", break_after="")]
    layout = choose_layout(columns, [[name, *rest], ["short", *rest]], width)
    lines = [str(part) for part in layout.parts]
    assert lines[lines.index("x" * width) + 1] == "x" * 7
    assert max(map(len, lines)) == width
    assert len(lines) == layout.lines
    assert sum("0.123" in line for line in lines) == 2


def test_blocks_stand_below_the_titles_of_what_names_them() -> None:
    columns = [Column("recording"), Column("split"), Column("x" * 30), Column("y" * 30, is_number=True)]
    rows = [[f"{name * 30}.wav", "train", "words" * 6, "1"] for name in "ab"]
    lines = [str(part) for part in choose_layout(columns, rows, 40, keys=2).parts]
    assert lines[:2] == ["recording, split", f"{'a' * 30}.wav,"]
    assert lines.count("recording, split") == 1
    untitled = [Column(""), *columns[2:]]
    lines = [str(part) for part in choose_layout(untitled, [row[:1] + row[2:] for row in rows], 40).parts]
    assert lines[0] == f"{'a' * 30}.wav"


def test_words_stay_whole_beside_wide_characters() -> None:
    assert wrapped("悲しみ 喜び 怒り", 11) == ["悲しみ 喜び", "怒り"]
    assert wrapped("test1 1,200, test2 800", 12, ",") == ["test1 1,200,", "test2 800"]
    assert wrapped("悲しみ", 4, None) == ["悲し", "み"]


def test_columns_are_shared_evenly_between_tables() -> None:
    columns = [Column("name"), *(Column(f"figure {number}", is_number=True) for number in range(10))]
    rows = [[f"{name:>30}", *(["0.123 ± 0.045"] * 10)] for name in range(9)]
    shown = [str(part) for part in choose_layout(columns, rows, 80).parts]
    assert [line.count("figure") for line in shown if "figure" in line] == [3, 3, 2, 2]


def test_the_width_is_that_of_the_environment_or_one_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, expected in (("", PLAIN_WIDTH), ("93", 93), ("0", PLAIN_WIDTH), ("wide", PLAIN_WIDTH)):
        monkeypatch.setenv("COLUMNS", columns)
        assert Console().rich.width == expected


def test_a_terminal_breaks_lines_between_words_and_never_inside_a_command() -> None:
    command = "/opt/a/.venv/bin/python -m utils.hf_uploader runs/A/seed-42 user/model --license mit"
    text = f"one seed 42: not uploaded (the hub has not answered yet); to do it later: {command}; the run is done"
    lines = at_words(text, 40)
    assert " ".join(lines) == text
    assert sum(command in line for line in lines) == 1
    assert all(len(line) <= 40 for line in lines if command not in line)
    assert max(map(len, at_words("every digit of a figure stands in one line, and `python main.py` too", 20))) <= 20
    assert at_words("/a/path/that/is/longer/than/the/screen", 20) == ["/a/path/that/is/longer/than/the/screen"]


def test_lines_are_whole_where_there_is_no_width_to_keep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = " ".join(["word"] * 60)
    Console().line(text)
    assert capsys.readouterr().out.splitlines() == [text]
    monkeypatch.setenv("COLUMNS", "80")
    Console().line(text)
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines) == text
    assert max(map(len, lines)) <= 80
