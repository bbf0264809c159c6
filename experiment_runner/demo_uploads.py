"""Recordings that a browser has sent: read by the session that sent them alone, and deleted with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from utils.data import DataError


class Upload(NamedTuple):
    """A recording on this machine, and its name on the other."""

    path: Path
    name: str


@dataclass
class Uploads:
    """What lies in one folder, by session.

    Attributes:
        folder: Where gradio puts what it is sent.
    """

    folder: Path
    _held: dict[str, Path] = field(default_factory=dict)

    def take(self, session: str, document: Mapping[str, Any] | None) -> Upload:
        """Return what a session asks about; what it asked about before is deleted.

        Args:
            session: Its name.
            document: What gradio says of the file: its `path` and `orig_name`.

        Raises:
            DataError: A sentence for who is before the page, where there is no such file.
        """
        if document is None:
            raise DataError("Record or choose a recording first.")
        path = Path(str(document["path"])).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.is_file():
            raise DataError("The recording is not there any more; choose it again.")
        if self._held.get(session) != path:
            self.forget(session)
        self._held[session] = path
        return Upload(path, Path(str(document.get("orig_name") or path.name)).name)

    def forget(self, session: str) -> None:
        """Delete what a session has sent, unless another one has sent the same."""
        path = self._held.pop(session, None)
        if path is not None and path not in self._held.values():
            path.unlink(missing_ok=True)
            with suppress(OSError):  # its folder holds something else
                path.parent.rmdir()
