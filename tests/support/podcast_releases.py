"""Writes one set of labels in the layout of every release of MSP-PODCAST."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

LABELS = ["FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set"]
SEPARATE = ["EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom"]


def detail(rating: pd.Series) -> str:
    words = f"{rating.Worker}; {rating.EmoClass_Major}; {rating.EmoClass_Second}"
    return f"{words}; A:{rating.EmoAct:.6f}; V:{rating.EmoVal:.6f}; D:{rating.EmoDom:.6f};"


def write_table(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def write_partitions(path: Path, labels: pd.DataFrame, hidden: list[str]) -> None:
    lines = [f"{split}; {file}" for split, file in zip(labels["Split_Set"], labels["FileName"], strict=True)]
    path.write_text("\n".join([*lines, *(f"Test3; {file}" for file in hidden)]) + "\n", encoding="utf-8")


def strings(ratings: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"FileName": ratings["FileName"], "EmoDetail": [detail(row) for _, row in ratings.iterrows()]})


def write_1_6(root: Path, labels: pd.DataFrame, ratings: pd.DataFrame) -> Path:
    renamed = labels.assign(Split_Set=labels["Split_Set"].replace("Development", "Validation"))
    write_table(root / "label" / "labels_concensus.csv", renamed)
    columns = ratings.rename(columns={"Worker": "Workers"})[["FileName", "Workers", *SEPARATE]]
    write_table(root / "label" / "labels_detailed.csv", columns)
    return root / "label"


def write_1_7(root: Path, labels: pd.DataFrame, ratings: pd.DataFrame) -> Path:
    write_table(root / "Labels" / "labels_concensus.csv", labels[LABELS[::-1]])
    write_table(root / "Labels" / "labels_detailed.csv", strings(ratings))
    return root / "Labels"


def write_1_9(root: Path, labels: pd.DataFrame, ratings: pd.DataFrame) -> Path:
    """In a doubled folder, with the JSON twins alone."""
    folder = root / "labels" / "labels"
    folder.mkdir(parents=True)
    fields = labels.set_index("FileName").astype(str).to_dict(orient="index")
    (folder / "labels_concensus.json").write_text(json.dumps(fields), encoding="utf-8")
    document: dict[str, dict[str, dict[str, object]]] = {}
    for _, row in ratings.iterrows():
        document.setdefault(row["FileName"], {})[row["Worker"]] = {column: row[column] for column in SEPARATE}
    (folder / "labels_detailed.json").write_text(json.dumps(document), encoding="utf-8")
    return root / "labels"


def write_1_11(root: Path, labels: pd.DataFrame, ratings: pd.DataFrame) -> Path:
    write_table(root / "Labels" / "labels_consensus.csv", labels)
    write_table(root / "Labels" / "labels_detailed.csv", strings(ratings))
    return root


def write_text(root: Path, labels: pd.DataFrame, ratings: pd.DataFrame) -> Path:
    """`labels.txt` alone, with the splits in `Partitions.txt`."""
    blocks = io.StringIO()
    by_file = {file: rows for file, rows in ratings.groupby("FileName")}
    for _, row in labels.iterrows():
        numbers = f"A:{row['EmoAct']:.6f}; V:{row['EmoVal']:.6f}; D:{row['EmoDom']:.6f};"
        blocks.write(f"{row['FileName']}; {row['EmoClass']}; {numbers}\n")
        blocks.writelines(detail(rating) + "\n" for _, rating in by_file[row["FileName"]].iterrows())
        blocks.write("\n")
    (root / "Labels").mkdir(parents=True)
    (root / "Labels" / "labels.txt").write_text(blocks.getvalue(), encoding="utf-8")
    write_partitions(root / "Partition.txt", labels, [])
    return root / "Labels"


def write_2_0(root: Path, labels: pd.DataFrame, ratings: pd.DataFrame) -> Path:
    write_table(root / "Labels" / "labels_consensus.csv", labels)
    with (root / "Labels" / "labels_detailed.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["FileName", "WorkerID", *SEPARATE])
        writer.writerows(ratings[["FileName", "Worker", *SEPARATE]].itertuples(index=False))
    return root / "Labels"


Writer = Callable[[Path, pd.DataFrame, pd.DataFrame], Path]
RELEASES: dict[str, tuple[Writer, str]] = {
    "1.6": (write_1_6, "as in release 1.6"),
    "1.7": (write_1_7, "as in release 1.7 or 1.8"),
    "1.9": (write_1_9, "as in release 1.9"),
    "1.11": (write_1_11, "as in release 1.10 to 1.12"),
    "labels.txt": (write_text, "as in release 1.6 to 1.11"),
    "2.0": (write_2_0, "as in release 2.0"),
}
"""How each layout is written, and what the reader says of it."""
