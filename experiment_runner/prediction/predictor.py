"""Predictions of a trained model for any recordings, as a whole or over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from experiment_runner.models.loaded_model import LoadedModel
from experiment_runner.results.prediction_columns import END, START
from experiment_runner.results.predictions import predicted_columns
from experiment_runner.runtime.device import choose_precision, exact_float32
from experiment_runner.runtime.precision import Precision
from net.inputs import Waveforms
from net.ser import Outputs
from utils.data.recordings.excerpts import LONGEST_SECONDS, Excerpt, Windows, read_windows
from utils.data.recordings.file_identity import THREADS
from utils.data.recordings.file_names import list_problems
from utils.data.recordings.leaks import SILENT_PEAK
from utils.data.recordings.signal_checks import FAINT_DB, Cancellation
from utils.data.recordings.survey import examine
from utils.data.wav import SAMPLE_RATE_HZ, read_waveform
from utils.dataset.read_ahead import read_ahead
from utils.errors import DataError
from utils.word_forms import counted, some

BATCH_SECONDS = {"cpu": 60.0, "cuda": 640.0}
"""Maximum seconds of audio in a forward pass, by kind of device."""
AHEAD = 8
"""Number of recordings decoded ahead while others are predicted."""
Columns = dict[str, list[object]]
"""Columns of predictions as plain lists: arrays kept between batches would fragment the heap."""


class Usable(NamedTuple):
    """Recordings sorted by whether their headers make them usable.

    Attributes:
        seconds: Durations of usable recordings by path, in the requested order.
        problems: Why the others are unusable, by path.
    """

    seconds: Mapping[str, float]
    problems: Mapping[str, str]


class _Piece(NamedTuple):
    """An excerpt, and the recording that it belongs to."""

    path: str
    excerpt: Excerpt


def predict(
    model: LoadedModel, paths: Iterable[str | Path], windows: Windows | None = None, amp: str = "off"
) -> pd.DataFrame:
    """Return a model's predictions for recordings, in the given order, with repeated recordings repeated.

    Args:
        model: The model.
        paths: Recordings of any format that libsndfile reads, any rate and any number of channels.
        windows: Excerpts that are predicted one by one; None to predict whole recordings.
        amp: Like the configuration key `amp`; `off` computes in fp32 on every device.

    Returns:
        `file` (the path as given); with windows, `start_seconds` and `end_seconds`; then, as in `predictions/*.csv`,
        `prediction` and `prob_<class>`, `pred_<attribute>` on its scale, `<head>_prediction`.

    Raises:
        DataError: If recordings are unusable; it names them.
        PrecisionError: If the device does not support the precision.
    """
    names = list(map(str, paths))
    usable = look_at(names, windows)
    _refuse(usable.problems)
    predictions = Predictions(model, windows, choose_precision(amp, model.device))
    predictions.add(list(usable.seconds))
    _refuse(predictions.problems)
    return pd.DataFrame({"file": names}).merge(predictions.table, on="file")


def _refuse(problems: Mapping[str, str]) -> None:
    if problems:
        raise DataError(f"{counted(len(problems), 'recording')} cannot be predicted: {list_problems(problems.items())}")


def warn_of_silence(silent: Sequence[str]) -> str:
    """Name the recordings that are pure silence, for which a model predicts something anyway; empty if none."""
    if not silent:
        return ""
    are, their = counted(len(silent), "recording is", "recordings are"), "its" if len(silent) == 1 else "their"
    return f"{are} silent, never louder than -60 dB, so {their} prediction means nothing: {some(silent)}"


def look_at(paths: Iterable[str | Path], windows: Windows | None) -> Usable:
    """Read the headers of recordings, each once."""
    requested = dict.fromkeys(map(str, paths))
    names = [name for name in requested if _is_utf8(name)]
    problems = {name: "has a name that is not UTF-8; rename it" for name in requested if not _is_utf8(name)}
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(partial(examine, is_deep=False), names))
    seconds: dict[str, float] = {}
    for name, examined in zip(names, found, strict=True):
        if examined.problem is not None:
            problems[name] = examined.problem.text
            continue
        assert examined.header is not None
        seconds[name] = examined.header.frames / examined.header.rate_hz
        if windows is None and seconds[name] > LONGEST_SECONDS:
            problems[name] = (
                f"is {seconds.pop(name) / 60:.0f} minutes long, too long for one prediction; --segment-seconds "
                "3 predicts its course over time"
            )
    return Usable(seconds, problems)


def _is_utf8(name: str) -> bool:
    """Return whether a name can be written into a table; names from other systems may not be UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass
