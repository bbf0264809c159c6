"""Runs that upload themselves, on EMO-DB's recordings, to a local hub that the real client speaks to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest
import torch

from experiment_runner.publishing.ser_model import SERModel
from experiment_runner.storage.checkpoints import CheckpointError
from tests.conftest import ROOT
from tests.support.faulty_server import serve_fault
from tests.support.hub_server import Hub, serve_hub
from tests.support.uploads import PREDICT, TOKEN, UPLOADED, VALIDATE, call
from utils import ConfigurationError
from utils.config.loading import load_plan

LISTED = """
[base_config]
corpus = "EMO-DB"
upstream_model = "wavlm-tiny-random"
freeze = "none"
epoch = 1
min_epochs = 1
learning_rate = 1e-3
tracking = "none"
push_to_hub = "user/ser-{name}"

[[experiments]]
name = "emodb"
"""
MAIN = (ROOT / "main.py", "--device", "cpu", "--experiments", "experiments.toml")


def write_files(folder: Path, emodb_folder: Path, listed: str = LISTED) -> None:
    (folder / "config.toml").write_text(f"[EMO-DB]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '{emodb_folder}'\n")
    (folder / "experiments.toml").write_text(listed)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve_hub(tokens={TOKEN: "user"}) as hub:
        yield hub


@pytest.fixture(scope="module")
def trained(
    hub: Hub, emodb_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CompletedProcess[str]]:
    """The folder that an experiment was trained and evaluated in, and the end of its evaluation."""
    folder = tmp_path_factory.mktemp("publishing")
    write_files(folder, emodb_folder)
    done = call(hub, folder, *MAIN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "emodb seed 42: uploaded: " in done.stdout
    assert not [name for name in hub.files("user/ser-emodb", "main") if name.startswith("evaluation/")]
    return folder, call(hub, folder, *MAIN, "--test")


@pytest.mark.slow
def test_a_run_is_uploaded_whenever_it_has_changed(
    trained: tuple[Path, CompletedProcess[str]], hub: Hub, emodb_folder: Path
) -> None:
    folder, evaluated = trained
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    uploaded = re.findall(
        "emodb seed 42: uploaded: .*/user/ser-emodb: private, revision ([0-9a-f]{40})", evaluated.stdout
    )
    document = json.loads((folder / "runs/emodb/seed-42/published.json").read_text())
    assert uploaded == [document["revision"]]
    files = hub.files("user/ser-emodb", "main")
    assert set(files) > {*UPLOADED, "evaluation/test1.json"}
    stated = call(hub, folder, "-m", "utils.hf_uploader", "runs/emodb/seed-42", "user/ser-emodb", "--license", "mit")
    assert stated.returncode == 0, stated.stderr
    assert "license: mit\n" in hub.files("user/ser-emodb", "main")["README.md"].decode()
    hub.requests.clear()
    for arguments in (MAIN, (*MAIN, "--test")):
        unstated = call(hub, folder, *arguments)
        assert (unstated.returncode, hub.requests) == (0, []), "it is there as it is, and its licence is kept"
        assert (
            f"emodb seed 42: already uploaded, unchanged: {hub.endpoint}/user/ser-emodb, revision " in unstated.stdout
        )
    write_files(folder, emodb_folder, LISTED.replace("push_to_hub", 'license = "mit"\npush_to_hub'))
    hub.requests.clear()
    assert call(hub, folder, *MAIN).returncode == 0
    assert hub.requests == []


@pytest.mark.slow
def test_whoever_downloads_it_predicts_what_the_run_did(
    trained: tuple[Path, CompletedProcess[str]], hub: Hub, emodb_folder: Path, tmp_path: Path
) -> None:
    folder, _ = trained
    run = folder / "runs/emodb/seed-42"
    validated = call(hub, folder, *VALIDATE, run, "user/ser-emodb")
    assert validated.returncode == 0, validated.stdout + validated.stderr
    apart = re.search(r"run's predictions, fp32 on cpu +│ 32 recordings, at most (\S+) apart", validated.stdout)
    assert apart is not None
    print(f"validated: at most {apart[1]} apart")

    stored = pd.read_csv(run / "predictions" / "test1.csv")
    assert call(hub, tmp_path, ROOT / "download_model.py", "user/ser-emodb").returncode == 0
    hub.requests.clear()
    predict = [argument if argument != "user/model" else "user/ser-emodb" for argument in PREDICT]
    found = call(hub, tmp_path, *predict, *(emodb_folder / name for name in stored["file"]))
    assert found.returncode == 0, found.stderr
    assert hub.requests == []
    predicted = pd.read_csv(tmp_path / "out.csv")
    assert predicted["prediction"].tolist() == stored["prediction"].tolist()
    columns = [name for name in stored if str(name).startswith("prob_")]
    difference = np.abs(predicted[columns].to_numpy() - stored[columns].to_numpy()).max()
    print(f"{len(stored)} recordings of EMO-DB: at most {difference:.1e} apart")
    assert difference <= 1e-5

    hub.flip_byte("user/ser-emodb", "model.safetensors")
    flipped = call(hub, folder, *VALIDATE, run, "user/ser-emodb")
    assert flipped.returncode == 1
    assert '"user/ser-emodb" was damaged in transit: model.safetensors' in flipped.stderr


@pytest.mark.slow
def test_no_run_fails_for_the_hub_and_the_same_command_uploads_later(emodb_folder: Path, tmp_path: Path) -> None:
    listed = LISTED.replace('freeze = "none"', 'freeze = "upstream"').replace(
        "[[", 'seeds = [1, 2]\nlicense = "mit"\n[['
    )
    write_files(tmp_path, emodb_folder, listed)
    with serve_hub(tokens={TOKEN: "user"}) as hub:
        refused = call(hub, tmp_path, *MAIN, token="")
        assert refused.returncode == 0, refused.stdout + refused.stderr
        missing = "an upload needs HUGGINGFACE_TOKEN, and none is set; put one with write access into .env"
        assert f"push_to_hub: {missing}" in refused.stdout
        warnings = [line for line in refused.stdout.splitlines() if "not uploaded" in line]
        assert len(warnings) == 2
        assert f"emodb seed 1: not uploaded ({missing}); to do it later: " in warnings[0]
        assert hub.requests == []
        assert warnings[0].endswith("-m utils.hf_uploader runs/emodb/seed-1 user/ser-emodb-seed-1 --license mit")
        with serve_fault("cut") as (endpoint, asked):
            cut = call(hub, tmp_path, "-c", CUT, endpoint, *MAIN)
            assert asked
            assert (cut.returncode, cut.stdout.count("not uploaded")) == (0, 2), cut.stdout + cut.stderr
        done = call(hub, tmp_path, *MAIN)
        assert (done.returncode, done.stdout.count(": uploaded: ")) == (0, 2), done.stdout + done.stderr
        assert set(hub.files("user/ser-emodb-seed-2", "main")) > UPLOADED


CUT = """
import os, runpy, sys
os.environ["HF_ENDPOINT"] = sys.argv.pop(1)
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        (
            LISTED.replace("{name}", "model") + '[[experiments]]\nname = "other"\n',
            'experiments[1].push_to_hub: "user/ser-model" is already used by the experiment "emodb"; write {name} into '
            "it, which stands for the experiment's name",
        ),
        (
            LISTED.replace('"emodb"', '"a+b"'),
            'experiments[0].push_to_hub: "user/ser-a+b" cannot be a repository of the hub: ',
        ),
        (LISTED.replace("user/", ""), "base_config.push_to_hub: "),
    ],
)
def test_repositories_are_judged_before_anything_is_trained(listed: str, problem: str, tmp_path: Path) -> None:
    write_files(tmp_path, tmp_path, listed)
    with pytest.raises(ConfigurationError) as refused:
        load_plan(tmp_path / "config.toml", tmp_path / "experiments.toml")
    assert f"experiments.toml: {problem}" in str(refused.value)


