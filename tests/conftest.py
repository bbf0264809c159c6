"""Fixtures that several tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import matplotlib.backends._backend_pdf_ps
import pytest
import torch

from experiment_runner.runtime.interruption import end_children
from tests.support.synthetic_podcast import SyntheticPodcast, write_podcast
from tests.support.typed_commands import Printed, remembered
from tests.support.user_code import write_module as write_module

_cache = tempfile.TemporaryDirectory(prefix="cache-")
os.environ.pop("COLUMNS", None)  # tables are as wide as where there is no terminal
os.environ["XDG_CACHE_HOME"] = _cache.name  # nothing is left in the home of who runs the tests
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # threads beyond the cores would only wait for each other
    threads = max((os.cpu_count() or 1) // int(workers), 1)
    torch.set_num_threads(threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # of the programs that tests start
ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_unconfigure() -> None:
    _cache.cleanup()


@pytest.fixture(scope="session", autouse=True)
def _no_children() -> Iterator[None]:
    """End the workers of loaders that tests have left, which the end of the process would wait for."""
    yield
    end_children()


@pytest.fixture(scope="session", autouse=True)
def _fonts_are_cut_once() -> Iterator[None]:
    """Cut a font for the PDFs of plots once for the same characters, which takes half the time of a PDF."""
    cut = matplotlib.backends._backend_pdf_ps.get_glyphs_subset
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.backends._backend_pdf_ps, "get_glyphs_subset", cache(cut))
        yield


@pytest.fixture(scope="session", autouse=True)
def _printed() -> Iterator[Printed]:
    """Remember the commands that the program prints, with a patch that no test takes back."""
    with remembered() as printed:
        yield printed


@pytest.fixture(autouse=True)
def _printed_commands_are_understood(_printed: Printed) -> Iterator[None]:
    """Hold every command that a test lets the program print against the parser of the program that it names."""
    yield
    _printed.check()


@pytest.fixture(scope="session")
def emodb_folder() -> Path:
    folder = SHARED_DATA / "emodb4" / "wav"
    if not folder.is_dir():
        pytest.skip(f"the EMO-DB recordings are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def ravdess_folder() -> Path:
    folder = SHARED_DATA / "ravdess"
    if not folder.is_dir():
        pytest.skip(f"the RAVDESS recordings are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def podcast(tmp_path_factory: pytest.TempPathFactory) -> SyntheticPodcast:
    return write_podcast(tmp_path_factory.mktemp("podcast"))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU, whose float32 is float32 as in the program (`experiment_runner/runtime/device.py`)."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return torch.device("cuda")
