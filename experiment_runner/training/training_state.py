"""What a training goes on from, as tensors and JSON.

Nothing is drawn from a generator that lives from step to step: what the model draws depends on (seed, step), what is
drawn for an utterance on (seed, epoch, utterance), the order on (seed, epoch). So no generator's state is kept. The
schedule is a function of the step, and early stopping one of the epochs' figures.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from experiment_runner.storage.checkpoints import CheckpointError

OPTIMISER = "optimiser."
"""Begins the names of its tensors, before a parameter's name, a dot and the name that the optimiser gives it."""


def optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's tensors by parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{OPTIMISER}{names[id(parameter)]}.{key}": value
        for parameter, values in optimiser.state.items()
        for key, value in values.items()
    }


def restore_optimiser(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the tensors that another one had over the same parameters.

    Raises:
        CheckpointError: Where they are those of other parameters.
    """
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    parameters = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in trained}
    for name, tensor in tensors.items():
        if name.startswith(OPTIMISER):
            owner, _, key = name.removeprefix(OPTIMISER).rpartition(".")
            if owner not in parameters:
                raise CheckpointError(f"the checkpoint has optimiser values of {owner}, which is not trained here")
            parameter = parameters[owner]
            optimiser.state[parameter][key] = tensor.to(parameter.device)
