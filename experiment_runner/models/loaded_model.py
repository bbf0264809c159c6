"""A trained model that is ready to predict, from a run, a folder, or the hub."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from typing_extensions import Self

from experiment_runner.models.model_config import ModelConfig, without_place
from experiment_runner.storage.checkpoints import AFRESH, CheckpointError, CheckpointStore, read_checkpoint, write_model
from experiment_runner.storage.run_folder import EXPERIMENT
from net.ser_model_wrapper import SERModelWrapper
from utils.commands import script_command
from utils.hub.git_source import is_git_url
from utils.hub.model_files import CONFIG, MANIFEST, METRICS, PROVENANCE, WEIGHTS
from utils.hub.repositories import fetch_cached
from utils.hub.upstreams import UPSTREAMS, UpstreamError, holds, models_folder, read_source, split_revision
from utils.io.files import read_json
from utils.io.user_code import UserCodeError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
UNTRAINED = "an upstream, or not a model of this program; train one and name its run folder, such as runs/NAME/seed-1"


@dataclass(frozen=True)
class LoadedModel:
    """A trained model in evaluation mode.

    Attributes:
        network: The model itself, on its device.
        description: Its classes, attributes, scale and normalisation.
        folder: Folder of its checkpoint.
    """

    network: SERModelWrapper
    description: ModelConfig
    folder: Path

    @property
    def device(self) -> torch.device:
        """Device that holds the model."""
        return next(self.network.parameters()).device

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str | torch.device = "cpu",
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        trusted: Collection[str] = (),
    ) -> Self:
        """Load a trained model; its weights must match the checkpoint's exactly.

        Args:
            name: A run's folder, a checkpoint's folder, a `git+https://host/path` fetched by `download_model.py`, or
                `<user>/<model>` on the hub. The last is read from `models/` if it was fetched, else downloaded into the
                hub client's cache. A revision may follow an `@`.
            device: Device to load the model on.
            revision: A branch, a tag or a commit; a model in `models/` must have this revision.
            token: Token for the hub; if None, the one that its client finds.
            cache_dir: Cache folder, instead of the hub client's own.
            local_files_only: Whether downloads are forbidden.
            trusted: Modules on Python's path with code that the model's author has written and the model needs. Models
                themselves never bring code.

        Raises:
            CheckpointError: If there is no checkpoint, it has another revision, it is damaged, or its weights do not
                match key by key.
            HubError: If it cannot be downloaded.
            UserCodeError: If it needs code that is not trusted, cannot be imported, or has changed.
        """
        found = find_checkpoint(name, revision)
        repo_id, pinned = split_revision(str(name))
        folder = found or fetch_cached(
            repo_id, revision=revision or pinned, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        if not (folder / MANIFEST).is_file() and not run_of(folder):
            raise CheckpointError(f"{folder} has no {MANIFEST}: {UNTRAINED}")
        try:
            document, weights = read_checkpoint(folder, None if found else folder.resolve().parents[1] / "blobs")
        except CheckpointError as error:
            if run_of(folder):
                raise
            kept = folder if found else folder.parents[1]
            text = f"{str(error).removesuffix(AFRESH)}; remove {kept} and fetch it again"
            raise CheckpointError(text) from error
        try:
            description = ModelConfig.from_json(document)
            network = description.rebuild(trusted)
            network.load_state_dict(weights, strict=True)
        except UserCodeError:
            raise
        except Exception as error:  # noqa: BLE001 - a config can be wrong in any way
            reason = " ".join(str(error).split())
            raise CheckpointError(f"the checkpoint {folder} does not fit this program: {reason}") from error
        return cls(network.to(device).eval(), description, folder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model for `from_pretrained`; metrics and provenance only accompany unchanged weights.

        Args:
            folder: Folder, created if missing; a model in it is replaced, and its other files stay.

        Raises:
            CheckpointError: If it cannot be written, or the folder is a run's.
        """
        target = Path(folder).resolve()
        for place in (target, *target.parents):
            if (place / EXPERIMENT).is_file():
                raise CheckpointError(f"{folder} lies in the run {place}, which must not change; name another folder")
        config = {**self.description.to_json(), "upstream": without_place(self.description.upstream)}
        documents: dict[str, object] = {CONFIG: config}
        if self.is_unchanged():
            manifest = read_json(self.folder / MANIFEST)
            for name in {METRICS, PROVENANCE} & set(manifest):
                documents[name] = read_json(self.folder / name)
        write_model(target, self.network.state_dict(), documents)

    def is_unchanged(self) -> bool:
        """Whether the weights still equal those in the file they were loaded from; False if it no longer exists."""
        if not (self.folder / WEIGHTS).is_file():
            return False
        loaded = load_file(self.folder / WEIGHTS)
        return all(torch.equal(tensor.cpu(), loaded[name]) for name, tensor in self.network.state_dict().items())


