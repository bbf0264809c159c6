from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import tomli_w
from matplotlib.image import imread
from sklearn.metrics import f1_score

from experiment_runner.reporting import report
from experiment_runner.reporting.report_contents import (
    MOST_MISTAKES,
    attribute_errors,
    changed_keys,
    class_mistakes,
    findings_of,
)
from experiment_runner.results.split_metrics import metrics_from_predictions
from experiment_runner.storage.stored_run import read_run
from tests.support.predictions import ATTRIBUTES, FOUR, predict
from tests.support.voices import voice
from utils.config.regularisation import FORMER_REGULARISATION
from utils.config.schema import ExperimentConfig

DATE = 1_790_000_000  # a moment of 2026-09-21


def write_run(folder: Path, splits: dict[str, pd.DataFrame], **keys: object) -> Path:
    """A run's folder as far as a report needs it."""
    config = ExperimentConfig.model_validate({"name": "An-Experiment", "corpus": "MINE", "task": "multitask", **keys})
    experiment = config.model_dump(mode="json", exclude_none=True)
    (folder / "predictions").mkdir(parents=True)
    (folder / "experiment.toml").write_text(tomli_w.dumps({"experiment": experiment, "resolved": {"seed": 7}}))
    for split, predictions in splits.items():
        path = folder / "predictions" / f"{split}.csv"
        predictions.to_csv(path, index=False)
        os.utime(path, (DATE, DATE))
    return folder


def write_corpus(folder: Path, files: Sequence[str], name: str = "MINE") -> Path:
    """A corpus with recordings of these names; return its `config.toml`."""
    audio = folder / f"recordings of {name} & more"
    for file in files:
        (audio / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(audio / file, voice(0.1), 16_000)
    splits = ["train", "development", "test1"]
    rows = {"file": list(files), "split": [splits[place % 3] for place in range(len(files))], "emotion": "angry"}
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    section = {"FORMAT": "csv", "PATH_TO_LABEL": str(folder / f"{name}.csv"), "PATH_TO_AUDIO": str(audio)}
    (folder / "config.toml").write_text(tomli_w.dumps({name: section}))
    return folder / "config.toml"


def page_of(folder: Path) -> str:
    """The page as a browser shows its text."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.split("<body>")[1])).split())


def test_the_verdict_says_figures_n_and_chance() -> None:
    predictions = predict(FOUR, 300)
    metrics = metrics_from_predictions(predictions, {})
    classes, attributes = findings_of(predictions, metrics)
    assert classes.metrics == f"macro-F1 {metrics['macro_f1']:.3f}, UAR {metrics['uar']:.3f}"
    always = f1_score(predictions["label"].dropna(), ["neutral"] * 299, average="macro", labels=FOUR, zero_division=0)
    assert f'always predicting "neutral" gives macro-F1 {always:.3f}, UAR 0.250 and accuracy' in classes.chance
    assert classes.basis == "299 labelled utterances, 4 classes", "one has no label"
    assert attributes.metrics == f"mean CCC {metrics['mean_ccc']:.3f}"
    assert attributes.basis == "arousal 300, valence 299, dominance 300 rated utterances"
    fewer = predictions.assign(valence=predictions["valence"].where(predictions.index < 5), dominance=3.3)
    _, attributes = findings_of(fewer, metrics_from_predictions(fewer, {}))
    assert attributes.basis == "arousal 300, valence 4, dominance 300 rated utterances"
    nobody = predictions.assign(label=np.nan, **dict.fromkeys(ATTRIBUTES, np.nan))
    assert findings_of(nobody, metrics_from_predictions(nobody, {})) == []


def test_the_surest_mistakes_come_first_and_nothing_right_or_unlabelled_is_among_them() -> None:
    predictions = predict(FOUR, 300)
    found = class_mistakes(predictions, {"3.wav": "file:///3.wav"})
    assert len(found) == MOST_MISTAKES
    by_file = predictions.set_index("file")
    wrong = by_file[by_file["label"].notna() & (by_file["label"] != by_file["prediction"])]
    sizes = wrong[[f"prob_{name}" for name in FOUR]].max(axis=1).sort_values(ascending=False)
    assert [one.size for one in found] == pytest.approx(list(sizes[:MOST_MISTAKES]))
    for one in found:
        row = by_file.loc[one.file]
        assert (one.truth, one.prediction) == (row["label"], row["prediction"])
        assert one.size == row[f"prob_{one.prediction}"]
        assert one.truth != one.prediction
    assert class_mistakes(predictions.assign(prediction=predictions["label"]), {}) == []


def test_the_largest_errors_of_attributes_come_first() -> None:
    predictions = predict(FOUR, 300)
    found = attribute_errors(predictions, {})
    every = {
        (file, name): abs(truth - guess)
        for name in ATTRIBUTES
        for file, truth, guess in predictions[["file", name, f"pred_{name}"]].itertuples(index=False, name=None)
        if not np.isnan(truth)
    }
    assert [one.size for one in found] == pytest.approx(sorted(every.values(), reverse=True)[:MOST_MISTAKES])
    assert all(every[one.file, one.subject] == one.size for one in found)
    assert attribute_errors(predictions.drop(columns=[f"pred_{name}" for name in ATTRIBUTES]), {}) == []


def as_stored(keys: dict[str, Any], published: dict[str, float]) -> dict[str, Any]:
    """Return an experiment as a run's folder holds it: what is left to the upstream in its numbers."""
    numbers = {**FORMER_REGULARISATION._asdict(), **published}
    return ExperimentConfig.model_validate({**numbers, **keys}).model_dump(mode="json", exclude_none=True)


def test_changed_keys_are_those_that_differ_from_their_defaults() -> None:
    keys = {"name": "A", "corpus": "C", "upstream_model": "wavlm-tiny-random"}
    published = {"layerdrop": 0.05, "hidden_dropout": 0.0}
    stored = as_stored({**keys, "epoch": 7, "seeds": [42, 43], "layerdrop": 0.1}, published)
    changed = changed_keys(stored, published)
    assert changed["epoch"] == (7, ExperimentConfig.model_fields["epoch"].default)
    assert changed["name"] == ("A", "(none)")
    assert changed["layerdrop"] == (0.1, 0.05)
    assert set(changed) == {"name", "corpus", "upstream_model", "epoch", "seeds", "layerdrop"}
    assert changed_keys({**stored, "a_key_of_later": 3}, published)["a_key_of_later"] == (3, "(none)")
    former = as_stored({**keys, "hidden_dropout": 0.0}, FORMER_REGULARISATION._asdict())
    assert changed_keys(former, {})["hidden_dropout"] == (0.0, 0.1)


def test_the_page_begins_with_the_verdict_and_lists_changed_keys_before_all(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"development": predict(FOUR, 60), "test1": predict(FOUR, 90)}, epoch=7)
    assert report.main([str(run)]) == 0
    page = page_of(run)
    parts = [
        "test1: macro-F1",
        "89 labelled utterances",
        "always predicting",
        "2026-09-21",
        "test1: mean CCC",
        "Results",
    ]
    parts += ["Pictures", "Mistakes", "test1: classes", "Classes", "Changed from the defaults", "epoch = 7 default"]
    parts += ["All keys", "Provenance"]
    places = [page.index(part) for part in parts]
    assert places == sorted(places), list(zip(parts, places, strict=True))
    assert "development: macro-F1" not in page, "what selected the model is no verdict where tests are"
    assert "<audio" not in (run / "report.html").read_text(encoding="utf-8")


