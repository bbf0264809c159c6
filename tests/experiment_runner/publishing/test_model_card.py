"""The model card of a run that was trained and evaluated, as the hub and a stranger without this project read it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from huggingface_hub import ModelCard, ModelCardData

import main as program
from experiment_runner.publishing.model_card import Card, make_card
from experiment_runner.publishing.model_card_snippet import complete_snippet
from experiment_runner.reporting.pages import in_markdown
from experiment_runner.results.row_counts import show_labelled
from experiment_runner.storage.run_folder import RunError
from tests.support.experiment_files import write_files
from tests.support.synthetic_podcast import SyntheticPodcast

REPO = "somebody/speech-emotion"
EXPERIMENT = """
[[experiments]]
name = "one"
model_type = "UpstreamGender"

[experiments.config_update]
task = "multitask"
seeds = [1]
layer_weighting = true
normalize = "corpus"
"""
TITLES = {
    "macro_f1": "macro-F1",
    "uar": "UAR",
    "accuracy": "accuracy",
    "ccc_arousal": "CCC arousal",
    "ccc_valence": "CCC valence",
    "ccc_dominance": "CCC dominance",
}


@pytest.fixture(scope="module")
def evaluated(podcast: SyntheticPodcast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    arguments = write_files(folder, podcast, EXPERIMENT)
    assert program.main(arguments) == program.main([*arguments, "--test"]) == 0
    return folder / "runs" / "one" / "seed-1"


@pytest.fixture(scope="module")
def card(evaluated: Path) -> Card:
    return make_card(evaluated, REPO)


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / "seed-1", symlinks=True))


def metadata_of(text: str) -> ModelCardData:
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    return data


def metrics_of(run: Path, split: str) -> dict[str, Any]:
    if split == "development":
        document: dict[str, Any] = json.loads((run / "checkpoints" / "best" / "metrics.json").read_text())
        return dict(document["development"])
    return dict(json.loads((run / "evaluation" / f"{split}.json").read_text()))


def shown(value: float | int | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The cells of the tables below a heading, up to the next one."""
    section = text.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]


def test_the_metadata_holds_every_figure_as_it_was_evaluated(card: Card, evaluated: Path) -> None:
    data = metadata_of(card.text)
    assert (data.library_name, data.pipeline_tag) == ("200ai", "audio-classification")
    assert data.tags == ["speech-emotion-recognition", "wavlm", "200ai"]
    assert data.model_name == "speech-emotion"
    assert {data.base_model, data.language, data.license, data.get("datasets")} == {None}, "nobody knows any of them"
    found = {(result.dataset_split, result.metric_name): result.metric_value for result in data.eval_results or []}
    expected = {
        (split, title): metrics_of(evaluated, split)[key]
        for split in ("test1", "test2")
        for key, title in TITLES.items()
    }
    assert found == expected
    assert {(result.dataset_name, result.dataset_revision) for result in data.eval_results or []} == {
        ("P", "1.10 or later")
    }


@pytest.mark.parametrize("split", ["test1", "test2"])
def test_every_number_of_the_tables_is_that_of_the_evaluation(card: Card, evaluated: Path, split: str) -> None:
    metrics = metrics_of(evaluated, split)
    keys = [*list(TITLES)[:3], "weighted_f1", *list(TITLES)[3:], "mean_ccc", "gender_accuracy"]
    rows = {row[0]: row[1:] for row in rows_of(card.text, "## Results")}
    assert rows["split"][1:4] == ["macro-F1", "UAR", "accuracy"]
    assert rows[split] == ["classes 24, attributes 28", *(shown(metrics[key]) for key in keys)]
    classes = [
        [name, "head", *(shown(row[key]) for key in ("precision", "recall", "f1", "support"))]
        for name, row in metrics["per_class"].items()
    ]
    groups = [
        [name, shown(len(row["classes"])), shown(row["macro_f1"]), shown(row["recall"])]
        for name, row in metrics["groups"].items()
    ]
    found = rows_of(card.text, f"### Classes, {split}")
    assert found[2 : 2 + len(classes)] == classes, "every class has a share of 1/8"
    assert found[4 + len(classes) :] == groups
    genders = [
        [name, show_labelled(row), f"{len(row['classes'])} of 8", *(shown(row[key]) for key in keys[:-1])]
        for name, row in metrics["by_gender"].items()
    ]
    assert rows_of(card.text, f"### Genders, {split}")[2:] == genders


def test_the_data_are_counted_by_split(card: Card, podcast: SyntheticPodcast) -> None:
    rows = podcast.rows[podcast.rows["SpkrID"] != "Unknown"]
    speakers = rows.groupby(rows["Split_Set"].str.lower())["SpkrID"].nunique()
    found = rows_of(card.text, "## Data")[2:]
    assert found == [
        [split, "28", "24", str(speakers[split]), "0"] for split in ("train", "development", "test1", "test2")
    ]


def test_the_pictures_are_those_that_the_text_shows(card: Card, evaluated: Path) -> None:
    shown_names = re.findall(r"!\[[^]]*\]\(([^)]+)\)", card.text)
    assert shown_names == list(card.figures)
    assert set(shown_names) >= {"pictures/confusion-test1.png", "pictures/confusion-test2.png"}
    assert all(path == evaluated / name and path.is_file() for name, path in card.figures.items())


