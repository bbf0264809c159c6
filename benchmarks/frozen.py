"""How fast epochs are while the upstream is frozen, beside a stock loop: `python -m benchmarks.frozen`.

The stock loop is a careful one (padded batches of 32 in page-locked memory, AMP fp16, one fused AdamW, never waiting
for the GPU); it has its batches in memory and computes the frozen upstream in every epoch. The project trains as an
experiment does, from recordings on the disk with its own loader and its cache of what is frozen, empty at first. Its
start (in which the cache is filled) with the first epoch, and the later epochs, are told apart. Recordings of
MSP-PODCAST's durations, random weights, real (unpadded) seconds of audio a second.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch

from benchmarks import passes
from benchmarks.commands import Row
from benchmarks.project import make_config, make_trainer
from benchmarks.stock import CarefulLoop, Padded, load_stock
from benchmarks.synthetic import Seconds, draw_noise, draw_seconds, make_corpus, write_upstream
from utils.data.wav import SAMPLE_RATE_HZ, Waveform
from utils.io.environment import variables

DEVELOPMENT = 16
REFERENCES = ("careful, AMP fp16",)
WARM_UP = 4


def write_recordings(folder: Path, waveforms: Sequence[Waveform]) -> list[str]:
    """Write 16-bit WAV files."""
    folder.mkdir()
    paths = [str(folder / f"{number:07d}.wav") for number in range(len(waveforms))]
    for path, samples in zip(paths, waveforms, strict=True):
        soundfile.write(path, 0.1 * samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    return paths


def measure_stock(upstream: Path, waveforms: Sequence[Waveform], options: argparse.Namespace) -> Row:
    """Measure one epoch of the stock loop, which computes the upstream in every epoch."""
    device = torch.device(options.device)
    passes.forget(device)
    loop = CarefulLoop(load_stock(upstream, device, by_item=False, is_frozen=True), device, torch.float16)
    rows = np.array_split(np.arange(len(waveforms)), -(-len(waveforms) // options.batch_size))
    windows = [[Padded.of(waveforms, part.tolist(), device.type == "cuda")] for part in rows]
    _, figures = passes.measure_loop(loop, windows[:WARM_UP], windows, options.most_seconds)
    return {"shape": upstream.name, "variant": REFERENCES[0], **figures}


def measure_ours(upstream: Path, seconds: Seconds, paths: Sequence[str], options: argparse.Namespace) -> list[Row]:
    """Measure the first epoch and the mean of the later ones."""
    device = torch.device(options.device)
    passes.forget(device)
    keys = {"freeze": "upstream", "batch_size": options.batch_size, "cache_gib": options.cache_gib}
    corpus = make_corpus(seconds, DEVELOPMENT, paths)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        epochs = []
        with closing(make_trainer(make_config(upstream, keys), corpus, Path(folder), 1, device)) as trainer:
            building = time.perf_counter() - began
            for epoch in range(1, options.epochs + 1):
                epochs.append(passes.seconds_of(partial(trainer.train_epoch, epoch), device))
                trainer.evaluate()
    audio = float(seconds[DEVELOPMENT:].sum())
    spent = {"ours, start and first epoch": building + epochs[0], "ours, later epochs": float(np.mean(epochs[1:]))}
    row = {"shape": upstream.name, "gib": passes.peak_gib(device), "epochs": epochs}
    return [{**row, "variant": name, "seconds": seconds, "rate": audio / seconds} for name, seconds in spent.items()]


def run(options: argparse.Namespace) -> list[Row]:
    """Measure every variant of every shape."""
    seconds = draw_seconds(DEVELOPMENT + options.utterances)
    waveforms = draw_noise(seconds)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, variables(XDG_CACHE_HOME=f"{name}/cache"):
        folder = Path(name)
        paths = write_recordings(folder / "Audios", waveforms)
        for shape in options.shapes:
            upstream = write_upstream(folder, shape)
            rows.append(passes.say(measure_stock(upstream, waveforms[DEVELOPMENT:], options)))
            rows += map(passes.say, measure_ours(upstream, seconds, paths, options))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table and write `frozen.json`."""
    parser = passes.device_parser(__doc__, "frozen.json")
    parser.add_argument("--utterances", type=int, default=2000, metavar="N", help="recordings to train on")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N")
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="of the project's trainer, at least 2")
    parser.add_argument("--cache-gib", type=float, default=8.0, metavar="G", help="of the project's cache")
    parser.add_argument("--most-seconds", type=float, default=12.0, metavar="S", help="time of the stock loop")
    options = parser.parse_args(arguments)
    if options.epochs < 2:
        parser.error(f"--epochs {options.epochs}: later epochs need at least 2")
    device = passes.find_device(options.device)
    rows = run(options)
    passes.tell("Frozen upstream", rows, REFERENCES, options.output, device)


if __name__ == "__main__":
    main()
