"""What is decided beyond a run's configuration and decides its results with it, without torch."""

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
    """Return what an interrupted training must find as it was, to go on.

    Args:
        config: The experiment.
        data: Its data, of which the recordings are checked.
        precision: The precision's reason; None where it is not known, and not compared then.
        is_gpu: Whether the model is on a GPU.
        ranks: Processes that train together.
    """
    left_out = data.left_out_recordings["file"].tolist()
    names = hashlib.sha256("\n".join(left_out).encode()).hexdigest()[:8]
    return {
        "processes": ranks,
        **({} if precision is None else {"precision": precision}),
        "left_out_recordings": f"{len(left_out)} ({names})" if left_out else "none",
        "deterministic": config.deterministic and is_gpu,  # the CPU always is
        "augmentation_files": identify_augmentation(config),
        STEPS_PER_EPOCH: count_steps(len(data.train), config.batch_size * config.accumulation_steps * ranks, ranks),
    }
