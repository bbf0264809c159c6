"""A trained model in plain PyTorch, which reads a checkpoint without any other file of this project.

Model cards show this file unchanged. It is exported to ONNX and serves as an oracle for the fast model.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel


class SpeechEmotionModel(nn.Module):
    """WavLM or one of its relatives, attentive statistics pooling, and a head for each kind of label.

    Args:
        config: The checkpoint's `config.json`; `load_state_dict` takes its `model.safetensors`.
    """

    upstream: Any
    pooling: Any

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        encoder = AutoModel.from_config(AutoConfig.for_model(**config["upstream"]), trust_remote_code=False)
        size, layers = encoder.config.hidden_size, encoder.config.num_hidden_layers
        self.upstream, self.pooling = nn.Module(), nn.Module()
        self.upstream.encoder = encoder
        if config["layer_weighting"]:
            self.upstream.layer_weights = nn.Parameter(torch.zeros(layers + 1))
        self.pooling.projection, self.pooling.attention = nn.Linear(size, size), nn.Linear(size, 1, bias=False)
        emotions = {"emotion": config["classes"], "attribute": config["attributes"]}
        labels = {**emotions, "gender": config.get("genders"), **config.get("heads", {})}
        self.labels = {name: names for name, names in labels.items() if names}
        for name, names in self.labels.items():
            hidden, output = nn.Linear(2 * size, size), nn.Linear(size, len(names))
            head = nn.Sequential(nn.Dropout(), hidden, nn.LayerNorm(size), nn.ReLU(), nn.Dropout(), output)
            setattr(self, f"{name}_head", head)

    def forward(self, waveforms: Tensor) -> dict[str, Tensor]:
        """Return probabilities, and attributes on their scale, each (batch, outputs).

        Args:
            waveforms: Utterances of equal length, (batch, samples), 16 kHz mono, as decoded.
        """
        frames = self.encode(self.normalise(waveforms))
        weights = self.pooling.attention(torch.tanh(self.pooling.projection(frames))).softmax(1)
        mean = (weights * frames).sum(1)
        variance = (weights * (frames - mean.unsqueeze(1)).square()).sum(1)
        pooled = torch.cat([mean, variance.clamp(min=1e-5).sqrt()], 1)
        found = {name: getattr(self, f"{name}_head")(pooled) for name in self.labels}
        low, high = self.config["attribute_scale"]
        return {
            name: (low + values * (high - low)).clamp(low, high) if name == "attribute" else values.softmax(1)
            for name, values in found.items()
        }

    def normalise(self, waveforms: Tensor) -> Tensor:
        """Scale each waveform as in training."""
        how = self.config["normalisation"]
        if how["kind"] == "corpus":
            waveforms = (waveforms - how["mean"]) / how["deviation"]
        if how["kind"] == "utterance":
            variance, mean = torch.var_mean(waveforms, 1, correction=0, keepdim=True)
            waveforms = (waveforms - mean) / (variance + 1e-7).sqrt()
        return waveforms

    def encode(self, waveforms: Tensor) -> Tensor:
        """Return frames, (batch, time, hidden): those of the last layer, or the weighted sum of all layers."""
        if not self.config["layer_weighting"]:
            frames: Tensor = self.upstream.encoder(waveforms).last_hidden_state
            return frames
        layers = self.upstream.encoder(waveforms, output_hidden_states=True).hidden_states
        return torch.einsum("l,lbtd->btd", self.upstream.layer_weights.softmax(0), torch.stack(layers))
