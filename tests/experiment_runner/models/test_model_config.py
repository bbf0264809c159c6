from __future__ import annotations

from dataclasses import replace

import pytest

from experiment_runner.models.model_config import ModelConfig
from utils.dataset.normalisation import Normalisation
from utils.hub.upstreams import UPSTREAMS

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
    described = ModelConfig.from_json(replace(PLAIN, genders=("female", "male")).to_json())
    assert described == replace(PLAIN, genders=("female", "male"))
    model = described.rebuild()
    assert model.gender_head is not None
    assert model.gender_head.output.out_features == 2


def test_a_checkpoint_written_before_gender_heads_existed_is_read() -> None:
    document = PLAIN.to_json()
    del document["genders"]
    described = ModelConfig.from_json(document)
    assert described == PLAIN
    assert described.rebuild().gender_head is None


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format_version is 99"):
        ModelConfig.from_json({**PLAIN.to_json(), "format_version": 99})
