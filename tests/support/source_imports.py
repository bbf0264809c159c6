"""The third-party packages that a source file imports."""

from __future__ import annotations

import ast
import sys
from pathlib import Path


def imported_packages(path: Path) -> dict[str, int]:
    """Return the top-level packages outside the standard library that a file imports anywhere, with the line."""
    lines: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "importorskip")):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        for name in names:
            lines.setdefault(name.partition(".")[0], getattr(node, "lineno", 0))
    return {name: line for name, line in lines.items() if name not in sys.stdlib_module_names}
