"""Training: fit, an epoch, a step, and the development pass that selects the model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.utils.data import DataLoader

from experiment_runner.checkpoints import TrainingState
from experiment_runner.early_stopping import Decision, HybridEarlyStopping
from experiment_runner.effective_batch import differentiate, total_weights
from experiment_runner.inference import decoded, end_workers, infer
from experiment_runner.interruption import Interrupted, Interruption
from experiment_runner.optimisation import Precision, clip_gradients, current_rate, go_to_step
from experiment_runner.processes import Processes
from experiment_runner.recorded_steps import RecordedSteps
from experiment_runner.refused_steps import RefusedSteps
from experiment_runner.screen import EpochProgress, Screen
from experiment_runner.training_state import optimiser_tensors, restore_optimiser
from net.loss_modules import AUXILIARY_TERMS, Loss, Targets, Terms
from net.ser import Outputs
from net.ser_model_wrapper import SERModelWrapper
from utils.dataset.collation import Batch
from utils.dataset.normalisation import Normalisation
from utils.dataset.random_draws import step_seed
from utils.dataset.sampling import EVALUATION, BatchItems, RandomBatches, Rows
from utils.loss_manager import LossManager
from utils.metrics import Figures


@dataclass(frozen=True)
class Feed:
    """Batches of a split: which ones, and the loader that decodes them."""

    items: BatchItems
    loader: DataLoader[Batch]

    def serve(self, batches: list[Rows], epoch: int) -> Iterator[Batch]:
        """Decode the batches in order."""
        self.items.batches, self.items.epoch = batches, epoch
        return decoded(self.loader)

    def close(self) -> None:
        """End the processes that decode."""
        end_workers(self.loader)


@dataclass(frozen=True)
class DevelopmentFigures:
    """One development pass.

    Attributes:
        loss: The training criterion, without auxiliary terms, once over the whole split, in fp32, on outputs of the
            training's precision.
        terms: Its named parts.
        score: What selects the model, see `selection_score`.
        figures: Figures of the split, such as `macro_f1` and `mean_ccc`.
        predictions: What they were computed from.
    """

    loss: float
    terms: dict[str, float]
    score: float
    figures: Figures
    predictions: pd.DataFrame


@dataclass(frozen=True)
class EpochRecord:
    """Everything known after an epoch."""

    epoch: int
    step: int
    train: dict[str, float]
    development: DevelopmentFigures
    decision: Decision
    refused_steps: int
    train_seconds: float
    seconds: float
    learning_rate: float


@dataclass(frozen=True)
class Moment:
    """Where a training can be gone on from.

    Attributes:
        epoch: The last one of which steps were taken.
        step: Optimiser steps so far.
        is_evaluated: False between an epoch's last step and its evaluation.
        best: The record of the epoch that ends here, if its model is the best so far.
        weights: Of the model.
        state: All else, but for what was recorded.
    """

    epoch: int
    step: int
    is_evaluated: bool
    best: EpochRecord | None
    weights: Mapping[str, Tensor]
    state: TrainingState


@dataclass(frozen=True)
class TrainerParts:
    """The collaborators of a trainer.

    Attributes:
        model: In training mode, on the device.
        loss: The criterion.
        optimiser: Fused AdamW over the trained parameters.
        scheduler: Stepped once an optimiser step.
        precision: Of forward passes.
        train_batches: Composition of the training batches.
        train_feed: Training utterances.
        name_training: Names the training utterance of a row.
        normalisation: Of those that are augmented.
        development_feed: Development utterances.
        development_batches: Their batches, the longest first.
        judge: From development outputs to predictions and figures.
        stopping: Decides what is saved and when to stop.
        record: Called with every epoch's record.
        save: Called with each moment from which training is to go on after an interruption.
        interruption: Checked between steps, and between batches of an evaluation.
        screen: Where progress is shown.
        processes: That train together; batches are this process's share.
        most_frames: Of a training batch, where steps behind a frozen upstream are recorded, see `RecordedSteps`: the
            optimiser must be recordable then. None where they are not.
    """

    model: SERModelWrapper
    loss: Loss
    optimiser: torch.optim.AdamW
    scheduler: torch.optim.lr_scheduler.LambdaLR
    precision: Precision
    train_batches: RandomBatches
    train_feed: Feed
    name_training: Callable[[int], str]
    normalisation: Normalisation
    development_feed: Feed
    development_batches: list[Rows]
    judge: Callable[[Outputs], tuple[pd.DataFrame, Figures]]
    stopping: HybridEarlyStopping
    record: Callable[[EpochRecord], None]
    save: Callable[[Moment], None]
    interruption: Interruption
    screen: Screen
    processes: Processes
    most_frames: int | None


class Trainer:
    """Fits one model.

    Args:
        parts: Its collaborators.
        device: Where the model is.
        seed: Of everything drawn.
        max_grad_norm: Gradients are scaled down to this norm.
        log_every: Steps between two looks at the device.
        save_seconds: A look that comes so long after the last saving saves again.

    Attributes:
        step: Optimiser steps so far.
        epoch: Which goes on, counted from 1.
        taken: Steps of it so far.
    """

    def __init__(
        self,
        parts: TrainerParts,
        device: torch.device,
        seed: int,
        max_grad_norm: float,
        log_every: int,
        save_seconds: float,
    ) -> None:
        self.parts = parts
        self.device = device
        self.seed = seed
        self.max_grad_norm = max_grad_norm
        self.log_every = log_every
        self.save_seconds = save_seconds
        self.step, self.epoch, self.taken = 0, 1, 0
        self._stop: str | None = None
        self._saved = (0, 1, 0)
        self._saved_at = time.monotonic()
        self.scaler = GradScaler(device.type, enabled=parts.precision.needs_scaler)
        self.trained = [p for group in parts.optimiser.param_groups for p in group["params"]]
        self.refused = RefusedSteps(device, log_every)
        self._losses = LossManager()
        most_frames = parts.most_frames
        self._recorded = None if most_frames is None else RecordedSteps(self._take_seeded, most_frames)

    def close(self) -> None:
        """End the processes that decode."""
        self.parts.train_feed.close()
        self.parts.development_feed.close()

    def fit(self, epochs: int) -> str:
        """Train until early stopping or for so many epochs; return why training ended.

        Raises:
            FloatingPointError: Where losses or gradients stay non-finite.
            Interrupted: Where a signal asked for the end; all is saved then.
        """
        try:
            if self._stop is None and self.epoch <= epochs:
                self._rehearse()
            while self._stop is None and self.epoch <= epochs:
                self._fit_epoch()
            self._save(is_over=True)
        except Interrupted as interrupted:
            self.close()
            self._save()
            self.parts.screen.line(f"{interrupted}: all is saved, {self.place}")
            raise
        return self._stop or "epochs"

    @property
    def place(self) -> str:
        """How far training has come, for the screen."""
        if not self.taken:
            return f"after epoch {self.epoch - 1}" if self.epoch > 1 else "before the first step"
        return f"after step {self.taken} of {self.parts.train_batches.steps_per_epoch} of epoch {self.epoch}"

    def restore(
        self, weights: Mapping[str, Tensor], state: TrainingState, records: Sequence[Mapping[str, Any]]
    ) -> None:
        """Go on from a moment.

        Args:
            weights: As they were then, and all that follows.
            state: See weights.
            records: What was recorded of the epochs until then, see `recorder.flatten`.

        Raises:
            CheckpointError: Where they are those of another model.
        """
        parts, document = self.parts, state.document
        parts.model.load_state_dict(dict(weights))
        restore_optimiser(parts.model, parts.optimiser, state.tensors)
        self.step, self.epoch, self.taken = (document[name] for name in ("step", "epoch", "taken"))
        go_to_step(parts.scheduler, self.step)
        self.scaler.load_state_dict(document["scaler"])
        self.refused.go_on_from(state.tensors["refused"])
        self._losses.go_on_from(document["terms"], state.tensors["terms"].to(self.device))
        for record in records:
            parts.stopping.update(record["development_loss"], record["development_score"])
        self._stop = records[-1]["stop"] if records else None
        self._saved = self.step, self.epoch, self.taken

    def _fit_epoch(self) -> None:
        """Train what is left of an epoch, evaluate, record, and decide."""
        started = time.perf_counter()
        train = self.train_epoch(self.epoch, self.taken)
        train_seconds = time.perf_counter() - started
        development = self.evaluate()
        decide = partial(self.parts.stopping.update, development.loss, development.score)
        decision = self.parts.processes.from_main(decide)  # processes may differ in rounding, not in this
        record = EpochRecord(
            self.epoch,
            self.step,
            train,
            development,
            decision,
            self.refused.total,
            train_seconds,
            time.perf_counter() - started,
            current_rate(self.parts.scheduler),
        )
        self.epoch, self.taken, self._stop = self.epoch + 1, 0, decision.stop
        self.parts.record(record)
        if decision.improved or self._is_saving_due():
            self._save(record if decision.improved else None)

    def train_epoch(self, epoch: int, taken: int = 0) -> dict[str, float]:
        """Take the optimiser steps of an epoch; return the mean of each loss term.

        Args:
            epoch: Counted from 1.
            taken: Steps of it that were taken before.
        """
        self.parts.model.train()
        self.epoch, self.taken = epoch, taken
        steps = self.parts.train_batches.steps(epoch)
        batches = self._watched(self.parts.train_feed, [rows for step in steps[taken:] for rows in step], epoch)
        if not taken:
            self._losses.restart()
        look_every = 1 if self.device.type == "cpu" else self.log_every  # on the CPU a look waits for nothing
        sizes = self.parts.train_batches.step_sizes(epoch)
        with self.parts.screen.epoch_progress(epoch, sum(sizes)) as progress:
            progress.advance(sum(sizes[:taken]))
            for step in steps[taken:]:
                with self.parts.processes.agreement():
                    window = [next(batches).to(self.device).augmented(self.parts.normalisation) for _ in step]
                self.refused.remember(step)
                self.train_step(window)
                progress.advance(sizes[self.taken])
                self.taken += 1
                if self.taken % look_every == 0 or self.taken == len(steps):
                    self._look(progress)
        means = self._losses.means()
        with self.parts.processes.agreement():
            if not math.isfinite(means["loss"]):
                raise FloatingPointError(
                    f'no step of epoch {epoch} had a loss that is finite; lower learning_rate, or set amp = "off"'
                )
        return means

    def train_step(self, window: list[Batch]) -> Terms:
        """Take one optimiser step over the micro-batches of an effective batch; return the loss terms of all of it."""
        if self._recorded is not None and len(window) == 1:
            terms = self._recorded(self._behind_upstream(window[0]))
        else:
            terms = self._take(window)
        self.parts.scheduler.step()
        self.step += 1
        return terms

    def evaluate(self) -> DevelopmentFigures:
        """Judge the model on the whole development split."""
        outputs, targets = self._infer_development(self.parts.development_batches)
        with torch.inference_mode():
            terms = {name: float(term) for name, term in self.parts.loss(outputs, targets).items()}
        predictions, figures = self.parts.judge(outputs)
        loss = sum(term for name, term in terms.items() if name not in AUXILIARY_TERMS)
        return DevelopmentFigures(loss, terms, selection_score(figures), figures, predictions)

    def _rehearse(self) -> None:
        """Run the longest batches before the first epoch: full memory or a broken evaluation show in seconds.

        Nothing is learnt: the training batch's gradients are dropped.
        """
        self._infer_development(self.parts.development_batches[:1])
        self.parts.model.train()
        with self.parts.processes.agreement():
            (batch,) = self.parts.train_feed.serve([self.parts.train_batches.longest(1)], 1)
            batch = batch.to(self.device).augmented(self.parts.normalisation)
        _backward([_sum(self.parts.loss(self._forward(batch, 0), batch.targets))])
        self.parts.optimiser.zero_grad(set_to_none=True)

    def _infer_development(self, batches: list[Rows]) -> tuple[Outputs, Targets]:
        share = self._watched(self.parts.development_feed, self.parts.processes.deal(batches), EVALUATION)
        return infer(self.parts.model, share, self.device, self.parts.precision, self.parts.processes)

    def _watched(self, feed: Feed, batches: list[Rows], epoch: int) -> Iterator[Batch]:
        """Serve batches until the program is asked to end."""
        for batch in feed.serve(batches, epoch):
            self.parts.interruption.check()
            yield batch

    def _is_saving_due(self) -> bool:
        """Ask the main process, whose clock counts."""
        return self.parts.processes.from_main(lambda: time.monotonic() - self._saved_at >= self.save_seconds)

    def _save(self, best: EpochRecord | None = None, is_over: bool = False) -> None:
        """Save all that training goes on from, unless nothing has changed; the optimiser not once training is over."""
        place = self.step, self.epoch, self.taken
        if place == self._saved:
            return
        steps = len(self.parts.train_batches.step_sizes(self.epoch))
        moment = Moment(
            epoch=self.epoch if self.taken else self.epoch - 1,
            step=self.step,
            is_evaluated=self.taken < steps,
            best=best,
            weights=self.parts.model.state_dict(),
            state=self._state(is_over),
        )
        self.parts.save(moment)
        self._saved, self._saved_at = place, time.monotonic()

    def _state(self, is_over: bool) -> TrainingState:
        terms, sums = self._losses.sums()
        optimiser = {} if is_over else optimiser_tensors(self.parts.model, self.parts.optimiser)
        document = {
            "epoch": self.epoch,
            "taken": self.taken,
            "step": self.step,
            "scaler": self.scaler.state_dict(),
            "terms": list(terms),
        }
        return TrainingState({**optimiser, "refused": self.refused.counts, "terms": sums}, document)

    def _take(self, window: list[Batch]) -> Terms:
        """Differentiate and step the optimiser."""
        if len(window) * self.parts.processes.ranks == 1 or self.parts.loss.separable:
            terms = self._differentiate_by_parts(window)
        else:
            terms = self._differentiate_in_two_passes(window)
        self._update()
        self._losses.add(terms)
        return terms

    def _take_seeded(self, batch: Batch) -> Terms:
        """Do what `_take` does with one micro-batch in one process, but for setting seeds, without the host's help."""
        terms = self._differentiate_part(batch, None)
        self._update()
        self._losses.add(terms)
        return terms

    def _behind_upstream(self, batch: Batch) -> Batch:
        """Return a batch with all its frames of the frozen upstream, and set the step's seeds."""
        self._seed(0)
        with self.parts.precision.autocast(self.device):
            return replace(batch, inputs=self.parts.model.upstream.complete(batch.inputs))

    def _seed(self, part: int) -> None:
        """Let dropout and masks depend on seed, step and a micro-batch's number in the effective batch alone."""
        _seed_generators(step_seed(self.seed, self.step, self.parts.processes.number(part)), self.device)

    def _forward(self, batch: Batch, part: int) -> Outputs:
        self._seed(part)
        return self._run(batch)

    def _run(self, batch: Batch) -> Outputs:
        with self.parts.precision.autocast(self.device):
            outputs: Outputs = self.parts.model(batch.inputs)
        return outputs

    def _differentiate_by_parts(self, window: list[Batch]) -> Terms:
        """Sum the gradients of micro-batches, each divided by the weights of the whole effective batch."""
        loss = self.parts.loss
        terms: Terms = {}
        totals = total_weights(loss, [batch.targets for batch in window], self.parts.processes)
        for part, batch in enumerate(window):
            self._seed(part)
            share = self._differentiate_part(batch, totals)
            terms = {name: terms[name] + term if part else term for name, term in share.items()}
        self.parts.processes.sum(list(terms.values()))
        return terms

    def _differentiate_part(self, batch: Batch, totals: Terms | None) -> Terms:
        """Differentiate a micro-batch's share of the loss; return its terms."""
        terms = self.parts.loss(self._run(batch), batch.targets, totals)
        _backward([self.scaler.scale(_sum(terms))])
        return {name: term.detach() for name, term in terms.items()}

    def _differentiate_in_two_passes(self, window: list[Batch]) -> Terms:
        """Differentiate a loss of all utterances at once, holding one micro-batch's graph at a time.

        The first pass collects the outputs without a graph, the loss gives their gradient, and the second pass, with
        the same draws, carries it back into the model. A single micro-batch keeps its graph and takes one pass.
        """
        is_single = len(window) == 1
        with torch.set_grad_enabled(is_single):
            parts = [self._forward(batch, part) for part, batch in enumerate(window)]
        targets = Targets.concatenate([batch.targets for batch in window])
        joined = Outputs.concatenate(parts)
        terms, gradients = differentiate(self.parts.loss, joined, targets, self.parts.processes, self.scaler)
        sizes = [len(batch.rows) for batch in window]
        shares = zip(*(torch.split(gradient, sizes) for gradient in gradients), strict=True)
        for part, (batch, share) in enumerate(zip(window, shares, strict=True)):
            outputs = parts[part] if is_single else self._forward(batch, part)
            _backward(outputs.tensors(), list(share))
        return terms

    def _update(self) -> None:
        """Step the optimiser; gradients that are not finite are refused on the device, without waiting for it."""
        optimiser = self.parts.optimiser
        self.parts.processes.sum_gradients(self.trained)
        self.scaler.unscale_(optimiser)
        norm = clip_gradients(self.trained, self.max_grad_norm)
        refused = (~torch.isfinite(norm)).float()
        optimiser.found_inf = refused  # type: ignore[attr-defined] # the fused kernels leave the weights alone where 1
        optimiser.step()
        self.scaler.update()
        optimiser.zero_grad(set_to_none=True)
        self.refused.add(refused)

    def _look(self, progress: EpochProgress) -> None:
        """Wait for the device, show the loss, and end a run that goes nowhere."""
        progress.show_loss(self._losses.means()["loss"])
        with self.parts.processes.agreement():
            self.refused.check(self.parts.name_training)
        if self._is_saving_due():
            self._save()


def selection_score(figures: Figures) -> float:
    """Return what selects the model: macro-F1, mean CCC, or the mean of both in multitask."""
    scores = [float(figures[name]) for name in ("macro_f1", "mean_ccc") if name in figures]
    return sum(scores) / len(scores)


def _seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators that a step draws from, as `torch.manual_seed` would.

    It also seeds kinds of devices that are not there, by keeping the call and a traceback for each: a millisecond and
    some memory a step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


def _backward(tensors: list[Tensor], gradients: list[Tensor] | None = None) -> None:
    torch.autograd.backward(tensors, gradients)


def _sum(terms: Terms) -> Tensor:
    return torch.stack(list(terms.values())).sum()
