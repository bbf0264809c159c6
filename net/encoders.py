"""The encoders that upstreams can have, by transformers' `model_type`.

A new family is a class derived from `net.encoder.Encoder`, in a file of its own, and a row here.
"""

from __future__ import annotations

from net.encoder import Encoder
from utils.registry import load

PADDED = (
    "data2vec-audio",
    "hubert",
    "sew",
    "sew-d",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wav2vec2-conformer",
)
ENCODERS = {"wavlm": "net.packed_wavlm:PackedWavLMEncoder", **dict.fromkeys(PADDED, "net.padded_encoder:PaddedEncoder")}


def encoder_for(model_type: str) -> type[Encoder]:
    """Return the class that runs models of a type.

    Raises:
        ValueError: If there is none.
    """
    if model_type not in ENCODERS:
        raise ValueError(f'"{model_type}" is no waveform encoder of the wav2vec 2.0 family, such as WavLM')
    encoder: type[Encoder] = load(ENCODERS[model_type])
    return encoder
