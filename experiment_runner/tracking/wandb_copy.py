"""Copies a run folder to Weights & Biases: `python -m experiment_runner.tracking.wandb_copy RUN_FOLDER…`.

`metrics.jsonl` and `evaluation/*.json` are the source; this process only reads them, so that training never waits for a
tracker. It sends everything, whatever was sent before: a run can be copied again at any time. With `--follow` it
continues until its standard input receives data or closes, which happens however training ends.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.io.files import atomic_write, read_json, read_note, read_toml
from utils.io.folder_lock import FolderInUseError, locked
from utils.io.secrets import Redaction, print_error, read_token

STATE = "tracking.json"
STATE_TYPES = {"id": str, "mode": str, "url": str, "files": str, "error": str, "started": bool, "finished": bool}
"""Keys of `tracking.json` with their types; a finished copy has all of them."""
LOCK = "tracking.lock"
COPY_NAME = re.compile(r"(offline-)?run-[\w-]+")
"""Names of the folders that the tracker's client makes in `wandb/`."""
LONGEST_LOCK = 30.0
"""Seconds to wait for another copy of the same run."""
SECONDS_BETWEEN_LOOKS = 1.0
LONGEST_TAG = 64
RESULTS = ("stop", "best_epoch", "best_score")
SECTIONS = ("train_", "development_")
"""Prefixes of `metrics.jsonl` that become sections of the page."""


class CopyError(UserError):
    """A run cannot be copied; the message says why."""


def read_state(folder: Path) -> dict[str, Any]:
    """Return the state of a run's copy, with the keys of `STATE_TYPES`; empty if the file is not valid."""
    document = read_note(folder / STATE)
    state = {name: document[name] for name in STATE_TYPES if name in document}
    is_well_typed = all(isinstance(value, STATE_TYPES[name]) for name, value in state.items())
    is_complete = not state.get("finished") or state.keys() == STATE_TYPES.keys()
    return state if is_well_typed and is_complete else {}


def change_state(folder: Path, **changes: object) -> None:
    """Change the state of a run's copy; the file is written completely or not at all."""
    atomic_write(folder / STATE, json.dumps({**read_state(folder), **changes}, indent=2) + "\n")


class WandbCopy:
    """One run of Weights & Biases, online with a token, else in `<run folder>/wandb/` for `wandb sync`.

    Args:
        folder: The run folder.
        token: `WANDB_TOKEN`.
    """

    def __init__(self, folder: Path, token: str | None) -> None:
        self.folder = folder
        self.epochs_sent = 0
        document = read_toml(folder / "experiment.toml")
        before = read_state(folder)
        self.superseded = before.get("files") if before.get("mode") == "offline" else None
        identity = before.get("id") or uuid.uuid4().hex[:12]
        change_state(folder, id=identity, error="", started=False, finished=False)
        self.run = _begin(folder, document, identity, token)
        self.files = Path(self.run.settings.sync_dir)
        mode = "online" if token else "offline"
        change_state(folder, mode=mode, url=self.run.url or "", files=self.files.name, started=True)

    def send_epochs(self) -> None:
        """Send the lines of `metrics.jsonl` not sent yet, except a line still being written."""
        path = self.folder / "metrics.jsonl"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        for line in lines[self.epochs_sent :]:
            record = json.loads(line)
            self.run.log({section(name): value for name, value in record.items()}, step=record["epoch"])
        self.epochs_sent = len(lines)

    def send_results(self) -> None:
        """Send the metrics of test splits, the result, and the plots."""
        import wandb

        for path in sorted((self.folder / "evaluation").glob("*.json")):
            metrics = read_json(path)
            self.run.summary.update({f"{path.stem}/{name}": value for name, value in numbers(metrics).items()})
        result = self.folder / "result.json"
        if result.is_file():
            found = read_json(result)
            self.run.summary.update({name: found[name] for name in RESULTS})
        figures = sorted((self.folder / "pictures").glob("*.png"))
        if figures:
            self.run.log({f"pictures/{path.stem}": wandb.Image(str(path)) for path in figures})

    def finish(self) -> None:
        """Send the rest and close; an earlier offline copy that was never synced is replaced by this one."""
        self.send_epochs()
        self.send_results()
        self.run.finish(exit_code=0 if (self.folder / "result.json").is_file() else 1)
        if not list(self.files.glob("*.wandb")):
            raise CopyError(f"{self.files} contains no copy")
        if self.superseded not in (None, self.files.name):
            remove_copy(self.folder / "wandb", self.superseded)
        change_state(self.folder, finished=True)


