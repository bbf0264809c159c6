"""A trained model that can be loaded, saved and uploaded: the class that `predict.py` offers to other programs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from experiment_runner.models.loaded_model import LoadedModel, run_of
from experiment_runner.publishing.publish import gather
from utils.hub.upload import Uploaded, upload


class SERModel(LoadedModel):
    """A trained model in evaluation mode, from a run, a folder, or the hub."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        token: str | None = None,
        commit_message: str = "Upload a speech emotion recognition model",
    ) -> Uploaded:
        """Upload the model as it is now; a run's best one, with unchanged weights, with its card and figures.

        Args:
            repo_id: Repository, `<user>/<name>`, created if missing. An existing card and metrics of other weights are
                removed.
            private: Whether a new repository is private; an existing public one is only written to if this is false.
            token: Token for the hub, with write access; if None, the one that its client finds.
            commit_message: Message of the commit.

        Raises:
            HubError: If the hub refuses it.
            RunError: If the model's run is not finished.
            CheckpointError: If a local copy of the model cannot be written.
        """
        run_folder = run_of(self.folder)
        is_best = run_folder is not None and (run_folder / "checkpoints" / "best").resolve() == self.folder.resolve()
        with tempfile.TemporaryDirectory(prefix="upload-") as name:
            if run_folder is not None and is_best and self.is_unchanged():
                gather(run_folder, Path(name), repo_id)
            else:
                self.save_pretrained(name)
            return upload(Path(name), repo_id, token, is_public=not private, message=commit_message)
