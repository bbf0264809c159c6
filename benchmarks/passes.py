"""Device choice, timing and output that the benchmarks of whole passes share."""

from __future__ import annotations

import argparse
import gc
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from benchmarks.commands import Row, bare_parser
from benchmarks.stock import Loop, Padded
from benchmarks.synthetic import SHAPES
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.device import keep_freed_memory
from utils.io.files import write_json


def parser_of(description: str | None, output: str) -> argparse.ArgumentParser:
    """Return a parser with the options of benchmarks of shapes."""
    parser = bare_parser(description, output)
    parser.add_argument("--shapes", nargs="+", default=["base-plus", "large"], choices=list(SHAPES))
    return parser


def device_parser(description: str | None, output: str) -> argparse.ArgumentParser:
    """Return a parser with the options of benchmarks of whole passes."""
    parser = parser_of(description, output)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    return parser


def find_device(name: str) -> torch.device:
    """Return the named device, with TF32 switched off; exit with one sentence if it does not exist."""
    if name == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "this benchmark needs a CUDA GPU and none is there; --device cpu --shapes tiny shows that it runs"
        )
    if name == "cpu":
        keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)


def describe(device: torch.device) -> str:
    """Return the name of a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"


def synchronise(device: torch.device) -> None:
    """Wait for a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call, including its work on the device."""
    synchronise(device)
    began = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - began


def time_windows(
    step: Callable[[Sequence[Padded]], object],
    windows: Sequence[Sequence[Padded]],
    most_seconds: float,
    device: torch.device,
) -> tuple[int, float]:
    """Take a step per window until all are done or the time is over; return the number of steps and the seconds."""
    synchronise(device)
    began = time.perf_counter()
    taken = 0
    for window in windows:
        step(window)
        taken += 1
        if time.perf_counter() - began > most_seconds:
            break
    synchronise(device)
    return taken, time.perf_counter() - began


def measure_loop(
    loop: Loop,
    warm_up: Iterable[Sequence[Padded]],
    windows: Sequence[Sequence[Padded]],
    most_seconds: float,
) -> tuple[int, Row]:
    """Time a stock loop after its warm-up, see `time_windows`; return the number of steps and their figures."""
    for window in warm_up:
        loop(window)
    taken, seconds = time_windows(loop, windows, most_seconds, loop.device)
    audio = sum(batch.seconds for window in windows[:taken] for batch in window)
    return taken, {"seconds": seconds, "rate": audio / seconds, "gib": peak_gib(loop.device)}


def forget(device: torch.device) -> None:
    """Free the memory of the last variant, and reset the record of peak memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float | None:
    """Return the peak memory allocated on a GPU, in GiB."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def say(row: Row) -> Row:
    """Print a variant's rate as soon as it is measured, and return its row."""
    print(f"{row['shape']:10} {row['variant']:32} {row['rate']:10,.0f} s/s", flush=True)
    return row


def tell(
    title: str, rows: Sequence[Row], references: Sequence[str], path: Path, device: torch.device, **facts: object
) -> None:
    """Compare every variant with the reference variants of its shape, print a table and write it as JSON.

    Args:
        title: Title of the table; the device is appended.
        rows: Rows with `shape`, `variant`, `rate` (seconds of audio per second), and perhaps `mfu` and `gib`.
        references: Variants that the others are compared with.
        path: Path of the JSON file.
        device: Device that was measured.
        facts: Further entries of the JSON file.
    """
    columns = ("shape", "variant", "audio s/s", *(f"x {name}" for name in references), "MFU", "GiB")
    cells = []
    for row in rows:
        rates = {other["variant"]: other["rate"] for other in rows if other["shape"] == row["shape"]}
        row["times"] = {name: row["rate"] / rates[name] for name in references}
        mfu = f"{row['mfu']:.1%}" if row.get("mfu") is not None else ""
        gib = f"{row['gib']:.1f}" if row.get("gib") is not None else ""
        times = [f"{times:.2f}" for times in row["times"].values()]
        cells.append([row["shape"], row["variant"], f"{row['rate']:,.0f}", *times, mfu, gib])
    Console().table(f"{title}, {describe(device)}", columns, cells, numeric=range(2, len(columns)))
    write_json(path, {"device": describe(device), **facts, "rows": rows})
