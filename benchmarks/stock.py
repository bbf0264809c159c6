"""Stock training loops, with which this project is compared: transformers' WavLM on padded batches.

`BaselineLoop` follows the Odyssey 2024 challenge's baseline (L. Goncalves et al., "Odyssey 2024 - Speech Emotion
Recognition Challenge", Odyssey 2024); `CarefulLoop` is stock code by an author who knows the GPU. Both have their
padded batches in memory, so that neither waits for a disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from benchmarks.synthetic import CLASSES, DROPOUTS
from net.pooling import SMALLEST_VARIANCE
from net.ser import UtteranceHead
from utils.data.wav import SAMPLE_RATE_HZ, Waveform
from utils.hub.upstreams import load_encoder

LEARNING_RATE = 1e-5


@dataclass(frozen=True)
class Padded:
    """A padded batch.

    Attributes:
        samples: Padded waveforms, (batch, longest) float32.
        mask: Mask, (batch, longest) int64, 1 for samples of the utterance.
        targets: Class indices, (batch,) int64.
        counts: Samples of each utterance.
    """

    samples: Tensor
    mask: Tensor
    targets: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, waveforms: Sequence[Waveform], rows: Sequence[int], is_pinned: bool) -> Padded:
        """Pad some utterances to the longest of them; their classes follow from their rows."""
        chosen = [torch.from_numpy(waveforms[row]) for row in rows]
        samples = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        counts = tuple(map(len, chosen))
        mask = (torch.arange(samples.shape[1]) < torch.tensor(counts).unsqueeze(1)).long()
        batch = cls(samples, mask, torch.tensor([row % len(CLASSES) for row in rows]), counts)
        return batch.map(Tensor.pin_memory) if is_pinned else batch

    def to(self, device: torch.device) -> Padded:
        """Copy to a device, without waiting where the memory is pinned."""
        return self.map(partial(Tensor.to, device=device, non_blocking=True))

    def map(self, change: Callable[[Tensor], Tensor]) -> Padded:
        """Return the batch with a function applied to every tensor."""
        return Padded(change(self.samples), change(self.mask), change(self.targets), self.counts)

    @property
    def seconds(self) -> float:
        """Seconds of audio in the batch, without padding."""
        return sum(self.counts) / SAMPLE_RATE_HZ


class StockPooling(nn.Module):
    """Attentive statistics pooling of padded frames, an utterance at a time or all at once."""

    def __init__(self, dim: int, by_item: bool) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, dim)
        self.attention = nn.Linear(dim, 1, bias=False)
        self.by_item = by_item

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool (batch, time, dim), given the frames of each utterance, (batch,) on the host, to (batch, 2 · dim)."""
        if self.by_item:
            return torch.cat([self._pool(one[None, :n], None) for one, n in zip(hidden, lengths.tolist(), strict=True)])
        ends = lengths.to(hidden.device, non_blocking=True)
        return self._pool(hidden, torch.arange(hidden.shape[1], device=hidden.device) < ends.unsqueeze(1))

    def _pool(self, hidden: Tensor, valid: Tensor | None) -> Tensor:
        scores = self.attention(torch.tanh(self.projection(hidden))).float()
        if valid is not None:
            scores = scores.masked_fill(~valid.unsqueeze(2), -torch.inf)
        weights, hidden = torch.softmax(scores, 1), hidden.float()
        mean = (weights * hidden).sum(1)
        variance = (weights * hidden.square()).sum(1) - mean.square()
        return torch.cat([mean, variance.clamp(min=SMALLEST_VARIANCE).sqrt()], 1)


