"""Optimiser steps: one update of the model per effective batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from experiment_runner.distributed.process_group import ProcessGroup
from experiment_runner.runtime.precision import Precision
from experiment_runner.training.effective_batch import differentiate, total_weights
from experiment_runner.training.graphed_step import GraphedStep
from experiment_runner.training.nonfinite_steps import NonfiniteSteps
from experiment_runner.training.optimisation import clip_gradients, current_rate, go_to_step
from experiment_runner.training.training_state import optimiser_tensors, restore_optimiser
from net.loss_modules import Loss, Targets, Terms
from net.ser import Outputs
from net.ser_model_wrapper import SERModelWrapper
from utils.dataset.collation import Batch
from utils.loss_manager import LossManager
from utils.seeding import step_seed


@dataclass(frozen=True)
class StepParts:
    """The collaborators of `TrainingSteps`.

    Attributes:
        model: In training mode, on the device.
        loss: The criterion.
        optimiser: Fused AdamW over the trained parameters.
        scheduler: Learning-rate schedule, stepped once per optimiser step.
        precision: Precision of forward passes.
        device: Device that holds the model.
        seed: Seed of dropout and masks, combined with the step's number.
        max_grad_norm: Norm to which gradients are scaled down.
        most_frames: Maximum frames of a batch if steps after a frozen upstream are recorded, see `GraphedStep` (the
            optimiser must be recordable then); None if they are not recorded.
        processes: Processes that take each step together.
    """

    model: SERModelWrapper
    loss: Loss
    optimiser: torch.optim.AdamW
    scheduler: torch.optim.lr_scheduler.LambdaLR
    precision: Precision
    device: torch.device
    seed: int
    max_grad_norm: float
    most_frames: int | None
    processes: ProcessGroup


class TrainingSteps:
    """Takes optimiser steps.

    Attributes:
        count: Number of steps taken.
        losses: Running means of the loss terms, to be restarted with every epoch.
        refused: Steps whose gradients were not finite.
        trained: Trained parameters.
    """

    def __init__(self, parts: StepParts) -> None:
        self.parts = parts
        self.count = 0
        self.losses = LossManager()
        self.refused = NonfiniteSteps(parts.device)
        self.trained = [p for group in parts.optimiser.param_groups for p in group["params"]]
        self._scaler = GradScaler(parts.device.type, enabled=parts.precision.needs_scaler)
        most_frames = parts.most_frames
        self._recorded = None if most_frames is None else GraphedStep(self._take_seeded, most_frames)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return current_rate(self.parts.scheduler)

    def take(self, window: list[Batch]) -> Terms:
        """Take one optimiser step over the micro-batches of an effective batch; return its loss terms."""
        if self._recorded is not None and len(window) == 1:
            terms = self._recorded(self._behind_upstream(window[0]))
        else:
            terms = self._take(window)
        self.parts.scheduler.step()
        self.count += 1
        return terms

    def rehearse(self, batch: Batch) -> None:
        """Compute a step's gradients and drop them; the model does not change."""
        _backward([_sum(self.parts.loss(self._forward(batch, 0), batch.targets))])
        self.parts.optimiser.zero_grad(set_to_none=True)

    def state(self, with_optimiser: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state for `load_state`, as tensors and JSON."""
        terms, sums = self.losses.sums()
        optimiser = optimiser_tensors(self.parts.model, self.parts.optimiser) if with_optimiser else {}
        tensors = {**optimiser, "refused": self.refused.counts, "terms": sums}
        return tensors, {"step": self.count, "scaler": self._scaler.state_dict(), "terms": list(terms)}

    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Continue from the state of earlier steps.

        Raises:
            CheckpointError: If the state belongs to another model.
        """
        restore_optimiser(self.parts.model, self.parts.optimiser, tensors)
        self.count = document["step"]
        go_to_step(self.parts.scheduler, self.count)
        self._scaler.load_state_dict(document["scaler"])
        self.refused.load_state(tensors["refused"])
        self.losses.load_state(document["terms"], tensors["terms"].to(self.parts.device))

    def _take(self, window: list[Batch]) -> Terms:
        """Differentiate and step the optimiser."""
        if len(window) * self.parts.processes.ranks == 1 or self.parts.loss.separable:
            terms = self._differentiate_by_parts(window)
        else:
            terms = self._differentiate_in_two_passes(window)
        self._update()
        self.losses.add(terms)
        return terms

    def _take_seeded(self, batch: Batch) -> Terms:
        """Do what `_take` does for one micro-batch in one process, but without setting seeds and without the host."""
        terms = self._differentiate_part(batch, None)
        self._update()
        self.losses.add(terms)
        return terms

    def _behind_upstream(self, batch: Batch) -> Batch:
        """Set the step's seeds and return a batch with all its frames from the frozen upstream."""
        self._seed(0)
        with self.parts.precision.autocast(self.parts.device):
            return replace(batch, inputs=self.parts.model.upstream.complete(batch.inputs))

    def _seed(self, part: int) -> None:
        """Make dropout and masks depend only on seed, step and the micro-batch's number in the effective batch."""
        seed = step_seed(self.parts.seed, self.count, self.parts.processes.number(part))
        _seed_generators(seed, self.parts.device)

    def _forward(self, batch: Batch, part: int) -> Outputs:
        self._seed(part)
        return self._run(batch)

    def _run(self, batch: Batch) -> Outputs:
        with self.parts.precision.autocast(self.parts.device):
            outputs: Outputs = self.parts.model(batch.inputs)
        return outputs

    def _differentiate_by_parts(self, window: list[Batch]) -> Terms:
        """Sum the gradients of micro-batches, each divided by the weights of the whole effective batch."""
        terms: Terms = {}
        totals = total_weights(self.parts.loss, [batch.targets for batch in window], self.parts.processes)
        for part, batch in enumerate(window):
            self._seed(part)
            share = self._differentiate_part(batch, totals)
            terms = {name: terms[name] + term if part else term for name, term in share.items()}
        self.parts.processes.sum(list(terms.values()))
        return terms

    def _differentiate_part(self, batch: Batch, totals: Terms | None) -> Terms:
        """Differentiate a micro-batch's share of the loss; return its terms."""
        terms = self.parts.loss(self._run(batch), batch.targets, totals)
        _backward([self._scaler.scale(_sum(terms))])
        return {name: term.detach() for name, term in terms.items()}

    def _differentiate_in_two_passes(self, window: list[Batch]) -> Terms:
        """Differentiate a loss of all utterances at once, holding one micro-batch's graph at a time.

        The first pass collects the outputs without a graph, the loss gives their gradient, and the second pass, with
        the same random draws, backpropagates it into the model. A single micro-batch keeps its graph and takes one
        pass.
        """
        is_single = len(window) == 1
        with torch.set_grad_enabled(is_single):
            parts = [self._forward(batch, part) for part, batch in enumerate(window)]
        targets = Targets.concatenate([batch.targets for batch in window])
        joined = Outputs.concatenate(parts)
        terms, gradients = differentiate(self.parts.loss, joined, targets, self.parts.processes, self._scaler)
        sizes = [len(batch.rows) for batch in window]
        shares = zip(*(torch.split(gradient, sizes) for gradient in gradients), strict=True)
        for part, (batch, share) in enumerate(zip(window, shares, strict=True)):
            outputs = parts[part] if is_single else self._forward(batch, part)
            _backward(outputs.tensors(), list(share))
        return terms

    def _update(self) -> None:
        """Step the optimiser; non-finite gradients are refused on the device, without waiting for it."""
        optimiser = self.parts.optimiser
        self.parts.processes.sum_gradients(self.trained)
        self._scaler.unscale_(optimiser)
        norm = clip_gradients(self.trained, self.parts.max_grad_norm)
        refused = (~torch.isfinite(norm)).float()
        optimiser.found_inf = refused  # type: ignore[attr-defined] # the fused kernels leave the weights alone where 1
        optimiser.step()
        self._scaler.update()
        optimiser.zero_grad(set_to_none=True)
        self.refused.add(refused)


def _seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators that a step draws from, as `torch.manual_seed` would.

    `torch.manual_seed` also seeds kinds of devices that are absent, storing the call and a traceback for each: a
    millisecond and some memory per step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


def _backward(tensors: list[Tensor], gradients: list[Tensor] | None = None) -> None:
    torch.autograd.backward(tensors, gradients)


def _sum(terms: Terms) -> Tensor:
    return torch.stack(list(terms.values())).sum()