@pytest.mark.slow
def test_a_model_is_saved_and_pushed_as_it_is_now(trained: tuple[Path, CompletedProcess[str]], tmp_path: Path) -> None:
    model = SERModel.from_pretrained(trained[0] / "runs/emodb/seed-42")
    program = "\n".join(
        [
            "import sys, torch",
            "from experiment_runner.publishing.ser_model import SERModel",
            "model = SERModel.from_pretrained(sys.argv[1])",
            "print(model.push_to_hub('user/same', token=sys.argv[2]).url)",
            "model.push_to_hub('user/changed', token=sys.argv[2])",
            "model.save_pretrained('changed')",
            "SERModel.from_pretrained('changed').push_to_hub('user/relative', token=sys.argv[2])",
            "with torch.no_grad():",
            "    model.network.emotion_head[-1].bias += 1",
            "model.save_pretrained('changed')",
            "model.push_to_hub('user/changed', token=sys.argv[2], commit_message='Another')",
        ]
    )
    with serve_hub(tokens={TOKEN: "user"}) as hub:
        done = call(hub, tmp_path, "-c", program, model.folder, TOKEN)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{hub.endpoint}/user/same\n"
        assert set(hub.files("user/same", "main")) > {*UPLOADED, "evaluation/test1.json"}
        assert set(hub.files("user/changed", "main")) - {".gitattributes"} == {
            "config.json",
            "manifest.json",
            "model.safetensors",
        }, "neither card nor figures are those of other weights"
        assert hub.is_private("user/changed")
        assert {"metrics.json", "provenance.json"} < set(hub.files("user/relative", "main"))
    assert {path.name for path in (tmp_path / "changed").iterdir()} == {
        "config.json",
        "manifest.json",
        "model.safetensors",
    }, "what was there of other weights is not"
    changed = SERModel.from_pretrained(tmp_path / "changed")
    for name, tensor in model.network.state_dict().items():
        moved = tensor + 1 if name == "emotion_head.5.bias" else tensor
        assert torch.equal(changed.network.state_dict()[name], moved)
    for inside in ("seed-42", "seed-42/checkpoints/best", "seed-42/mine"):
        with pytest.raises(CheckpointError, match="lies in the run .*/seed-42, which must not change"):
            changed.save_pretrained(trained[0] / "runs/emodb" / inside)
    with pytest.raises(CheckpointError, match="changed is a folder, and folders have no revisions; remove v2"):
        SERModel.from_pretrained(tmp_path / "changed", revision="v2")