class Predictions:
    """The predictions so far, even after an interruption.

    Attributes:
        model: The model.
        windows: See `predict`.
        precision: Precision of the forward passes.
        problems: Why recordings have no rows, by path.
        faint: Loss in dB from mixing the channels, by path, for recordings that lose much.
    """

    model: LoadedModel
    windows: Windows | None
    precision: Precision
    problems: dict[str, str] = field(default_factory=dict)
    _extremes: dict[str, tuple[float, float]] = field(default_factory=dict)
    faint: dict[str, float] = field(default_factory=dict)
    _parts: list[Columns] = field(default_factory=list)

    def add(self, paths: Sequence[str], advance: Callable[[float], None] = lambda _: None) -> None:
        """Predict recordings whose headers are in order.

        Args:
            paths: The recordings.
            advance: Called with the seconds of audio just completed.
        """
        for seconds in self.steps(paths):
            advance(seconds)

    def steps(self, paths: Sequence[str]) -> Iterator[float]:
        """Predict recordings lazily, batch by batch, and yield the seconds of audio in each batch."""
        windows = self.windows
        for batch in _batches(self._pieces(paths), BATCH_SECONDS[self.model.device.type]):
            self._add(batch)
            yield sum(piece.excerpt.seconds if windows is None else windows.hop_seconds for piece in batch)

    def _pieces(self, paths: Sequence[str]) -> Iterator[_Piece]:
        """Read recordings in turn; note their extremes, which are unusable, and which lose much in mixing."""
        mixes = [Cancellation() for _ in paths]
        for path, mix, read in zip(paths, mixes, _reading(paths, mixes, self.windows), strict=True):
            try:
                for excerpt in read():
                    low, high = self._extremes.get(path, (np.inf, -np.inf))
                    samples = excerpt.samples
                    self._extremes[path] = min(low, float(samples.min())), max(high, float(samples.max()))
                    yield _Piece(path, excerpt)
                if mix.decibels >= FAINT_DB:
                    self.faint[path] = mix.decibels
            except DataError as error:
                self.problems[path] = str(error).removeprefix(f"{path} ")

    @property
    def silent(self) -> list[str]:
        """The recordings predicted so far that are pure silence, by the audit's definition."""
        swings = {path: (high - low) / 2 for path, (low, high) in self._extremes.items() if path not in self.problems}
        return [path for path, swing in swings.items() if swing < SILENT_PEAK]

    def _add(self, batch: Sequence[_Piece]) -> None:
        """Predict a batch; if it does not fit into GPU memory, predict its halves."""
        try:
            self._parts.append(_predict_batch(self.model, batch, self.windows, self.precision))
            return
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        if len(batch) == 1:
            self.problems[batch[0].path] = "does not fit into the GPU's memory; predict it with --device cpu"
            return
        for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            self._add(part)

    @property
    def table(self) -> pd.DataFrame:
        """The table that `predict` returns, with each recording once."""
        parts = self._parts or [_as_columns(self.model, [], _no_outputs(self.model), self.windows)]
        table = pd.DataFrame({name: list(chain.from_iterable(part[name] for part in parts)) for name in parts[0]})
        is_whole = np.array([path not in self.problems for path in table["file"]], dtype=bool)
        return table[is_whole].reset_index(drop=True)


def _reading(
    paths: Iterable[str], mixes: Iterable[Cancellation], windows: Windows | None
) -> Iterator[Callable[[], Iterable[Excerpt]]]:
    """Yield, for each recording, a function that returns its excerpts; whole recordings are read a few ahead."""
    if windows is None:
        calls = (partial(_read_whole, path, mix) for path, mix in zip(paths, mixes, strict=True))
        yield from (future.result for future in read_ahead(calls, AHEAD, AHEAD))
    else:
        yield from (partial(read_windows, path, windows, mix) for path, mix in zip(paths, mixes, strict=True))


def _read_whole(path: str, mix: Cancellation) -> list[Excerpt]:
    samples = read_waveform(path, cancellation=mix)
    return [Excerpt(0.0, len(samples) / SAMPLE_RATE_HZ, samples)]


def _batches(pieces: Iterable[_Piece], most_seconds: float) -> Iterator[list[_Piece]]:
    """Group excerpts into batches of at most `most_seconds`, or of a single excerpt."""
    batch: list[_Piece] = []
    total = 0.0
    for piece in pieces:
        if batch and total + piece.excerpt.seconds > most_seconds:
            yield batch
            batch, total = [], 0.0
        batch.append(piece)
        total += piece.excerpt.seconds
    if batch:
        yield batch


def _predict_batch(
    model: LoadedModel, batch: Sequence[_Piece], windows: Windows | None, precision: Precision
) -> Columns:
    samples = [model.description.normalisation(piece.excerpt.samples) for piece in batch]
    inputs = Waveforms(torch.from_numpy(np.concatenate(samples)), tuple(map(len, samples))).to(model.device)
    with torch.inference_mode(), precision.autocast(model.device), exact_float32():
        outputs = model.network(inputs)
    return _as_columns(model, batch, outputs, windows)


def _as_columns(model: LoadedModel, batch: Sequence[_Piece], outputs: Outputs, windows: Windows | None) -> Columns:
    columns: Columns = {"file": [piece.path for piece in batch]}
    if windows is not None:
        columns[START] = [piece.excerpt.start for piece in batch]
        columns[END] = [piece.excerpt.end for piece in batch]
    predicted = predicted_columns(outputs, model.description.labels)
    return columns | {name: values.tolist() for name, values in predicted.items()}


def _no_outputs(model: LoadedModel) -> Outputs:
    """Return outputs without rows, for no recording."""
    heads = model.description.heads
    emotion, attributes = (torch.empty(0, size) if size else None for size in (heads.classes, heads.attributes))
    auxiliary = {name: torch.empty(0, size) for name, size in heads.auxiliary.items()}
    return Outputs(torch.empty(0, 0), emotion, attributes, auxiliary)
