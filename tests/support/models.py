"""Models with random weights, as if they had been trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import HubertConfig, Wav2Vec2Config, WavLMConfig

from experiment_runner.models.model_config import ModelConfig
from experiment_runner.publishing.ser_model import SERModel
from utils.dataset.normalisation import Normalisation
from utils.hub.upstreams import UPSTREAMS

SMALL: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    **{"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
}
CONFIGS = {
    "wavlm, layer norm": WavLMConfig(**UPSTREAMS["built_in"]["wavlm-tiny-random"]["config"]),
    "wavlm, group norm": WavLMConfig(**UPSTREAMS["built_in"]["wavlm-tiny-group-random"]["config"]),
    "hubert, group norm": HubertConfig(**SMALL),
    "wav2vec2, layer norm": Wav2Vec2Config(**SMALL, feat_extract_norm="layer", do_stable_layer_norm=True),
}
GENDER = {"gender": ("female", "male")}


def make_model(
    upstream: str,
    layer_weighting: bool = False,
    normalisation: Normalisation = Normalisation("utterance"),  # noqa: B008 - frozen
    auxiliary: Mapping[str, tuple[str, ...]] = GENDER,
) -> SERModel:
    torch.manual_seed(0)
    description = ModelConfig(
        model_type="UpstreamGender",
        classes=("neutral", "happy", "angry"),
        attributes=("arousal", "valence"),
        attribute_scale=(1.0, 7.0),
        class_counts=(3, 2, 1),
        normalisation=normalisation,
        layer_weighting=layer_weighting,
        head_dropout=0.5,
        upstream=json.loads(json.dumps(CONFIGS[upstream].to_dict())),
        auxiliary=auxiliary,
    )
    network = description.rebuild().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return SERModel(network, description, Path("nowhere"))
