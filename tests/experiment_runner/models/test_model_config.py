from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiment_runner.models.model_config import ModelConfig
from tests.support.user_code import Write
from utils.config.encoders import ENCODER
from utils.dataset.normalisation import Normalisation
from utils.hub.upstreams import UPSTREAMS
from utils.io.user_code import UserCodeError, hash_user_code, import_user_code, look_beside

PLAIN = ModelConfig(
    model_type="UpstreamFinetune",
    classes=("angry", "sad"),
    attributes=("arousal",),
    attribute_scale=(1.0, 7.0),
    class_counts=(3, 4),
    normalisation=Normalisation("none"),
    layer_weighting=False,
    head_dropout=0.5,
    upstream=UPSTREAMS["built_in"]["wavlm-tiny-random"]["config"],
)


def test_a_description_is_rebuilt_with_its_heads() -> None:
    trained = replace(PLAIN, auxiliary={"gender": ("female", "male"), "age": ("old", "young", "young adult")})
    document = json.loads(json.dumps(trained.to_json()))
    assert document["genders"] == ["female", "male"], "as in checkpoints of earlier releases"
    assert document["heads"] == {"age": ["old", "young", "young adult"]}
    assert "heads" not in PLAIN.to_json()
    described = ModelConfig.from_json(document)
    assert described == trained
    weights = described.rebuild().state_dict()
    assert [len(weights[f"{name}_head.5.bias"]) for name in ("emotion", "attribute", "gender", "age")] == [2, 1, 2, 3]


def test_a_checkpoint_written_before_gender_heads_existed_is_read() -> None:
    document = PLAIN.to_json()
    del document["genders"]
    described = ModelConfig.from_json(document)
    assert described == PLAIN
    assert not described.rebuild().auxiliary


def test_the_users_encoder_is_named_and_needs_trust(tmp_path: Path, write_module: Write) -> None:
    name = "encoder_of_mine:Mine"
    write_module("encoder_of_mine", "from net.padded_encoder import PaddedEncoder\nclass Mine(PaddedEncoder): pass\n")
    look_beside(tmp_path / "config.toml")
    import_user_code(name, ENCODER.contract)
    described = replace(PLAIN, encoder=name, user_code=hash_user_code([name]))
    assert "encoder" not in PLAIN.to_json()
    assert ModelConfig.from_json(described.to_json()) == described
    with pytest.raises(UserCodeError, match="trust it with --trust encoder_of_mine"):
        described.rebuild()
    assert type(described.rebuild(["encoder_of_mine"]).upstream.runner).__name__ == "Mine"
    with pytest.raises(UserCodeError, match="is not the code that the model was trained with"):
        replace(described, user_code={}).rebuild(["encoder_of_mine"])


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format_version is 99"):
        ModelConfig.from_json({**PLAIN.to_json(), "format_version": 99})
