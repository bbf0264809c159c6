from __future__ import annotations

import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from tests.conftest import ROOT
from utils.io.folder_lock import FolderInUseError, locked

HOLD = """
import sys
from pathlib import Path
from utils.io.folder_lock import locked
with locked(Path(sys.argv[1]), "", "a.lock"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_lock_waits_for_another_process_as_long_as_its_patience_lasts(tmp_path: Path) -> None:
    with Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=PIPE, stdout=PIPE, cwd=ROOT) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"locked\n"
        with (
            pytest.raises(
                FolderInUseError, match=f"is in use by process {other.pid} on .*; wait until it ends, or later"
            ),
            locked(tmp_path, "later", "a.lock", patience=0.2),
        ):
            pass
        with locked(tmp_path, "later"):
            pass  # a lock of another name
        other.stdin.close()
        with locked(tmp_path, "later", "a.lock", patience=60.0):
            assert f"process {other.pid} on " not in (tmp_path / "a.lock").read_text()