@pytest.mark.slow
def test_a_stranger_s_program_says_what_was_evaluated(
    card: Card, evaluated: Path, podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", card.text, flags=re.DOTALL)
    assert code == complete_snippet(REPO)
    shutil.copytree(evaluated / "checkpoints" / "best", tmp_path / REPO)  # the repository's name is a folder here
    expected = pd.read_csv(evaluated / "predictions" / "test1.csv").iloc[3]
    shutil.copy(podcast.audio / str(expected["file"]), tmp_path / "speech.wav")
    (tmp_path / "program.py").write_text(f"import sys\n{code}assert 'net' not in sys.modules\n", encoding="utf-8")
    command = [sys.executable, "-I", "-W", "ignore", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {name: float(value) for name, value in map(str.split, done.stdout.splitlines())}
    columns = [name for name in expected.index if str(name).startswith(("prob_", "pred_"))]
    names = [str(name).partition("_")[2] for name in columns]
    assert list(found) == [*names, "female", "male"], "in the order of the outputs"
    assert [found[name] for name in names] == pytest.approx([float(expected[name]) for name in columns], abs=1e-5)
    assert max(("female", "male"), key=found.__getitem__) == expected["gender_prediction"]


def test_nothing_of_the_machine_stands_in_it(
    evaluated: Path, podcast: SyntheticPodcast, monkeypatch: pytest.MonkeyPatch, run: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    experiment = run / "experiment.toml"
    text = experiment.read_text()
    for old, new in (
        ('upstream_model = "wavlm-tiny-random"', 'upstream_model = "/srv/secret/upstream"'),
        ("built-in shape wavlm-tiny-random with RANDOM weights", "/srv/secret/upstream"),
        ("fp32:", "hf_abcdefghijklmnop:"),
        ("[experiment]", '[experiment]\naugment_noise = "/srv/secret/noise"\naugment_noise_prob = 0.5'),
    ):
        assert old in text
        text = text.replace(old, new)
    experiment.write_text(text)
    card = make_card(run, REPO).text
    assert r"| precision | \<HF\_TOKEN\> |" in card
    assert "noise in 50% at 5 to 20 dB: recordings" in card
    assert "a speech encoder from a local folder" in card
    private = [run, evaluated, podcast.audio, Path.home(), Path(sys.prefix), "/srv", "hf_abcdefghijklmnop"]
    private += [json.loads((run / "checkpoints/best/provenance.json").read_text())["platform"]]
    private += [Path(name).stem for name in podcast.rows["FileName"]]
    assert [str(name) for name in private if str(name) in card] == []


def test_random_weights_and_synthetic_data_are_said_at_the_top(card: Card, run: Path) -> None:
    warning = "\n\n> [!WARNING]\n> **RANDOM weights: the upstream wavlm-tiny-random was not pre-trained.**\n"
    assert f"# speech-emotion{warning}" in card.text
    assert "SYNTHETIC" not in card.text
    assert "MSP-PODCAST" not in card.text, "another corpus has another licence"
    toml = run / "experiment.toml"
    toml.write_text(toml.read_text().replace("synthetic_corpora = []", 'synthetic_corpora = ["P"]'))
    synthetic = make_card(run, REPO).text
    assert synthetic.split("# speech-emotion\n\n")[1].startswith("> [!WARNING]\n> **SYNTHETIC data: P.")
    assert {result.dataset_name for result in metadata_of(synthetic).eval_results or []} == {"P (SYNTHETIC)"}


def test_a_run_that_was_not_evaluated_says_so_and_shows_development(run: Path) -> None:
    shutil.rmtree(run / "evaluation")
    card = make_card(run, REPO)
    assert "**No test split has been evaluated.**" in card.text
    assert metadata_of(card.text).eval_results is None
    assert "model-index" not in card.text
    metrics = metrics_of(run, "development")
    (row,) = [row for row in rows_of(card.text, "## Results") if row[0].startswith("development")]
    assert row[:3] == ["development (used for selection)", "classes 24, attributes 28", shown(metrics["macro_f1"])]
    found = rows_of(card.text, "### Classes, development (used for selection)")
    assert found[2][2] == shown(metrics["per_class"]["angry"]["precision"])
    assert list(card.figures) == ["pictures/confusion-development.png"]


def test_what_is_known_is_told(run: Path) -> None:
    provenance = run / "checkpoints" / "best" / "provenance.json"
    known = {"upstream_id": "microsoft/wavlm-base", "upstream_revision": "abc123"}
    provenance.write_text(json.dumps({**json.loads(provenance.read_text()), **known}))
    toml = run / "experiment.toml"
    toml.write_text(toml.read_text().replace('corpus = "P"', 'corpus = "MSP-PODCAST"'))
    card = make_card(run, REPO, license_id="cc-by-nc-4.0").text
    data = metadata_of(card)
    assert (data.base_model, data.language, data.license) == ("microsoft/wavlm-base", "en", "cc-by-nc-4.0")
    assert "The academic licence of MSP-PODCAST forbids passing its data on." in card
    for text in ("speech of podcasts, English", "revision `abc123`", "published under `cc-by-nc-4.0`"):
        assert text in card


def test_the_run_folder_is_only_read(evaluated: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in evaluated.rglob("*")}
    make_card(evaluated, REPO)
    assert {path: path.stat().st_mtime_ns for path in evaluated.rglob("*")} == before


def test_what_cannot_have_a_card_is_one_sentence(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        make_card(tmp_path / "nowhere", REPO)
    with pytest.raises(RunError, match='"a b" cannot be a repository of the hub'):
        make_card(run, "a b")
    (run / "evaluation" / "test1.json").write_text("{}")
    with pytest.raises(RunError, match=r"test1.json cannot be read .* main.py --test"):
        make_card(run, REPO)
    (run / "result.json").unlink()
    with pytest.raises(RunError, match="its training has not finished"):
        make_card(run, REPO)


def test_names_are_shown_and_not_believed() -> None:
    assert in_markdown("a|b <b> *x* [y](z) `c`\nd") == r"a\|b \<b\> \*x\* \[y\](z) \`c\` d"
