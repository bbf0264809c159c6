from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.user_code import Write
from utils import ConfigurationError, load_plan
from utils.config.losses import ANY_LOSS
from utils.io.user_code import (
    UserCodeError,
    hash_user_code,
    import_trusted,
    import_user_code,
    look_beside,
    not_recordable,
    sources_behind,
)

LOSS = """
import torch.nn.functional as F
from net.loss_modules import CategoricalLoss

class Poly(CategoricalLoss):
    def per_utterance(self, logits, classes):
        entropy = F.cross_entropy(logits, classes, reduction="none")
        return entropy + 1 - (-entropy).exp()
"""
BROKEN = {
    "no such module": ("", "absent_losses:Poly", "there is no module absent_losses on Python's path or beside"),
    "no such name": (LOSS, "losses_of_mine:Polly", 'losses_of_mine.py has no Polly; did you mean "Poly"?'),
    "not a class": (
        "Poly = 3\n",
        "losses_of_mine:Poly",
        "is not a class derived from net.loss_modules.",
    ),
    "another class": ("class Poly: pass\n", "losses_of_mine:Poly", "net.loss_modules.CategoricalLoss or"),
    "a missing method": (
        "from net.loss_modules import VotesLoss\nclass Poly(VotesLoss): pass\n",
        "losses_of_mine:Poly",
        "lacks per_utterance; docs/extending.md has a complete example",
    ),
    "other arguments": (
        LOSS + "    def __init__(self, priors, epsilon): pass\n",
        "losses_of_mine:Poly",
        "cannot be called with (priors): missing a required argument: 'epsilon'",
    ),
    "an error at import": ("x = 1\ny = 1 / 0\n", "losses_of_mine:Poly", "_mine.py, line 2: ZeroDivisionError"),
    "a mistake in the language": ("def Poly(:\n", "losses_of_mine:Poly", "losses_of_mine.py, line 1: SyntaxError"),
    "a missing package": (
        "import absent_package\n",
        "losses_of_mine:Poly",
        "'absent_package'; install it",
    ),
}


def write_lists(folder: Path, keys: str) -> tuple[Path, Path]:
    corpora, experiments = folder / "config.toml", folder / "experiments_config.toml"
    corpora.write_text('[C]\nFORMAT = "emodb"\nPATH_TO_AUDIO = "audio"\n')
    experiments.write_text(f'[base_config]\ncorpus = "C"\n{keys}\n[[experiments]]\nname = "a"\n')
    return corpora, experiments


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_module_is_one_sentence(case: str, tmp_path: Path, write_module: Write) -> None:
    text, name, sentence = BROKEN[case]
    write_module("losses_of_mine", text)
    with pytest.raises(ConfigurationError) as caught:
        load_plan(*write_lists(tmp_path, f'loss_type = "{name}"'))
    assert len(caught.value.problems) == 1
    assert f'a: loss_type: "{name}"' in str(caught.value)
    assert sentence in str(caught.value)


def test_a_module_beside_the_list_is_used_like_a_registered_name(tmp_path: Path, write_module: Write) -> None:
    write_module("losses_of_mine", LOSS)
    plan = load_plan(*write_lists(tmp_path, 'loss_type = "losses_of_mine:Poly"'))
    assert plan.experiments[0].user_code == ("losses_of_mine:Poly",)


def test_keys_are_checked_against_what_the_users_loss_learns(tmp_path: Path, write_module: Write) -> None:
    write_module("losses_of_mine", LOSS)
    with pytest.raises(ConfigurationError, match='allowed for task = "dimensional": CCCLoss, MSELoss'):
        load_plan(*write_lists(tmp_path, 'loss_type = "losses_of_mine:Poly"\ntask = "dimensional"'))


def test_nothing_is_imported_while_a_file_is_wrong(tmp_path: Path, write_module: Write) -> None:
    write_module("losses_of_mine", "raise RuntimeError('imported')\n")
    with pytest.raises(ConfigurationError) as caught:
        load_plan(*write_lists(tmp_path, 'loss_type = "losses_of_mine:Poly"\nepoch = 0'))
    assert "losses_of_mine" not in str(caught.value)
    assert "losses_of_mine" not in sys.modules


