from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from experiment_runner.distributed.join import join_processes
from experiment_runner.distributed.process_group import SINGLE_PROCESS
from experiment_runner.runtime.workers import choose_workers
from tests.support.several_processes import start_together

SCRIPT = Path(__file__).with_name("joint_operations.py")


def test_two_processes_tell_each_other() -> None:
    for status, output, error in start_together(SCRIPT, ["exchange", "sum_up", "agree"]):
        assert (status, output) == (0, "done\n"), error


def test_one_sentence_tells_why_processes_lost_step_and_none_hangs() -> None:
    done = start_together(SCRIPT, ["lose_step"], seconds=60)
    assert [status for status, _, _ in done] == [7, 7]
    sentence = "a failure in the middle (in process 1 on "
    assert [output.count("\n") for _, output, _ in done] == [0, 1]
    assert done[1][1].startswith(sentence)
    assert "all processes end here" in done[1][1]


def test_a_process_that_was_killed_is_missed_at_once() -> None:
    done = start_together(SCRIPT, ["vanish"], seconds=60)
    assert [status for status, _, _ in done] == [7, -9]
    assert done[0][1].startswith("another process ended without a message")


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")  # as some clusters set it for other programs
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert join_processes() is SINGLE_PROCESS
    assert SINGLE_PROCESS.shard([1, 2, 3]) == [1, 2, 3]
    assert SINGLE_PROCESS.number(5) == 5


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)))
    assert [choose_workers("auto", torch.device("cuda"), sharing) for sharing in (1, 2, 4, 32)] == [16, 15, 7, 1]
    assert choose_workers("auto", torch.device("cpu"), 2) == 0
    assert choose_workers(3, torch.device("cuda"), 8) == 3
