"""The upstream's published numbers in the life of a run: stored, compared, evaluated without the upstream."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tomli_w
from transformers import PreTrainedModel

import main as program
from experiment_runner.storage.stored_experiment import read_experiment
from tests.support.experiment_files import BASE, write_files
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.config.regularisation import FORMER_REGULARISATION, REGULARISATION
from utils.hub.upstreams import load_upstream
from utils.io.files import read_toml

NUMBERS = FORMER_REGULARISATION._replace(layerdrop=0.25, mask_time_prob=0.075)


class Experiment:
    """One experiment on an upstream of its own."""

    def __init__(self, folder: Path, podcast: SyntheticPodcast, keys: str = "") -> None:
        self.upstream, self.run = folder / "upstream", folder / "runs" / "one" / "seed-42"
        encoder: PreTrainedModel = load_upstream("wavlm-tiny-random", NUMBERS._asdict()).encoder
        encoder.save_pretrained(self.upstream)
        self.folder, self.podcast = folder, podcast
        self.write(keys)

    def write(self, keys: str = "") -> None:
        """Write the list anew."""
        own = f'epoch = 1, min_epochs = 1, normalize = "none", upstream_model = "{self.upstream}"'
        listed = f'[[experiments]]\nname = "one"\nconfig_update = {{ {own}{keys} }}\n'
        self.arguments = write_files(self.folder, self.podcast, listed, BASE)

    def publish(self, **numbers: object) -> None:
        """Let the upstream publish other numbers."""
        path = self.upstream / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **numbers}))

    def store(self, *left_out: str, **numbers: object) -> None:
        """Change what the run has stored."""
        document = read_toml(self.run / "experiment.toml")
        document["experiment"] |= numbers
        for key in left_out:
            del document["experiment"][key]
        (self.run / "experiment.toml").write_text(tomli_w.dumps(document))


def test_numbers_are_stored_and_only_another_number_refuses_a_run(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Experiment(tmp_path, podcast)
    assert program.main(one.arguments) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "layerdrop 0.25, masks 0.075 x 10 frames" in told
    stored = read_toml(one.run / "experiment.toml")["experiment"]
    assert {key: stored[key] for key in REGULARISATION} == NUMBERS._asdict()
    model = json.loads((one.run / "checkpoints" / "best" / "config.json").read_text())
    assert model["upstream"]["layerdrop"] == 0.25

    one.write(", layerdrop = 0.25")  # the same number, written
    assert program.main(one.arguments) == 0
    assert "finished before" in capsys.readouterr().out

    one.write()
    one.publish(layerdrop=0.5, hidden_dropout=0.2)
    for command in (one.arguments, [*one.arguments, "--test"]):
        assert program.main(command) == 1
        told = capsys.readouterr().out
        assert "has changed since: hidden_dropout 0.1 -> 0.2; layerdrop 0.25 -> 0.5; give" in " ".join(told.split())

    one.publish(apply_spec_augment=False, layerdrop=0.25, hidden_dropout=0.1)
    assert program.main(one.arguments) == 1
    assert "has changed since: mask_time_prob 0.075 -> 0.0; give" in " ".join(capsys.readouterr().out.split())


def test_a_run_of_before_is_the_same_run_where_the_upstream_publishes_the_former_numbers(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Experiment(tmp_path, podcast)
    one.publish(**FORMER_REGULARISATION._asdict())
    assert program.main(one.arguments) == 0
    one.store("attention_init", "mask_time_length")
    capsys.readouterr()
    assert program.main([*one.arguments, "--test"]) == 0
    assert program.main(one.arguments) == 0
    assert "finished before" in capsys.readouterr().out
    assert read_experiment(one.run).config.regularisation == FORMER_REGULARISATION
    one.store(freeze="upstream", layerdrop=0.1)  # was not refused once
    assert read_experiment(one.run).config.layerdrop == 0


@pytest.mark.parametrize("damage", ["absent", "damaged"])
def test_an_evaluation_takes_what_was_stored_where_the_upstream_cannot_be_asked(
    damage: str, podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Experiment(tmp_path, podcast)
    assert program.main(one.arguments) == 0
    if damage == "absent":
        shutil.rmtree(one.upstream)
    else:
        one.publish(layerdrop="x")
    assert program.main([*one.arguments, "--test"]) == 0
    capsys.readouterr()
    assert program.main(one.arguments) == 2  # nothing is trained without knowing
    one.write(", hidden_dropout = 0.3")  # a number that was written is compared all the same
    assert program.main([*one.arguments, "--test"]) == 1
    assert "hidden_dropout 0.1 -> 0.3" in " ".join(capsys.readouterr().out.split())
