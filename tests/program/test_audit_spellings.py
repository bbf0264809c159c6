"""`python prepare_data.py audit` finds in a corpus's words what training warns of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import prepare_data
from tests.support.label_tables import Rows, base_rows, changed, relabelled, write_corpus
from utils.data.audit.findings import KINDS


def audited(folder: Path, rows: Rows) -> list[tuple[str, str]]:
    """Return kind and detail of what is found in the labels of a table, by the command itself."""
    for number, row in enumerate(rows):
        soundfile.write(folder / row["file"], np.sin(np.arange(8000 + number) / 9), 16_000)
    config = write_corpus(folder, rows)
    assert prepare_data.main(["audit", "MINE", "--config", str(config), "--output", str(folder / "audit")]) == 0
    written = pd.read_csv(folder / "audit" / "MINE" / "findings.csv", dtype=str, keep_default_na=False)
    assert dict(zip(written["kind"], written["severity"], strict=True)) == {
        kind: KINDS[kind].severity for kind in written["kind"]
    }
    return list(zip(written["kind"], written["detail"], strict=True))


def scaled(row: dict[str, str], index: int) -> dict[str, str]:
    return row | {"arousal": f"{1 + index % 5}"}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (base_rows(), []),
        (
            relabelled("emotion", ["nan"]),
            [
                ("word-for-nothing", 'emotion: "nan" 1 read as missing'),
                ("unlabelled", "neither class nor attribute nor vote"),
            ],
        ),
        (relabelled("emotion", ["angry\u200b"]), [("class-spellings", '"angry\\u200b" 1 read as "angry"')]),
        (
            changed("speaker", lambda row: "3" if row["speaker"] == "10" else row["speaker"]),
            [("speaker-spellings", '"03" (train 4) and "3" (development 4)')],
        ),
        (
            changed("emotion", lambda row: "anger" if row["file"] == "09angry.wav" else row["emotion"]),
            [
                ("near-classes", '"angry" (5 rows) and "anger" (1)'),
                ("scarce-class", '"anger": 1 in train, none in development, none in test1'),
            ],
        ),
        (
            [row for row in base_rows() if not (row["split"] == "development" and row["emotion"] == "sad")],
            [("scarce-class", '"sad": 3 in train, none in development')],
        ),
        (
            [scaled(row, i) for i, row in enumerate(base_rows())],
            [("unreached-scale", "arousal lies in 1..5 of 1..7")],
        ),
    ],
)
def test_the_audit_finds_what_training_warns_of(
    rows: Rows, expected: list[tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    details = audited(tmp_path, rows)
    assert set(expected) <= set(details)
    kinds = {kind for kind, _ in details}
    assert kinds - {"scarce-class"} == {kind for kind, _ in expected} - {"scarce-class"}
    printed = capsys.readouterr().out
    assert all(kind in printed for kind, _ in expected)
