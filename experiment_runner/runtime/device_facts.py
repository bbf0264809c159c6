"""What is known of the device that `--device` means before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass

from experiment_runner.runtime.gpu_driver import FIRST_WITH_BF16, ask_driver, find_obstacle, read_torch_cuda

NO_CUDA = "no CUDA GPU is available on this machine; run with --device cpu to use the CPU instead"


@dataclass(frozen=True)
class DeviceFacts:
    """What decides precision and results of the device that a run is on.

    Attributes:
        gpu: Name of the GPU; None for the CPU.
        has_bf16: Whether the GPU computes in bf16.
    """

    gpu: str | None = None
    has_bf16: bool = False


CPU = DeviceFacts()


@dataclass(frozen=True)
class DeviceSurvey:
    """What can be said of `--device` without torch.

    Attributes:
        facts: Of the device; None where it is not known, as where another machine is to train.
        problem: Why the command cannot run here, although `--device` asks for it.
        note: What is worth a line beside.
    """

    facts: DeviceFacts | None = None
    problem: str | None = None
    note: str | None = None


def survey_device(name: str | None) -> DeviceSurvey:
    """Look at the device that `--device` names; without it training wants a GPU, which may be another machine's."""
    if name == "cpu":
        return DeviceSurvey(CPU)
    is_judged, torch_cuda = read_torch_cuda()
    if not is_judged:
        return DeviceSurvey()
    driver = ask_driver()
    obstacle = find_obstacle(driver, torch_cuda)
    if obstacle is None:
        gpu, capability = driver.gpus[0]
        supported = ".".join(map(str, driver.cuda or ()))
        note = f"device: {gpu}; its driver supports CUDA {supported}, the installed torch needs {torch_cuda}"
        return DeviceSurvey(DeviceFacts(gpu, capability >= FIRST_WITH_BF16), note=note)
    if name == "auto":
        return DeviceSurvey(CPU, note=f"device: the CPU, because no CUDA GPU is there ({obstacle})")
    sentence = f"{NO_CUDA} ({obstacle})"
    return DeviceSurvey(problem=sentence) if name == "cuda" else DeviceSurvey(note=sentence)


def explain_missing_gpu() -> str:
    """Return the sentence of a command that needs a GPU and has none."""
    return survey_device("cuda").problem or NO_CUDA
