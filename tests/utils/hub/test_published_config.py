"""What stands for `"upstream"`: the numbers of its own `config.json`, against transformers' config objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, HubertConfig, PreTrainedConfig, Wav2Vec2Config, WavLMConfig

from utils.config.loading import load_plan
from utils.config.regularisation import FORMER_REGULARISATION, REGULARISATION
from utils.config.schema import ExperimentConfig, identity_of, with_defaults
from utils.errors import ConfigurationError
from utils.hub.published_config import published_numbers, resolve_regularisation
from utils.hub.upstreams import UPSTREAMS, UpstreamError

BASE_PLUS: dict[str, Any] = {
    **{"hidden_dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.0, "feat_proj_dropout": 0.1},
    **{"layerdrop": 0.05, "mask_time_prob": 0.05, "mask_time_length": 10},
    **{"mask_feature_prob": 0.0, "mask_feature_length": 10},
}
"""Of microsoft/wavlm-base-plus; github.com/ngclara07/CM3070-Final-Project, commit 630dab6, has its config.json."""
PUBLISHED: dict[str, PreTrainedConfig] = {
    "wavlm-base-plus": WavLMConfig(**BASE_PLUS),
    "more masks": HubertConfig(mask_time_prob=0.075, mask_feature_prob=0.1, mask_feature_length=64, layerdrop=0.0),
    "whole numbers": Wav2Vec2Config(hidden_dropout=0, layerdrop=0, mask_time_length=5),
}


def experiment(folder: Path | str, **keys: object) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"name": "one", "corpus": "P", "upstream_model": str(folder), **keys})


def write(folder: Path, document: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_are_those_that_the_upstream_was_saved_with(name: str, tmp_path: Path) -> None:
    PUBLISHED[name].save_pretrained(tmp_path)
    numbers = resolve_regularisation(experiment(tmp_path)).config.regularisation
    assert numbers._asdict() == {key: getattr(PUBLISHED[name], key) for key in REGULARISATION}


@pytest.mark.parametrize(
    "kind",
    [
        *("wavlm", "hubert", "wav2vec2", "data2vec-audio", "sew", "sew-d"),
        *("unispeech", "unispeech-sat", "wav2vec2-conformer"),
    ],
)
def test_where_the_config_is_silent_transformers_defaults_hold(kind: str, tmp_path: Path) -> None:
    numbers = resolve_regularisation(experiment(write(tmp_path, {"model_type": kind}))).config.regularisation
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert numbers._asdict() == {key: getattr(theirs, key, 0.0) for key in REGULARISATION}


@pytest.mark.parametrize("value", [False, None])
def test_an_upstream_without_spec_augment_has_no_masks_but_those_written(value: object, tmp_path: Path) -> None:
    folder = write(tmp_path, {"model_type": "wavlm", "apply_spec_augment": value, "mask_feature_prob": 0.2})
    numbers = resolve_regularisation(experiment(folder)).config.regularisation
    assert (numbers.mask_time_prob, numbers.mask_feature_prob) == (0, 0)
    written = resolve_regularisation(experiment(folder, mask_time_prob=0.1)).config.regularisation
    assert (written.mask_time_prob, written.mask_feature_prob) == (0.1, 0)


@pytest.mark.parametrize("name", UPSTREAMS["built_in"])
def test_built_in_shapes_keep_their_numbers(name: str) -> None:
    assert resolve_regularisation(experiment(name)).config.regularisation == FORMER_REGULARISATION


def test_written_numbers_stay_and_the_screen_says_which(tmp_path: Path) -> None:
    folder = write(tmp_path, {"model_type": "wavlm", **BASE_PLUS})
    config, notes = resolve_regularisation(experiment(folder, layerdrop=0.2, hidden_dropout=0.0))
    assert config.regularisation == FORMER_REGULARISATION._replace(layerdrop=0.2, hidden_dropout=0.0)
    assert notes == (
        f"one: regularisation from {folder}: dropout 0 hidden, 0.1 attention, 0 activation, 0.1 features, "
        "layerdrop 0.2, masks 0.05 x 10 frames; as written here: hidden_dropout, layerdrop",
    )
    every = experiment(folder, **{**FORMER_REGULARISATION._asdict(), "mask_time_prob": 0.0})
    assert resolve_regularisation(every).notes[0].endswith("layerdrop 0, no masks")
    assert resolve_regularisation(every).notes[0].startswith("one: regularisation as written: dropout 0.1 hidden")


def test_what_an_upstream_publishes_is_known_whatever_is_written(tmp_path: Path) -> None:
    folder = write(tmp_path, {"model_type": "wavlm", **BASE_PLUS})
    left = resolve_regularisation(experiment(folder)).config
    written = resolve_regularisation(experiment(folder, layerdrop=0.2, hidden_dropout=0.0)).config
    assert published_numbers(written) == published_numbers(left) == left.regularisation._asdict()
    frozen = resolve_regularisation(experiment(folder, freeze="upstream", hidden_dropout=0.0)).config
    assert published_numbers(frozen)["layerdrop"] == 0
    assert published_numbers(experiment(tmp_path / "nothing")) == {}


WITHOUT: dict[str, dict[str, object]] = {
    "a skipped layer has no output": {"layer_weighting": True},
    "frozen layers are never skipped": {"freeze": 1},
    "frozen upstream has neither dropout nor layerdrop nor masks": {"freeze": "upstream"},
}


@pytest.mark.parametrize("why", WITHOUT)
def test_a_published_layerdrop_counts_as_0_where_no_layer_is_skipped(why: str, tmp_path: Path) -> None:
    folder = write(tmp_path, {"model_type": "wavlm", **BASE_PLUS})
    config, notes = resolve_regularisation(experiment(folder, **WITHOUT[why]))
    assert config.layerdrop == 0
    assert sum(why in note for note in notes) == 1
    assert sum("layerdrop of 0.05 counts as 0 here" in note for note in notes) == ("frozen upstream" not in why)
    silent = resolve_regularisation(experiment(write(tmp_path, {"layerdrop": 0.0}), **WITHOUT[why])).notes
    assert not any("counts as 0" in note for note in silent)


@pytest.mark.parametrize("keys", WITHOUT.values(), ids=map(str, WITHOUT.values()))
def test_a_written_layerdrop_is_refused_where_no_layer_is_skipped(keys: dict[str, object], tmp_path: Path) -> None:
    def load(layerdrop: object) -> ExperimentConfig:
        table = {"corpus": "P", **keys, "layerdrop": layerdrop}
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        (tmp_path / "config.toml").write_text('[P]\nPATH_TO_AUDIO = "a"\nPATH_TO_LABEL = "b"\n')
        (tmp_path / "list.toml").write_text(f'[base_config]\n{lines}[[experiments]]\nname = "one"\n')
        return load_plan(tmp_path / "config.toml", tmp_path / "list.toml").experiments[0]

    with pytest.raises(ConfigurationError, match=r"base_config.layerdrop: found 0.1; allowed here: 0, because"):
        load(0.1)
    assert (load(0).layerdrop, load("upstream").layerdrop) == (0, "upstream")


WRONG = [
    ("hidden_dropout", "x"),
    ("attention_dropout", None),
    ("activation_dropout", 1.0),
    ("feat_proj_dropout", -0.1),
    ("layerdrop", True),
    ("layerdrop", float("nan")),
    ("mask_time_prob", [0.1]),
    ("mask_time_length", 0),
    ("mask_feature_length", 2.5),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_what_is_no_such_number_is_a_sentence(key: str, value: object, tmp_path: Path) -> None:
    folder = write(tmp_path, {"model_type": "wavlm", key: value})
    with pytest.raises(
        UpstreamError, match=rf"config.json: {key}: found .*; allowed: a (whole )?number >= .*; correct"
    ):
        resolve_regularisation(experiment(folder))
    good = 10 if key.endswith("length") else 0.1
    assert getattr(resolve_regularisation(experiment(folder, **{key: good})).config, key) == good


def test_numbers_are_not_there_before_they_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^layerdrop: not yet read"):
        assert experiment("x", **{**FORMER_REGULARISATION._asdict(), "layerdrop": "upstream"}).regularisation
    with pytest.raises(UpstreamError, match="fetch it with"):
        resolve_regularisation(experiment(tmp_path / "nothing"))


def test_a_frozen_upstreams_regularisation_makes_no_other_run() -> None:
    one, other = (experiment("x", freeze="upstream", hidden_dropout=rate).run_identity() for rate in (0.1, 0.2))
    assert one == other
    assert experiment("x", hidden_dropout=0.1).run_identity() != experiment("x", hidden_dropout=0.2).run_identity()


def test_a_run_stored_before_its_keys_existed_had_the_former_numbers() -> None:
    stored = {"name": "one", "corpus": "P", "upstream_model": "x", "layerdrop": 0.3}
    now = experiment("x", **{**FORMER_REGULARISATION._asdict(), "layerdrop": 0.3})
    assert identity_of(with_defaults(stored)) == now.run_identity()
    assert now.run_identity()["attention_init"] == "uniform"
