"""Predict emotions of recordings with a trained model, on the screen, in files or on a page; or export it as ONNX."""

from __future__ import annotations

import argparse
import sys
import threading
from functools import partial
from pathlib import Path

import torch

from experiment_runner.distributed.process_group import SINGLE_PROCESS
from experiment_runner.models.model_origin import origin_of
from experiment_runner.models.onnx_export import export_onnx
from experiment_runner.prediction.inputs import find_recordings
from experiment_runner.prediction.output import FORMATS, STANDARD_OUTPUT, draw, keep, report_problems
from experiment_runner.prediction.predictor import Predictions, look_at, predict, warn_of_silence
from experiment_runner.prediction.trained_length import warn_of_lengths
from experiment_runner.publishing.ser_model import SERModel
from experiment_runner.runtime.command import run_command
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.device import choose_device, choose_precision
from experiment_runner.runtime.precision import Precision
from experiment_runner.webapp.workspace import demo_place
from utils import read_token
from utils.data.recordings.excerpts import Windows
from utils.data.recordings.faint_mixes import describe_faint_mixes
from utils.errors import ALL_WELL, FAILED, INTERRUPTED, WRONG_INPUT, DataError
from utils.hub.repositories import HubError
from utils.io.output_folder import try_folder

__all__ = ["SERModel", "Windows", "predict"]

