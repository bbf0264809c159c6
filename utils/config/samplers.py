"""The samplers that an experiment can name: a new one is a function in `utils/dataset/samplers.py` and a row here."""

from __future__ import annotations

from utils.registry import FunctionOf, Registered

RANDOM, CLASS_BALANCED = "random", "class_balanced"
SAMPLERS = {RANDOM: "utils.dataset.samplers:random", CLASS_BALANCED: "utils.dataset.samplers:class_balanced"}
SAMPLER = Registered(tuple(SAMPLERS), FunctionOf(("table", "seed", "epoch")))
