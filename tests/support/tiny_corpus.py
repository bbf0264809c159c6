"""A CSV corpus of a few short tones with labels that a test may change, and the command line to train on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from tests.support.voices import voice

CLASSES = ("angry", "happy", "neutral", "sad")
SPEAKERS = {"train": ("01", "02", "03"), "development": ("04", "05"), "test1": ("06",)}
BASE = {"upstream_model": "wavlm-tiny-random", "batch_size": 4, "epoch": 1, "learning_rate": 1e-3, "tracking": "none"}


def tiny_rows(per_class: int = 1) -> pd.DataFrame:
    """Return a table of every class by every speaker, so many times; speaker 01 and every second one is a man."""
    rows = [
        {
            "file": f"{speaker}-{emotion}-{take}.wav",
            "split": split,
            "speaker": speaker,
            "gender": "male" if int(speaker) % 2 else "female",
            "emotion": emotion,
            "arousal": float(2 + (number + int(speaker)) % 3),
            "valence": float(3 + (number * int(speaker)) % 3),
            "dominance": float(4 + number % 2),
        }
        for split, speakers in SPEAKERS.items()
        for speaker in speakers
        for number, emotion in enumerate(CLASSES)
        for take in range(per_class)
    ]
    return pd.DataFrame(rows)


def write_tiny_corpus(folder: Path, rows: pd.DataFrame, experiments: str, **keys: object) -> list[str]:
    """Write recordings, table and configuration; return the arguments of `main`.

    Args:
        folder: Of all files.
        rows: As `tiny_rows` returns them, with what a test changes.
        experiments: The `[[experiments]]` of the list.
        keys: Of the base config, beside or in place of `BASE`.
    """
    audio = folder / "wav"
    audio.mkdir(exist_ok=True)
    for number, name in enumerate(rows["file"]):
        samples = voice(0.4, seed=number) * np.float64(0.5 + number % 3 / 4)
        soundfile.write(audio / name, samples, 16_000, subtype="PCM_16")
    rows.to_csv(folder / "table.csv", index=False)
    corpora, listed = folder / "config.toml", folder / "experiments.toml"
    corpora.write_text("[TINY]\nFORMAT = 'csv'\nPATH_TO_LABEL = 'table.csv'\nPATH_TO_AUDIO = 'wav'\n")
    lines = [f"{key} = {_toml(value)}" for key, value in {"corpus": "TINY", **BASE, **keys}.items()]
    listed.write_text("\n".join(["[base_config]", *lines, experiments, ""]))
    return ["--config", str(corpora), "--experiments", str(listed), "--output", str(folder / "runs"), "--device", "cpu"]


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
