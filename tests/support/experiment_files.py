"""Experiment files on the synthetic corpus."""

from __future__ import annotations

from pathlib import Path

from tests.support.synthetic_podcast import SyntheticPodcast

BASE = """
[base_config]
corpus = "P"
upstream_model = "wavlm-tiny-random"
freeze = "none"
epoch = 2
min_epochs = 2
batch_size = 8
learning_rate = 1e-3
head_dropout = 0.1
tracking = "none"
"""


def write_files(folder: Path, podcast: SyntheticPodcast, experiments: str, base: str = BASE) -> list[str]:
    corpora, listed = folder / "config.toml", folder / "experiments.toml"
    corpora.write_text(f"[P]\nPATH_TO_LABEL = '{podcast.labels}'\nPATH_TO_AUDIO = '{podcast.audio}'\n")
    listed.write_text(base + experiments)
    return ["--config", str(corpora), "--experiments", str(listed), "--output", str(folder / "runs"), "--device", "cpu"]


ONE = '[[experiments]]\nname = "one"\nconfig_update = { tags = ["pilot"], seeds = [1, 2] }\n'
