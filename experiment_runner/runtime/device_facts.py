"""Facts about the device that `--device` names, available before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass

from experiment_runner.runtime.gpu_driver import FIRST_WITH_BF16, ask_driver, find_obstacle, read_torch_cuda

NO_CUDA = "no CUDA GPU is available on this machine; run with --device cpu to use the CPU instead"
CHOSEN_CPU = "device: the CPU, because no CUDA GPU is available"


@dataclass(frozen=True)
class DeviceFacts:
    """The properties of a run's device that affect its precision and results.

    Attributes:
        gpu: Name of the GPU; None for the CPU.
        has_bf16: Whether the GPU computes in bf16.
    """

    gpu: str | None = None
    has_bf16: bool = False


CPU = DeviceFacts()


@dataclass(frozen=True)
class DeviceSurvey:
    """The facts about `--device` that are known without torch.

    Attributes:
        facts: Facts about the device; None if it is unknown, for example if another machine will train.
        problem: Why the command cannot run here as `--device` requests.
        note: Additional remark to print.
    """

    facts: DeviceFacts | None = None
    problem: str | None = None
    note: str | None = None


def survey_device(name: str | None) -> DeviceSurvey:
    """Examine the device that `--device` names; without it training needs a GPU, possibly another machine's."""
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
        return DeviceSurvey(CPU, note=f"{CHOSEN_CPU} ({obstacle})")
    sentence = f"{NO_CUDA} ({obstacle})"
    return DeviceSurvey(problem=sentence) if name == "cuda" else DeviceSurvey(note=sentence)


def explain_missing_gpu() -> str:
    """Return the error message of a command that needs a GPU and has none."""
    return survey_device("cuda").problem or NO_CUDA


def explain_chosen_cpu() -> str:
    """Return the line of a command that uses the CPU because it finds no GPU."""
    survey = survey_device("auto")
    return survey.note if survey.note and survey.facts == CPU else CHOSEN_CPU
