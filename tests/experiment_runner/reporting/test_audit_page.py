from __future__ import annotations

import base64
import html
import io
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from matplotlib.image import imread

from experiment_runner.reporting.audit_figures import (
    Panel,
    even_bins,
    paired_shares_figure,
    rows_figure,
    votes_figure,
    widening_bins,
)
from experiment_runner.reporting.audit_page import CAPTIONS, SHOWN_FINDINGS, figures_of, write_audit_page
from tests.support.figures import check_texts, legend_of, with_gid
from utils.config.corpus import CorpusConfig
from utils.config.loading import load_corpora
from utils.data.audit.audit import FINDINGS, Audit, audit, count_classes, count_findings, summarise_splits
from utils.data.audit.findings import KINDS
from utils.data.loader import read_corpus
from utils.data.synthetic.demo_corpus import DemoSize, write_demo_corpus

SIZE = DemoSize(train=70, development=24, test1=24, test2=20, test3=8, at_least=1)
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """A demo corpus with a missing, a silent and a copied recording, and more surplus ones than are listed."""
    config = write_demo_corpus(tmp_path_factory.mktemp("demo"), SIZE, lambda _: None)
    audio = config.parent / "Audios"
    first, second, third, *_ = sorted(audio.glob("*.wav"))
    for number in range(SHOWN_FINDINGS + 7):
        (audio / f"surplus_{number}.wav").write_bytes(third.read_bytes())
    first.unlink()
    soundfile.write(second, np.zeros(16000), 16000)
    section = load_corpora(config)["DEMO"]
    return audit(read_corpus("R&D", section), section, is_deep=True)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """A table of files, splits and classes alone; one recording has markup for a name, another for a class."""
    folder = tmp_path_factory.mktemp("bare")
    files = [f"{number}.wav" for number in range(11)] + [f"{HOSTILE}.wav"]
    for file in files[:11]:
        soundfile.write(folder / file, 0.1 * np.ones(16000), 16000)
    rows = {"file": files, "split": ["train", "development", "test1"] * 4, "emotion": ["angry", "<b>sad</b>"] * 6}
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    config = CorpusConfig(FORMAT="csv", PATH_TO_AUDIO=folder, PATH_TO_LABEL=folder / "table.csv")
    return audit(read_corpus("bare", config), config)


