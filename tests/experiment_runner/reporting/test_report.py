from __future__ import annotations

import html
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

import main as program
from experiment_runner.reporting import report
from experiment_runner.reporting.figures import (
    attribute_scatter_figure,
    class_shares_figure,
    confusion_matrix_figure,
    training_curves_figure,
)
from experiment_runner.results.row_counts import show_labelled
from experiment_runner.training.early_stopping import HybridEarlyStopping
from tests.support.experiment_files import write_files
from tests.support.figures import check_texts, legend_of, with_gid
from tests.support.predictions import ATTRIBUTES, FOUR, predict
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.metrics import split_head_mid_tail

LONG = (
    "disappointment", "embarrassment", "frustrated_anger", "overwhelming surprise", "fear", "contemptuousness",
    "<b>bold</b>", "R&D", "$x^2$ boredom", "neutral",
)  # fmt: skip


def train(scores: list[float], losses: list[float], most: int = 99) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Lines of `metrics.jsonl` and `result.json` as the real stopping rule decides them."""
    stopping = HybridEarlyStopping(window=3, min_epochs=0, loss_stop_ratio=1.05, patience=0)
    lines: list[dict[str, Any]] = []
    for score, loss in zip(scores, losses, strict=True):
        decision = asdict(stopping.update(loss, score))
        line = {"epoch": decision["epoch"], "train_loss": 0.9 * loss, "development_loss": loss}
        line |= {"development_macro_f1": score, "smoothed_score": decision["smoothed"]}
        lines.append({**line, "improved": decision["improved"], "stop": decision["stop"]})
        if decision["stop"] or decision["epoch"] == most:
            break
    best = [line["epoch"] for line in lines if line["improved"]][-1]
    return lines, {"stop": lines[-1]["stop"] or "epochs", "epochs": len(lines), "best_epoch": best}


RISING, FALLING = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [1.0, 0.9, 0.8, 0.7, 0.65, 0.6]
ENDINGS = [
    ("sma_f1", [0.3, 0.6, 0.5, 0.1, 0.1], FALLING[:5], 4, 3, "stopped at epoch 4: no new best smoothed score"),
    ("loss", RISING, [1.0, 0.8, 0.7, 0.74, 0.6, 0.5], 4, 4, "stopped at epoch 4: development loss > 1.05 × smallest"),
    ("epochs", RISING, FALLING, 6, 6, "all 6 epochs used"),
]


@pytest.mark.parametrize("classes", [FOUR, LONG])
def test_the_confusion_picture_holds_the_counts_of_the_predictions(classes: tuple[str, ...]) -> None:
    predictions = predict(classes, 900)
    figure = confusion_matrix_figure(predictions, classes, "test1")
    known = predictions.dropna(subset="label")
    for cells, expected in (
        ("count", pd.crosstab(known["label"], known["prediction"])),
        ("share", (100 * pd.crosstab(known["label"], known["prediction"], normalize="index")).round()),
    ):
        texts = with_gid(figure, cells)
        assert len(texts) == len(classes) ** 2
        for text in texts:
            column, row = (round(place) for place in text.get_position())
            truth, guess = classes[row], classes[column]
            found = int(expected.loc[truth, guess]) if guess in expected else 0
            assert abs(int(text.get_text()) - found) <= (cells == "share"), (truth, guess)  # half may round either way
    totals = [int(label.get_text().rpartition("(")[2][:-1]) for label in figure.axes[0].get_yticklabels()]
    assert totals == [int((known["label"] == name).sum()) for name in classes]


def test_a_class_without_utterances_has_no_share() -> None:
    predictions = predict(FOUR, 40)
    figure = confusion_matrix_figure(predictions, (*FOUR, "fear"), "test1")
    shares = {text.get_text() for text in with_gid(figure, "share") if round(text.get_position()[1]) == 4}
    assert shares == {"–"}


@pytest.mark.parametrize(("reason", "scores", "losses", "last", "best", "words"), ENDINGS)
def test_the_curves_show_where_and_why_training_ended(
    reason: str, scores: list[float], losses: list[float], last: int, best: int, words: str
) -> None:
    epochs, result = train(scores, losses)
    assert (result["stop"], len(epochs)) == (reason, last), "the case is what it is called"
    figure = training_curves_figure(epochs, result, 1.05)
    assert [list(mark.get_xdata()) for mark in with_gid(figure, "stop")] == [[last]] * 2
    assert [list(mark.get_xdata()) for mark in with_gid(figure, "best")] == [[best]]
    assert words in legend_of(figure)
    rings = {"loss": (0, losses[last - 1]), "sma_f1": (1, epochs[-1]["smoothed_score"])}
    found = [
        (index, *map(float, np.ravel(ring.get_xydata())))
        for index, axes in enumerate(figure.axes)
        for ring in axes.lines
        if ring.get_gid() == "reason"
    ]
    assert found == ([(rings[reason][0], last, rings[reason][1])] if reason in rings else [])
    (limit,) = with_gid(figure, "limit")
    assert list(limit.get_ydata()[1:]) == pytest.approx([1.05 * min(losses[:epoch]) for epoch in range(1, last)])


def test_a_training_that_goes_on_is_not_called_finished() -> None:
    epochs, _ = train(RISING, FALLING, most=3)
    assert "after epoch 3: still training, or interrupted" in legend_of(training_curves_figure(epochs, None, 1.05))
    assert training_curves_figure(epochs[:1], None, 1.05).axes, "one epoch is enough for a picture"


def test_the_ccc_drawn_is_that_of_audmetric() -> None:
    audmetric = pytest.importorskip("audmetric")
    predictions = predict(FOUR, 300)
    figure = attribute_scatter_figure(predictions, (1.0, 7.0), "test1")
    for name, text in zip(ATTRIBUTES, with_gid(figure, "ccc"), strict=True):
        known = predictions.dropna(subset=name)
        expected = audmetric.concordance_cc(known[name].to_numpy(), known[f"pred_{name}"].to_numpy())
        assert text.get_text() == f"CCC {expected:.3f}"
    assert [np.shape(axes.collections[0].get_offsets())[0] for axes in figure.axes] == [300, 299, 300]


COUNTS = {"angry": 500, "sad": 60, "happy": 400, "neutral": 10}


def test_class_shares_are_ordered_grouped_and_parted_at_the_limits() -> None:
    splits = {"train": COUNTS, "development": dict.fromkeys(FOUR, 5)}
    figure = class_shares_figure(splits, split_head_mid_tail(COUNTS))
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["angry (500)", "happy (400)", "sad (60)", "neutral (10)"]
    bars = [patch.get_width() for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_height() < 0.8]
    assert bars == pytest.approx([100 * count / 970 for count in (500, 400, 60, 10)])
    (development,) = with_gid(figure, "split-development")
    assert isinstance(development, Line2D)
    assert np.ravel(development.get_xdata()).tolist() == [25.0] * 4
    assert [text.get_text() for text in with_gid(figure, "group")] == ["head", "mid", "tail"]
    assert [text.get_position()[0] for text in with_gid(figure, "limit")] == [25.0, 100 / 32]
    configured = class_shares_figure(splits, {"head": ["sad"], "mid": ["angry", "happy", "neutral"], "tail": []})
    assert with_gid(configured, "limit") == [], "shares did not decide these groups"
    assert [text.get_text() for text in with_gid(configured, "group")] == ["mid", "head", "mid"]


@pytest.mark.parametrize("classes", [FOUR, LONG])
def test_no_text_is_cut_off_or_covers_another(classes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {name: 90_000 // 3**place for place, name in enumerate(classes)}
    splits = {split: counts for split in ("train", "development", "test1", "test2")}
    check_texts(
        confusion_matrix_figure(predict(classes, 30_000), classes, "A-long-corpus-test1: macro-F1 0.123, UAR 0.123"),
        monkeypatch,
    )  # noqa: E501
    check_texts(class_shares_figure(splits, split_head_mid_tail(counts)), monkeypatch)


@pytest.mark.parametrize(("scores", "losses"), [ending[1:3] for ending in ENDINGS])
def test_no_text_of_the_curves_is_cut_off_or_covers_another(
    scores: list[float], losses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs, result = train(scores, [1000 * loss for loss in losses])
    epochs = [{**line, "development_mean_ccc": -line["development_macro_f1"]} for line in epochs]
    check_texts(training_curves_figure(epochs, result, 1.05), monkeypatch)


def test_no_text_of_the_attributes_is_cut_off_or_covers_another(monkeypatch: pytest.MonkeyPatch) -> None:
    check_texts(attribute_scatter_figure(predict(FOUR, 50), (-100.0, 100.0), "test1: 50 utterances"), monkeypatch)


EXPERIMENT = """
[[experiments]]
name = "one"
config_update = { task = "multitask", seeds = [1], tracking = "none" }
"""


@pytest.fixture(scope="module")
def evaluated(podcast: SyntheticPodcast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    arguments = write_files(folder, podcast, EXPERIMENT)
    assert program.main(arguments) == 0
    assert program.main([*arguments, "--test"]) == 0
    run = folder / "runs" / "one" / "seed-1"
    (run / "predictions" / "test2.csv").unlink()  # one test split says as much as two
    assert (run / "report.html").is_file(), "the program has written it"
    (run / "report.html").unlink()
    shutil.rmtree(run / "pictures")
    return run


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / "seed-1", symlinks=True))


def page_of(run: Path) -> str:
    """The page without pictures, as a browser shows its text."""
    page = report.write_report(run, figures=()).read_text(encoding="utf-8")
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.split("<body>")[1])).split())


def test_a_run_is_drawn_and_reported_from_its_folder_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "predictions" / "development.csv").unlink()  # one split says as much as two
    assert report.main([str(run)]) == 0
    names = ["training", "classes", "confusion-test1", "attributes-test1"]
    figures = [run / "pictures" / f"{name}.{suffix}" for name in names for suffix in ("png", "pdf")]
    assert capsys.readouterr().out.splitlines() == [*map(str, figures), str(run / "report.html")]
    assert sorted((run / "pictures").iterdir()) == sorted(figures), "nothing half-written is left"
    assert imread(run / "pictures" / "training.png").shape[1] == 1005, "85 mm at 300 dots an inch"
    assert imread(run / "pictures" / "attributes-test1.png").shape[1] == 2100
    assert all(path.read_bytes().startswith(b"%PDF") for path in figures if path.suffix == ".pdf")
    page = (run / "report.html").read_text(encoding="utf-8")
    addresses = re.findall(r"""(?:src|href|action|data|poster)\s*=\s*["']?([^"'\s>]+)""", page)
    assert len(addresses) == len(names) + 1, "every picture, and an icon that nothing is fetched for"
    assert all(address.startswith("data:") for address in addresses)
    assert not re.search(r"<script|@import|url\(|https?:|<link(?! rel=\"icon\" href=\"data:,\")", page)


def test_the_page_tells_every_figure(run: Path) -> None:
    page = page_of(run)
    metrics = json.loads((run / "evaluation" / "test1.json").read_text())
    keys = ("macro_f1", "uar", "accuracy", "weighted_f1", "ccc_arousal", "ccc_valence", "ccc_dominance", "mean_ccc")
    assert f"test1 classes 24, attributes 28 {' '.join(f'{metrics[key]:.3f}' for key in keys)}" in page
    for name, row in metrics["per_class"].items():
        cells = " ".join(f"{row[key]:.3f}" for key in ("precision", "recall", "f1"))
        assert f"{name} head {cells} {row['support']}" in page, "every class has a share of 1/8"
    head = metrics["groups"]["head"]
    assert f"mean of head 8 classes {head['recall']:.3f} {head['macro_f1']:.3f} mean of mid 0 classes – –" in page
    for gender, row in metrics["by_gender"].items():
        counts = f"{show_labelled(row)} {len(row['classes'])} of 8"
        assert f"{gender} {counts} {' '.join(f'{row[key]:.3f}' for key in keys)}" in page
    provenance = json.loads((run / "checkpoints" / "best" / "provenance.json").read_text())
    for text in (provenance["data_sha256"], f"torch {provenance['packages']['torch']}", 'loss_type = "Weighted'):
        assert text in page
    assert "Training ended after 2 of at most 2 epochs" in page
    assert "all 2 epochs used" in page
    assert "RANDOM weights: the upstream wavlm-tiny-random was not pre-trained." in page
    assert "SYNTHETIC" not in page


def test_synthetic_data_and_names_in_markup_cannot_be_overlooked_or_believed(run: Path) -> None:
    toml = run / "experiment.toml"
    toml.write_text(toml.read_text().replace("synthetic_corpora = []", 'synthetic_corpora = ["P"]'))
    for path in (run / "predictions" / "test1.csv", run / "checkpoints" / "best" / "config.json"):
        path.write_text(path.read_text().replace("angry", "<b>").replace("sad", "R&D").replace("happy", "NA"))
    assert "SYNTHETIC data: P." in page_of(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert '<th scope="row">&lt;b&gt;</th>' in page
    assert '<th scope="row">R&amp;D</th>' in page
    assert re.search(r'<th scope="row">NA</th>.*<td>3</td></tr>', page), (
        "a class may be called what pandas takes for none"
    )


def test_a_run_that_was_not_evaluated_shows_development(run: Path) -> None:
    (run / "predictions" / "test1.csv").unlink()
    page = page_of(run)
    assert "No test split has been evaluated yet" in page
    assert "test1" not in page.replace("--test", "")
    metrics = json.loads((run / "checkpoints" / "best" / "metrics.json").read_text())["development"]
    assert f"{metrics['macro_f1']:.3f} {metrics['uar']:.3f}" in page
    assert f"angry head {metrics['per_class']['angry']['precision']:.3f}" in page


def test_a_training_that_goes_on_is_reported_as_far_as_it_is(run: Path) -> None:
    (run / "result.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "train_lo')
    (run / "predictions" / "test1.csv").write_text("")
    page = page_of(run)
    assert "Training has not finished: after epoch 2: still training, or interrupted (at most 2)." in page
    assert "line 3 of metrics.jsonl cannot be read and is left out" in page
    assert "predictions/test1.csv cannot be used" in page


def test_a_run_without_an_epoch_has_a_page_and_no_picture(run: Path) -> None:
    for name in ("predictions", "checkpoints", "evaluation"):
        shutil.rmtree(run / name)
    for name in ("result.json", "metrics.jsonl"):
        (run / name).unlink()
    assert report.draw_figures(run) == []
    page = page_of(run)
    assert "no epoch has ended yet" in page
    assert "There are no predictions yet." in page


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "experiment.toml").write_text("[experiment")
    assert report.main([str(tmp_path), str(tmp_path / "nowhere"), str(tmp_path / "damaged")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second, third = captured.err.splitlines()
    assert (
        first == f"{tmp_path} is not a run: it has no experiment.toml; name a folder such as runs/<experiment>/seed-<n>"
    )
    assert "nowhere is not a run" in second
    assert "damaged/experiment.toml cannot be read" in third
