"""Exports a trained model to ONNX: from decoded waveforms to probabilities, and attributes on their scale."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from experiment_runner.models.loaded_model import LoadedModel
from experiment_runner.runtime.program_version import USER_CODE
from utils.data.recordings.excerpts import LONGEST_SECONDS
from utils.data.recordings.survey import SHORTEST_SECONDS
from utils.data.wav import SAMPLE_RATE_HZ
from utils.errors import UserError
from utils.hub.model_files import PROVENANCE
from utils.io.files import atomic_file, read_note

if TYPE_CHECKING:
    from net.standalone_model import SpeechEmotionModel

INPUT = "waveforms"
OMITTED = ("format_version", "upstream")
"""Keys of a checkpoint's `config.json` that the metadata lack."""
CHECKED_SECONDS = (0.5, 3.1, 20.0)
TOLERANCE = 1e-4
MOST_BYTES = 1536 << 20
"""Above this size, torch writes the weights into a separate file."""
EXTRAS = "install them with `pip install -r requirements-extras.txt -c constraints.txt`"


class ExportError(UserError):
    """A model cannot be exported; the message names the remedy."""


def export_onnx(model: LoadedModel, path: Path) -> float:
    """Write a model, and compare onnxruntime's outputs with the model's own.

    The graph takes `waveforms`, (batch, samples) float32, 16 kHz mono, all of the same, arbitrary length. Where the
    model has them, it returns `emotion`, `gender` and its further heads, probabilities in the order of the metadata's
    `classes`, `genders` and `heads`, and `attribute` on the metadata's `attribute_scale`, each (batch, outputs).

    Returns:
        The largest difference over outputs, at lengths from 0.5 s to 20 s.

    Raises:
        ExportError: If a package is missing, or the difference is more than 1e-4.
    """
    try:
        import onnxruntime  # noqa: F401 - asked for now, not after the export
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(f"the export needs {error.name}, which is not installed; {EXTRAS}") from error
    if model.description.user_code:
        raise ExportError(
            f"the model needs its author's code, {', '.join(model.description.user_code)}, which ONNX cannot contain"
        )
    from net.standalone_model import SpeechEmotionModel

    plain = SpeechEmotionModel(model.description.to_json()).eval()
    plain.load_state_dict(model.network.state_dict())
    size = sum(parameter.numel() * parameter.element_size() for parameter in plain.parameters())
    if size > MOST_BYTES:
        raise ExportError(f"the model has {size / 2**30:.1f} GiB of weights, more than one ONNX file takes")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        _write(plain, model, partial)
        difference = _largest_difference(plain, partial)
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the result of onnxruntime differs by {difference:.1e}; export with other versions of onnx"
            )
    return difference


def _write(plain: SpeechEmotionModel, model: LoadedModel, path: Path) -> None:
    lengths = torch.export.Dim(
        "samples", min=round(SHORTEST_SECONDS * SAMPLE_RATE_HZ), max=round(LONGEST_SECONDS * SAMPLE_RATE_HZ)
    )
    with _quiet():
        program = torch.onnx.export(
            plain,
            (torch.randn(2, SAMPLE_RATE_HZ),),
            input_names=[INPUT],
            output_names=list(plain.labels),
            dynamic_shapes=({0: torch.export.Dim("batch"), 1: lengths},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    described = {name: value for name, value in model.description.to_json().items() if name not in OMITTED}
    if code := read_note(model.folder / PROVENANCE).get(USER_CODE):
        described[USER_CODE] = code
    program.model.metadata_props.update({name: json.dumps(value) for name, value in described.items()})
    program.save(path)


def _largest_difference(plain: SpeechEmotionModel, path: Path) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0)
    differences = []
    for seconds in CHECKED_SECONDS:
        waveforms = 0.1 * noise.standard_normal((2, round(seconds * SAMPLE_RATE_HZ)), np.float32)
        found = session.run(list(plain.labels), {INPUT: waveforms})
        with torch.inference_mode():
            expected = plain(torch.from_numpy(waveforms))
        differences += [
            abs(expected[name].numpy() - values).max() for name, values in zip(plain.labels, found, strict=True)
        ]
    return float(max(differences))


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's messages about its own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
