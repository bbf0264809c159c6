"""How fast recordings are decoded, and what a large corpus costs in memory: `python -m benchmarks.loader`.

Recordings of MSP-PODCAST's durations are generated as WAV, FLAC and packed shards (16 kHz, 16 bit, page cache warm) and
served by the project's own loader in batches. The memory of a corpus is that of tables of more and more rows over the
same few files, each in a process of its own: what the main process and its workers hold after random batches of all
rows. Pages that they share count once, and those of libraries, which other programs share too, not at all.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.commands import Row, bare_parser, run_alone
from benchmarks.synthetic import CLASSES, draw_seconds, make_corpus
from dataset_module.ser_dataset import Labels, SERDataset
from experiment_runner.loading.batch_loader import BatchLoader, make_loader
from experiment_runner.runtime.console import Console
from utils.data.packing import shards
from utils.data.recordings.file_identity import state_of
from utils.data.wav import SAMPLE_RATE_HZ
from utils.dataset.collation import Batch
from utils.dataset.normalisation import Normalisation
from utils.dataset.sampling import BatchItems, Rows
from utils.io.files import write_json

BATCH_SIZE = 32
MOST_SECONDS = 12.0
"""Longer than any recording, so that none is cropped."""
LABELS = Labels(CLASSES, (), (1.0, 7.0))
KINDS = ("wav", "flac", "shards")
MEMORY_BATCHES = 32


class Source:
    """A dataset with its loader.

    Args:
        paths: Recordings, which the rows of the table use in turn.
        rows: Number of rows of the table.
        workers: Number of decoding processes.
    """

    def __init__(self, paths: Sequence[str], rows: int, workers: int) -> None:
        seconds = np.resize(draw_seconds(len(paths)), rows)
        corpus = make_corpus(seconds, 0, [paths[row % len(paths)] for row in range(rows)])
        self.table = corpus.table
        dataset = SERDataset(self.table, LABELS, Normalisation("utterance"), MOST_SECONDS, 1)
        items = BatchItems()
        loader = make_loader(dataset, items, workers, torch.device("cpu"))
        self.feed = BatchLoader(items, loader, lambda: None)

    def serve(self, batches: list[Rows]) -> Iterator[Batch]:
        """Decode batches."""
        return self.feed.serve(batches, epoch=1)


def write_recordings(folder: Path, count: int) -> dict[str, list[str]]:
    """Write the same recordings in every format; return the paths of each format."""
    generator = np.random.default_rng(0)
    paths: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for number, seconds in enumerate(draw_seconds(count)):
        samples = _voice(int(seconds * SAMPLE_RATE_HZ), generator)
        for kind in ("wav", "flac"):
            path = folder / f"{number:07d}.{kind}"
            soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
            paths[kind].append(str(path))
    sources = [shards.Source(Path(path).name, path, *state_of(os.stat(path)), {}) for path in paths["wav"]]
    shards.pack(sources, folder / "shards", workers=1, advance=lambda _: None)
    index = shards.read_index(folder / "shards")
    assert index is not None
    paths["shards"] = index["place"].tolist()
    return paths


def _voice(count: int, generator: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a tone with harmonics and some noise, which FLAC compresses about as much as speech."""
    phase = 2 * np.pi * generator.uniform(80, 300) * np.arange(count) / SAMPLE_RATE_HZ
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 9))
    return np.asarray(0.1 * harmonics + 0.01 * generator.standard_normal(count))


def measure_rate(kind: str, paths: Sequence[str], workers: int, utterances: int) -> dict[str, object]:
    """Measure one format of recordings with a number of workers, after they have started."""
    source = Source(paths, utterances, workers)
    order = np.random.default_rng(0).permutation(utterances)
    batches = [order[start : start + BATCH_SIZE] for start in range(0, utterances, BATCH_SIZE)]
    for _ in source.serve(batches[: 2 * workers + 1]):
        pass
    began = time.perf_counter()
    served = sum(len(batch.rows) for batch in source.serve(batches))
    seconds = time.perf_counter() - began
    hours = float(source.table["seconds"].sum()) / 3600
    rates = {"files_per_second": served / seconds, "hours_per_second": hours / seconds}
    return {"kind": kind, "workers": workers, "seconds": seconds, **rates}


