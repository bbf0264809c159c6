"""How much audio a training takes in a second, beside stock loops: `python -m benchmarks.epoch`.

Utterances of MSP-PODCAST's durations, real (unpadded) seconds of them a second; random weights, the convolutions
frozen, 32 utterances an optimiser step, the same ones in the same order for all. Every variant has its batches in
memory: `python -m benchmarks.loader` measures the decoding.

    baseline    4 padded micro-batches of 8, pooling item by item, the loss read after each, three optimisers
    careful     one padded batch of 32 in page-locked memory, one fused AdamW, never waiting for the GPU, no SpecAugment
    ours        the project's trainer as an experiment runs it, with clipping, schedule and SpecAugment

Dropouts are those of the built-in shapes and layerdrop is off on all sides. MFU counts 3 x the transformer's forward
and 1 x the convolutions' operations of the unpadded audio.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import WavLMConfig

from benchmarks import passes, step
from benchmarks.commands import Row
from benchmarks.project import make_config, make_trainer, timed_epochs
from benchmarks.stock import BaselineLoop, CarefulLoop, Padded, load_stock
from benchmarks.synthetic import SHAPES, Seconds, draw_noise, draw_seconds, make_corpus, write_upstream
from experiment_runner.runtime.device import repeatable
from utils.data.wav import SAMPLE_RATE_HZ, Waveform
from utils.dataset.sampling import RandomBatches, Rows

DEVELOPMENT = 8
MICRO_BATCHES = 4
SEED = 1
TIMED_EPOCHS = 4
WARM_UP_STEPS = 4
REFERENCES = ("baseline, fp32", "baseline, AMP fp16", "careful, AMP fp16")
VARIANTS: dict[str, dict[str, object]] = {
    "ours, bf16": {"amp": "bf16"},
    "ours, bf16, deterministic": {"amp": "bf16", "deterministic": True},
    "ours, fp32": {"amp": "off"},
}
WARM_UP_EPOCHS = {"ours, bf16": 16, "ours, bf16, deterministic": 1, "ours, fp32": 1}
"""Enough for most batch sizes to be recorded, as they soon are in a long training; float32 waits for the GPU."""


@dataclass(frozen=True)
class Bench:
    """Data and device that all variants of one shape share.

    Attributes:
        shape: Name of the shape.
        folder: Folder of the upstream, to which runs may write.
        seconds: Durations of the training utterances in seconds.
        waveforms: Waveforms of the training utterances.
        batches: Batches of the training utterances.
        most_seconds: Time in seconds after which a stock loop takes no more steps.
        device: Device of the training.
        peak: Operations per second of a bf16 product on the device; None if not measured.
    """

    shape: str
    folder: Path
    seconds: Seconds
    waveforms: list[Waveform]
    batches: RandomBatches
    most_seconds: float
    device: torch.device
    peak: float | None

    def row(self, variant: str, steps: Sequence[Rows], seconds: float) -> Row:
        """Return the table row of a variant, given its steps and their seconds."""
        rows = np.concatenate(steps)
        row: Row = {"shape": self.shape, "variant": variant, "steps": len(steps), "seconds": seconds}
        row["rate"] = float(self.seconds[rows].sum()) / seconds
        row["gib"] = passes.peak_gib(self.device)
        if self.peak is not None:
            row["mfu"] = self._operations(rows) / seconds / self.peak
        return row

    def _operations(self, rows: Rows) -> float:
        config = WavLMConfig(**SHAPES[self.shape])
        counts = (step.operations(config, int(seconds * SAMPLE_RATE_HZ)) for seconds in self.seconds[rows])
        return sum(conv + 3 * transformer for conv, transformer in counts)


def measure_stock(bench: Bench, variant: str) -> Row:
    """Measure a stock loop."""
    passes.forget(bench.device)
    is_baseline = variant.startswith("baseline")
    upstream = bench.folder / bench.shape
    model = load_stock(upstream, bench.device, by_item=is_baseline, masks_frames=is_baseline)
    loop = (BaselineLoop if is_baseline else CarefulLoop)(
        model, bench.device, torch.float16 if "fp16" in variant else None
    )
    parts = MICRO_BATCHES if is_baseline else 1
    warm_up = _windows(bench, 1, parts)[:WARM_UP_STEPS]
    taken, figures = passes.measure_loop(loop, warm_up, _windows(bench, 2, parts), bench.most_seconds)
    return bench.row(variant, [rows for (rows,) in bench.batches.steps(2)[:taken]], figures["seconds"])


def _windows(bench: Bench, epoch: int, parts: int) -> list[list[Padded]]:
    """Return the padded micro-batches of every step."""
    is_pinned = bench.device.type == "cuda" and parts == 1
    steps = [np.array_split(rows, parts) for (rows,) in bench.batches.steps(epoch)]
    return [[Padded.of(bench.waveforms, part.tolist(), is_pinned) for part in step] for step in steps]


def measure_ours(bench: Bench, variant: str) -> Row:
    """Measure epochs of the project's trainer after the warm-up epochs."""
    passes.forget(bench.device)
    keys = {**VARIANTS[variant], "batch_size": bench.batches.batch_size, "num_workers": 0}
    config = make_config(bench.folder / bench.shape, keys)
    corpus = make_corpus(np.concatenate([np.full(DEVELOPMENT, 3.0), bench.seconds]), DEVELOPMENT)
    trainer = make_trainer(config, corpus, bench.folder, SEED, bench.device)
    warm_up = WARM_UP_EPOCHS[variant]
    with repeatable(config.deterministic, bench.device):
        epochs = list(timed_epochs(trainer, bench.waveforms, warm_up + TIMED_EPOCHS))[warm_up:]
    steps = [rows for step_rows, _ in epochs for rows in step_rows]
    return bench.row(variant, steps, sum(seconds for _, seconds in epochs))


def run(options: argparse.Namespace, device: torch.device, peak: float | None) -> list[Row]:
    """Measure every variant of every shape."""
    seconds = draw_seconds(options.steps * options.batch_size)
    waveforms = draw_noise(seconds)
    batches = RandomBatches(seconds, options.batch_size, 1, SEED)
    rows: list[Row] = []
    for shape in options.shapes:
        with tempfile.TemporaryDirectory() as name:
            folder = write_upstream(Path(name), shape).parent
            bench = Bench(shape, folder, seconds, waveforms, batches, options.most_seconds, device, peak)
            rows += [passes.say(measure_stock(bench, variant)) for variant in options.references]
            rows += [passes.say(measure_ours(bench, variant)) for variant in VARIANTS if variant in options.variants]
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table and write `epoch.json`."""
    parser = passes.device_parser(__doc__, "epoch.json")
    parser.add_argument("--steps", type=int, default=24, metavar="N", help="optimiser steps that are timed")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="utterances an optimiser step")
    parser.add_argument("--most-seconds", type=float, default=12.0, metavar="S", help="time of each stock loop")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="OURS")
    parser.add_argument("--references", nargs="+", default=list(REFERENCES), choices=list(REFERENCES), metavar="STOCK")
    options = parser.parse_args(arguments)
    device = passes.find_device(options.device)
    peak = step.peak_rates()[0] if device.type == "cuda" else None
    rows = run(options, device, peak)
    passes.tell("Training", rows, options.references, options.output, device, peak=peak)


if __name__ == "__main__":
    main()
