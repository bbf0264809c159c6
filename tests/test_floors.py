"""Imports lead down: the floors of the house against the imports of every module, lazy ones and those for types too."""

from __future__ import annotations

import ast
import re
import shutil
from functools import cache
from pathlib import Path

import pytest

from tests.support.source_imports import imported_packages

ROOT = Path(__file__).resolve().parents[1]
MOST_MODULES = 24
FLOORS: tuple[tuple[str, ...], ...] = (
    ("utils",),
    ("net.packing",),
    ("net.kernels", "net.cuda_graphs"),
    ("net.wavlm",),
    ("net",),
    ("utils.io",),
    ("utils.config",),
    ("utils.hub",),
    ("utils.data.labels",),
    ("utils.data.recordings",),
    ("utils.data.corpora", "utils.data.packing"),
    ("utils.data",),
    ("utils.data.audit", "utils.data.synthetic"),
    ("utils.dataset",),
    ("dataset_module",),
    ("experiment_runner.results",),
    ("experiment_runner.distributed",),
    ("experiment_runner.runtime",),
    ("experiment_runner.data", "experiment_runner.tracking"),
    ("experiment_runner.storage",),
    ("experiment_runner.run",),
    ("experiment_runner.models",),
    ("experiment_runner.loading", "experiment_runner.reporting"),
    ("experiment_runner.prediction", "experiment_runner.training"),
    ("experiment_runner.publishing", "experiment_runner.webapp"),
    ("experiment_runner",),
    ("commands",),
)
"""Rooms from the ground up; those of one floor do not import each other. `run` is what many rooms are handed, and has a
floor of its own."""
ELSEWHERE = {
    "utils": "utils.config",  # a door to it and to what reads tokens
    "utils.hf_uploader": "commands",
    "utils.data.wav": "utils.data.recordings",
}
"""Modules whose names are fixed, and the rooms that they belong to."""
COMMANDS = ("main", "predict", "prepare_data", "download_model", "process_labels_for_categorical")
PACKAGES = ("net", "utils", "dataset_module", "experiment_runner")


@cache
def modules(root: Path) -> dict[str, Path]:
    """Return the program's modules by their dotted names."""
    paths = [path for name in PACKAGES for path in sorted((root / name).rglob("*.py"))]
    names = {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}
    return {**names, **{name: root / f"{name}.py" for name in COMMANDS}}


@cache
def imports(root: Path) -> dict[str, dict[str, int]]:
    """Return what every module imports, wherever in it and for whatever, with the line."""
    known = modules(root)
    found: dict[str, dict[str, int]] = {}
    for name, path in known.items():
        found[name] = {}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                source = _source(node, name, path)
                targets = [f"{source}.{alias.name}" for alias in node.names]
                targets = [target if target in known else source for target in targets]
            for target in targets:
                if target in known and target != name:
                    found[name].setdefault(target, getattr(node, "lineno", 0))
    return found


def _source(node: ast.ImportFrom, module: str, path: Path) -> str:
    """Return the full name of what is imported from; dots in front of it count from the module's own package."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    outer = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*outer, *([node.module] if node.module else [])])


def room_of(module: str) -> str:
    """Return the room of a module: its package, the commands', or where a fixed name belongs."""
    if module in ELSEWHERE:
        return ELSEWHERE[module]
    if module in COMMANDS:
        return "commands"
    rooms = {room for floor in FLOORS for room in floor}
    return module if module in rooms else module.rpartition(".")[0]


