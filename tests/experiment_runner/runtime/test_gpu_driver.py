"""What a driver says, from a library that answers as one; the machine needs no GPU."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from experiment_runner.runtime import device_facts, gpu_driver
from experiment_runner.runtime.device_facts import CHOSEN_CPU, NO_CUDA, DeviceFacts, explain_chosen_cpu, survey_device
from experiment_runner.runtime.gpu_driver import Driver, ask_driver, find_obstacle, read_torch_cuda

LIBRARY = """
#include <string.h>
int cuDriverGetVersion(int *v) { *v = %(version)d; return 0; }
int cuInit(unsigned f) { %(init)s }
int cuDeviceGetCount(int *n) { *n = %(count)d; return 0; }
int cuDeviceGet(int *d, int n) { *d = n; return 0; }
int cuDeviceGetName(char *s, int l, int d) { strncpy(s, "A GPU", l); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 9 : 0; return 0; }
int cuGetErrorString(int e, const char **s) { *s = "system not yet initialized"; return 0; }
"""
GPU = Driver((13, 0), (("A GPU", (9, 0)),))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"version": 13020, "init": "return 0;", "count": 1}, Driver((13, 2), (("A GPU", (9, 0)),))),
        ({"version": 12020, "init": "return 0;", "count": 2}, Driver((12, 2), (("A GPU", (9, 0)),) * 2)),
        ({"version": 13000, "init": "return 100;", "count": 0}, Driver((13, 0))),
        ({"version": 13000, "init": "return 802;", "count": 0}, Driver((13, 0), (), "system not yet initialized")),
        (
            {"version": 13000, "init": "*(volatile int *)0 = 0; return 0;", "count": 1},
            Driver(failure="the NVIDIA driver kills the process that queries it"),
        ),
        (
            {"version": 13000, "init": "for (;;);", "count": 1},
            Driver(failure="the NVIDIA driver does not answer within 2 s"),
        ),
    ],
)
def test_a_driver_is_asked_and_cannot_do_harm(
    values: dict[str, object], expected: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs a C compiler")
    (tmp_path / "cuda.c").write_text(LIBRARY % values)
    command = ["gcc", "-shared", "-fPIC", "-O0", "-o", str(tmp_path / "libcuda.so.1"), str(tmp_path / "cuda.c")]
    subprocess.run(command, check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setattr(gpu_driver, "LONGEST_ANSWER", 2.0 if "for" in str(values["init"]) else 30.0)
    assert ask_driver() == expected


@pytest.mark.parametrize(
    ("driver", "torch_cuda", "reason"),
    [
        (GPU, "13.0", None),
        (GPU, "12.8", None),
        (Driver((13, 0), GPU.gpus), "13.2", None),
        (GPU, None, "the installed torch is built without CUDA"),
        (Driver(), "13.0", "there is no NVIDIA driver"),
        (
            Driver((12, 2), GPU.gpus),
            "13.0",
            "its driver supports CUDA 12.2, the installed torch needs 13.0: "
            "update the driver, or install a torch that is built for it, as README.md says",
        ),
        (Driver((13, 0)), "13.0", "the driver reports none"),
        (Driver((13, 0), (), "busy"), "13.0", "the driver reports none: busy"),
    ],
)
def test_why_there_is_no_gpu(
    driver: Driver, torch_cuda: str | None, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_obstacle(driver, torch_cuda) == reason


def test_gpus_that_are_hidden_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_obstacle(Driver((13, 0)), "13.0") == 'the driver reports none, with CUDA_VISIBLE_DEVICES = ""'


def test_torch_is_read_and_not_imported() -> None:
    import torch

    assert read_torch_cuda() == (True, torch.version.cuda)


TOO_OLD = Driver((12, 2), GPU.gpus)


@pytest.mark.parametrize("driver", [Driver(), TOO_OLD, Driver((13, 0))])
def test_what_is_missing_is_a_problem_where_cuda_was_written_and_else_a_note(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_facts, "read_torch_cuda", lambda: (True, "13.0"))
    monkeypatch.setattr(device_facts, "ask_driver", lambda: driver)
    written, left_out, automatic = survey_device("cuda"), survey_device(None), survey_device("auto")
    assert (written.problem or "").startswith(NO_CUDA)
    assert (left_out.problem, left_out.note) == (None, written.problem)
    assert (automatic.problem, automatic.facts) == (None, DeviceFacts())
    assert explain_chosen_cpu() == automatic.note != CHOSEN_CPU, "training gives the reason, too"


def test_no_word_on_gpus_with_the_cpu_and_none_against_one_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_facts, "read_torch_cuda", lambda: (True, "13.0"))
    monkeypatch.setattr(device_facts, "ask_driver", lambda: GPU)
    found = survey_device("cuda")
    assert (found.facts, found.problem) == (DeviceFacts("A GPU", has_bf16=True), None)
    assert found.note == "device: A GPU; its driver supports CUDA 13.0, the installed torch needs 13.0"
    monkeypatch.setattr(device_facts, "ask_driver", lambda: 1 / 0)
    assert (survey_device("cpu").note, survey_device("cpu").problem) == (None, None)
    monkeypatch.setattr(device_facts, "read_torch_cuda", lambda: (False, None))
    assert survey_device("cuda") == device_facts.DeviceSurvey(), "a torch for other makers' GPUs is not judged"
