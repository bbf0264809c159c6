from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils import ConfigurationError, load_plan
from utils.config.schema import ExperimentConfig, identity_of, with_defaults

CORPORA = '[MSP-PODCAST]\nPATH_TO_LABEL = "labels"\nPATH_TO_AUDIO = "audio"\n'
BASE = '[base_config]\ncorpus = "MSP-PODCAST"\n'
ONE = '[[experiments]]\nname = "a"\n'

BROKEN = {
    "unknown key": (
        CORPORA,
        BASE + "learning_rat = 1e-5\n" + ONE,
        'base_config.learning_rat: unknown key; did you mean "learning_rate"?',
    ),
    "wrong type": (
        CORPORA,
        BASE + 'epoch = "thirty"\n' + ONE,
        'base_config.epoch: found "thirty"; allowed: a whole number >= 1',
    ),
    "boolean for a number": (
        CORPORA,
        BASE + "window = true\n" + ONE,
        "base_config.window: found true; allowed: a whole number >= 1",
    ),
    "out of range": (
        CORPORA,
        BASE + "loss_stop_ratio = 0.9\n" + ONE,
        "base_config.loss_stop_ratio: found 0.9; allowed: a number >= 1",
    ),
    "not a finite number": (
        CORPORA,
        BASE + "learning_rate = inf\n" + ONE,
        "base_config.learning_rate: found inf; allowed: a number > 0",
    ),
    "unknown choice": (
        CORPORA,
        BASE + ONE + 'config_update = { loss_type = "BalancedSofmax" }\n',
        'experiments[0].config_update.loss_type: found "BalancedSofmax"',
    ),
    "unknown corpus": (
        CORPORA,
        BASE.replace("MSP-PODCAST", "MSP-PODCST") + ONE,
        'base_config.corpus: found "MSP-PODCST"; no such corpus; did you mean "MSP-PODCAST"?',
    ),
    "unknown test corpus": (
        CORPORA,
        BASE + 'test_corpora = ["IEMOCAP"]\n' + ONE,
        'base_config.test_corpora: found "IEMOCAP"; no such corpus; known: MSP-PODCAST',
    ),
    "duplicate name": (
        CORPORA,
        BASE + ONE + ONE.replace('"a"', '"A"'),
        'experiments[1].name: "A" is already the name of experiments[0]',
    ),
    "unknown base": (
        CORPORA,
        BASE + ONE + 'config = "bas_config"\n',
        'experiments[0].config: found "bas_config"; no such table in this file; did you mean "base_config"?',
    ),
    "name that leaves the folder": (
        CORPORA,
        BASE + ONE.replace('"a"', '"../a"'),
        'experiments[0].name: found "../a"; allowed: letters, digits',
    ),
    "loss of another task": (
        CORPORA,
        BASE + 'task = "dimensional"\n' + ONE,
        'base_config.loss_type: found "WeightedCrossEntropy"; allowed for task = "dimensional": CCCLoss, MSELoss',
    ),
    "missing corpus key": (CORPORA, "[base_config]\n" + ONE, "base_config.corpus: missing; allowed: text in quotes"),
    "no experiment": (CORPORA, BASE, "experiments: no experiment is listed"),
    "invalid TOML": (CORPORA, "[base_config\n", "is not valid TOML"),
    "missing label path": (
        '[MSP-PODCAST]\nPATH_TO_AUDIO = "audio"\n',
        BASE + ONE,
        'MSP-PODCAST.PATH_TO_LABEL: missing; FORMAT = "msp-podcast" needs it',
    ),
    "unknown corpus format": (
        CORPORA + 'FORMAT = "iemocap"\n',
        BASE + ONE,
        'MSP-PODCAST.FORMAT: found "iemocap"; allowed: "msp-podcast", "emodb", "ravdess", "crema-d", "csv"',
    ),
    "shares beyond one": (
        CORPORA + "split_speakers = { development = 0.5, test1 = 0.5 }\n",
        BASE + ONE,
        "leaves no speaker to train on",
    ),
    "split without development": (
        CORPORA + 'split_speakers = { test1 = ["1"] }\n',
        BASE + ONE,
        "no speakers for the split 'development'",
    ),
    "layerdrop with layer weighting": (
        CORPORA,
        BASE + "layer_weighting = true\nlayerdrop = 0.1\n" + ONE,
        "base_config.layerdrop: found 0.1; allowed here: 0",
    ),
    "unknown key of a table inside": (
        CORPORA,
        BASE + 'class_groups = { head = ["a"], tial = ["b"] }\n' + ONE,
        'base_config.class_groups.tial: unknown key; did you mean "tail"?',
    ),
    "min_epochs beyond epoch": (
        CORPORA,
        BASE + "epoch = 3\nmin_epochs = 4\n" + ONE,
        "base_config.min_epochs: found 4; allowed: at most epoch = 3",
    ),
}


def write(folder: Path, corpora: str, experiments: str) -> tuple[Path, Path]:
    (folder / "config.toml").write_text(corpora)
    (folder / "experiments_config.toml").write_text(experiments)
    return folder / "config.toml", folder / "experiments_config.toml"


@pytest.mark.parametrize("kind", BROKEN)
def test_each_mistake_has_its_message(kind: str, tmp_path: Path) -> None:
    corpora, experiments, expected = BROKEN[kind]
    with pytest.raises(ConfigurationError) as caught:
        load_plan(*write(tmp_path, corpora, experiments))
    assert expected in str(caught.value)
    assert str(tmp_path) in str(caught.value), "the message names the file"


