"""Every benchmark of whole passes runs end to end on the CPU with a tiny shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import cpu_step, development, epoch, frozen, loader, passes
from benchmarks.stock import Padded, StockPooling
from benchmarks.synthetic import DROPOUTS, SHAPES, draw_noise, draw_seconds
from net.packing.frames import Frames
from net.pooling import AttentiveStatisticsPooling

ON_CPU = ["--device", "cpu", "--shapes", "tiny"]
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")  # transformers


def results(main: Callable[[Sequence[str]], None], folder: Path, *options: str) -> dict[str, Any]:
    main([*options, "--output", str(folder / "found.json")])
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def rates(found: dict[str, Any]) -> dict[str, float]:
    return {row["variant"]: row["rate"] for row in found["rows"]}


@pytest.mark.slow
def test_epoch(tmp_path: Path) -> None:
    found = results(epoch.main, tmp_path, *ON_CPU, "--steps", "1", "--batch-size", "8")
    assert list(rates(found)) == [*epoch.REFERENCES, *epoch.VARIANTS]
    assert [row["steps"] for row in found["rows"]] == [1, 1, 1, 4, 4, 4]
    audio = draw_seconds(8).sum()
    for row in found["rows"]:
        assert row["rate"] == pytest.approx(row["steps"] * audio / row["seconds"])
        assert row["times"]["careful, AMP fp16"] == pytest.approx(row["rate"] / rates(found)["careful, AMP fp16"])


@pytest.mark.slow
def test_development(tmp_path: Path) -> None:
    found = results(development.main, tmp_path, *ON_CPU, "--utterances", "8", "--batch-seconds", "12", "60")
    names = [
        f"{what}, {how}, batches of {n} s"
        for how in ("fp32", "bf16")
        for n in (12, 60)
        for what in ("ours", "evaluate")
    ]
    assert list(rates(found)) == [*development.REFERENCES, *names]
    assert all(row["utterances"] == 8 and row["rate"] > 0 for row in found["rows"])


@pytest.mark.slow
def test_frozen(tmp_path: Path) -> None:
    found = results(frozen.main, tmp_path, *ON_CPU, "--utterances", "16", "--batch-size", "8", "--epochs", "3")
    assert list(rates(found)) == [*frozen.REFERENCES, "ours, start and first epoch", "ours, later epochs"]
    later = found["rows"][-1]
    assert len(later["epochs"]) == 3
    assert later["rate"] == pytest.approx(draw_seconds(32)[16:].sum() / np.mean(later["epochs"][1:]))


@pytest.mark.slow
def test_loader(tmp_path: Path) -> None:
    options = ["--files", "4", "--utterances", "16", "--workers", "0", "1", "--rows", "1000", "5000"]
    found = results(loader.main, tmp_path, *options)
    assert [(row["kind"], row["workers"]) for row in found["rates"]] == [(k, n) for k in loader.KINDS for n in (0, 1)]
    assert [(row["rows"], row["workers"]) for row in found["memory"]] == [(1000, 1), (5000, 1)]
    assert all(row["resident_bytes"] >= row["all_bytes"] > row["worker_bytes"] > 0 for row in found["memory"])


def test_cpu_step(tmp_path: Path) -> None:
    options = ["--shape", "tiny", "--utterances", "3", "--seconds", "0.2", "0.5", "--times", "2", "--threads", "1"]
    found = results(cpu_step.main, tmp_path, *options)
    for clock in ("wall", "cpu"):
        ours, stock = (found["seconds"][name][clock] for name in (cpu_step.OURS, cpu_step.STOCK))
        assert len(ours) == len(stock) == 2
        assert found["shares"][f"median {clock}"] == pytest.approx(np.median(ours) / np.median(stock))
        assert found["shares"][f"shortest {clock}"] == pytest.approx(min(ours) / min(stock))


def test_both_steps_on_the_cpu_learn_the_same() -> None:
    """Utterances of one length, so that stock pads none, and no dropout."""
    config = {
        **SHAPES["tiny"],
        **dict.fromkeys(DROPOUTS, 0.0),
        "apply_spec_augment": False,
    }
    steps = cpu_step.make_steps(config, cpu_step.draw_batch(3, 0.4, 0.4))
    stock, ours = steps[cpu_step.STOCK], steps[cpu_step.OURS]
    assert [float(stock()), float(stock())] == pytest.approx([float(ours()), float(ours())], abs=1e-5)


def test_stock_pooling_is_the_projects() -> None:
    torch.manual_seed(0)
    hidden, lengths = torch.randn(3, 9, 6), torch.tensor([9, 4, 1])
    ours = AttentiveStatisticsPooling(6)
    packed = Frames(torch.cat([one[:n] for one, n in zip(hidden, lengths, strict=True)]), tuple(lengths.tolist()))
    for by_item in (True, False):
        stock = StockPooling(6, by_item)
        stock.load_state_dict(ours.state_dict())
        torch.testing.assert_close(stock(hidden, lengths), ours(packed), atol=1e-4, rtol=1e-4)


def test_durations_are_those_of_the_corpus() -> None:
    seconds = draw_seconds(20_000)
    assert seconds.min() == 2.75
    assert seconds.max() == 11
    assert seconds.mean() == pytest.approx(5.6, abs=0.1)


def test_padding_is_masked_and_not_counted() -> None:
    waveforms = draw_noise(np.array([0.25, 0.5]))
    batch = Padded.of(waveforms, [0, 1], is_pinned=False)
    assert batch.seconds == 0.75
    assert batch.mask.sum(1).tolist() == [4000, 8000]
    assert batch.samples[0, 4000:].abs().max() == 0


def test_without_a_gpu_one_sentence_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    for main in (epoch.main, development.main, frozen.main):
        with pytest.raises(SystemExit, match="needs a CUDA GPU"):
            main([])


def test_a_loop_ends_when_its_time_is_over() -> None:
    taken, _ = passes.time_windows(lambda _: None, [[]] * 5, -1.0, torch.device("cpu"))
    assert taken == 1
