"""The error of a tensor."""

from __future__ import annotations

from torch import Tensor


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the deviation over that of the expected tensor."""
    found, expected = _exact(found, expected)
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def peak_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest deviation over the largest expected value."""
    found, expected = _exact(found, expected)
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def _exact(found: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    assert found.shape == expected.shape
    return found.detach().double(), expected.detach().double()
