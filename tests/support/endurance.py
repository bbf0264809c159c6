"""Trains for ten thousand steps and measures memory and open files: `python -m tests.support.endurance`.

The program is the real one, with two decoding processes, augmentation, a checkpoint every few seconds and an evaluation
every hundred steps. What it holds after the first tenth of the steps is what it may hold at the end.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support.kill_harness import Program, ended
from tests.support.synthetic_podcast import write_podcast

PER_CLASS = 25
STEPS_AN_EPOCH = 100
CHANGES = (
    "batch_size = 2, max_seconds = 0.4, num_workers = 2, checkpoint_minutes = 0.05, keep_checkpoints = 2, "
    'augment_speed = [0.9, 1.1], augment_noise = "pink", augment_noise_prob = 0.5, '
    "loss_stop_ratio = 1e6, patience = 9999"
)
WARM_UP = 0.1
"""Share of the steps after which memory is to stay as it is."""


@dataclass(frozen=True)
class Look:
    """What the processes of a training hold at one moment.

    Attributes:
        steps: Taken so far.
        seconds: Since the start.
        megabytes: Resident, of the main process.
        workers: Of the others together, what they share with no process.
        files: Descriptors that are open in the main process.
    """

    steps: int
    seconds: float
    megabytes: float
    workers: float
    files: int


def train(folder: Path, steps: int) -> list[Look]:
    """Train for so many steps; return a look at every epoch's end."""
    podcast = write_podcast(folder / "podcast", PER_CLASS)
    epochs = steps // STEPS_AN_EPOCH
    program = Program(folder / "run", podcast, f"epoch = {epochs}, min_epochs = {epochs}, {CHANGES}")
    process, began = program.start(), time.monotonic()
    assert process.pid is not None
    looks: list[Look] = []
    metrics = program.run / "metrics.jsonl"
    while process.is_alive():
        time.sleep(0.05)
        done = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        if len(looks) < done < epochs:  # with the last one it begins to end
            looks += [_look(process.pid, done * STEPS_AN_EPOCH, began)] * (done - len(looks))
    assert ended_well(program, ended(process))
    return looks


def ended_well(program: Program, status: int) -> bool:
    """Whether a training did all it was to do; else show its log."""
    assert status == 0, program.log.read_text()[-3000:]
    return True


def _look(process: int, steps: int, began: float) -> Look:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    workers = sum(_megabytes(f"/proc/{child}/smaps_rollup", "Private_") for child in children)
    files = len(os.listdir(f"/proc/{process}/fd"))
    resident = _megabytes(f"/proc/{process}/status", "VmRSS")
    return Look(steps, time.monotonic() - began, resident, workers, files)


def _megabytes(path: str, what: str) -> float:
    """Return what a file of /proc says; nothing where its process has just ended."""
    try:
        lines = Path(path).read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def growth(looks: Sequence[Look], what: str) -> float:
    """Return by how much something grows in a thousand steps after the warm-up, by a line through all looks.

    The largest rise from one look to the next is left out: a library that takes its working memory at its first use is
    no leak. What leaks rises again and again.
    """
    later = looks[int(len(looks) * WARM_UP) :]
    rises = np.diff([float(getattr(look, what)) for look in later])
    rises[rises.argmax()] = min(0.0, rises.max())
    steps = [look.steps for look in later]
    return float(np.polyfit(steps, np.concatenate([[0.0], rises.cumsum()]), 1)[0] * 1000)


def usual_growth(looks: Sequence[Look], what: str) -> float:
    """Return by how much something grows in a thousand steps of its usual kind: the median of all rises.

    For few looks: a loaded machine takes its working memory in several large pieces, at any of them.
    """
    return float(np.median(np.diff([float(getattr(look, what)) for look in looks])) * 1000 / STEPS_AN_EPOCH)


def main() -> None:
    """Train, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        looks = train(Path(name), options.steps)
    print("| steps | s | main process, MB | decoding processes, MB | open files |\n|---|---|---|---|---|")
    shown = looks[:: max(1, len(looks) // 10)]
    for look in [*shown, *looks[-1:]]:
        numbers = (look.seconds, look.megabytes, look.workers)
        print(f"| {look.steps:,} | {' | '.join(f'{number:.0f}' for number in numbers)} | {look.files} |")
    for what in ("megabytes", "workers", "files"):
        print(f"{what}: {growth(looks, what):+.2f} in a thousand steps")


if __name__ == "__main__":
    main()