RECORDINGS = (
    "recordings, lists of recordings, and folders: every recording below them that libsndfile reads, also behind "
    "links; a file that several paths lead to is predicted under each of them"
)
LAST_PORT = 65_535


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", nargs="*", metavar="FILE | FOLDER | LIST.csv", help=RECORDINGS)
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a run's or a checkpoint's folder, or a hub id",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module on Python's path with code that the model needs and that you trust; can be repeated",
    )
    parser.add_argument("--device", choices=["cuda", "cpu", "auto"], default="auto", help="default: %(default)s")
    parser.add_argument(
        "--amp", choices=["off", "auto", "bf16", "fp16"], default="off", help="precision; default: off, which is fp32"
    )
    parser.add_argument("--output", metavar="FILE", help=".csv or .jsonl; - for CSV on standard output")
    parser.add_argument("--segment-seconds", type=float, metavar="S", help="predict segments of this length one by one")
    parser.add_argument(
        "--hop-seconds", type=float, metavar="S", help="distance from one segment to the next; default: half a segment"
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the course over time of each recording")
    parser.add_argument("--export", type=Path, metavar="FILE.onnx", help="write the model as ONNX")
    parser.add_argument(
        "--serve", action="store_true", help="serve a page to record or upload speech, to this machine only"
    )
    parser.add_argument(
        "--port", type=port_number, metavar="N", help="port of the page; default: the first free one from 7860"
    )
    options = parser.parse_args(arguments)
    if bool(options.recordings) + bool(options.export) + options.serve != 1:
        parser.error("name recordings to predict, or --export FILE.onnx, or --serve")
    if options.port is not None and not options.serve:
        parser.error("--port needs --serve")
    if not options.recordings and (options.output or options.segment_seconds is not None):
        parser.error("--output and --segment-seconds are for recordings that the command line names")
    if options.export and options.export.suffix != ".onnx":
        parser.error(f"--export takes a file that ends in .onnx, not {options.export}")
    if options.output and options.output != STANDARD_OUTPUT and Path(options.output).suffix not in FORMATS:
        parser.error(f"--output takes a file that ends in {' or '.join(FORMATS)}, not {options.output}")
    for option, file in (("--output", options.output), ("--export", options.export)):
        if file and Path(file).is_dir():
            parser.error(f"{option} {file} is a folder; name a file")
    if options.segment_seconds is None and (options.hop_seconds is not None or options.plots is not None):
        parser.error("--hop-seconds and --plots need --segment-seconds")
    return options


def port_number(text: str) -> int:
    """Parse a port number."""
    if not text.isdecimal() or not 1 <= int(text) <= LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text} is not a port; give one from 1 to {LAST_PORT}")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if everything was predicted or the page was closed, 1 if something failed, 2 for wrong input."""
    options = parse_arguments(arguments)
    console = Console(to_stderr=options.output == STANDARD_OUTPUT)
    return run_command(partial(carry_out, options, console), statuses={HubError: WRONG_INPUT})


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Do what the command line asks for."""
    device = choose_device(options.device, console, SINGLE_PROCESS)
    windows, precision = windows_of(options), choose_precision(options.amp, device)
    for folder in written_folders(options):
        try_folder(folder)
    if options.serve:
        return show_page(options, device, precision, console)
    model = load(options, device)
    if options.export:
        return export(model, options.export, console)
    return predict_all(model, options, windows, precision, console)


def written_folders(options: argparse.Namespace) -> list[Path]:
    """Return the folders that will be written to."""
    files = [options.export, options.output if options.output != STANDARD_OUTPUT else None]
    folders = [Path(file).parent for file in files if file is not None]
    return folders + ([options.plots] if options.plots is not None else [])


def windows_of(options: argparse.Namespace) -> Windows | None:
    """Return the segments that the command line asks for."""
    segment, hop = options.segment_seconds, options.hop_seconds
    return None if segment is None else Windows(segment, segment / 2 if hop is None else hop)


def export(model: SERModel, path: Path, console: Console) -> int:
    """Write a model as ONNX."""
    difference = export_onnx(model, path)
    console.line(f"{path}: {path.stat().st_size / 2**20:.1f} MiB; onnxruntime and torch differ by {difference:.1e}")
    return ALL_WELL


def load(options: argparse.Namespace, device: torch.device) -> SERModel:
    """Return the model that the command line names."""
    token = read_token("HUGGINGFACE_TOKEN")
    return SERModel.from_pretrained(options.model, device, token=token, trusted=options.trust)


def show_page(options: argparse.Namespace, device: torch.device, precision: Precision, console: Console) -> int:
    """Serve the page until it is stopped, then delete the recordings sent to it."""
    threads = threading.enumerate()
    with demo_place(options.port) as place:
        from experiment_runner.webapp.server import leave_predictions, serve

        serve(load(options, device), options.model, precision, place, console)
    console.line("stopped; recordings that were sent to the page are deleted")
    leave_predictions(threads)
    return ALL_WELL


def predict_all(
    model: SERModel, options: argparse.Namespace, windows: Windows | None, precision: Precision, console: Console
) -> int:
    """Predict the recordings that the command line names; show or write the predictions, and plot them."""
    named = find_recordings(options.recordings)
    if not named.recordings:
        raise DataError("; ".join(named.unusable))
    console.error(*named.unusable)
    origin = origin_of(model, options.model)
    usable = look_at(named.recordings, windows)
    console.warn(*origin.cautions, warn_of_lengths(usable.seconds, options.segment_seconds, origin.trained_seconds))
    problems = {**named.left_out, **usable.problems}
    predictions = Predictions(model, windows, precision, dict(problems))
    is_interrupted = False
    with console.count(round(sum(usable.seconds.values())), "seconds of audio") as advance:
        try:
            predictions.add(list(usable.seconds), lambda seconds: advance(round(seconds)))
        except KeyboardInterrupt:
            is_interrupted = True
    table = predictions.table
    keep(table, options.output, console, origin.cautions)
    if options.plots is not None:
        draw(table, model, options.plots, console)
    console.warn(warn_of_silence(predictions.silent), describe_faint_mixes(predictions.faint, len(usable.seconds)))
    report_problems(predictions.problems, len(usable.seconds) + len(problems), options.output, console)
    console.line(named.describe_others())
    if is_interrupted:
        console.error(f"interrupted; {table['file'].nunique():,} of {len(usable.seconds):,} recordings were begun")
        return INTERRUPTED
    return FAILED if predictions.problems or named.unusable else ALL_WELL


if __name__ == "__main__":
    sys.exit(main())
