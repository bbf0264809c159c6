from __future__ import annotations

from pathlib import Path

import pytest

from utils.io.syntax_hash import hash_sources, sources_of, syntax_hash

SOURCE = """
LIMIT = 3

def grow(x: float) -> float:
    return LIMIT * x  # why
"""


def hash_of(folder: Path, text: str, number: list[int] = []) -> bytes:  # noqa: B006 - a new file a call
    number.append(0)
    path = folder / f"m{len(number)}.py"
    path.write_text(text)
    return syntax_hash(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# why", "# because"),
        ("  # why", ""),
        ("LIMIT = 3\n", 'LIMIT = 3\n"""Of growth."""\n'),
        ("    return", '    """Grow."""\n    return'),
        ("LIMIT * x", "(\n        LIMIT\n        * x\n    )"),
        ("LIMIT = 3", "LIMIT = 0x3"),
    ],
)
def test_what_python_does_not_run_changes_nothing(old: str, new: str, tmp_path: Path) -> None:
    assert old in SOURCE
    assert hash_of(tmp_path, SOURCE.replace(old, new)) == hash_of(tmp_path, SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT * x", "x * LIMIT"),
        ("LIMIT * x", "LIMIT + x"),
        ("LIMIT * x", "-LIMIT * x"),
        ("    return", "    x = x\n    return"),
        ("return LIMIT * x", "return 'LIMIT * x'"),
        ("def grow", "@staticmethod\ndef grow"),
        ("return LIMIT * x", "yield LIMIT * x"),
    ],
)
def test_what_python_runs_changes_the_hash(old: str, new: str, tmp_path: Path) -> None:
    assert hash_of(tmp_path, SOURCE.replace(old, new)) != hash_of(tmp_path, SOURCE)


def test_a_hash_is_the_same_in_every_version_of_python(tmp_path: Path) -> None:
    text = "def f(a, /, *b, c=1, **d):\n    match a:\n        case {'x': [1, *_]}:\n            return f'{a!r:>{c}}'\n"
    assert hash_of(tmp_path, text).hex()[:16] == "7a368579dac04050"


def test_what_is_no_python_has_the_hash_of_its_text(tmp_path: Path) -> None:
    assert hash_of(tmp_path, "def (") == hash_of(tmp_path, "def (") != hash_of(tmp_path, "def )")


def write_program(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_imports_are_followed_wherever_they_stand(tmp_path: Path) -> None:
    program = write_program(
        tmp_path,
        {
            "net/__init__.py": "",
            "net/a.py": "import numpy\nfrom net.b import x\nfrom net import c\ndef f():\n    import utils.d as d\n",
            "net/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from net.types_alone import T\n",
            "net/c.py": "READERS = {'one': 'utils.data.reader'}\n",
            "net/types_alone.py": "",
            "net/nobody.py": "",
            "utils/d.py": "from net.a import f\n",
            "utils/data/reader.py": "from utils.cut import y\n",
            "utils/cut.py": "from utils.behind import z\n",
            "utils/behind.py": "",
        },
    )
    found = sources_of(["net.a"], ["utils.cut"], program)
    assert [path.relative_to(program).as_posix() for path in found] == [
        "net/a.py",
        "net/b.py",
        "net/c.py",
        "utils/d.py",
        "utils/data/reader.py",
    ]
    with pytest.raises(ValueError, match=r"net\.missing is not a module below"):
        sources_of(["net.missing"], program=program)


def test_a_file_that_is_moved_changes_the_hash(tmp_path: Path) -> None:
    program = write_program(tmp_path, {"net/a.py": "X = 1", "net/b.py": "X = 1"})
    assert hash_sources([program / "net/a.py"], program) != hash_sources([program / "net/b.py"], program)