def test_all_mistakes_of_both_files_are_told_at_once(tmp_path: Path) -> None:
    corpora = CORPORA + 'FORMAT = "x"\nPATH_TO_AUDI = "y"\n'
    experiments = BASE + "epoch = 0\nbatch_sise = 3\n" + ONE + "modl = 1\n"
    with pytest.raises(ConfigurationError) as caught:
        load_plan(*write(tmp_path, corpora, experiments))
    assert len(caught.value.problems) == 5
    for key in ("FORMAT", "PATH_TO_AUDI", "epoch", "batch_sise", "modl"):
        assert any(key in problem for problem in caught.value.problems)


def test_a_wrong_key_hides_no_other_problem_of_its_table(tmp_path: Path) -> None:
    text = BASE + '[[experiments]]\nname = 3\nconfig_update = { windw = 1, loss_type = "CCCLoss" }\n'
    with pytest.raises(ConfigurationError) as caught:
        load_plan(*write(tmp_path, CORPORA + '["../x"]\nFORMAT = "emodb"\nPATH_TO_AUDIO = "a"\n', text), only=["3"])
    told = "\n".join(caught.value.problems)
    for part in ("name: found 3", "windw: unknown key", 'loss_type: found "CCCLoss"', "not a corpus name", "--only"):
        assert part in told


def test_a_missing_file_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_plan(tmp_path / "a.toml", tmp_path / "b.toml")
    assert "a.toml: no such file; name another with --config FILE" in caught.value.problems[0]
    assert "b.toml: no such file; name another with --experiments FILE" in caught.value.problems[1]


def test_only_keeps_the_named_and_refuses_the_unknown(tmp_path: Path) -> None:
    files = write(tmp_path, CORPORA, BASE + ONE + '[[experiments]]\nname = "b"\n')
    assert [e.name for e in load_plan(*files, only=["b"]).experiments] == ["b"]
    with pytest.raises(ConfigurationError, match='--only names "c"'):
        load_plan(*files, only=["c"])


def test_updates_override_any_base_and_long_loss_names_are_accepted(tmp_path: Path) -> None:
    text = BASE + '[mine]\ncorpus = "MSP-PODCAST"\nepoch = 7\n' + ONE
    text += 'config = "mine"\nconfig_update = { loss_type = "BalancedSoftmaxLoss", epoch = 8 }\n'
    (experiment,) = load_plan(*write(tmp_path, CORPORA, text)).experiments
    assert (experiment.epoch, experiment.loss_type) == (8, "BalancedSoftmax")


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    plan = load_plan(*write(tmp_path, CORPORA, BASE + ONE))
    assert tmp_path / "audio" == plan.corpora["MSP-PODCAST"].PATH_TO_AUDIO


def test_an_incomplete_base_is_no_mistake(tmp_path: Path) -> None:
    text = '[base_config]\ncorpus = "MSP-PODCAST"\ntask = "dimensional"\n' + ONE
    text += 'config_update = { loss_type = "CCCLoss" }\n'
    assert load_plan(*write(tmp_path, CORPORA, text)).experiments[0].loss_type == "CCCLoss"


def test_keys_that_cannot_change_a_result_are_not_part_of_a_runs_identity() -> None:
    one = ExperimentConfig(name="a", corpus="c", eval_batch_seconds=1, num_workers=3, seeds=(1, 2), test_corpora=("d",))
    other = ExperimentConfig(name="a", corpus="c")
    assert one.run_identity() == other.run_identity()
    assert ExperimentConfig(name="a", corpus="c", window=4).run_identity() != other.run_identity()


def test_a_broken_file_is_answered_in_under_a_second_without_torch(tmp_path: Path) -> None:
    files = write(tmp_path, CORPORA, BASE + "epoch = 0\n" + ONE)
    command = [sys.executable, "-X", "importtime", "main.py", "--check", "--config", str(files[0])]
    started = time.perf_counter()
    done = subprocess.run([*command, "--experiments", str(files[1])], cwd=ROOT, capture_output=True, text=True)
    assert time.perf_counter() - started < 1
    assert done.returncode == 2
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "pydantic" in imported
    assert imported.isdisjoint({"torch", "pandas", "transformers"})


def test_the_generated_documentation_is_up_to_date() -> None:
    from utils.config.docs import TARGET, render

    assert TARGET.read_text(encoding="utf-8") == render(), "run `python -m utils.config.docs`"
    assert all(field.description for field in ExperimentConfig.model_fields.values())


def test_a_run_stored_before_a_key_existed_is_the_same_run() -> None:
    stored = ExperimentConfig(name="a", corpus="c", epoch=3).model_dump(mode="json", exclude_none=True)
    for key in ("gender_loss_weight", "tracking", "tags", "model_type"):
        del stored[key]
    assert identity_of(with_defaults(stored)) == ExperimentConfig(name="a", corpus="c", epoch=3).run_identity()
    assert identity_of(with_defaults(stored)) != ExperimentConfig(name="a", corpus="c", epoch=4).run_identity()


@pytest.mark.parametrize(
    ("key", "value"), [("wandb_project", "a/b/c"), ("wandb_project", "entity/"), ("tags", [""]), ("tags", ["x" * 65])]
)
def test_what_the_tracker_would_refuse_is_refused_here(tmp_path: Path, key: str, value: object) -> None:
    (tmp_path / "config.toml").write_text('[P]\nPATH_TO_AUDIO = "a"\nPATH_TO_LABEL = "b"\n')
    (tmp_path / "experiments.toml").write_text(
        f'[base_config]\ncorpus = "P"\n{key} = {json.dumps(value)}\n[[experiments]]\nname = "one"\n'
    )
    with pytest.raises(ConfigurationError, match=f"base_config.{key}: found"):
        load_plan(tmp_path / "config.toml", tmp_path / "experiments.toml")