def test_without_tests_the_verdict_is_on_development(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"development": predict(FOUR, 60)})
    report.write_report(run, figures=())
    assert "development: macro-F1" in page_of(run)
    assert page_of(run).index("development: macro-F1") < page_of(run).index("Results")


def test_every_picture_says_what_it_is_of(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", {"test1": predict(FOUR, 90)}))
    titles = {
        name: [text.get_text() for text in figure.texts if text.get_gid() == "title"]
        for name, figure in report._figures(run)
    }
    assert set(titles) == {"confusion-test1", "attributes-test1"}
    for (title,) in titles.values():
        assert "An-Experiment, seed 7: test1, n = " in title
    assert "n = 89" in titles["confusion-test1"][0], "one has no label"
    assert "n = 90" in titles["attributes-test1"][0]


def test_fourteen_classes_take_a_wide_picture(tmp_path: Path) -> None:
    classes = tuple(f"class {number:02} of many" for number in range(14))
    run = write_run(tmp_path / "run", {"test1": predict(classes, 400)}, task="categorical")
    assert report.main([str(run)]) == 0
    assert imread(run / "pictures" / "confusion-test1.png").shape[1] >= 2100
    assert '<figure class="attributes">' in (run / "report.html").read_text(encoding="utf-8")


def test_recordings_play_from_where_they_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = predict(FOUR, 90)
    files = [f"a folder/{file}" for file in predictions["file"]]
    run = write_run(tmp_path / "run", {"test1": predictions.assign(file=files)})
    corpora = write_corpus(tmp_path, files[:60])
    assert report.main([str(run), "--with-audio", "--config", str(corpora)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    addresses = [html.unescape(found) for found in re.findall(r'<audio controls preload="none" src="([^"]*)">', page)]
    assert addresses
    assert all(address.startswith("file:///") and "%20" in address for address in addresses)
    listed = re.findall(r'<th scope="row">([^<]*\.wav)', page)
    assert len(listed) == 2 * MOST_MISTAKES
    assert len(addresses) == sum(file in files[:60] for file in listed), "one a recording that is there"
    assert not list(run.rglob("*.wav")), "nothing is copied"
    assert report.main([str(run)]) == 0
    assert "<audio" not in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "with_files", "sentence"),
    [
        ("OTHER", True, "config.toml has no corpus MINE; name the file that has it with --config FILE"),
        ("MINE", False, "MINE: no recording was found below"),
    ],
)
def test_recordings_that_cannot_be_found_are_one_sentence(
    name: str, with_files: bool, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = predict(FOUR, 20)
    run = write_run(tmp_path / "run", {"test1": predictions})
    corpora = write_corpus(tmp_path, list(predictions["file"]), name)
    for path in () if with_files else tmp_path.rglob("*.wav"):
        path.unlink()
    assert report.main([str(run), "--with-audio", "--config", str(corpora)]) == 1
    assert sentence in capsys.readouterr().err
    assert not (run / "report.html").exists()


def test_a_list_that_is_missing_is_told_with_its_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", {"test1": predict(FOUR, 20)})
    assert report.main([str(run), "--with-audio", "--config", str(tmp_path / "nowhere.toml")]) == 1
    assert "nowhere.toml" in capsys.readouterr().err
