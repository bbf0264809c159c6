"""Small CSV tables of a user, and the utterance tables read from them."""

from __future__ import annotations

from pathlib import Path

from utils.config.corpus import CorpusConfig
from utils.data.labels.corpus import Corpus
from utils.data.loader import load_corpus

ROWS = (
    ("a.wav", "train", "1", "female", "angry", "2.5"),
    ("b.wav", "train", "1", "female", "sad", "3"),
    ("c.wav", "development", "2", "male", "angry", "4.25"),
    ("d.wav", "test1", "3", "male", "sad", "1"),
)
HEADER = ("file", "split", "speaker", "gender", "emotion", "arousal")


def table_text(delimiter: str = ",", header: tuple[str, ...] = HEADER, end: str = "\n") -> str:
    """Return the table as text."""
    return "".join(delimiter.join(cells) + end for cells in (header, *ROWS))


def load(folder: Path, content: str | bytes, **keys: object) -> Corpus:
    """Load a corpus `C` from the content of its table; its recordings need not be there."""
    table = folder / "table.csv"
    table.write_bytes(content.encode() if isinstance(content, str) else content)
    config = {"FORMAT": "csv", "PATH_TO_LABEL": table, "PATH_TO_AUDIO": folder, **keys}
    return load_corpus("C", CorpusConfig.model_validate(config))
