"""Compares the results of two versions of this program: `python -m tests.support.same_results BEFORE AFTER`.

In each of the two folders, which hold a checkout, the demo and a short list on real recordings are trained and
evaluated. Tensors, tables, JSON and `metrics.jsonl` have to be equal to the last bit but for times, versions, hashes of
code and the hashes of files that hold those; reports, logs and model cards in their numbers.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from utils.config.schema import with_defaults
from utils.io.files import read_toml

EXPERIMENTS = """
[base_config]
corpus = "EMO-DB"
upstream_model = "wavlm-tiny-random"
freeze = "none"
epoch = 3
min_epochs = 3
batch_size = 8
accumulation_steps = 2
learning_rate = 2e-3
scheduler = "one_cycle"
loss_type = "WeightedCrossEntropy"
seeds = [42]
max_seconds = 2.0
test_corpora = ["RAVDESS"]

[[experiments]]
name = "Finetune"
config_update = { loss_type = "BalancedSoftmax", layer_weighting = true }

[[experiments]]
name = "Gender"
model_type = "UpstreamGender"
config_update = { loss_type = "FocalLoss" }

[[experiments]]
name = "Frozen"
config_update = { freeze = "upstream", max_seconds = 30.0 }
"""
OF_ITS_TIME = re.compile(
    r"seconds|minutes|_at$|^time|date|program|packages|version|commit|sha256|bytes|manifest|host|peak|memory|speed|per_second"
)
"""Keys whose values say when and by what a run was made."""
NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d{3,}(?!\d*\s*(?:s|min|h|ms|GB|MB)\b)")
"""Figures of reports and logs; durations and sizes have a unit or fewer digits."""


def train(checkout: Path) -> Path:
    """Train and evaluate both lists with the code of a checkout, and return the folder of the runs."""
    output = Path(tempfile.mkdtemp(prefix="same-results-"))
    experiments = output / "experiments.toml"
    experiments.write_text(EXPERIMENTS)
    real = ["--config", "configs/emodb.toml", "--experiments", str(experiments), "--device", "cpu"]
    for arguments in (["--demo", "--device", "cpu"], real, [*real, "--test"]):
        command = [sys.executable, "main.py", *arguments, "--output", str(output / "runs")]
        subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    return output / "runs"


def differences(before: Path, after: Path) -> Iterator[str]:
    """Yield in which files, and how, two folders of runs differ."""
    names = [{path.relative_to(folder) for path in folder.rglob("*") if is_result(path)} for folder in (before, after)]
    yield from (f"{name}: only in one of them" for name in sorted(names[0] ^ names[1]))
    for name in sorted(names[0] & names[1]):
        if (before / name).read_bytes() != (after / name).read_bytes():
            contents = [read(folder / name, folder) for folder in (before, after)]
            if contents[0] != contents[1]:
                yield f"{name}: {first_difference(*contents)}"


def is_result(path: Path) -> bool:
    """Return whether a file is one of a run's own, and no copy for the tracker."""
    return path.is_file() and "wandb" not in path.parts and path.name not in (".lock", "tracking.lock", "tracking.json")


def read(path: Path, root: Path) -> Any:  # noqa: ANN401 - whatever a file holds
    """Return what has to be the same of a file."""
    if path.suffix == ".safetensors":
        return {name: (tensor.dtype, tensor.shape, digest(tensor)) for name, tensor in load_file(path).items()}
    if path.suffix == ".toml":
        return timeless(without_defaults(read_toml(path)))
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text(encoding="utf-8").replace(str(root), "")
        return [timeless(json.loads(line)) for line in (text.splitlines() if path.suffix == ".jsonl" else [text])]
    if path.suffix in (".html", ".md", ".log", ".txt"):
        return NUMBER.findall(unescape(re.sub(r"data:[^\"']+", "", path.read_text(encoding="utf-8"))))
    if path.suffix == ".csv":
        return list(csv.reader(path.open(encoding="utf-8", newline="")))
    return "a picture" if path.suffix in (".png", ".svg") else path.read_bytes()


def without_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """Return `experiment.toml` without the keys that hold their default, of which an earlier release may know fewer."""
    defaults = with_defaults({})
    experiment = document.get("experiment", {})
    return {**document, "experiment": {key: item for key, item in experiment.items() if item != defaults.get(key)}}


def digest(tensor: torch.Tensor) -> bytes:
    """Return the bytes of a tensor."""
    return bytes(tensor.contiguous().flatten().view(torch.uint8).numpy())


def timeless(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a document without what says when and by what it was made."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if not OF_ITS_TIME.search(key)}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def first_difference(one: Any, other: Any, place: str = "") -> str:  # noqa: ANN401 - JSON
    """Say where two documents differ first."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return next(first_difference(one[key], other[key], f"{place}.{key}") for key in one if one[key] != other[key])
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next(first_difference(*pair, f"{place}[{number}]") for number, pair in pairs if pair[0] != pair[1])
    return f"{place}: {one!r:.120} against {other!r:.120}"


def main() -> int:
    """Return 0 where both find the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="a checkout, or a folder of runs that an earlier call has left")
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    runs = [train(folder) if (folder / "main.py").is_file() else folder for folder in (options.before, options.after)]
    print(*runs, sep="\n")
    found = list(differences(*runs))
    print(*found, f"{len(found)} files differ", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
