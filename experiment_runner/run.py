"""One experiment with one seed, on a device."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from experiment_runner.data.experiment_data import ExperimentData
from experiment_runner.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.device import choose_precision
from experiment_runner.runtime.interruption import Interruption
from experiment_runner.runtime.precision import Precision
from experiment_runner.runtime.workers import choose_workers
from experiment_runner.storage.environment import run_environment
from experiment_runner.storage.run_folder import RunFolder
from experiment_runner.tracking.tracker import Tracking
from utils.config.schema import ExperimentConfig


@dataclass(frozen=True)
class Run:
    """Everything that a training or an evaluation works with."""

    config: ExperimentConfig
    data: ExperimentData
    folder: RunFolder
    device: torch.device
    console: Console
    tracking: Tracking
    processes: ProcessGroup = SINGLE_PROCESS
    interruption: Interruption = field(default_factory=Interruption)
    with_code: bool = False
    """Whether uploads may contain the user's own code."""

    @property
    def seed(self) -> int:
        """Seed of every random draw."""
        return self.folder.seed

    @property
    def name(self) -> str:
        """Experiment and seed, for console messages."""
        return f"{self.config.name} seed {self.seed}"

    @property
    def precision(self) -> Precision:
        """Precision of forward passes."""
        return choose_precision(self.config.amp, self.device)

    @property
    def captures_steps(self) -> bool:
        """Whether steps may be recorded as CUDA graphs: how far a graph pads a batch depends on earlier batches."""
        return self.config.compile == "auto" and not self.config.deterministic

    @property
    def environment(self) -> dict[str, object]:
        """Settings outside the configuration that also decide the results."""
        is_gpu = self.device.type == "cuda"
        return run_environment(self.config, self.data, self.precision.reason, is_gpu, self.processes.ranks)

    @property
    def workers(self) -> int:
        """Decoding processes of each loader."""
        return choose_workers(self.config.num_workers, self.device, self.processes.local_ranks)

    @property
    def eval_batch_seconds(self) -> float:
        """Seconds of audio in an evaluation batch: about ten minutes keep a GPU busy, two a CPU."""
        seconds = self.config.eval_batch_seconds
        return seconds if seconds != "auto" else 640.0 if self.device.type == "cuda" else 128.0

    def with_data(self, data: ExperimentData) -> Run:
        """Return the same run on other tables, such as measured ones."""
        return replace(self, data=data)
