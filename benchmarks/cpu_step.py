"""What one training step costs on two CPU cores, beside stock transformers: `python -m benchmarks.cpu_step`.

Eight utterances of 1 to 8 s, drawn once, random weights, the convolutions frozen, float32, fused AdamW. Dropouts are
those of the built-in shapes, SpecAugment and layerdrop are off, and freed memory is kept, all on both sides. Stock code
runs WavLM padded with an attention mask, the project runs its upstream, and both classify the mean of the last frames.
They take turns, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel

from benchmarks.commands import bare_parser
from benchmarks.stock import CarefulLoop, Padded
from benchmarks.synthetic import CLASSES, DROPOUTS, SHAPES, draw_noise
from experiment_runner.models.model_config import NO_MASKING
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.device import keep_freed_memory
from net.inputs import Waveforms
from net.packing.frames import Frames
from net.upstream import Upstream
from utils.io.files import write_json

BAR = 0.7
"""The project's step may take at most this share of the stock step's time."""
STOCK, OURS = "stock, padded", "ours"
CPU = torch.device("cpu")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""The processor time of all threads hardly depends on the machine's other load, unlike wall time."""
Clocks = dict[str, list[float]]


class Classifier(nn.Module, ABC):
    """A classifier of the mean of the last frames."""

    def __init__(self, config: WavLMConfig) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = WavLMModel(config)
        self.encoder.freeze_feature_encoder()
        self.head = nn.Linear(config.hidden_size, len(CLASSES))

    def forward(self, batch: Padded) -> Tensor:
        """Return logits, (batch, classes)."""
        logits: Tensor = self.head(self.means(batch))
        return logits

    @abstractmethod
    def means(self, batch: Padded) -> Tensor:
        """Return the mean of each utterance's last frames, (batch, hidden)."""


class StockClassifier(Classifier):
    """Transformers' model on a padded batch."""

    def means(self, batch: Padded) -> Tensor:
        """See `Classifier`."""
        hidden: Tensor = self.encoder(batch.samples, attention_mask=batch.mask).last_hidden_state
        lengths = self.encoder._get_feat_extract_output_lengths(torch.tensor(batch.counts).unsqueeze(1))
        is_valid = torch.arange(hidden.shape[1]) < lengths
        means: Tensor = (hidden * is_valid.unsqueeze(2)).sum(1) / lengths
        return means


class OurClassifier(Classifier):
    """The project's upstream on the utterances end to end."""

    def __init__(self, config: WavLMConfig) -> None:
        super().__init__(config)
        self.upstream = Upstream(self.encoder, NO_MASKING, layer_weighting=False, freeze="cnn")

    def means(self, batch: Padded) -> Tensor:
        """See `Classifier`."""
        frames: Frames = self.upstream(Waveforms(batch.samples[batch.mask.bool()], batch.counts))
        return frames.sum(frames.values) / torch.tensor(frames.lengths).unsqueeze(1)


def make_steps(config: Mapping[str, Any], batch: Padded) -> dict[str, Callable[[], Tensor]]:
    """Return one optimiser step of each side on a batch, which returns the loss."""
    models = {STOCK: StockClassifier(WavLMConfig(**config)), OURS: OurClassifier(WavLMConfig(**config))}
    return {name: partial(CarefulLoop(model, CPU, None), [batch]) for name, model in models.items()}


def draw_batch(utterances: int, shortest: float, longest: float) -> Padded:
    """Draw noise of mixed lengths, including the shortest and the longest (both in seconds)."""
    between = np.random.default_rng(0).uniform(shortest, longest, utterances - 2)
    return Padded.of(draw_noise(np.array([longest, shortest, *between])), range(utterances), is_pinned=False)


def measure(steps: Mapping[str, Callable[[], object]], times: int) -> dict[str, Clocks]:
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
    parser = bare_parser(__doc__, "cpu_step.json")
    parser.add_argument("--shape", default="base-plus", choices=list(SHAPES))
    parser.add_argument("--utterances", type=int, default=8, metavar="N")
    parser.add_argument("--seconds", type=float, nargs=2, default=[1.0, 8.0], metavar=("SHORTEST", "LONGEST"))
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    parser.add_argument("--times", type=int, default=5, metavar="N", help="steps of each that are timed")
    options = parser.parse_args(arguments)
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    batch = draw_batch(options.utterances, *options.seconds)
    config = {**SHAPES[options.shape], **DROPOUTS, "apply_spec_augment": False}
    found = measure(make_steps(config, batch), options.times)
    shares, audio = ratios(found), batch.seconds
    tell(found, shares, f"One step of {options.shape}, {audio:.1f} s of audio, {options.threads} threads, s")
    document = {"shape": options.shape, "threads": options.threads, "audio_seconds": audio, "bar": BAR}
    write_json(options.output, {**document, "seconds": found, "shares": shares})


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