def run_of(checkpoint: Path) -> Path | None:
    """Return the folder of the run that a checkpoint's folder belongs to, if any."""
    checkpoints = checkpoint.resolve().parent
    run = checkpoints.parent
    return run if checkpoints.name == "checkpoints" and (run / EXPERIMENT).is_file() else None


def find_checkpoint(name: str | Path, revision: str | None = None) -> Path | None:
    """Return the folder of a checkpoint: a run's best one, the named folder itself, or one in `models/`.

    None if the name is none of these, and so may be a model on the hub.

    Args:
        name: See `SERModel.from_pretrained`.
        revision: Revision that a model in `models/` must have; local folders have none.

    Raises:
        CheckpointError: If the name can be neither local nor on the hub.
    """
    local = _find_local(Path(name))
    if local is not None:
        if revision is not None:
            raise CheckpointError(f"{name} is a folder, and folders have no revisions; remove {revision}")
        return local
    plain, pinned = split_revision(str(name))
    if None not in (pinned, revision) and pinned != revision:
        raise CheckpointError(f"the revisions {revision} and @{pinned} differ; remove one of them")
    if plain in UPSTREAMS["short_names"] or plain in UPSTREAMS["built_in"]:
        raise CheckpointError(f"{plain} is not a trained model: {UNTRAINED}")
    if not (is_git_url(plain) or HUB_ID.fullmatch(plain)) or Path(name).exists():
        raise CheckpointError(f"there is no trained model at {name}; name a run folder, such as runs/NAME/seed-1")
    return _find_fetched(plain, revision or pinned)


def _find_local(path: Path) -> Path | None:
    """Return the folder of a checkpoint on this machine.

    Raises:
        CheckpointError: If the path holds several runs.
    """
    if (path / EXPERIMENT).is_file():
        return CheckpointStore(path / "checkpoints").find("best")
    if (path / CONFIG).is_file():
        return path
    seeds = sorted(str(folder.parent) for folder in path.glob(f"seed-*/{EXPERIMENT}"))
    if len(seeds) > 1:
        raise CheckpointError(f"{path} holds several runs; name one of {', '.join(seeds)}")
    return _find_local(Path(seeds[0])) if seeds else None


def _find_fetched(name: str, revision: str | None) -> Path | None:
    """Return the folder of a model in `models/`; None if it may be on the hub.

    Raises:
        CheckpointError: If it comes from git, and it or its revision is missing.
    """
    try:
        folder = models_folder(name)
        source = read_source(folder)
    except UpstreamError as error:
        raise CheckpointError(str(error)) from error
    is_there = (folder / CONFIG).is_file()
    if is_there and holds(source, revision):
        return folder
    if is_git_url(name):
        found = f"{folder} contains revision {source.get('revision')}" if is_there else f"nothing was found in {folder}"
        wanted = f"{name}@{revision}" if revision else name
        raise CheckpointError(f"{found}; fetch it with `{script_command('download_model.py', [wanted])}`")
    return None
