"""Uploads a run, on command or if its experiment requests it; no run fails because of it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub.constants import ENDPOINT

from experiment_runner.models.model_config import without_place
from experiment_runner.publishing.model_card import make_card
from experiment_runner.run import Run
from experiment_runner.storage.checkpoints import CheckpointStore, read_checkpoint
from experiment_runner.storage.run_folder import RunError
from experiment_runner.storage.stored_run import read_run
from utils.commands import python_command
from utils.hub.model_files import CARD, CONFIG, MANIFEST, MODEL_FILES
from utils.hub.repositories import require_token
from utils.hub.upload import Uploaded, upload
from utils.io.files import MOST_JSON_BYTES, atomic_write, fingerprints, read_note, read_text, write_json
from utils.io.secrets import read_token
from utils.io.user_code import import_trusted, modules_of, sources_behind
from utils.registry import AnyCode

CODE_FOLDER = "code"
"""Folder of an upload with the user's own code."""
PUBLISHED = "published.json"
"""File in a run's folder: repository that it was uploaded to, its licence, and a hash of what was uploaded."""


def upload_run(
    run_folder: Path,
    repo_id: str,
    token: str | None,
    is_public: bool = False,
    license_id: str | None = None,
    with_code: bool = False,
) -> Uploaded:
    """Upload a finished run's best model with its card, and note in the run's folder that this was done.

    An existing repository gets a new revision.

    Args:
        run_folder: Run's folder, such as `runs/<experiment>/seed-<n>`.
        repo_id: Repository, `<user>/<name>`.
        token: Token for the hub, with write access.
        is_public: Whether a new repository is public; an existing one stays as it is.
        license_id: Licence of the weights, as the hub names it; if None, the last upload's, else the experiment's.
        with_code: Whether the user's own code, if the run has any, is uploaded too; without it such a run is refused.

    Raises:
        RunError: If the folder is not a finished run, or its code may not be uploaded.
        UserCodeError: If its code cannot be imported, or has changed since.
        CheckpointError: If its checkpoint is missing or damaged.
        HubError: If the hub refuses it.
        OSError: If the note cannot be written.
    """
    license_id = _license(run_folder, license_id)
    with tempfile.TemporaryDirectory(prefix="upload-") as name:
        gather(run_folder, Path(name), repo_id, license_id, with_code)
        done = upload(Path(name), repo_id, token, is_public)
    state = _state(run_folder, repo_id, license_id)
    noted = {"url": done.url, "revision": done.revision, "license": license_id, "state": state}
    write_json(run_folder / PUBLISHED, noted)
    return done


def gather(
    run_folder: Path, folder: Path, repo_id: str, license_id: str | None = None, with_code: bool = False
) -> None:
    """Collect a run's files for upload in a folder: checkpoint, card, plots, and metrics of evaluated splits.

    Args:
        run_folder: The run.
        folder: Empty folder to fill.
        repo_id: Repository on the hub.
        license_id: See `upload_run`.
        with_code: See `upload_run`.

    Raises:
        RunError: If it is not a finished run, or its code may not be uploaded.
        UserCodeError: See `upload_run`.
        CheckpointError: If its checkpoint is missing or damaged.
    """
    card = make_card(run_folder, repo_id, _license(run_folder, license_id))
    code = _code_to_upload(read_run(run_folder).user_code, with_code)
    best = CheckpointStore(run_folder / "checkpoints").find("best")
    config, _ = read_checkpoint(best)  # a damaged checkpoint must not be uploaded
    for name in MODEL_FILES:
        if name not in (CONFIG, MANIFEST):
            shutil.copyfile(best / name, folder / name)
    write_json(folder / CONFIG, {**config, "upstream": without_place(config["upstream"])})
    write_json(folder / MANIFEST, fingerprints(folder))
    metrics = {f"evaluation/{path.name}": path for path in (run_folder / "evaluation").glob("*.json")}
    for name, path in {**metrics, **card.figures}.items():
        if path.resolve() != run_folder.resolve() / path.relative_to(run_folder):
            raise RunError(f"{path} is a link, which is not uploaded; remove it")
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / name)
    for name, path in code.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    atomic_write(folder / CARD, card.text)


def _code_to_upload(stored: Mapping[str, str], with_code: bool) -> dict[str, Path]:
    """Return the sources of a run's own code by their names in the upload; empty for a run that has none."""
    if stored and not with_code:
        raise RunError(
            f"the run was trained with your own code, {', '.join(stored)}; upload it too with --with-code, or "
            "keep the model on this machine"
        )
    sources: dict[str, Path] = {}
    for name, digest in stored.items():
        import_trusted(name, digest, AnyCode(), modules_of(stored))
        root, paths = sources_behind(name)
        sources |= {f"{CODE_FOLDER}/{path.relative_to(root).as_posix()}": path for path in paths}
    return sources


def publish(run: Run) -> None:
    """Upload a finished run if its experiment requests it and its current state is not uploaded yet.

    A failure is reported with the command to upload it later.
    """
    repo_id, folder, license_id = run.config.repository(run.seed), run.folder.path, run.config.license
    with_code = ["--with-code"] * run.with_code
    if repo_id is None:
        return
    try:
        before = _published(folder)
        if before.get("state") == _state(folder, repo_id, license_id):
            run.console.line(f"{run.name}: already uploaded, unchanged: {before['url']}, revision {before['revision']}")
            return
        token = read_token("HUGGINGFACE_TOKEN")
        require_token(token)
        run.console.line(f"{run.name}: uploading to {repo_id}")
        done = upload_run(folder, repo_id, token, license_id=license_id, with_code=run.with_code)
        run.console.line(f"{run.name}: uploaded: {done}")
    except Exception as error:  # noqa: BLE001 - whatever keeps it from being uploaded, the run is done
        stated = ["--license", license_id] if license_id else []
        later = python_command("utils.hf_uploader", [folder, repo_id, *stated, *with_code])
        run.console.warn(f"{run.name}: not uploaded ({' '.join(str(error).split())}); to do it later: {later}")


def _state(folder: Path, repo_id: str, license_id: str | None) -> str:
    """Return a hash of the upload and its target; card and manifest contain every metric and the weights' hash."""
    texts = [
        ENDPOINT,
        make_card(folder, repo_id, _license(folder, license_id)).text,
        read_text(folder / "checkpoints" / "best" / MANIFEST, MOST_JSON_BYTES),
    ]
    texts += [read_text(path, MOST_JSON_BYTES) for path in sorted((folder / "evaluation").glob("*.json"))]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _license(folder: Path, stated: str | None) -> str | None:
    """Return the licence stated now, else the last upload's, which stays in force when none is stated."""
    return stated or _published(folder).get("license")


def _published(folder: Path) -> dict[str, str]:
    """Return the note on the run's upload; empty if there is none or it cannot be read."""
    return {key: value for key, value in read_note(folder / PUBLISHED).items() if isinstance(value, str)}
