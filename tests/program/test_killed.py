"""The short form of `python -m tests.support.kill_harness`, whose figures stand in docs/reliability.md."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest

from tests.support import kill_harness
from tests.support.kill_harness import Program, Straight
from tests.support.synthetic_podcast import SyntheticPodcast

CHANGES = "checkpoint_minutes = 0"


@pytest.fixture(scope="module")
def straight(podcast: SyntheticPodcast, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    return kill_harness.train_straight(Program(tmp_path_factory.mktemp("straight") / "run", podcast, CHANGES))


@pytest.fixture
def make(podcast: SyntheticPodcast, tmp_path: Path) -> kill_harness.Make:
    numbers = itertools.count()
    return lambda: Program(tmp_path / str(next(numbers)), podcast, CHANGES)


@pytest.mark.slow
def test_killed_before_a_file_operation(make: kill_harness.Make, straight: Straight) -> None:
    chosen = range(40, straight.operations, straight.operations // 3)
    assert kill_harness.kill_at_boundaries(make, straight, chosen) == {-signal.SIGKILL: len(chosen)}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, kill_harness.INTERRUPTED)])
def test_ended_at_random_moments(
    number: signal.Signals, status: int, make: kill_harness.Make, straight: Straight
) -> None:
    found = kill_harness.disturb_at_random(make, straight, number, seeds=(1,), chain=4)
    assert set(found) <= {0, status}
    assert found[status] >= 2, "most come before the end"
