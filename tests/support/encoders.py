"""Small encoders with random weights, and waveforms for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model, WavLMModel

from net.wavlm.packed_encoder import PackedWavLM
from utils.hub.upstreams import UPSTREAMS, build_encoder, load_upstream

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": [32] * 7,
}


def make_waveforms(seconds: tuple[float, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(int(16_000 * s), generator=generator) for s in seconds]


def tiny(name: str, **settings: float) -> Any:  # noqa: ANN401
    torch.manual_seed(0)
    return build_encoder({**UPSTREAMS["built_in"][name]["config"], **settings})


FAMILIES = {
    "wavlm, layer norm": lambda: tiny("wavlm-tiny-random"),
    "wavlm, group norm": lambda: tiny("wavlm-tiny-group-random"),
    "hubert, group norm": lambda: HubertModel(HubertConfig(**SMALL)),
    "wav2vec2, group norm": lambda: Wav2Vec2Model(Wav2Vec2Config(**SMALL)),
    "wav2vec2, layer norm": lambda: Wav2Vec2Model(
        Wav2Vec2Config(**SMALL, feat_extract_norm="layer", do_stable_layer_norm=True)
    ),
}


def write_published_bin(model: WavLMModel, folder: Path) -> None:
    """Write weights as microsoft/wavlm-* publishes them: a pickle, with the weight norm's old names."""
    folder.mkdir()
    model.config.save_pretrained(folder)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    conv = "encoder.pos_conv_embed.conv."
    weights[conv + "weight_g"] = weights.pop(conv + "parametrizations.weight.original0")
    weights[conv + "weight_v"] = weights.pop(conv + "parametrizations.weight.original1")
    torch.save(weights, folder / "pytorch_model.bin")


NAMES = {"stable": "wavlm-tiny-random", "base": "wavlm-tiny-group-random"}


def make_encoder(name: str, **settings: float) -> Any:  # noqa: ANN401
    encoder = tiny(NAMES[name], **settings)
    with torch.no_grad():
        for parameter in encoder.parameters():  # biases and gates begin at zero or one, where errors would hide
            parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder


def encode(encoder: Any, waveforms: list[Tensor], dtype: torch.dtype, packed: PackedWavLM | None = None) -> Tensor:  # noqa: ANN401
    packed = packed or PackedWavLM(encoder)
    plan = packed.plan([len(waveform) for waveform in waveforms], waveforms[0].device, dtype)
    return packed.encode(packed.features(torch.cat(waveforms), plan, dtype), plan, dtype, None)


def save_encoder(name: str, folder: Path, seed: int) -> str:
    torch.manual_seed(seed)
    load_upstream(name, {}).encoder.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true}')
    return str(folder)