def remove_copy(copies: Path, name: str) -> None:
    """Remove an offline copy that was never synced, if the name (which is not trusted) is that of one."""
    copy = copies / name
    if not COPY_NAME.fullmatch(name) or copies.is_symlink() or copy.is_symlink() or list(copy.glob("*.synced")):
        return
    shutil.rmtree(copy, ignore_errors=True)


def _begin(folder: Path, document: dict[str, Any], identity: str, token: str | None) -> Any:  # noqa: ANN401
    """Return the `wandb.Run` of a run folder."""
    if token:
        os.environ["WANDB_API_KEY"] = token  # `wandb.login(key=...)` would write it to ~/.netrc
    import wandb

    if token:
        wandb.login(prompt=False)
    experiment = document["experiment"]
    entity, _, project = experiment["wandb_project"].rpartition("/")
    run = wandb.init(
        project=project,
        entity=entity or None,
        id=identity,
        name=f"{experiment['name']}/{folder.name}",
        group=experiment["name"],
        config={**experiment, "resolved": document["resolved"]},
        tags=tags(experiment, document["resolved"]),
        dir=str(folder),
        mode="online" if token else "offline",
        resume="allow",
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,  # the remote's address can hold a token
            save_code=False,
            x_stats_pid=os.getppid(),  # monitor the training process, not this one
        ),
    )
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return run


def tags(experiment: dict[str, Any], resolved: dict[str, Any]) -> list[str]:
    """Return corpus, task, model type, loss, upstream, `synthetic` if it applies, and the experiment's own tags."""
    names = [experiment[key] for key in ("corpus", "task", "model_type", "loss_type")]
    names += [Path(experiment["upstream_model"]).name, *experiment.get("tags", ())]
    names += ["synthetic"] * bool(resolved.get("synthetic_corpora"))
    return [name[:LONGEST_TAG] for name in dict.fromkeys(names) if name]


def section(name: str) -> str:
    """Turn `development_macro_f1` into `development/macro_f1`, which groups the charts."""
    for prefix in SECTIONS:
        if name.startswith(prefix):
            return f"{prefix[:-1]}/{name.removeprefix(prefix)}"
    return name


def numbers(metrics: dict[str, Any], path: str = "") -> dict[str, float]:
    """Return every number of nested metrics by its path, such as `groups/tail/macro_f1`."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{path}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[path + name] = value
    return found


def copy_run(folder: Path, token: str | None, follow: bool) -> None:
    """Copy one run folder, once or until asked to end.

    Raises:
        CopyError: If another run has taken its place.
        FolderInUseError: If another process is copying it.
    """
    identity = os.stat(folder).st_ino
    with locked(folder, "copy it later", LOCK, LONGEST_LOCK):
        copy = WandbCopy(folder, token)
        while True:
            if os.stat(folder).st_ino != identity:
                raise CopyError("another run has taken its place")
            if not follow:
                break
            copy.send_epochs()
            ready, _, _ = select.select([sys.stdin], [], [], SECONDS_BETWEEN_LOOKS)
            follow = not ready
        copy.finish()


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every run was copied, 1 if one was not."""
    parser = argparse.ArgumentParser(description="Copy run folders to Weights & Biases.")
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN_FOLDER", help="such as runs/NAME/seed-42")
    parser.add_argument("--follow", action="store_true", help="continue until standard input closes")
    options = parser.parse_args(arguments)
    failed = False
    for folder in options.folders:
        try:
            copy_run(folder.resolve(), read_token("WANDB_TOKEN"), options.follow)
        except Exception as error:  # noqa: BLE001 - whatever a tracker does, the run goes on and the others are copied
            failed = True
            is_expected = isinstance(error, (CopyError, FolderInUseError))
            kind = "" if is_expected else f"{type(error).__name__}: "
            sentence = Redaction()(kind + " ".join(str(error).split()))
            print_error(f"{folder}: {sentence}")
            if not is_expected and folder.is_dir():
                change_state(folder, error=sentence)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
