"""The readers of corpora, by the name of their format."""

from __future__ import annotations

READERS = {
    "msp-podcast": "utils.data.podcast",
    "emodb": "utils.data.emodb",
    "ravdess": "utils.data.ravdess",
    "crema-d": "utils.data.cremad",
    "csv": "utils.data.csv_table",
}
