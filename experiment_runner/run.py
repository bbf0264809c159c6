"""One experiment with one seed, on a device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import torch

from experiment_runner.experiment_data import ExperimentData
from experiment_runner.feeds import choose_workers
from experiment_runner.interruption import Interruption
from experiment_runner.optimisation import Precision, choose_precision
from experiment_runner.processes import ALONE, Processes
from experiment_runner.run_folder import RunFolder
from experiment_runner.screen import Screen
from experiment_runner.tracking import Tracking
from utils.configuration import ExperimentConfig
from utils.data.augmentation_files import identify_augmentation


@dataclass(frozen=True)
class Run:
    """What a training or an evaluation works with."""

    config: ExperimentConfig
    data: ExperimentData
    folder: RunFolder
    device: torch.device
    screen: Screen
    tracking: Tracking
    processes: Processes = ALONE
    interruption: Interruption = field(default_factory=Interruption)

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return self.folder.seed

    @property
    def name(self) -> str:
        """For the screen."""
        return f"{self.config.name} seed {self.seed}"

    @property
    def precision(self) -> Precision:
        """Of forward passes."""
        return choose_precision(self.config.amp, self.device)

    @property
    def records_steps(self) -> bool:
        """Whether steps may be recorded: what a recording is filled up to depends on the batches before it."""
        return self.config.compile == "auto" and not self.config.deterministic

    @property
    def setting(self) -> dict[str, object]:
        """What is decided beyond the configuration and decides results with it."""
        left_out = self.data.left_out_recordings["file"].tolist()
        names = hashlib.sha256("\n".join(left_out).encode()).hexdigest()[:8]
        return {
            "processes": self.processes.ranks,
            "precision": self.precision.reason,
            "left_out_recordings": f"{len(left_out)} ({names})" if left_out else "none",
            "deterministic": self.config.deterministic and self.device.type == "cuda",  # the CPU always is
            "augmentation_files": identify_augmentation(self.config),
        }

    @property
    def workers(self) -> int:
        """Decoding processes of each loader."""
        return choose_workers(self.config.num_workers, self.device, self.processes.local_ranks)

    @property
    def eval_batch_seconds(self) -> float:
        """Of a forward pass in evaluation: a GPU is busy enough with ten minutes of audio, a CPU with two."""
        asked = self.config.eval_batch_seconds
        return asked if asked != "auto" else 640.0 if self.device.type == "cuda" else 128.0

    def with_data(self, data: ExperimentData) -> Run:
        """Return the same run on other tables, such as measured ones."""
        return replace(self, data=data)
