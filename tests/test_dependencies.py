"""What the sources import is declared, what is declared is used, and each range holds the version that was tested."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.source_imports import imported_packages
from utils.io.syntax_hash import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = [*ROOT.glob("*.py"), *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))]
TESTS = [path for name in ("tests", "benchmarks") for path in (ROOT / name).rglob("*.py")]
OPTIONAL = ("experiment_runner/webapp/", "experiment_runner/models/onnx_export.py")
"""Modules that may import the packages of `requirements-extras.txt`."""
HERE = {*PACKAGES, "tests", "benchmarks", *(path.stem for path in ROOT.glob("*.py"))}
FROM_TORCH = {"triton"}
"""Packages that torch brings in a version that it names itself."""
TOOLS = {"mypy", "pandas-stubs", "pytest-timeout", "pytest-xdist", "ruff"}
"""Packages that are run, not imported."""
INSTALLS = re.compile(r"pip install[^\n`]*? -r requirements[\w-]*\.txt(?! -c constraints\.txt)")


@cache
def read(name: str) -> dict[str, Requirement]:
    """Return the requirements that a file itself names."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    parsed = [Requirement(line) for line in lines if line and not line.startswith("-r ")]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def declared(*kinds: str) -> set[str]:
    return {name for kind in kinds for name in read(f"requirements{kind}.txt")}


@cache
def distributions(package: str) -> set[str]:
    """Return the distributions that a package comes from, or its own name where it is not installed."""
    return {canonicalize_name(name) for name in packages_distributions().get(package, [package])}


def undeclared(files: Iterable[Path], names: set[str]) -> list[str]:
    return [
        f"{path}:{line}: {package}"
        for path in files
        for package, line in imported_packages(path).items()
        if package not in HERE | FROM_TORCH and not distributions(package) & names
    ]


def is_optional(path: Path) -> bool:
    return path.relative_to(ROOT).as_posix().startswith(OPTIONAL)


def test_the_program_imports_what_is_required_and_optional_parts_their_extras() -> None:
    assert undeclared([path for path in PRODUCT if not is_optional(path)], declared("")) == []
    assert undeclared(filter(is_optional, PRODUCT), declared("", "-extras")) == []


def test_tests_and_benchmarks_import_what_developers_install() -> None:
    assert undeclared(TESTS, declared("", "-extras", "-dev")) == []


@pytest.mark.parametrize("text", ["import yaml\n", "def late() -> None:\n    from yaml import safe_load\n"])
def test_an_undeclared_import_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(text)
    (place,) = undeclared([tmp_path / "odd.py"], declared("", "-extras"))
    assert place.startswith(f"{tmp_path / 'odd.py'}:")
    assert place.endswith(": yaml")


@pytest.mark.parametrize(("kinds", "files"), [(("", "-extras"), PRODUCT), (("-dev",), TESTS)])
def test_nothing_is_declared_that_nothing_imports(kinds: tuple[str, ...], files: list[Path]) -> None:
    used = {name for path in files for package in imported_packages(path) for name in distributions(package)}
    assert declared(*kinds) - used - TOOLS == set()


@pytest.mark.parametrize("kind", ["", "-extras", "-dev"])
def test_every_range_holds_the_version_that_was_tested(kind: str) -> None:
    tested = read("constraints.txt")
    for name, requirement in read(f"requirements{kind}.txt").items():
        if requirement.marker is None or requirement.marker.evaluate():
            (exact,) = tested[name].specifier
            assert exact.operator == "==", name
            assert requirement.specifier.contains(exact.version), name
            assert "<" in str(requirement.specifier) or requirement.specifier == tested[name].specifier, name


def test_every_install_takes_the_tested_versions() -> None:
    texts = [ROOT / "README.md", ROOT / ".ci" / "run", *(ROOT / "docs").glob("*.md"), *PRODUCT]
    assert {path.name: left for path in texts if (left := INSTALLS.findall(path.read_text(encoding="utf-8")))} == {}
