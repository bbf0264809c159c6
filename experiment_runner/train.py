"""Training: epochs of optimiser steps, and the development pass that selects the model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from experiment_runner.distributed.process_group import ProcessGroup
from experiment_runner.loading.batch_loader import BatchLoader
from experiment_runner.results.statistics import STATISTICS
from experiment_runner.runtime.console import Console, EpochProgress
from experiment_runner.runtime.interruption import Interrupted, Interruption
from experiment_runner.runtime.out_of_memory import NameRows, explained
from experiment_runner.storage.checkpoints import AFRESH, CheckpointError, TrainingState
from experiment_runner.training.early_stopping import Decision, HybridEarlyStopping
from experiment_runner.training.inference import infer
from experiment_runner.training.snapshot import DevelopmentFigures, EpochRecord, TrainingSnapshot
from experiment_runner.training.training_steps import TrainingSteps
from net.loss_modules import Targets
from net.ser import Outputs
from utils.dataset.collation import Batch
from utils.dataset.normalisation import Normalisation
from utils.dataset.sampling import EVALUATION, RandomBatches, Rows
from utils.metrics import Metrics

SMALLER_STEPS = (
    "set max_batch_seconds (the optimiser steps stay the same), lower max_seconds, or set gradient_checkpointing = true"
)
"""Advice shown when a training batch does not fit into memory."""
UNSAVED = "work after the last checkpoint is not saved"


@dataclass(frozen=True)
class TrainerParts:
    """The collaborators of a trainer.

    Attributes:
        steps: Takes the optimiser steps.
        train_batches: Sampler that composes the training batches.
        train_feed: Loader of training utterances.
        name_training: Names training utterances by their rows.
        normalisation: Normalisation of augmented training utterances.
        development_feed: Loader of development utterances.
        development_batches: Development batches, longest first.
        name_development: Names development utterances by their rows.
        compute_metrics: Turns development outputs into predictions and metrics.
        stopping: Decides what is saved and when to stop.
        record: Called with every epoch's record.
        save: Called with each snapshot from which an interrupted training can resume.
        interruption: Checked between steps, and between batches of an evaluation.
        console: Where progress is shown.
        processes: Processes that train together; the batches are this process's share.
    """

    steps: TrainingSteps
    train_batches: RandomBatches
    train_feed: BatchLoader
    name_training: NameRows
    normalisation: Normalisation
    development_feed: BatchLoader
    development_batches: list[Rows]
    name_development: NameRows
    compute_metrics: Callable[[Outputs], tuple[pd.DataFrame, Metrics]]
    stopping: HybridEarlyStopping
    record: Callable[[EpochRecord], None]
    save: Callable[[TrainingSnapshot], None]
    interruption: Interruption
    console: Console
    processes: ProcessGroup


class Trainer:
    """Fits one model.

    Args:
        parts: Its collaborators.
        device: Device that holds the model.
        log_every: Steps between progress updates, which wait for the device; 1 on the CPU.
        save_seconds: Seconds since the last save after which a progress update saves again.

    Attributes:
        steps: `steps` of `parts`.
        epoch: Current epoch, counted from 1.
        taken: Steps of that epoch taken so far.
    """

    def __init__(self, parts: TrainerParts, device: torch.device, log_every: int, save_seconds: float) -> None:
        self.parts = parts
        self.steps = parts.steps
        self.model = parts.steps.parts.model
        self.device = device
        self.log_every_steps = 1 if device.type == "cpu" else log_every  # on the CPU there is nothing to wait for
        self.save_seconds = save_seconds
        self.epoch, self.taken = 1, 0
        self._stop: str | None = None
        self._saved = self._position
        self._saved_at = time.monotonic()

    def close(self) -> None:
        """Stop the decoding processes."""
        self.parts.train_feed.close()
        self.parts.development_feed.close()

    def fit(self, epochs: int) -> str:
        """Train until early stopping or for `epochs` epochs; return why training ended.

        Raises:
            FloatingPointError: If losses or gradients stay non-finite.
            FullMemoryError: If a batch does not fit into GPU memory.
            Interrupted: If a signal asked the program to stop; everything has been saved by then.
        """
        try:
            if self._stop is None and self.epoch <= epochs:
                self.parts.console.line(self.parts.stopping.rule)
                self._warm_up()
            while self._stop is None and self.epoch <= epochs:
                decision = self._fit_epoch()
                if decision.stop:
                    self._explain_end(decision, epochs)
            self._save(is_over=True)
        except Interrupted as interrupted:
            self.close()
            self._save_at_the_end(interrupted)
            raise
        return self._stop or "epochs"

    def _explain_end(self, decision: Decision, epochs: int) -> None:
        advice = self.parts.stopping.advice(decision.epoch, epochs)
        self.parts.console.line(
            f"early stopping ends training at epoch {decision.epoch} of at most {epochs}: {decision.ending}"
            + (f"; {advice} (change it and train again with --retrain)" if advice else "")
        )

    def _save_at_the_end(self, interrupted: Interrupted) -> None:
        """Save the state to resume from; if that fails, training resumes from the previous checkpoint."""
        try:
            self._save()
            self.parts.console.line(f"{interrupted}: everything is saved, {self.place}")
        except Exception as error:  # noqa: BLE001 - the program ends as the signal asked for in any case
            self.parts.console.warn(f"{interrupted}: {UNSAVED}: {error}")

    @property
    def place(self) -> str:
        """How far training has come, for console messages."""
        if not self.taken:
            return f"after epoch {self.epoch - 1}" if self.epoch > 1 else "before the first step"
        return f"after step {self.taken} of {self.parts.train_batches.steps_per_epoch} of epoch {self.epoch}"

    def restore(
        self, weights: Mapping[str, Tensor], state: TrainingState, records: Sequence[Mapping[str, Any]]
    ) -> None:
        """Resume from a snapshot.

        Args:
            weights: Model weights of the snapshot.
            state: Training state of the snapshot.
            records: Records of the epochs up to then, see `run_writer.flatten`.

        Raises:
            CheckpointError: If they belong to another model.
        """
        try:
            self.model.load_state_dict(dict(weights))
            self.steps.load_state(state.tensors, state.document)
            self.epoch, self.taken = state.document["epoch"], state.document["taken"]
            for record in records:
                self.parts.stopping.update(float(record["development_loss"]), float(record["development_score"]))
            self._stop = records[-1]["stop"] if records else None
            steps = self.parts.train_batches.steps_per_epoch
            is_whole = len(records) == self.epoch - 1 and 0 <= self.taken <= steps
            is_whole = is_whole and self.steps.count == (self.epoch - 1) * steps + self.taken
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint does not belong to this training ({error}){AFRESH}") from error
        if not is_whole:
            raise CheckpointError(f"the checkpoint does not belong to this training: its counts do not agree{AFRESH}")
        self._saved = self._position

    def _fit_epoch(self) -> Decision:
        """Train the rest of the epoch, evaluate, record, and decide about saving and stopping."""
        started = time.perf_counter()
        trained = sum(self.parts.train_batches.step_sizes(self.epoch)[self.taken :])
        train = self.train_epoch(self.epoch, self.taken)
        train_seconds = time.perf_counter() - started
        development = self.evaluate()
        decide = partial(self.parts.stopping.update, development.loss, development.score)
        decision = self.parts.processes.on_main(decide)  # processes may round differently, but must agree here
        record = EpochRecord(
            self.epoch,
            self.steps.count,
            train,
            development,
            decision,
            self.steps.refused.total,
            trained,
            train_seconds,
            time.perf_counter() - started,
            self.steps.learning_rate,
        )
        self.epoch, self.taken, self._stop = self.epoch + 1, 0, decision.stop
        self.parts.record(record)
        if decision.improved or self._is_saving_due():
            self._save(record if decision.improved else None)
        return decision

    def train_epoch(self, epoch: int, taken: int = 0) -> dict[str, float]:
        """Take the optimiser steps of an epoch; return the mean of each loss term.

        Args:
            epoch: Counted from 1.
            taken: Steps of the epoch that were already taken.
        """
        self.model.train()
        self.epoch, self.taken = epoch, taken
        steps = self.parts.train_batches.steps(epoch)
        batches = self._watched(self.parts.train_feed, [rows for step in steps[taken:] for rows in step], epoch)
        if not taken:
            self.steps.losses.restart()
        sizes = self.parts.train_batches.step_sizes(epoch)
        with self.parts.console.epoch_progress(epoch, sum(sizes)) as progress:
            progress.advance(sum(sizes[:taken]))
            for step in steps[taken:]:
                with self.parts.processes.raise_together():
                    window = [next(batches).to(self.device).augmented(self.parts.normalisation) for _ in step]
                with explained(self.parts.name_training, [row for rows in step for row in rows], SMALLER_STEPS):
                    self.steps.take(window)
                progress.advance(sizes[self.taken])
                self.taken += 1
                if self.taken % self.log_every_steps == 0 or self.taken == len(steps):
                    self._log_progress(progress)
        means = self.steps.losses.means()
        with self.parts.processes.raise_together():
            if not math.isfinite(means["loss"]):
                raise FloatingPointError(
                    f'no step of epoch {epoch} had a finite loss; lower learning_rate, or set amp = "off"'
                )
        return means

    def evaluate(self) -> DevelopmentFigures:
        """Evaluate the model on the whole development split."""
        outputs, targets = self._infer_development(self.parts.development_batches)
        criterion = self.steps.parts.loss
        with torch.inference_mode():
            terms = {name: float(term) for name, term in criterion(outputs, targets).items()}
        predictions, metrics = self.parts.compute_metrics(outputs)
        loss = sum(term for name, term in terms.items() if name not in criterion.auxiliary_terms)
        return DevelopmentFigures(loss, terms, selection_score(metrics), metrics, predictions)

    def _warm_up(self) -> None:
        """Run the longest batches before the first epoch, so that full memory or a broken evaluation shows in seconds.

        The model does not change: the training batch's gradients are dropped.
        """
        batches = self.parts.development_batches
        outputs, _ = self._infer_development(batches[:1])
        repeated = torch.arange(sum(map(len, batches)), device=self.device) % len(batches[0])
        self.parts.compute_metrics(outputs.select(repeated))  # where the user's own statistics can fail
        self.model.train()
        rows = self.parts.train_batches.longest(1)
        with self.parts.processes.raise_together():
            (batch,) = self.parts.train_feed.serve([rows], 1)
            batch = batch.to(self.device).augmented(self.parts.normalisation)
        with self.parts.processes.raise_together(), explained(self.parts.name_training, list(rows), SMALLER_STEPS):
            self.steps.rehearse(batch)

    def _infer_development(self, batches: list[Rows]) -> tuple[Outputs, Targets]:
        share = self._watched(self.parts.development_feed, self.parts.processes.shard(batches), EVALUATION)
        precision, processes = self.steps.parts.precision, self.parts.processes
        return infer(self.model, share, self.device, precision, self.parts.name_development, processes)

    def _watched(self, feed: BatchLoader, batches: list[Rows], epoch: int) -> Iterator[Batch]:
        """Serve batches until the program is asked to stop."""
        for batch in feed.serve(batches, epoch):
            self.parts.interruption.check()
            yield batch

    @property
    def _position(self) -> tuple[int, int, int]:
        return self.steps.count, self.epoch, self.taken

    def _is_saving_due(self) -> bool:
        """Whether it is time to save, by the main process's clock."""
        return self.parts.processes.on_main(lambda: time.monotonic() - self._saved_at >= self.save_seconds)

    def _save(self, best: EpochRecord | None = None, is_over: bool = False) -> None:
        """Save the state to resume from unless nothing has changed; leave the optimiser out once training is over."""
        if self._position == self._saved:
            return
        tensors, document = self.steps.state(with_optimiser=not is_over)
        moment = TrainingSnapshot(
            epoch=self.epoch if self.taken else self.epoch - 1,
            step=self.steps.count,
            is_evaluated=self.taken < self.parts.train_batches.steps_per_epoch,
            best=best,
            weights=self.model.state_dict(),
            state=TrainingState(tensors, {"epoch": self.epoch, "taken": self.taken, **document}),
        )
        self.parts.save(moment)
        self._saved, self._saved_at = self._position, time.monotonic()

    def _log_progress(self, progress: EpochProgress) -> None:
        """Wait for the device, show the loss, abort after too many non-finite steps, and save when due."""
        progress.show_loss(self.steps.losses.means()["loss"])
        with self.parts.processes.raise_together():
            refused = self.steps.refused.too_many()
            if refused:
                rows = [row for step in refused for row in self.parts.train_batches.rows_of(step)]
                raise FloatingPointError(
                    f"{len(refused)} optimiser steps in a row (to step {refused[-1]}) had gradients that are not "
                    f'finite, with {self.parts.name_training(rows)}; lower learning_rate, or set amp = "off"'
                )
        if self._is_saving_due():
            self._save()


def selection_score(metrics: Metrics) -> float:
    """Return the model selection score: macro-F1, mean CCC, or the mean of both in multitask training."""
    scores = [float(metrics[name]) for name, item in STATISTICS.items() if item.is_score and name in metrics]
    return sum(scores) / len(scores)
