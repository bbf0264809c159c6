"""How fast a development pass is, beside one utterance at a time: `python -m benchmarks.development`.

Utterances of MSP-PODCAST's durations, random weights, everything in memory. Real (unpadded) seconds of audio a second.

    one by one    transformers' WavLM, pooling and head, one utterance a forward pass, its class read after each
    ours          the project's `infer` on its evaluation batches: sorted by duration, the longest first
    evaluate      the same with loss, predictions and figures: the whole of what a training does after an epoch
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import passes
from benchmarks.commands import Row
from benchmarks.project import develop_from_memory, make_config, make_trainer
from benchmarks.stock import OneByOne, Padded, load_stock
from benchmarks.synthetic import CLASSES, Seconds, draw_noise, draw_seconds, make_corpus, write_upstream
from experiment_runner.train import Trainer
from experiment_runner.training.inference import infer
from utils.data.labels.corpus import Corpus
from utils.data.wav import Waveform
from utils.dataset.sampling import EVALUATION

REFERENCES = ("one by one, fp32", "one by one, AMP fp16")
PRECISIONS = {"fp32": "off", "bf16": "bf16"}
WARM_UP = 8


def measure_stock(upstream: Path, variant: str, windows: list[list[Padded]], options: argparse.Namespace) -> Row:
    """Measure utterances one by one, until all are done or the time is over."""
    device = torch.device(options.device)
    passes.forget(device)
    dtype = torch.float16 if "fp16" in variant else None
    loop = OneByOne(load_stock(upstream, device, by_item=True), device, dtype)
    taken, figures = passes.measure_loop(loop, windows[:WARM_UP], windows, options.most_seconds)
    return {"shape": upstream.name, "variant": variant, "utterances": taken, **figures}


def measure_ours(
    upstream: Path,
    waveforms: list[Waveform],
    durations: Seconds,
    precision: str,
    batch_seconds: float,
    device: torch.device,
) -> list[Row]:
    """Measure the second pass over all utterances, and a complete evaluation."""
    passes.forget(device)
    keys = {"amp": PRECISIONS[precision], "eval_batch_seconds": batch_seconds, "num_workers": 0}
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(make_config(upstream, keys), _corpus(durations), Path(folder), 1, device)
        develop_from_memory(trainer, waveforms)
        rows = []
        for name, run in (("ours", partial(_infer, trainer)), ("evaluate", trainer.evaluate)):
            run()
            seconds = passes.seconds_of(run, device)
            variant = f"{name}, {precision}, batches of {batch_seconds:g} s"
            row = {"shape": upstream.name, "variant": variant, "utterances": len(durations), "seconds": seconds}
            rows.append({**row, "rate": float(durations.sum()) / seconds, "gib": passes.peak_gib(device)})
    return rows


def _corpus(durations: Seconds) -> Corpus:
    """Return a corpus of these development rows and the fewest training rows allowed."""
    return make_corpus(np.concatenate([durations, np.full(len(CLASSES), 3.0)]), len(durations))


def _infer(trainer: Trainer) -> torch.Tensor:
    parts = trainer.parts
    batches = parts.development_feed.serve(parts.development_batches, EVALUATION)
    outputs, _ = infer(trainer.model, batches, trainer.device, parts.steps.parts.precision, parts.name_development)
    return outputs.tensors()[0].argmax(1).cpu()


def run(options: argparse.Namespace, device: torch.device) -> list[Row]:
    """Measure every variant of every shape."""
    durations = draw_seconds(options.utterances)
    waveforms = draw_noise(durations)
    is_pinned = device.type == "cuda"
    windows = [[Padded.of(waveforms, [row], is_pinned)] for row in range(len(waveforms))]
    rows: list[Row] = []
    for shape in options.shapes:
        with tempfile.TemporaryDirectory() as folder:
            upstream = write_upstream(Path(folder), shape)
            rows += [passes.say(measure_stock(upstream, variant, windows, options)) for variant in REFERENCES]
            for precision in PRECISIONS:
                for size in options.batch_seconds:
                    rows += map(passes.say, measure_ours(upstream, waveforms, durations, precision, size, device))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table and write `development.json`."""
    parser = passes.device_parser(__doc__, "development.json")
    parser.add_argument("--utterances", type=int, default=768, metavar="N")
    parser.add_argument("--batch-seconds", type=float, nargs="+", default=[128.0, 640.0], metavar="S")
    parser.add_argument("--most-seconds", type=float, default=8.0, metavar="S", help="time of each stock loop")
    options = parser.parse_args(arguments)
    device = passes.find_device(options.device)
    rows = run(options, device)
    passes.tell("Development pass", rows, REFERENCES, options.output, device)


if __name__ == "__main__":
    main()
