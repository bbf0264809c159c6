"""Random numbers that depend only on their purpose, not on workers, order or restarts."""

from __future__ import annotations

import hashlib

import numpy as np


def stable_key(*parts: object) -> int:
    """Return a 63-bit hash of the parts, the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def utterance_generator(seed: int, epoch: int, utterance: str) -> np.random.Generator:
    """Return the generator of all random draws for one utterance in one epoch."""
    return np.random.default_rng(stable_key("utterance", seed, epoch, utterance))


def effect_generator(effect: str, seed: int, epoch: int, utterance: str) -> np.random.Generator:
    """Return the generator of one effect of augmentation on one utterance in one epoch."""
    return np.random.default_rng(stable_key("augmentation", effect, seed, epoch, utterance))


def order_generator(seed: int, epoch: int) -> np.random.Generator:
    """Return the generator of the order of utterances in one epoch."""
    return np.random.default_rng(stable_key("order", seed, epoch))


def step_seed(seed: int, step: int, part: int) -> int:
    """Return the seed of the model's random draws (dropout, masks) in one part of one optimiser step."""
    return stable_key("step", seed, step, part)
