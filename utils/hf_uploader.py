"""Upload a run's best model to the Hugging Face hub: `python -m utils.hf_uploader RUN_FOLDER USER/NAME`.

What is uploaded: the checkpoint, the model card with its pictures, and the figures of evaluated splits. Recordings,
their names, labels and predictions are not.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from utils import ConfigurationError, print_error, print_unforeseen, read_token
from utils.files import write_whole
from utils.hub import CHECKPOINT_FILES, LONGEST_ANSWER, HubError, told

CARD = "README.md"
PAUSES = (2.0, 8.0)
"""Seconds after which an upload that failed for something that may pass is tried again."""
ALL_WELL, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Uploaded:
    """Where a model lies on the hub.

    Attributes:
        url: Of its repository.
        revision: The commit.
        is_private: Whether only its owner can read it.
    """

    url: str
    revision: str
    is_private: bool


def upload_run(
    run_folder: Path, repo_id: str, token: str | None, is_public: bool = False, license_id: str | None = None
) -> Uploaded:
    """Upload a finished run's best model with its card; a repository that is there gets a new revision.

    Args:
        run_folder: Such as `runs/<experiment>/seed-<n>`.
        repo_id: `<user>/<name>`.
        token: Of the hub, one that may write.
        is_public: Whether a new repository can be read by everybody; one that is there stays as it is.
        license_id: Of the weights, as the hub names it.

    Raises:
        RunError: Where the folder is no finished run.
        CheckpointError: Where its checkpoint is missing or damaged.
        HubError: Where the hub does not take it.
    """
    with tempfile.TemporaryDirectory(prefix="upload-") as name:
        folder = Path(name)
        gather(run_folder, folder, repo_id, license_id)
        for pause in (*PAUSES, None):
            try:
                return _upload(folder, repo_id, token, is_public)
            except HubError as error:
                if pause is None or not error.may_pass:
                    raise
                time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def gather(run_folder: Path, folder: Path, repo_id: str, license_id: str | None = None) -> None:
    """Put into a folder what is uploaded of a run.

    Raises:
        RunError: Where it is no finished run.
        CheckpointError: Where its checkpoint is missing or damaged.
    """
    from experiment_runner.checkpoints import (
        CONFIG,
        MANIFEST,
        CheckpointStore,
        fingerprint,
        read_checkpoint,
        write_json,
    )
    from experiment_runner.model_card import make_card
    from experiment_runner.model_description import without_place
    from experiment_runner.run_folder import RunError

    card = make_card(run_folder, repo_id, license_id)
    best = CheckpointStore(run_folder / "checkpoints").find("best")
    config, _ = read_checkpoint(best)  # what is damaged is not uploaded
    for name in CHECKPOINT_FILES:
        if name not in (CONFIG, MANIFEST):
            shutil.copyfile(best / name, folder / name)
    write_json(folder / CONFIG, {**config, "upstream": without_place(config["upstream"])})
    write_json(folder / MANIFEST, {path.name: fingerprint(path) for path in sorted(folder.iterdir())})
    figures = {f"evaluation/{path.name}": path for path in (run_folder / "evaluation").glob("*.json")}
    for name, path in {**figures, **card.pictures}.items():
        if path.resolve() != run_folder.resolve() / path.relative_to(run_folder):
            raise RunError(f"{path} is a link, which is not uploaded; remove it")
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / name)
    write_whole(folder / CARD, card.text)


def _upload(folder: Path, repo_id: str, token: str | None, is_public: bool) -> Uploaded:
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with told(f'"{repo_id}" cannot be uploaded'):
        is_there = api.repo_exists(repo_id)
        if is_there and not is_public and not api.model_info(repo_id, timeout=LONGEST_ANSWER).private:
            raise HubError(f'everybody can read "{repo_id}"; name another, make it private, or upload with --public')
        url = api.create_repo(repo_id, private=not is_public, exist_ok=True)
        message = "Upload a trained model with its card"
        replaced = ["pictures/*", "evaluation/*"]
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=message, delete_patterns=replaced
        )
        private = api.model_info(repo_id, timeout=LONGEST_ANSWER).private
    return Uploaded(str(url), commit.oid, bool(private))


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where the model was uploaded, 1 where it was not, 2 for wrong input."""
    from experiment_runner.checkpoints import CheckpointError
    from experiment_runner.interruption import stopped_as_by_keyboard
    from experiment_runner.run_folder import RunError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="such as runs/NAME/seed-42")
    parser.add_argument("repo_id", metavar="USER/NAME", help="the repository; it is made where it is not there")
    parser.add_argument("--public", action="store_true", help="let everybody read a new repository; default: its owner")
    parser.add_argument("--license", metavar="ID", help="of the weights, as the hub names it, such as cc-by-nc-4.0")
    options = parser.parse_args(arguments)
    try:
        token = read_token("HUGGINGFACE_TOKEN")
        with stopped_as_by_keyboard():
            found = upload_run(options.run, options.repo_id, token, options.public, options.license)
    except (ConfigurationError, RunError, CheckpointError) as error:
        print_error(error)
        return WRONG_INPUT
    except (HubError, OSError) as error:
        print_error(f"{error}; the run is as it was, and the same command uploads it later")
        return FAILED
    except KeyboardInterrupt:
        print_error("interrupted; the same command uploads the rest")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - nobody should have to read a traceback on the screen
        print_unforeseen(error)
        return FAILED
    who = "private" if found.is_private else "PUBLIC, for everybody to read"
    print(f"{found.url}: {who}, revision {found.revision}")
    return ALL_WELL


if __name__ == "__main__":
    sys.exit(main())