def test_the_working_folder_is_not_searched(tmp_path: Path, write_module: Write) -> None:
    write_module("losses_of_mine", LOSS, tmp_path / "elsewhere")
    arguments = [str(path) for path in write_lists(tmp_path, 'loss_type = "losses_of_mine:Poly"')]
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        "--check",
        "--config",
        arguments[0],
        "--experiments",
        arguments[1],
    ]
    done = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no module losses_of_mine" in done.stderr


@pytest.fixture
def poly(tmp_path: Path, write_module: Write) -> str:
    write_module("helpers_of_mine", "SCALE = 2\n")
    write_module("losses_of_mine", "import helpers_of_mine\n" + LOSS)
    look_beside(tmp_path / "experiments_config.toml")
    import_user_code("losses_of_mine:Poly", ANY_LOSS.contract)
    return "losses_of_mine:Poly"


def test_the_hash_covers_the_modules_beside_it(poly: str, tmp_path: Path) -> None:
    root, sources = sources_behind(poly)
    assert (root, [path.name for path in sources]) == (tmp_path, ["helpers_of_mine.py", "losses_of_mine.py"])


def hash_in_a_process(folder: Path, name: str) -> str:
    program = (
        "import sys, json; from utils.io.user_code import *; from utils.config.losses import ANY_LOSS\n"
        f"import_user_code({name!r}, ANY_LOSS.contract); print(json.dumps(hash_user_code([{name!r}])))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return str(json.loads(done.stdout)[name])


def test_the_hash_is_that_of_the_code_wherever_it_lies(poly: str, tmp_path: Path, write_module: Write) -> None:
    there = tmp_path / "elsewhere"
    write_module("helpers_of_mine", "SCALE = 2  # of the loss\n", there)
    write_module("losses_of_mine", "import helpers_of_mine\n" + LOSS, there)
    assert hash_in_a_process(there, poly) == hash_user_code([poly])[poly]
    write_module("helpers_of_mine", "SCALE = 3\n", there)
    assert hash_in_a_process(there, poly) != hash_user_code([poly])[poly]


def test_a_package_is_hashed_through_its_relative_imports(tmp_path: Path, write_module: Write) -> None:
    package = tmp_path / "package_of_mine"
    write_module("__init__", "", package)
    write_module("scale", "SCALE = 2\n", package)
    write_module("losses", "from .scale import SCALE\nfrom . import scale\n" + LOSS, package)
    look_beside(tmp_path / "experiments_config.toml")
    import_user_code("package_of_mine.losses:Poly", ANY_LOSS.contract)
    root, sources = sources_behind("package_of_mine.losses:Poly")
    assert [path.relative_to(root).as_posix() for path in sources] == [
        "package_of_mine/__init__.py",
        "package_of_mine/losses.py",
        "package_of_mine/scale.py",
    ]


def test_a_stored_model_is_only_used_with_code_that_the_command_trusts(poly: str) -> None:
    digest = hash_user_code([poly])[poly]
    import_trusted(poly, digest, ANY_LOSS.contract, ["losses_of_mine"])
    with pytest.raises(UserCodeError, match="trust it with --trust losses_of_mine"):
        import_trusted(poly, digest, ANY_LOSS.contract, ["other"])
    for other in ("0" * 16, None):
        with pytest.raises(UserCodeError, match="is not the code that the model was trained with"):
            import_trusted(poly, other, ANY_LOSS.contract, ["losses_of_mine"])


def test_code_is_recorded_into_graphs_only_if_it_says_so(poly: str) -> None:
    assert not_recordable(["BalancedSoftmax", poly]) == [poly]
    sys.modules["losses_of_mine"].Poly.runs_in_cuda_graphs = True
    assert not_recordable(["BalancedSoftmax", poly]) == []