class StockModel(nn.Module):
    """WavLM, pooling, head.

    Args:
        encoder: The transformers model.
        classes: Number of outputs.
        by_item: Whether pooling takes one utterance at a time.
        is_frozen: Whether the whole encoder is frozen, instead of only its convolutions.
    """

    def __init__(self, encoder: Any, classes: int, by_item: bool, is_frozen: bool = False) -> None:  # noqa: ANN401
        super().__init__()
        hidden = encoder.config.hidden_size
        self.encoder, self.is_frozen = encoder, is_frozen
        self.pooling = StockPooling(hidden, by_item)
        self.head = UtteranceHead(2 * hidden, hidden, classes, 0.5)
        (encoder if is_frozen else encoder.feature_extractor).requires_grad_(False)

    def train(self, mode: bool = True) -> StockModel:
        """Set training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.train(mode and not self.is_frozen)
        return self

    def forward(self, batch: Padded) -> Tensor:
        """Return logits, (batch, classes)."""
        lengths = self.encoder._get_feat_extract_output_lengths(torch.tensor(batch.counts))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            hidden = self.encoder(batch.samples, attention_mask=batch.mask).last_hidden_state
        logits: Tensor = self.head(self.pooling(hidden, lengths))
        return logits


def load_stock(
    upstream: Path, device: torch.device, *, by_item: bool, masks_frames: bool = False, is_frozen: bool = False
) -> StockModel:
    """Return a stock model with the weights of a folder and the project's default dropouts.

    Args:
        upstream: Folder of a transformers model.
        device: Device of the model.
        by_item: See `StockModel`.
        masks_frames: Whether SpecAugment is on; transformers' implementation waits for the GPU.
        is_frozen: See `StockModel`.
    """
    encoder = load_encoder(upstream, DROPOUTS)
    encoder.config.apply_spec_augment = masks_frames
    torch.manual_seed(0)
    return StockModel(encoder, len(CLASSES), by_item, is_frozen).to(device)


class Loop(ABC):
    """A loop over windows of padded batches.

    Args:
        model: The model.
        device: Device of the model.
        dtype: Element type of autocast; None for float32.
    """

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
        self.model, self.device, self.dtype = model.train(), device, dtype
        self.scaler = GradScaler(device.type, enabled=dtype is torch.float16)

    @abstractmethod
    def __call__(self, window: Sequence[Padded]) -> object:
        """Take one step over a window."""

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def back_propagate(self, batch: Padded, parts: int = 1) -> Tensor:
        """Add the gradients of a batch that is one of so many parts of a window; return its share of the loss."""
        moved = batch.to(self.device)
        with self.autocast():
            loss = F.cross_entropy(self.model(moved), moved.targets)
            loss = loss / parts if parts > 1 else loss
        torch.autograd.backward([self.scaler.scale(loss)])
        return loss.detach()


class BaselineLoop(Loop):
    """Training with micro-batches, the loss read after each, and an optimiser for each of the model's three parts."""

    def __init__(self, model: StockModel, device: torch.device, dtype: torch.dtype | None) -> None:
        super().__init__(model, device, dtype)
        parts = (model.encoder, model.pooling, model.head)
        self.optimisers = [torch.optim.AdamW(_trained(part), LEARNING_RATE) for part in parts]
        self.losses: list[float] = []

    def __call__(self, window: Sequence[Padded]) -> None:
        """Take one optimiser step over micro-batches."""
        for batch in window:
            self.losses.append(self.back_propagate(batch, len(window)).item())
        for optimiser in self.optimisers:
            self.scaler.step(optimiser)
        self.scaler.update()
        for optimiser in self.optimisers:
            optimiser.zero_grad()


class CarefulLoop(Loop):
    """Training with one batch per step, one fused optimiser and no waiting for the GPU."""

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
        super().__init__(model, device, dtype)
        self.optimiser = torch.optim.AdamW(_trained(model), LEARNING_RATE, fused=True)

    def __call__(self, window: Sequence[Padded]) -> Tensor:
        """Take one optimiser step over a batch; return its loss."""
        (batch,) = window
        loss = self.back_propagate(batch)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return loss


class OneByOne(Loop):
    """The development pass of the baseline, one utterance at a time."""

    def __init__(self, model: StockModel, device: torch.device, dtype: torch.dtype | None) -> None:
        super().__init__(model, device, dtype)
        self.model.eval()
        self.predictions: list[int] = []

    @torch.no_grad()
    def __call__(self, window: Sequence[Padded]) -> None:
        """Predict the class of every utterance."""
        for batch in window:
            with self.autocast():
                logits = self.model(batch.to(self.device))
            self.predictions.append(int(logits.argmax(1).item()))


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
