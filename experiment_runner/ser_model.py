"""A trained model that is ready to predict, from a run, a folder, or the hub."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from experiment_runner.checkpoints import (
    AFRESH,
    CheckpointError,
    CheckpointStore,
    read_checkpoint,
    write_model,
)
from experiment_runner.model_description import ModelDescription, without_place
from experiment_runner.run_folder import EXPERIMENT
from net.ser_model_wrapper import SERModelWrapper
from utils.files import MOST_JSON_BYTES, read_text
from utils.git_source import is_git_url
from utils.hf_uploader import Uploaded, upload
from utils.hub import fetch_cached
from utils.model_files import CONFIG, METRICS, PROVENANCE, WEIGHTS
from utils.upstreams import UpstreamError, models_folder

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class SERModel:
    """A trained model in evaluation mode.

    Attributes:
        network: The model itself, on its device.
        description: Its classes, attributes, scale and normalisation.
        folder: Of its checkpoint.
    """

    network: SERModelWrapper
    description: ModelDescription
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
    ) -> SERModel:
        """Load a trained model; every weight must be there, and none be left over.

        Args:
            name: A run's folder, one that holds a checkpoint, or `<user>/<model>` on the hub: from `models/` where
                `download_model.py` has fetched it, else from the hub client's cache, into which it is downloaded.
            device: Where to.
            revision: Of the hub: a branch, a tag or a commit.
            token: Of the hub; where None, what its client finds.
            cache_dir: In place of the hub client's own.
            local_files_only: Whether nothing may be downloaded.

        Raises:
            CheckpointError: Where there is none, it is damaged, or its weights do not fit key by key.
            HubError: Where it is to be downloaded and cannot be.
        """
        found = find_checkpoint(name, revision)
        folder = found or fetch_cached(
            str(name), revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        try:
            document, weights = read_checkpoint(folder, None if found else folder.resolve().parents[1] / "blobs")
        except CheckpointError as error:
            if (Path(name) / EXPERIMENT).is_file():
                raise
            kept = folder if found else folder.parents[1]
            text = f"{str(error).removesuffix(AFRESH)}; remove {kept} and fetch it again"
            raise CheckpointError(text) from error
        try:
            description = ModelDescription.from_json(document)
            network = description.rebuild()
            network.load_state_dict(weights, strict=True)
        except Exception as error:  # noqa: BLE001 - a config can be wrong in any way
            reason = " ".join(str(error).split())
            raise CheckpointError(f"the checkpoint {folder} does not fit this program: {reason}") from error
        return cls(network.to(device).eval(), description, folder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model as it is now, for `from_pretrained`; figures and provenance go with unchanged weights alone.

        Args:
            folder: Made where it is not there; what else is in it stays.

        Raises:
            CheckpointError: Where that cannot be done.
        """
        config = {**self.description.to_json(), "upstream": without_place(self.description.upstream)}
        documents: dict[str, object] = {CONFIG: config}
        for name in (METRICS, PROVENANCE):
            if (self.folder / name).is_file() and self._is_unchanged():
                documents[name] = json.loads(read_text(self.folder / name, MOST_JSON_BYTES))
        write_model(Path(folder), self.network.state_dict(), documents)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        token: str | None = None,
        commit_message: str = "Upload a speech emotion recognition model",
    ) -> Uploaded:
        """Upload the model as it is now; one of a run, with unchanged weights, with its card and figures.

        Args:
            repo_id: `<user>/<name>`; made where it is not there.
            private: Whether its owner alone can read a new repository; one that everybody can read is written to only
                where this is false.
            token: Of the hub, one that may write; where None, what its client finds.
            commit_message: Of the commit.

        Raises:
            HubError: Where the hub does not take it.
            RunError: Where the model's run is not finished.
            CheckpointError: Where the model cannot be written beside.
        """
        from experiment_runner.publishing import gather

        run_folder = self.folder.parents[1]
        with tempfile.TemporaryDirectory(prefix="upload-") as name:
            if (run_folder / EXPERIMENT).is_file() and self._is_unchanged():
                gather(run_folder, Path(name), repo_id)
            else:
                self.save_pretrained(name)
            return upload(Path(name), repo_id, token, is_public=not private, message=commit_message)

    def _is_unchanged(self) -> bool:
        """Whether the weights are those that were loaded."""
        loaded = load_file(self.folder / WEIGHTS)
        return all(torch.equal(tensor.cpu(), loaded[name]) for name, tensor in self.network.state_dict().items())


def find_checkpoint(name: str | Path, revision: str | None = None) -> Path | None:
    """Return the folder of a checkpoint: of a run its best, else the folder itself, or one in `models/`.

    None where the name is none of these, and may be one of the hub.

    Raises:
        CheckpointError: Where it can be neither.
    """
    path = Path(name)
    if (path / EXPERIMENT).is_file():
        return CheckpointStore(path / "checkpoints").find("best")
    if (path / "config.json").is_file():
        return path
    seeds = sorted(str(folder.parent) for folder in path.glob(f"seed-*/{EXPERIMENT}"))
    if len(seeds) == 1:
        return find_checkpoint(seeds[0])
    if seeds:
        raise CheckpointError(f"{path} holds several runs; name one of {', '.join(seeds)}")
    if is_git_url(str(name)):
        return _find_fetched(str(name))
    if not HUB_ID.fullmatch(str(name)) or path.exists():
        raise CheckpointError(f"there is no trained model at {path}; name a run's folder, such as runs/NAME/seed-1")
    fetched = models_folder(str(name))
    return fetched if revision is None and (fetched / "config.json").is_file() else None


def _find_fetched(address: str) -> Path:
    """Return where in `models/` lies what was fetched from a git repository."""
    try:
        folder = models_folder(address)
    except UpstreamError as error:
        raise CheckpointError(str(error)) from error
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"there is nothing in {folder}; fetch it with `python download_model.py {address}`")
    return folder
