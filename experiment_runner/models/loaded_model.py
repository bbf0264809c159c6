"""A trained model that is ready to predict, from a run, a folder, or the hub."""

from __future__ import annotations

import json
import re
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
from utils.io.files import MOST_JSON_BYTES, read_text

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
UNTRAINED = "an upstream, or no model of this program; train one, and name its run's folder, such as runs/NAME/seed-1"


@dataclass(frozen=True)
class LoadedModel:
    """A trained model in evaluation mode.

    Attributes:
        network: The model itself, on its device.
        description: Its classes, attributes, scale and normalisation.
        folder: Of its checkpoint.
    """

    network: SERModelWrapper
    description: ModelConfig
    folder: Path

    @property
    def device(self) -> torch.device:
        """Where it is."""
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
    ) -> Self:
        """Load a trained model; every weight must be there, and none be left over.

        Args:
            name: A run's folder, one that holds a checkpoint, `git+https://host/path` that `download_model.py` has
                fetched, or `<user>/<model>` on the hub: from `models/` where it was fetched, else from the hub client's
                cache, into which it is downloaded. A revision may stand behind an `@`.
            device: Where to.
            revision: A branch, a tag or a commit; one that lies in `models/` must be of that.
            token: Of the hub; where None, what its client finds.
            cache_dir: In place of the hub client's own.
            local_files_only: Whether nothing may be downloaded.

        Raises:
            CheckpointError: If there is none, or of another revision, it is damaged, or its weights do not fit key
                by key.
            HubError: If it is to be downloaded and cannot be.
        """
        found = find_checkpoint(name, revision)
        repo_id, asked = split_revision(str(name))
        folder = found or fetch_cached(
            repo_id, revision=revision or asked, token=token, cache_dir=cache_dir, local_files_only=local_files_only
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
            network = description.rebuild()
            network.load_state_dict(weights, strict=True)
        except Exception as error:  # noqa: BLE001 - a config can be wrong in any way
            reason = " ".join(str(error).split())
            raise CheckpointError(f"the checkpoint {folder} does not fit this program: {reason}") from error
        return cls(network.to(device).eval(), description, folder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model as it is now, for `from_pretrained`; figures and provenance go with unchanged weights alone.

        Args:
            folder: Made where it is not there; a model in it is replaced, and what else is in it stays.

        Raises:
            CheckpointError: If that cannot be done, or the folder is a run's.
        """
        target = Path(folder).resolve()
        for place in (target, *target.parents):
            if (place / EXPERIMENT).is_file():
                raise CheckpointError(f"{folder} lies in the run {place}, which keeps what it was; name another folder")
        config = {**self.description.to_json(), "upstream": without_place(self.description.upstream)}
        documents: dict[str, object] = {CONFIG: config}
        if self.is_unchanged():
            manifest = json.loads(read_text(self.folder / MANIFEST, MOST_JSON_BYTES))
            for name in {METRICS, PROVENANCE} & set(manifest):
                documents[name] = json.loads(read_text(self.folder / name, MOST_JSON_BYTES))
        write_model(target, self.network.state_dict(), documents)

    def is_unchanged(self) -> bool:
        """Whether the weights are those that were loaded, as far as these are still there."""
        if not (self.folder / WEIGHTS).is_file():
            return False
        loaded = load_file(self.folder / WEIGHTS)
        return all(torch.equal(tensor.cpu(), loaded[name]) for name, tensor in self.network.state_dict().items())


def run_of(checkpoint: Path) -> Path | None:
    """Return the folder of the run that a checkpoint's folder belongs to, if it is that of a run."""
    checkpoints = checkpoint.resolve().parent
    run = checkpoints.parent
    return run if checkpoints.name == "checkpoints" and (run / EXPERIMENT).is_file() else None


def find_checkpoint(name: str | Path, revision: str | None = None) -> Path | None:
    """Return the folder of a checkpoint: of a run its best, else the folder itself, or one in `models/`.

    None where the name is none of these, and may be one of the hub.

    Args:
        name: See `SERModel.from_pretrained`.
        revision: What `models/` must hold; a local folder has none.

    Raises:
        CheckpointError: If it can be neither.
    """
    local = _find_local(Path(name))
    if local is not None:
        if revision is not None:
            raise CheckpointError(f"{name} is a folder, which has no revisions; leave {revision} out")
        return local
    plain, asked = split_revision(str(name))
    if None not in (asked, revision) and asked != revision:
        raise CheckpointError(f"the revisions {revision} and @{asked} differ; leave one of them out")
    if plain in UPSTREAMS["short_names"] or plain in UPSTREAMS["built_in"]:
        raise CheckpointError(f"{plain} is no trained model: {UNTRAINED}")
    if not (is_git_url(plain) or HUB_ID.fullmatch(plain)) or Path(name).exists():
        raise CheckpointError(f"there is no trained model at {name}; name a run's folder, such as runs/NAME/seed-1")
    return _find_fetched(plain, revision or asked)


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
    """Return where in `models/` a model lies; None where it may be on the hub.

    Raises:
        CheckpointError: If it is one of git, and it or its revision is not there.
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
        found = f"{folder} holds the revision {source.get('revision')}" if is_there else f"there is nothing in {folder}"
        wanted = f"{name}@{revision}" if revision else name
        raise CheckpointError(f"{found}; fetch it with `{script_command('download_model.py', [wanted])}`")
    return None