def measure_memory(paths: Sequence[str], rows: int, workers: int) -> dict[str, int]:
    """Return the memory of this process and its workers in bytes, after batches of a table with this many rows."""
    source = Source(paths, rows, workers)
    generator = np.random.default_rng(0)
    served = source.serve([generator.integers(rows, size=BATCH_SIZE) for _ in range(MEMORY_BATCHES)])
    for _ in range(MEMORY_BATCHES - 1):
        next(served)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
    own = [_rollup(number)["Private_Dirty"] for number in children]
    everyone = [str(os.getpid()), *children]
    return {
        "rows": rows,
        "workers": len(children),
        "all_bytes": sum(_rollup(number)["Pss_Anon"] for number in everyone),
        "resident_bytes": sum(_rollup(number)["Rss"] for number in everyone),
        "worker_bytes": max(own, default=0),
    }


def _rollup(number: str) -> dict[str, int]:
    """Return a process's memory in bytes, by the names of Linux's `smaps_rollup`."""
    lines = Path(f"/proc/{number}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    return {name: 1024 * int(size.split()[0]) for name, size in (line.split(":") for line in lines)}


def _memory_rows(folder: Path, paths: Sequence[str], tables: Sequence[int], workers: int) -> list[Row]:
    """Measure each table in a process of its own, with the memory per row beyond the first table."""
    (folder / "paths.json").write_text(json.dumps(list(paths)), encoding="utf-8")
    found: list[Row] = []
    for rows in tables:
        row = run_alone("benchmarks.loader", "--measure", rows, "--folder", folder, "--workers", workers)
        if found:
            more = rows - found[0]["rows"]
            row["bytes_per_row"] = (row["all_bytes"] - found[0]["all_bytes"]) / more
            row["worker_bytes_per_row"] = (row["worker_bytes"] - found[0]["worker_bytes"]) / more
        found.append(row)
    return found


def _report(rates: Sequence[Row], memory: Sequence[Row]) -> None:
    console = Console()
    cells = [
        [row["kind"], str(row["workers"]), f"{row['files_per_second']:,.0f}", f"{row['hours_per_second']:.2f}"]
        for row in rates
    ]
    columns = ("recordings", "workers", "files/s", "hours/s")
    console.table(f"Decoding, {os.cpu_count()} cores", columns, cells, numeric=range(1, 4))
    lines = []
    for row in memory:
        sizes = [f"{row[name] / 2**20:,.0f}" for name in ("all_bytes", "resident_bytes", "worker_bytes")]
        per_row = [f"{row[name]:.1f}" if name in row else "" for name in ("bytes_per_row", "worker_bytes_per_row")]
        lines.append([f"{row['rows']:,}", str(row["workers"]), *sizes, *per_row])
    titles = ("rows", "workers", "all, MiB", "resident sum, MiB", "a worker's own, MiB", "bytes a row")
    console.table("Memory", (*titles, "a worker's bytes a row"), lines, numeric=range(7))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print two tables and write `loader.json`."""
    cores = os.cpu_count() or 1
    workers = [0, *(number for number in (1, 2, 4, 8, 16) if number <= cores)]
    parser = bare_parser(__doc__, "loader.json")
    parser.add_argument("--files", type=int, default=256, metavar="N", help="recordings that are generated")
    parser.add_argument("--utterances", type=int, default=4096, metavar="N", help="served for each rate")
    parser.add_argument("--workers", type=int, nargs="+", default=workers, metavar="N")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], metavar="N")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        paths = json.loads((options.folder / "paths.json").read_text(encoding="utf-8"))
        print(json.dumps(measure_memory(paths, options.measure, options.workers[0])))
        return
    with tempfile.TemporaryDirectory() as name:
        found = write_recordings(Path(name), options.files)
        rates = [measure_rate(k, found[k], count, options.utterances) for k in KINDS for count in options.workers]
        memory = _memory_rows(Path(name), found["wav"], options.rows, min(2, max(options.workers)))
    _report(rates, memory)
    write_json(options.output, {"cores": cores, "rates": rates, "memory": memory})


if __name__ == "__main__":
    main()