def page_of(found: Audit, folder: Path) -> str:
    return write_audit_page(found, folder / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def demo_page(demo: Audit, tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(demo, tmp_path_factory.mktemp("page"))


def text_of(page: str) -> str:
    """The page as a browser shows its text."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.split("<body>")[1])).split())


def captions_of(page: str) -> list[str]:
    return [html.unescape(text) for text in re.findall(r"<figcaption>(.*?)</figcaption>", page)]


def tables_of(page: str) -> dict[str, list[list[str]]]:
    """Body rows of the tables by the heading above them."""
    tables = {}
    for heading, body in re.findall(r"<h2>(Splits|Classes)</h2>\s*<div.*?<tbody>(.*?)</tbody>", page, re.DOTALL):
        rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]
        tables[heading] = [[html.unescape(cell) for cell in row] for row in rows]
    return tables


def test_the_page_is_one_file_that_needs_nothing_beside_it(demo: Audit, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("an older page")
    page = page_of(demo, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"], "nothing half-written is left"
    addresses = re.findall(r"""(?:src|href|action|data|poster)\s*=\s*["']?([^"'\s>]+)""", page)
    assert len(addresses) == len(CAPTIONS) + 1, "every picture, and an icon that nothing is fetched for"
    assert all(address.startswith("data:") for address in addresses)
    assert not re.search(r"<script|@import|url\(|https?:|<link(?! rel=\"icon\" href=\"data:,\")", page)


def test_a_page_that_cannot_be_written_leaves_the_older_one(
    bare: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "page.html"
    target.write_text("an older page")

    def refuse(source: Path, place: Path) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk is full"):
        write_audit_page(bare, target)
    assert target.read_text() == "an older page"
    assert list(tmp_path.iterdir()) == [target]


def test_every_kind_that_was_found_is_told_with_its_count(demo: Audit, demo_page: str) -> None:
    kinds = count_findings(demo)
    assert {"missing", "silent", "unknown-speaker", "surplus"} <= set(kinds["kind"])
    sections = re.findall(r'<section class="finding (\w+)">(.*?)</section>', demo_page, re.DOTALL)
    assert len(sections) == len(kinds)
    for (severity, section), kind in zip(sections, kinds.itertuples(), strict=True):
        text = text_of(f"<body>{section}")
        assert severity == kind.severity == KINDS[str(kind.kind)].severity
        assert text.startswith(f"{kind.kind} {kind.count} {severity} {kind.meaning}. What to do: {kind.remedy}.")
        assert f"Example: {kind.example}" in text
        own = demo.findings[demo.findings["kind"] == kind.kind]
        listed = own.head(SHOWN_FINDINGS)
        assert section.count("<tr><td>") == len(listed)
        for file, split, detail in listed[["file", "split", "detail"]].to_numpy().tolist():
            assert f"{file or '–'} {split or '–'} {detail}" in text
        left = len(own) - len(listed)
        assert (f"and {left} more in {FINDINGS}" in text) == (left > 0)
    assert f"and 7 more in {FINDINGS}" in demo_page


def test_errors_come_first_whatever_their_order(bare: Audit, tmp_path: Path) -> None:
    rows = [(KINDS[kind].severity, kind, f"{kind}.wav", "train", "why") for kind in reversed(KINDS)]
    found = replace(bare, findings=pd.DataFrame(rows, columns=bare.findings.columns, dtype=str))
    severities = re.findall(r'<section class="finding (\w+)">', page_of(found, tmp_path))
    assert len(severities) == len(KINDS)
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_the_verdict_counts_errors_else_warnings(bare: Audit, tmp_path: Path) -> None:
    def with_kinds(*kinds: str) -> Audit:
        rows = [(KINDS[kind].severity, kind, "a.wav", "train", "") for kind in kinds]
        return replace(bare, findings=pd.DataFrame(rows, columns=bare.findings.columns, dtype=str))

    assert with_kinds("missing", "rate").verdict == "1 error: training would be refused or wrong"
    assert with_kinds("missing", "leaked").verdict == "2 errors: training would be refused or wrong"
    assert with_kinds("rate", "rate", "surplus").verdict == "no error; 2 warnings"
    assert with_kinds("surplus").verdict == "no error; no warning"
    assert "Nothing was found." in page_of(with_kinds(), tmp_path)


def test_the_tables_hold_the_figures_of_the_audit(demo: Audit, demo_page: str) -> None:
    tables = tables_of(demo_page)
    summary = summarise_splits(demo)
    assert [row[0] for row in tables["Splits"]] == list(summary.index)
    for shown, (_, row) in zip(tables["Splits"], summary.iterrows(), strict=True):
        for cell, (name, value) in zip(shown[1:], row.items(), strict=True):
            if cell == "–":
                assert np.isnan(value) or (value == 0 and name in ("speakers", "female", "male")), name
            else:
                decimals = len(cell.partition(".")[2])
                assert float(cell.replace(",", "")) == round(value, decimals), name
    assert tables["Splits"][-1][0] == "test3"
    assert tables["Splits"][-1][-5:] == ["–"] * 5, "speakers, genders and votes of hidden labels are not known"
    counts = count_classes(demo.corpus)
    assert [row[0] for row in tables["Classes"]] == list(counts.index)
    labelled = counts.drop(index="no class").sum()
    for shown, (name, row) in zip(tables["Classes"], counts.iterrows(), strict=True):
        assert [int(cell) for cell in shown[1::2]] == list(row)
        if name != "no class":
            shares = [f"{100 * row[s] / labelled[s]:.1f} %" if labelled[s] else "–" for s in counts.columns]
            assert shown[2::2] == shares


def test_the_head_says_what_was_looked_at(demo: Audit, demo_page: str, bare: Audit, tmp_path: Path) -> None:
    text = text_of(demo_page)
    total = len(demo.recordings)
    assert text.startswith("R&D audit of the corpus SYNTHETIC recordings: nobody spoke them.")
    assert "1 error: training would be refused or wrong" in text
    assert f"{total - 1} of {total} recordings decoded" in text
    assert "labels kept back test3" in text
    assert demo.corpus.notes
    assert all(note in text for note in demo.corpus.notes)
    assert "<title>R&amp;D, audit</title>" in demo_page
    headers = text_of(page_of(bare, tmp_path))
    assert "11 of 12 recordings checked by their headers alone" in headers
    assert "SYNTHETIC" not in headers
    assert "opened now" not in headers
    again = text_of(page_of(replace(bare, opened=2), tmp_path))
    assert "2 opened now, the others have not changed since an earlier run" in again


def test_text_of_a_corpus_is_never_markup(bare: Audit, tmp_path: Path) -> None:
    page = page_of(bare, tmp_path)
    assert "<script" not in page
    assert "<b>" not in page
    assert html.escape(HOSTILE) in page
    assert "&lt;b&gt;sad&lt;/b&gt;" in page


def test_pictures_are_drawn_where_there_is_data(demo: Audit, demo_page: str, bare: Audit, tmp_path: Path) -> None:
    assert captions_of(demo_page) == [text.format(low=1, high=7) for text in CAPTIONS.values()]
    plain = page_of(bare, tmp_path)
    assert captions_of(plain) == [CAPTIONS["durations"], CAPTIONS["classes"]]
    assert "Krippendorff" in demo_page
    assert "Krippendorff" not in plain
    names = [name for name, _ in figures_of(replace(demo, is_deep=False))]
    assert names == [name for name in CAPTIONS if name != "peaks"]


def test_nothing_is_drawn_of_nothing(bare: Audit, tmp_path: Path) -> None:
    empty = bare.recordings.assign(seconds=np.nan)
    table = bare.corpus.table.assign(emotion=pd.Series(np.nan, index=bare.corpus.table.index, dtype="object"))
    found = replace(bare, recordings=empty, corpus=replace(bare.corpus, table=table, classes=()))
    page = page_of(found, tmp_path)
    assert "<figure" not in page
    assert "<h2>Pictures</h2>" not in page
    assert "<h2>Classes</h2>" not in page


def test_a_corpus_without_training_has_no_picture_of_its_classes(bare: Audit, tmp_path: Path) -> None:
    table = bare.corpus.table
    rows = table[table["split"] != "train"]
    recordings = bare.recordings.loc[rows.index]
    found = replace(bare, corpus=replace(bare.corpus, table=rows), recordings=recordings)
    assert captions_of(page_of(found, tmp_path)) == [CAPTIONS["durations"]]


def test_rows_hold_the_shares_of_their_values() -> None:
    generator = np.random.default_rng(0)
    values = {"train": generator.normal(5, 1, 400), "test1": np.array([2.0, 2.0, 4.0, 99.0]), "test2": np.empty(0)}
    edges = even_bins(0, 10, 400)
    figure = rows_figure([Panel("", "duration, s", values, edges, " s")], list(values))
    (axes,) = figure.axes
    steps = [patch.get_data() for patch in axes.patches]  # type: ignore[attr-defined]
    assert len(steps) == 2, "a row without values is empty"
    heights = [np.asarray(step.values) - step.baseline for step in steps]
    for found, row in zip(heights, ("train", "test1"), strict=True):
        expected = np.histogram(values[row], edges)[0] / len(values[row])
        assert found / found.sum() == pytest.approx(expected / expected.sum())
    assert heights[1].max() / heights[0].max() == pytest.approx(
        0.5 / (np.histogram(values["train"], edges)[0].max() / 400)
    ), "all rows have one scale"
    assert [text.get_text() for text in with_gid(figure, "row")] == [
        f"median {np.median(values['train']):.1f} s",
        "median 3.0 s; 1 beyond the axis",
    ]


@pytest.mark.parametrize(("low", "high"), [(0, 11.3), (1, 7), (-60, 0), (0, 0), (0, 1e-4), (-1, 1)])
@pytest.mark.parametrize("number", [1, 300, 270_000])
def test_bins_cover_the_range_evenly(low: float, high: float, number: int) -> None:
    edges = even_bins(low, high, number)
    assert edges[0] <= low + 1e-9
    assert edges[-1] >= high - 1e-9
    assert np.diff(edges) == pytest.approx(np.full(len(edges) - 1, edges[1] - edges[0]))
    assert 1 <= len(edges) - 1 <= 50


def test_bins_of_counts_widen() -> None:
    assert list(widening_bins(1)) == [1, 2]
    assert list(widening_bins(20)) == [1, 2, 3, 4, 6, 8, 11, 16, 23, 32]
    for high in (*range(1, 70), 1000, 16_384):
        assert widening_bins(high)[-1] > high, "so that no count is beyond"


def test_a_mean_on_an_edge_falls_above_it() -> None:
    edges = even_bins(1, 7, 10_000)
    means = np.array([1 + place * 0.2 for place in range(31)])
    figure = rows_figure([Panel("", "", {"train": means}, edges)], ["train"])
    (steps,) = [patch.get_data() for patch in figure.axes[0].patches]  # type: ignore[attr-defined]
    heights = np.asarray(steps.values) - steps.baseline
    assert heights[:-1] == pytest.approx(heights[0]), "every step holds one mean, the last holds both ends"
    assert heights[-1] == pytest.approx(2 * heights[0])


def test_shares_by_gender_are_of_the_gender() -> None:
    counts = {"female": {"angry": 30, "sad": 10}, "male": {"angry": 5, "sad": 15}}
    figure = paired_shares_figure(counts, "the gender's utterances")
    shares = {gender: list(with_gid(figure, gender)[0].get_xdata()) for gender in counts}
    assert shares == {"female": [75.0, 25.0], "male": [25.0, 75.0]}
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["angry", "sad"]
    assert legend_of(figure) == ["female (40)", "male (20)"]


def test_votes_are_shares_of_the_consensus(demo: Audit) -> None:
    table = demo.corpus.table[demo.corpus.table.columns[::-1]]
    figure = dict(figures_of(replace(demo, corpus=replace(demo.corpus, table=table))))["votes"]
    axes = figure.axes[0]
    columns = [label.get_text() for label in axes.get_xticklabels()]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == list(demo.corpus.classes)
    assert columns[: len(rows)] == rows, "what raters chose stands below the consensus of the same name"
    for text in with_gid(figure, "share"):
        column, row = (round(place) for place in text.get_position())
        own = table[table["emotion"] == rows[row]]
        votes = own[[f"votes_{name}" for name in columns]].sum()
        assert text.get_text() == f"{100 * votes.iloc[column] / votes.sum():.0f}"


def test_no_text_is_cut_off_or_covers_another(demo: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, figure in figures_of(demo):
        with monkeypatch.context() as patch:
            check_texts(figure, patch)
        assert figure.axes, name


def test_long_names_and_great_numbers_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["overwhelming surprise", "contemptuousness", "$x^2$", "R&D", "neutral", "calm", "sad", "happy", "fear"]
    votes = pd.DataFrame(np.eye(9, dtype=int), index=names, columns=names)
    check_texts(votes_figure(votes), monkeypatch)
    values = np.append(np.linspace(1, 7, 99_999), np.full(50_000, 99.0))
    panels = [Panel(name, f"{name}, 1 to 7", {"train": values}, even_bins(1, 7, 9), "", 2) for name in "abc"]
    check_texts(rows_figure(panels, ["development\n149,999"]), monkeypatch)


def test_embedded_pictures_are_whole(bare: Audit, tmp_path: Path) -> None:
    page = page_of(bare, tmp_path)
    for data in re.findall(r'base64,([^"]+)"', page):
        image = imread(io.BytesIO(base64.b64decode(data)))
        assert image.shape[1] == int(3.35 * 220), "a paper's column"
        assert image[..., :3].std() > 0.01, "something is drawn"