def upward_imports(root: Path) -> list[str]:
    """Return a sentence for each import that leads up, or to another room of the same floor."""
    levels = {room: level for level, floor in enumerate(FLOORS) for room in floor}
    sentences = []
    for module, targets in imports(root).items():
        for target, line in targets.items():
            here, there = room_of(module), room_of(target)
            if here != there and levels[here] <= levels[there]:
                path = modules(root)[module].relative_to(root)
                sentences.append(f"{path}:{line}: {module} ({here}) imports {target} ({there})")
    return sorted(sentences)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components that have more than one member (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def module_circles(root: Path) -> list[list[str]]:
    """Return modules that import each other, by whatever way."""
    return circles({module: set(targets) for module, targets in imports(root).items()})


def room_circles(root: Path) -> list[list[str]]:
    """Return rooms that import each other, by whatever way."""
    graph: dict[str, set[str]] = {room_of(module): set() for module in modules(root)}
    for module, targets in imports(root).items():
        graph[room_of(module)] |= {room_of(target) for target in targets} - {room_of(module)}
    return circles(graph)


def sizes(root: Path) -> dict[str, int]:
    """Return how many modules each folder holds."""
    counts: dict[str, int] = {}
    for path in modules(root).values():
        if path.name != "__init__.py":
            folder = path.parent.relative_to(root).as_posix()
            counts[folder] = counts.get(folder, 0) + 1
    return counts


def test_every_room_has_a_floor() -> None:
    rooms = {room for floor in FLOORS for room in floor}
    assert {module: room_of(module) for module in modules(ROOT) if room_of(module) not in rooms} == {}


def test_the_map_names_every_room_from_the_ground_up() -> None:
    rows = re.findall(
        r"^\| (`[\w.`, ]+) \|", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [tuple(re.findall(r"[\w.]+", row)) for row in rows] == list(FLOORS)


def test_no_import_leads_up() -> None:
    assert upward_imports(ROOT) == []


def test_no_modules_import_each_other() -> None:
    assert module_circles(ROOT) == []


def test_no_rooms_import_each_other() -> None:
    assert room_circles(ROOT) == []


def triton_imports(root: Path) -> list[str]:
    """Return the place of each import of Triton outside the kernels."""
    return [
        f"{path.relative_to(root)}:{packages['triton']}"
        for name, path in modules(root).items()
        if room_of(name) != "net.kernels" and "triton" in (packages := imported_packages(path))
    ]


def test_only_kernels_import_triton() -> None:
    assert triton_imports(ROOT) == []


def test_no_folder_is_too_full_to_be_read() -> None:
    assert {folder: count for folder, count in sizes(ROOT).items() if count > MOST_MODULES} == {}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A copy of the program's sources, to plant imports in."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=lambda folder, names: [n for n in names if "cache" in n])
    for name in COMMANDS:
        shutil.copy(ROOT / f"{name}.py", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "\nfrom experiment_runner.train import Trainer\n",
        "\ndef late() -> None:\n    import experiment_runner.train\n",
        "\nif TYPE_CHECKING:\n    from experiment_runner import train\n",
        "\nfrom ..experiment_runner.train import Trainer\n",
    ],
)
def test_a_planted_import_that_leads_up_is_named(text: str, planted: Path) -> None:
    path = planted / "net" / "pooling.py"
    path.write_text(path.read_text() + text)
    (sentence,) = upward_imports(planted)
    assert sentence.startswith("net/pooling.py:")
    assert sentence.endswith("net.pooling (net) imports experiment_runner.train (experiment_runner)")
    assert [circle for circle in room_circles(planted) if {"net", "experiment_runner"} <= set(circle)]


@pytest.mark.parametrize(
    "text", ["\ndef late() -> None:\n    import triton.language as tl\n", "\nfrom triton import cdiv\n"]
)
def test_a_planted_import_of_triton_is_named(text: str, planted: Path) -> None:
    path = planted / "net" / "wavlm" / "position_gate.py"
    path.write_text(path.read_text() + text)
    (place,) = triton_imports(planted)
    assert place.startswith("net/wavlm/position_gate.py:")


@pytest.mark.parametrize("text", ["\ndef late() -> None:\n    {}\n", "\nif TYPE_CHECKING:\n    {}\n", "\n{}\n"])
def test_a_planted_circle_is_named(text: str, planted: Path) -> None:
    path = planted / "net" / "frame_tools.py"
    path.write_text("import net.pooling\n")
    pooling = planted / "net" / "pooling.py"
    pooling.write_text(pooling.read_text() + text.format("from net import frame_tools"))
    assert module_circles(planted) == [["net.frame_tools", "net.pooling"]]


def test_no_test_takes_from_another_file_of_tests() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2].startswith("test_")
    ]
    assert found == [], "what tests share lies in tests/support/"
