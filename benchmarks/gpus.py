"""How training gains from more GPUs: `torchrun --standalone --nproc-per-node N -m benchmarks.gpus`, for N = 1, 2, 4.

The project's trainer on utterances of MSP-PODCAST's durations in memory, random weights, the convolutions frozen, bf16,
the same number of utterances in every process and step. Real (unpadded) seconds of audio a second, of all processes
together; a file a number of processes, so that one follows the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks import passes
from benchmarks.commands import Row
from benchmarks.project import make_config, make_trainer, timed_epochs
from benchmarks.synthetic import draw_noise, draw_seconds, make_corpus, write_upstream
from experiment_runner.distributed.join import join_processes
from experiment_runner.distributed.process_group import ProcessGroup
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.device import choose_device
from utils.io.files import write_json

DEVELOPMENT = 8
SEED = 1


def measure(shape: str, options: argparse.Namespace, device: torch.device, processes: ProcessGroup) -> Row:
    """Measure epochs of one shape after the warm-up epochs."""
    passes.forget(device)
    seconds = draw_seconds(options.steps * options.batch_size * processes.ranks)
    waveforms = draw_noise(seconds)
    amp = "bf16" if device.type == "cuda" else "off"
    keys = {"amp": amp, "batch_size": options.batch_size, "num_workers": 0}
    corpus = make_corpus(np.concatenate([np.full(DEVELOPMENT, 3.0), seconds]), DEVELOPMENT)
    with TemporaryDirectory() as own:
        upstream = processes.on_main(partial(write_upstream, Path(own), shape))
        trainer = make_trainer(make_config(upstream, keys), corpus, Path(own), SEED, device, processes)
        epochs = timed_epochs(trainer, waveforms, options.warm_up + options.epochs, processes)
        spent = [seconds for _, seconds in epochs]
    timed = sum(spent[options.warm_up :])
    row: Row = {"shape": shape, "variant": f"{processes.ranks} processes", "epochs": spent}
    return {**row, "rate": float(seconds.sum()) * options.epochs / timed, "gib": passes.peak_gib(device)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the rate of every shape and write `gpus-N.json`."""
    parser = passes.device_parser(__doc__, "gpus-N.json")
    parser.add_argument("--steps", type=int, default=24, metavar="N", help="optimiser steps an epoch")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="utterances a step and process")
    parser.add_argument("--warm-up", type=int, default=12, metavar="N", help="epochs before those that are timed")
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="epochs that are timed")
    options = parser.parse_args(arguments)
    with join_processes() as processes:
        device = choose_device(options.device, Console(is_silent=not processes.is_main), processes)
        rows = [measure(shape, options, device, processes) for shape in options.shapes]
        if processes.is_main:
            for row in rows:
                passes.say(row)
            path = options.output.with_name(options.output.name.replace("N", str(processes.ranks)))
            document = {"device": passes.describe(device), "processes": processes.ranks, "rows": rows}
            write_json(path, document)


if __name__ == "__main__":
    main()
