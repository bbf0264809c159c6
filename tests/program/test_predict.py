"""`predict.py` as a person runs it, on models that a training has left and on recordings of all kinds."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

import main as program
import predict as predict_program
from experiment_runner.models.model_origin import origin_of
from experiment_runner.prediction.predictor import Predictions
from experiment_runner.reporting.course_figure import course_figure
from experiment_runner.results.prediction_columns import END, START, as_clock
from experiment_runner.runtime.device import choose_precision
from net.inputs import Waveforms
from net.ser import Outputs
from net.ser_model_wrapper import SERModelWrapper
from predict import SERModel, Windows, predict
from tests.conftest import ROOT
from tests.support.experiment_files import write_files
from tests.support.models import CONFIGS, make_model
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.errors import DataError

ONE = """
[[experiments]]
name = "one"
model_type = "UpstreamGender"
config_update = { task = "multitask" }
"""


@pytest.fixture(scope="module")
def run(podcast: SyntheticPodcast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was trained and evaluated."""
    folder = tmp_path_factory.mktemp("predict")
    arguments = write_files(folder, podcast, ONE)
    assert program.main(arguments) == program.main([*arguments, "--test"]) == 0
    return folder / "runs" / "one" / "seed-42"


def call(run: Path, *arguments: object) -> int:
    return predict_program.main(["--model", str(run), "--device", "cpu", *map(str, arguments)])


def test_what_is_predicted_is_what_was_evaluated(run: Path, podcast: SyntheticPodcast, tmp_path: Path) -> None:
    evaluated = pd.read_csv(run / "predictions" / "test1.csv")
    output = tmp_path / "out.csv"
    assert call(run, *(podcast.audio / name for name in evaluated["file"]), "--output", output) == 0
    found = pd.read_csv(output)
    columns = [name for name in evaluated.columns if name.startswith(("pred", "prob_")) or name == "gender_prediction"]
    assert list(found) == ["file", *columns, "model_warning"]
    assert [Path(path).name for path in found["file"]] == list(evaluated["file"])
    pd.testing.assert_frame_equal(found[columns], evaluated[columns], atol=1e-5, rtol=0)


def test_a_checkpoint_without_its_run_still_tells_what_it_was_trained_on(run: Path, tmp_path: Path) -> None:
    provenance = json.loads((run / "checkpoints" / "best" / "provenance.json").read_text())
    assert (provenance["synthetic_corpora"], provenance["max_seconds"]) == ([], 12.0)
    shutil.copytree(run / "checkpoints" / "best", tmp_path / "alone")
    within, alone = (origin_of(SERModel.from_pretrained(folder), "x") for folder in (run, tmp_path / "alone"))
    assert within.trained_seconds == alone.trained_seconds == 12.0
    assert len(within.cautions) == len(alone.cautions) == 1


def test_folders_lists_and_json_lines(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wavs/deep").mkdir(parents=True)
    for name in ("wavs/b.wav", "wavs/deep/a.wav", "c.wav"):
        soundfile.write(name, noise(1.0), 16_000)
    pd.DataFrame({"path": ["c.wav", "wavs/b.wav"]}).to_csv("list.csv", index=False)
    assert call(run, "wavs", "list.csv", "--output", "out.jsonl") == 0
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == ["wavs/b.wav", "wavs/deep/a.wav", "c.wav"], "each once"
    assert sum(rows[0][name] for name in rows[0] if name.startswith("prob_")) == pytest.approx(1.0)


def test_csv_on_standard_output_and_all_else_beside(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1.0), 16_000)
    assert call(run, tmp_path / "a.wav", tmp_path / "missing.wav", "--output", "-") == 1
    said = capsys.readouterr()
    assert len(pd.read_csv(io.StringIO(said.out))) == 1
    assert "ERROR: 1 of 2 recordings were not predicted: " in said.err
    assert "missing.wav is missing" in said.err


