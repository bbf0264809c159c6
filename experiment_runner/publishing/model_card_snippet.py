"""The Python program of a model card: the model in plain PyTorch, and code to load it and predict one recording."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

STANDALONE_MODEL = Path(__file__).resolve().parents[2] / "net" / "standalone_model.py"
"""Source that is read as text, because importing it takes seconds."""
USAGE_IMPORTS = """\
import json
from pathlib import Path
import soundfile
import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
"""
USAGE = """\
def fetch(name):
    \"\"\"Return the path of one of the repository's files, which is downloaded once.\"\"\"
    return str(Path(repo) / name) if Path(repo).is_dir() else hf_hub_download(repo, name)


repo = "{repo_id}"  # or a folder with config.json and model.safetensors
config = json.loads(Path(fetch("config.json")).read_text(encoding="utf-8"))
model = SpeechEmotionModel(config).eval()
model.load_state_dict(load_file(fetch("model.safetensors")), strict=True)

samples, rate_hz = soundfile.read("speech.wav", dtype="float32")
assert rate_hz == 16_000 and samples.ndim == 1, "resample to 16 kHz and mix down to one channel first"
with torch.inference_mode():
    found = model(torch.from_numpy(samples)[None])
for head, values in found.items():
    for label, value in zip(model.labels[head], values[0].tolist()):
        print(f"{{label}} {{value:.6f}}")
"""


def complete_snippet(repo_id: str) -> str:
    """Return a program that does not need this project: it prints the model's predictions for `speech.wav`.

    Args:
        repo_id: Repository of the model on the hub.
    """
    source = STANDALONE_MODEL.read_text(encoding="utf-8")
    imports = [node for node in ast.parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    body = "".join(source.splitlines(keepends=True)[imports[-1].end_lineno :]).strip()
    joined = _join([*imports, *ast.parse(USAGE_IMPORTS).body])
    return f"{joined}\n\n\n{body}\n\n\n{USAGE.format(repo_id=repo_id)}"


def _join(imports: list[ast.stmt]) -> str:
    """Return imports, each once, in the usual order: standard library, blank line, others."""
    groups: tuple[set[str], set[str]] = (set(), set())
    for node in imports:
        line = ast.unparse(node)
        groups[line.split()[1].partition(".")[0] not in sys.stdlib_module_names].add(line)
    return "\n\n".join("\n".join(sorted(group, key=_order)) for group in groups)


def _order(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line.split()[1]
