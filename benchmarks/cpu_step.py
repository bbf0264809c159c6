"""What one training step costs on two CPU cores, beside stock transformers: `python -m benchmarks.cpu_step`.

Eight utterances of 1 to 8 s, drawn once, random weights, the convolutions frozen, float32, fused AdamW. Dropouts are
those of the built-in shapes, SpecAugment and layerdrop are off, and freed memory is kept, all on both sides. Stock code
runs WavLM padded with an attention mask, the project runs its upstream, and both classify the mean of the last frames.
They take turns, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel

from benchmarks.synthetic import CLASSES, DROPOUTS, SHAPES
from experiment_runner.models.model_config import NO_MASKING
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.device import keep_freed_memory
from net.inputs import Waveforms
from net.packing.frames import Frames
from net.upstream import Upstream
from utils.data.wav import SAMPLE_RATE_HZ

BAR = 0.7
"""The project's step may take at most this share of the stock step's time."""
STOCK, OURS = "stock, padded", "ours"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""The processor time of all threads hardly depends on the machine's other load, unlike wall time."""
Clocks = dict[str, list[float]]


class Step(ABC):
    """A classifier of waveforms; a call is one optimiser step on them."""

    def __init__(self, config: WavLMConfig, waveforms: Waveforms) -> None:
        torch.manual_seed(0)
        self.encoder = WavLMModel(config).train()
        self.encoder.freeze_feature_encoder()
        self.head = nn.Linear(config.hidden_size, len(CLASSES))
        trained = [p for p in [*self.encoder.parameters(), *self.head.parameters()] if p.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, 1e-5, fused=True)
        self.waveforms = waveforms
        self.targets = torch.arange(len(waveforms.counts)) % len(CLASSES)

    def __call__(self) -> float:
        """Train on the batch once and return the loss."""
        loss = F.cross_entropy(self.head(self.means()), self.targets)
        torch.autograd.backward([loss])
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())

    @abstractmethod
    def means(self) -> Tensor:
        """Return the mean of each utterance's last frames, (batch, hidden)."""


class StockStep(Step):
    """Transformers' model on a padded batch."""

    def __init__(self, config: WavLMConfig, waveforms: Waveforms) -> None:
        super().__init__(config, waveforms)
        counts = torch.tensor(waveforms.counts).unsqueeze(1)
        self.padded = waveforms.padded()
        self.mask = (torch.arange(self.padded.shape[1]) < counts).long()
        self.lengths = self.encoder._get_feat_extract_output_lengths(counts)

    def means(self) -> Tensor:
        """See `Step`."""
        hidden: Tensor = self.encoder(self.padded, attention_mask=self.mask).last_hidden_state
        is_valid = torch.arange(hidden.shape[1]) < self.lengths
        means: Tensor = (hidden * is_valid.unsqueeze(2)).sum(1) / self.lengths
        return means


class OurStep(Step):
    """The project's upstream."""

    def __init__(self, config: WavLMConfig, waveforms: Waveforms) -> None:
        super().__init__(config, waveforms)
        self.upstream = Upstream(self.encoder, NO_MASKING, layer_weighting=False, freeze="cnn").train()

    def means(self) -> Tensor:
        """See `Step`."""
        frames: Frames = self.upstream(self.waveforms)
        return frames.sum(frames.values) / torch.tensor(frames.lengths).unsqueeze(1)


def draw_waveforms(utterances: int, shortest: float, longest: float) -> Waveforms:
    """Draw noise of mixed lengths, including the shortest and the longest (both in seconds)."""
    between = np.random.default_rng(0).uniform(shortest, longest, utterances - 2)
    counts = tuple(int(seconds * SAMPLE_RATE_HZ) for seconds in (longest, shortest, *between))
    return Waveforms(torch.randn(sum(counts), generator=torch.Generator().manual_seed(0)), counts)


def measure(steps: Mapping[str, Callable[[], float]], times: int) -> dict[str, Clocks]:
    """Take the steps in turns after one warm-up step of each; return the seconds of every step by each clock."""
    for step in steps.values():
        step()
    found: dict[str, Clocks] = {name: {clock: [] for clock in CLOCKS} for name in steps}
    for _ in range(times):
        for name, step in steps.items():
            began = {clock: now() for clock, now in CLOCKS.items()}
            step()
            for clock, now in CLOCKS.items():
                found[name][clock].append(now() - began[clock])
    return found


def ratios(found: Mapping[str, Clocks]) -> dict[str, float]:
    """Return the project's time over stock's by each clock, for the medians and for the shortest steps."""
    return {
        f"{kind} {clock}": of(found[OURS][clock]) / of(found[STOCK][clock])
        for clock in CLOCKS
        for kind, of in (("median", statistics.median), ("shortest", min))
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table and write `cpu_step.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="base-plus", choices=list(SHAPES))
    parser.add_argument("--utterances", type=int, default=8, metavar="N")
    parser.add_argument("--seconds", type=float, nargs=2, default=[1.0, 8.0], metavar=("SHORTEST", "LONGEST"))
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    parser.add_argument("--times", type=int, default=5, metavar="N", help="steps of each that are timed")
    parser.add_argument("--output", type=Path, default=Path("cpu_step.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    waveforms = draw_waveforms(options.utterances, *options.seconds)
    config = {**SHAPES[options.shape], **DROPOUTS, "apply_spec_augment": False}
    steps = {STOCK: StockStep(WavLMConfig(**config), waveforms), OURS: OurStep(WavLMConfig(**config), waveforms)}
    found = measure(steps, options.times)
    shares, audio = ratios(found), sum(waveforms.counts) / SAMPLE_RATE_HZ
    tell(found, shares, f"One step of {options.shape}, {audio:.1f} s of audio, {options.threads} threads, s")
    document = {"shape": options.shape, "threads": options.threads, "audio_seconds": audio, "bar": BAR}
    text = json.dumps({**document, "seconds": found, "shares": shares}, indent=2)
    options.output.write_text(text + "\n", encoding="utf-8")


def tell(found: Mapping[str, Clocks], shares: Mapping[str, float], title: str) -> None:
    """Print the table and whether the limit is kept."""
    cells = [
        [name, *(f"{of(clocks[clock]):.2f}" for clock in CLOCKS for of in (statistics.median, min))]
        for name, clocks in found.items()
    ]
    cells.append(["ours / stock", *(f"{share:.3f}" for share in shares.values())])
    note = f"bar {BAR}: {'met' if shares['median wall'] <= BAR else 'MISSED'}"
    Console().table(title, ("", *shares), cells, numeric=range(1, 1 + len(shares)), notes=[note])


if __name__ == "__main__":
    main()