def test_the_screen_shows_a_table_for_people(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", noise(50.0), 16_000)
    assert call(run, tmp_path / "a.wav", "--segment-seconds", 1) == 0
    said = capsys.readouterr().out
    for column in ("file", "from", "to", "emotion", "probability", "arousal", "gender"):
        assert column in said
    assert re.search(r"0:00\.5 +(│ +)?0:01\.5 ", said)
    assert "59 more rows; --output FILE.csv writes all of them" in said


def test_any_format_any_rate_any_channels(run: Path, tmp_path: Path) -> None:
    samples = noise(2.0, 44_100)
    names = ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"]
    for name in names:
        soundfile.write(tmp_path / name, np.column_stack([samples, samples]), 44_100)
    table = predict(SERModel.from_pretrained(run), [tmp_path / name for name in names])
    columns = [name for name in table if str(name).startswith("prob_")]
    probabilities = table[columns].to_numpy(np.float64)
    soundfile.write(tmp_path / "reference.wav", soxr.resample(samples, 44_100, 16_000), 16_000, subtype="FLOAT")
    expected = predict(SERModel.from_pretrained(run), [tmp_path / "reference.wav"])[columns].to_numpy(np.float64)
    assert np.abs(probabilities[[0, 1, 4]] - expected).max() < 1e-4
    assert np.abs(probabilities - expected).max() < 1e-2


def test_recordings_that_cannot_be_used_cost_nothing_else(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "good.wav", noise(1.0), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "long.wav", np.zeros(301 * 16_000), 16_000)
    (tmp_path / "text.wav").write_text("no sound")
    output = tmp_path / "out.csv"
    assert call(run, tmp_path, "--output", output) == 1
    assert [Path(path).name for path in pd.read_csv(output)["file"]] == ["good.wav"]
    said = " ".join(capsys.readouterr().out.split())
    assert "3 of 4 recordings were not predicted" in said
    assert "nan.wav contains samples that are not finite numbers" in said
    assert "long.wav is 5 minutes long, too long for one prediction; --segment-seconds 3 predicts its course" in said
    assert "text.wav cannot be decoded" in said
    assert "out.problems.csv lists all" in said
    problems = pd.read_csv(tmp_path / "out.problems.csv")
    assert sorted(Path(path).name for path in problems["file"]) == ["long.wav", "nan.wav", "text.wav"]
    assert problems["problem"].str.contains("not finite").sum() == 1
    assert call(run, tmp_path / "good.wav", "--output", output) == 0
    assert not (tmp_path / "out.problems.csv").exists(), "those of another call"
    with pytest.raises(DataError, match=r"1 recording cannot be predicted: .*text.wav cannot be decoded"):
        predict(SERModel.from_pretrained(run), [tmp_path / "good.wav", tmp_path / "text.wav"])
    (output).unlink()
    assert call(run, tmp_path / "text.wav", "--output", output) == 1
    assert list(pd.read_csv(output))[:2] == ["file", "prediction"], "no row, and the same columns"


def test_folders_and_lists_that_give_nothing_cost_nothing_else(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "good.wav", noise(1.0), 16_000)
    (tmp_path / "empty").mkdir()
    for number in range(7):
        (tmp_path / "empty" / f"{number}.txt").write_text("no sound")
    listed = tmp_path / "list.csv"
    listed.write_text("path\n" + "".join(f"{tmp_path}/empty/{number}.txt\n" for number in range(7)))
    unusable = (tmp_path / "empty", tmp_path / "gone.csv", listed)
    assert call(run, tmp_path / "good.wav", *unusable) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"the folder {tmp_path}/empty contains no recording" in said
    assert f"there is no file {tmp_path}/gone.csv" in said
    assert "7 of 8 recordings were not predicted: " in said
    assert all(f"{number}.txt cannot be decoded" in said for number in range(7)), "nothing else names them"
    assert call(run, tmp_path / "good.wav", tmp_path / "empty", "--output", tmp_path / "out.csv") == 1
    assert len(pd.read_csv(tmp_path / "out.csv")) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([".", "--model", "nowhere"], "there is no trained model at nowhere; name a run folder"),
        (["empty"], "the folder empty contains no recording"),
        (["nothing.csv", "empty"], "the list nothing.csv names no recording; the folder empty contains no recording"),
        (["empty", "--output", "list.csv/out.csv"], "nothing can be written into list.csv (File exists); name another"),
        (["empty", "--segment-seconds", "3", "--plots", "list.csv"], "nothing can be written into list.csv (File exi"),
        (
            ["a.wav", "--model", "wavlm-base"],
            "wavlm-base is not a trained model: an upstream, or not a model of this program",
        ),
        (
            ["a.wav", "--model", "upstream"],
            "upstream has no manifest.json: an upstream, or not a model of this program",
        ),
        (["a.wav", "--model", "user/model@v1"], '"user/model" is not a folder, and cannot be fetched from the hub: '),
        (["list.csv"], "list.csv has no column path or file"),
        (["gone.csv"], "the list of recordings: there is no file gone.csv; correct the path"),
        (["pipe.csv"], "the list of recordings: pipe.csv: is not a regular file; correct the path"),
        (["ragged.csv"], "the list of recordings: ragged.csv: a row has more cells than the header"),
        (["empty", "--segment-seconds", "0.001"], "a segment has 0.025 to 300 seconds, not 0.001"),
        (["empty", "--segment-seconds", "3", "--hop-seconds", "-1"], "a hop has 0.025 seconds or more, not -1"),
        (["empty", "--device", "cuda"], "run with --device cpu"),
        (["empty", "--amp", "fp16"], 'amp = "fp16" needs a GPU'),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str],
    sentence: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("list.csv").write_text("name\nx.wav\n")
    Path("nothing.csv").write_text("path\n")
    Path("upstream").mkdir()
    Path("upstream/config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("ragged.csv").write_text("path\nx.wav,y.wav\n")
    os.mkfifo("pipe.csv")
    assert call(run, *arguments) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.wav", "--export", "m.onnx"],
        ["--export", "m.pt"],
        ["a.wav", "--plots", "x"],
        ["a.wav", "--output", "x.txt"],
        ["a.wav", "--output", "folder.csv"],
        ["--export", "folder.onnx"],
    ],
)
def test_a_command_line_that_says_nothing_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("folder.csv", "folder.onnx"):
        Path(name).mkdir()
    with pytest.raises(SystemExit) as ended:
        predict_program.main(["--model", "x", *arguments])
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_several_runs_are_told_apart(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1.0), 16_000)
    assert call(run.parent, tmp_path / "a.wav") == 0, "there is but one"
    for seed in (1, 2):
        shutil.copytree(run, tmp_path / "runs" / f"seed-{seed}", symlinks=True)
    assert call(tmp_path / "runs", tmp_path / "a.wav") == 2
    assert f"holds several runs; name one of {tmp_path}/runs/seed-1, " in capsys.readouterr().err


