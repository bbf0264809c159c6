"""A small folder with the layout of MSP-PODCAST: harmonic tones whose pitch follows arousal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile

SAMPLE_RATE_HZ = 16_000
CODES = ("A", "S", "H", "U", "F", "D", "C", "N")
SPLITS = {"Train": ("1", "2", "3", "4"), "Development": ("11", "12"), "Test1": ("21", "22"), "Test2": ("22", "23")}


@dataclass(frozen=True)
class SyntheticPodcast:
    labels: Path
    audio: Path
    rows: pd.DataFrame


def write_podcast(root: Path, per_class: int = 3) -> SyntheticPodcast:
    """Every split holds `per_class` clips of every class, then two clips of O, two of X, one Unknown speaker."""
    generator = np.random.default_rng(0)
    audio, labels = root / "Audios", root / "Labels"
    audio.mkdir(parents=True)
    labels.mkdir()
    rows: list[dict[str, object]] = []
    for split, speakers in SPLITS.items():
        for code in [*(CODES * per_class), "O", "O", "X", "X"]:
            number = len(rows)
            arousal = float(np.round(1.5 + 5 * generator.random(), 1))
            name = f"MSP-PODCAST_{number:04d}_{generator.integers(1, 9999):04d}.wav"
            rows.append(
                {
                    "FileName": name,
                    "EmoClass": code,
                    "EmoAct": arousal,
                    "EmoVal": float(np.round(1.5 + 5 * generator.random(), 1)),
                    "EmoDom": float(np.round(min(7.0, arousal + 0.3), 1)),
                    "SpkrID": "Unknown" if number % 17 == 0 else speakers[number % len(speakers)],
                    "Gender": "Female" if number % 2 else "Male",
                    "Split_Set": split,
                }
            )
            soundfile.write(audio / name, voice(arousal, generator), SAMPLE_RATE_HZ, subtype="PCM_16")
    table = pd.DataFrame(rows)
    table.to_csv(labels / "labels_consensus.csv", index=False)
    return SyntheticPodcast(labels, audio, table)


def voice(arousal: float, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return 0.3 to 0.9 s of a harmonic tone at 80 to 360 Hz with noise."""
    seconds = 0.3 + 0.6 * generator.random()
    time = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch_hz = 80 + 40 * arousal
    tone = np.sum([np.sin(2 * np.pi * pitch_hz * k * time) / k for k in range(1, 9)], axis=0)
    return np.asarray(0.1 * tone + 0.01 * generator.standard_normal(len(time)))
