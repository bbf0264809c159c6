"""The classes of an experiment's auxiliary heads."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from utils.config.heads import head_title
from utils.config.schema import ExperimentConfig
from utils.errors import DataError


def choose_auxiliary(config: ExperimentConfig, train: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return the classes of each auxiliary head in output order, by its name.

    Args:
        config: The experiment.
        train: Rows that are trained on.

    Raises:
        DataError: If the corpus lacks the column of a head, or has no training row of one of its classes.
    """
    for head in config.heads:
        if head.name not in train:
            raise DataError(
                f'{config.name}: {config.corpus} has no column "{head.name}", which model_type = "{config.model_type}" '
                f'needs; read it with further_columns = ["{head.name}"] in [{config.corpus}], or use "UpstreamFinetune"'
            )
    classes = {head.name: head.classes or tuple(sorted(set(train[head.name].dropna()))) for head in config.heads}
    check_auxiliary(config, train, classes)
    return classes


def check_auxiliary(config: ExperimentConfig, train: pd.DataFrame, classes: Mapping[str, tuple[str, ...]]) -> None:
    """Check that each class of the auxiliary heads has a training row.

    Raises:
        DataError: If one has none, or a head has fewer than two classes.
    """
    remedy = 'add labels, or use "UpstreamFinetune"'
    for name, names in classes.items():
        title = head_title(name)
        if len(names) < 2:
            known = f'have only one {title}, "{names[0]}"' if names else f"have no {title}"
            raise DataError(f"{config.name}: the training rows of {config.corpus} {known}; {remedy}")
        missing = [one for one in names if not (train[name] == one).any()]
        if missing:
            needs = "both" if len(names) == 2 else "all"
            raise DataError(
                f"{config.name}: no training row of {config.corpus} is {' or '.join(missing)}; model_type = "
                f'"{config.model_type}" needs {needs}: complete the {title}, or use "UpstreamFinetune"'
            )
