"""Data for the benchmarks of whole passes: shapes with random weights, durations, noise and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from transformers import WavLMConfig, WavLMModel

from experiment_runner.models.model_config import upstream_settings
from utils.config.regularisation import FORMER_REGULARISATION
from utils.data.labels.columns import ATTRIBUTES, CANONICAL_CLASSES, TEXT, TEXT_COLUMNS
from utils.data.labels.corpus import Corpus
from utils.data.wav import SAMPLE_RATE_HZ, Waveform
from utils.hub.upstreams import UPSTREAMS

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": UPSTREAMS["built_in"]["wavlm-tiny-group-random"]["config"],
    "base-plus": {},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
    },
}
"""`tiny` is for the CPU: it shows that a benchmark runs, and its figures say nothing about the other shapes."""
DROPOUTS = upstream_settings(FORMER_REGULARISATION)
"""Dropouts of all compared models, without layerdrop, by their names in transformers."""
CORPUS = "BENCHMARK"
CLASSES = CANONICAL_CLASSES[:8]
Seconds = npt.NDArray[np.float64]


def draw_seconds(count: int) -> Seconds:
    """Draw durations like MSP-PODCAST's, (count,): log-normal, from 2.75 to 11 s, 5.6 s on average."""
    return np.clip(np.random.default_rng(0).lognormal(np.log(5.2), 0.42, count), 2.75, 11.0)


def draw_noise(seconds: Seconds) -> list[Waveform]:
    """Draw float32 noise of unit variance for every duration."""
    generator = np.random.default_rng(1)
    return [generator.standard_normal(int(s * SAMPLE_RATE_HZ), dtype=np.float32) for s in seconds]


def make_corpus(seconds: Seconds, development: int, paths: Sequence[str] | None = None) -> Corpus:
    """Return a corpus whose first `development` rows are the development split and the others the training split.

    Args:
        seconds: Duration of every row in seconds.
        development: Number of rows of the development split.
        paths: Path of every row's recording; if None, there are no recordings, and nothing may open them.
    """
    count = len(seconds)
    columns: dict[str, object] = dict.fromkeys(TEXT_COLUMNS)
    columns |= {"corpus": CORPUS, "file": [f"{row:07d}.wav" for row in range(count)]}
    columns["path"] = columns["file"] if paths is None else list(paths)
    columns["split"] = ["development"] * development + ["train"] * (count - development)
    columns["emotion"] = [CLASSES[row % len(CLASSES)] for row in range(count)]
    table = pd.DataFrame(columns, index=range(count)).astype(dict.fromkeys(TEXT_COLUMNS, TEXT))
    table = table.assign(**dict.fromkeys(ATTRIBUTES, np.nan), seconds=seconds)
    return Corpus(CORPUS, table, CLASSES, (1.0, 7.0), is_synthetic=True)


def write_upstream(folder: Path, shape: str) -> Path:
    """Write a WavLM of a shape with random weights; return its folder, for `upstream_model`."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    target = folder / shape
    WavLMModel(WavLMConfig(**SHAPES[shape])).save_pretrained(target)
    return target