def test_an_interruption_keeps_what_was_predicted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", noise(40.0), 16_000)  # a batch each
    known, told = Predictions.add, iter([None, KeyboardInterrupt()])

    def interrupted(predictions: Predictions, paths: list[str], _: object) -> None:
        def advance(seconds: float) -> None:
            signal = next(told)
            if signal is not None:
                raise signal

        known(predictions, paths, advance)

    monkeypatch.setattr(Predictions, "add", interrupted)
    assert call(run, tmp_path, "--output", tmp_path / "out.csv") == 130
    assert len(pd.read_csv(tmp_path / "out.csv")) == 2
    assert "interrupted; 2 of 3 recordings were begun" in capsys.readouterr().out


def test_a_recording_that_is_asked_for_twice_is_there_twice(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, noise(2.0), 16_000)
    paths = [tmp_path / name for name in ("b.wav", "a.wav", "b.wav")]
    model = make_model("wavlm, layer norm")
    assert predict(model, paths)["file"].tolist() == list(map(str, paths))
    course = predict(model, paths, Windows(1.0, 1.0))
    assert course["file"].tolist() == [str(path) for path in paths for _ in range(2)]
    assert course[START].tolist() == [0.0, 1.0] * 3


def test_a_name_that_is_no_utf8_costs_nothing_else(run: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.wav", noise(1.0), 16_000)
    (tmp_path / os.fsdecode(b"gr\xfcn.wav")).write_bytes((tmp_path / "good.wav").read_bytes())
    assert call(run, tmp_path, "--output", tmp_path / "out.csv") == 1
    assert len(pd.read_csv(tmp_path / "out.csv")) == 1


def test_a_full_gpu_is_given_less_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, seconds in enumerate((0.5, 1.0, 4.0, 0.6)):
        soundfile.write(tmp_path / f"{number}.wav", noise(seconds), 16_000)
    model, paths = make_model("wavlm, layer norm"), sorted(tmp_path.iterdir())
    expected = predict(model, [paths[0], paths[1], paths[3]])
    forward = SERModelWrapper.forward

    def little_memory(network: SERModelWrapper, inputs: Waveforms) -> Outputs:
        if sum(inputs.counts) > 1.2 * 16_000:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(network, inputs)

    monkeypatch.setattr(SERModelWrapper, "forward", little_memory)
    predictions = Predictions(model, None, choose_precision("off", model.device))
    predictions.add(list(map(str, paths)))
    pd.testing.assert_frame_equal(predictions.table, expected, atol=1e-5)
    assert predictions.problems == {str(paths[2]): "does not fit into the GPU's memory; predict it with --device cpu"}


def test_the_course_of_a_long_recording_is_drawn(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []

    def titled(course: pd.DataFrame, scale: tuple[float, float], title: str) -> Figure:
        titles.append(title)
        return course_figure(course, scale, title)

    monkeypatch.setattr("experiment_runner.reporting.course_figure.course_figure", titled)
    for name in ("a.wav", "b/a.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, noise(20.0), 16_000)
    plots, output = tmp_path / "plots", tmp_path / "out.csv"
    segments = ("--segment-seconds", 3, "--hop-seconds", 1)
    assert call(run, tmp_path / "a.wav", tmp_path / "b" / "a.wav", *segments, "--plots", plots, "--output", output) == 0
    assert sorted(path.name for path in plots.iterdir()) == ["a-2.png", "a.png"]
    assert titles == [str(tmp_path / "a.wav"), str(tmp_path / "b" / "a.wav")], "which tell them apart"
    table = pd.read_csv(output)
    assert table.groupby("file")[[START, END]].agg(["min", "max"]).to_numpy().tolist() == [[0, 17, 3, 20]] * 2


@pytest.mark.parametrize("count", [1, 5, 350, 3598])
def test_a_picture_shows_every_segment_or_the_mean_of_several(count: int) -> None:
    starts = np.arange(count, dtype=np.float64)
    values = np.random.default_rng(0).dirichlet(np.ones(3), count)
    probabilities = {f"prob_{name}": values[:, index] for index, name in enumerate(("neutral", "happy", "sad"))}
    course = pd.DataFrame({START: starts, END: starts + 3, **probabilities, "pred_arousal": 1 + 6 * values[:, 0]})
    figure = course_figure(course, (1.0, 7.0), "title")
    emotions, attributes = figure.axes[:2]
    shown = emotions.collections[0].get_array()
    assert shown is not None
    merged = -(-count // 350)
    assert shown.shape == (3, -(-count // merged))
    assert np.asarray(shown[:, 0]) == pytest.approx(values[:merged].mean(0))
    bars = next(found for found in emotions.collections if isinstance(found, LineCollection))
    segments = np.array(bars.get_segments())
    assert len(segments) == shown.shape[1]
    assert segments[:, 0, 1] - 0.5 == pytest.approx(np.asarray(shown).argmax(0))
    assert (segments[0, 0, 0], segments[-1, 1, 0]) == (0.0, count + 2.0)
    assert np.all(segments[1:, 0, 0] == segments[:-1, 1, 0]), "no gap, no overlap"
    assert attributes.get_xlabel() == ("time" if merged == 1 else f"time; each column is the mean of {merged} segments")
    assert [text.get_text() for text in emotions.get_yticklabels()] == ["neutral", "happy", "sad"]


def test_times_are_written_as_clocks_show_them() -> None:
    assert [as_clock(seconds) for seconds in (0, 5, 61.5, 3723, 59.96)] == ["0:00", "0:05", "1:01.5", "1:02:03", "1:00"]


MEASURED = """
import sys
from pathlib import Path

import predict

ended = predict.main(sys.argv[1:])
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0], file=sys.stderr)
sys.exit(ended)
"""
"""`predict.py`, which tells its peak in KiB; what the system tells of a child may be its parent's before it started."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_stays_flat_over_a_long_recording(run: Path, tmp_path: Path) -> None:
    """Sixty minutes with PREDICTED_MINUTES=60."""
    minutes = int(os.environ.get("PREDICTED_MINUTES", "10"))
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 16_000, 1) as file:
        for _ in range(minutes):
            file.write(noise(60.0))
    arguments = f"--model {run} {tmp_path}/long.flac --device cpu --output {tmp_path}/out.csv"
    command = [sys.executable, "-c", MEASURED, *arguments.split(), "--segment-seconds", "3", "--hop-seconds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    megabytes = int(done.stderr.split()[-1]) / 1024
    print(f"{minutes} minutes: {megabytes:.0f} MB")
    assert megabytes < 1500
    assert len(pd.read_csv(tmp_path / "out.csv")) == 60 * minutes - 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("upstream", "layer_weighting"),
    [("wavlm, layer norm", True), ("wavlm, group norm", False), ("hubert, group norm", True)],
)
def test_onnx_says_what_torch_says(upstream: str, layer_weighting: bool, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from experiment_runner.models.onnx_export import export_onnx

    model = make_model(upstream, layer_weighting)
    assert export_onnx(model, tmp_path / "m.onnx") <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["classes"]) == list(model.description.classes)
    for number, seconds in enumerate((0.5, 1.0, 7.3, 20.0)):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, noise(seconds), 16_000, subtype="FLOAT")
        samples, _ = soundfile.read(path, dtype="float32")
        emotion, attributes, _ = session.run(None, {"waveforms": samples[None]})
        (expected,) = predict(model, [path]).to_dict("records")
        assert emotion[0] == pytest.approx([expected[f"prob_{name}"] for name in model.description.classes], abs=1e-4)
        assert attributes[0] == pytest.approx([expected["pred_arousal"], expected["pred_valence"]], abs=1e-4)


def test_an_export_without_its_packages_says_what_to_install(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert call(run, "--export", tmp_path / "m.onnx") == 1
    assert "pip install -r requirements-extras.txt -c constraints.txt" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_windows_predict_as_their_samples_alone_do(run: Path, tmp_path: Path) -> None:
    samples = noise(5.0)
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    soundfile.write(tmp_path / "b.wav", samples[16_000:48_000], 16_000)
    model = SERModel.from_pretrained(run)
    course, alone = predict(model, [tmp_path / "a.wav"], Windows(2.0, 1.0)), predict(model, [tmp_path / "b.wav"])
    columns = [name for name in alone if str(name).startswith(("prob_", "pred_"))]
    found, expected = (table[columns].to_numpy(np.float64) for table in (course[course[START] == 1.0], alone))
    assert found == pytest.approx(expected, abs=1e-5)


def noise(seconds: float, rate_hz: int = 16_000) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate_hz))


@pytest.mark.gpu
@pytest.mark.parametrize("upstream", CONFIGS)
def test_a_gpu_says_what_the_cpu_says(upstream: str, tmp_path: Path, cuda: torch.device) -> None:
    for number, seconds in enumerate((0.5, 3.0, 20.0)):
        soundfile.write(tmp_path / f"{number}.wav", noise(seconds), 16_000)
    model = make_model(upstream, layer_weighting=True)
    paths = sorted(tmp_path.iterdir())
    windows = Windows(2.0, 0.5)
    expected = [predict(model, paths), predict(model, paths, windows)]
    model.network.to(cuda)
    for amp, limit in (("off", 1e-4), ("bf16", 3e-2)):
        found = [predict(model, paths, amp=amp), predict(model, paths, windows, amp)]
        for one, other in zip(found, expected, strict=True):
            names = [name for name in map(str, other.columns) if name.startswith(("prob_", "pred_"))]
            scales = {name: 6.0 if name.startswith("pred_") else 1.0 for name in names}
            for name, scale in scales.items():
                assert np.abs(one[name] - other[name]).max() <= limit * scale, (amp, name)
