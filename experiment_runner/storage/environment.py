"""Settings outside a run's configuration that also decide its results. Does not import torch."""

from __future__ import annotations

import hashlib

from experiment_runner.data.experiment_data import ExperimentData
from experiment_runner.storage.run_folder import STEPS_PER_EPOCH
from utils.config.schema import ExperimentConfig
from utils.data.recordings.augmentation_files import identify_augmentation
from utils.dataset.sampling import count_steps


def run_environment(
    config: ExperimentConfig, data: ExperimentData, precision: str | None, is_gpu: bool, ranks: int
) -> dict[str, object]:
    """Return the settings that must be unchanged for an interrupted training to resume.

    Args:
        config: The experiment.
        data: Its data, with checked recordings.
        precision: Reason for the precision; None if unknown, and then not compared.
        is_gpu: Whether the model is on a GPU.
        ranks: Processes that train together.
    """
    left_out = data.left_out_recordings["file"].tolist()
    names = hashlib.sha256("\n".join(left_out).encode()).hexdigest()[:8]
    return {
        "processes": ranks,
        **({} if precision is None else {"precision": precision}),
        "left_out_recordings": f"{len(left_out)} ({names})" if left_out else "none",
        "deterministic": config.deterministic and is_gpu,  # the CPU always is deterministic
        "augmentation_files": identify_augmentation(config),
        STEPS_PER_EPOCH: count_steps(len(data.train), config.batch_size * config.accumulation_steps * ranks, ranks),
    }
