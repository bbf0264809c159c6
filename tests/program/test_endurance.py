"""The short form of `python -m tests.support.endurance`, whose figures stand in docs/reliability.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.endurance import STEPS_AN_EPOCH, Look, growth, train, usual_growth

MOST = {"megabytes": 6.0, "workers": 6.0, "files": 4.0}
"""In a thousand steps: few steps leave more noise than many, and what is lost with every step or save still shows."""


def leaks(looks: list[Look]) -> dict[str, float]:
    """Return what grows, as a whole and usually too, and by how much in a thousand steps."""
    grown = {what: min(growth(looks, what), usual_growth(looks, what)) for what in MOST}
    return {what: much for what, much in grown.items() if much > MOST[what]}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_memory_and_open_files_stay_as_they_are(tmp_path: Path) -> None:
    looks = train(tmp_path, steps=900)
    assert len(looks) == 8
    assert not leaks(looks)


@pytest.mark.parametrize(
    ("megabytes", "leaking"),
    [
        ((804.6, 825.4, 833.2, 833.1, 865.1, 865.0, 865.0, 865.0), False),  # seen, three of them on two cores
        ((875.3, 875.4, 875.8, 875.9, 876.0, 875.9, 876.1, 876.0), False),
        ((875.0, 875.7, 876.4, 877.1, 877.8, 878.5, 879.2, 879.9), True),  # 7 kB with every step
        ((804.6, 806.1, 833.2, 834.7, 836.2, 837.7, 865.1, 866.6), True),
    ],
)
def test_a_leak_is_told_from_working_memory_taken_in_pieces(megabytes: tuple[float, ...], leaking: bool) -> None:
    looks = [Look((i + 1) * STEPS_AN_EPOCH, 2.0 * i, much, 60.0, 35) for i, much in enumerate(megabytes)]
    assert list(leaks(looks)) == ["megabytes"] * leaking
