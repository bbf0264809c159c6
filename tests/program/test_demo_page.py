"""The demo page as a person uses it: in Chromium, with a model trained on real recordings."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import soundfile

import main as program
from experiment_runner.reporting.figure_style import COLUMN_INCHES, DOTS_PER_INCH
from predict import SERModel, predict
from tests.conftest import ROOT
from tests.support.browser import Browser, chromium
from tests.support.served_page import ServedPage, needs_gradio, served

pytestmark = [pytest.mark.slow, needs_gradio]

EXPERIMENT = """
[base_config]
corpus = "EMO-DB"
upstream_model = "wavlm-tiny-random"
freeze = "none"
epoch = 12
min_epochs = 12
batch_size = 8
learning_rate = 2e-3
scheduler = "one_cycle"
max_seconds = 2.0
mask_time_prob = 0.0
hidden_dropout = 0.0
attention_dropout = 0.0
feat_proj_dropout = 0.0
head_dropout = 0.0
tracking = "none"

[[experiments]]
name = "Page"
"""
EMOTIONS = {"W": "angry", "F": "happy", "N": "neutral", "T": "sad"}
"""By the letter in the names of EMO-DB's recordings."""
SPEAKER = "08"
UNSEEN = ("08a01Wc.flac", "08b02Tc.flac")
"""In development, so that nothing was learnt from them; the second one lasts eight seconds."""
ANSWER, PROBLEM, TOAST = ".ser-emotion strong", ".ser-problem", "[class*=toast-body]"
FILE = "#recording input[type=file]"
COURSE_PIXELS = round(COLUMN_INCHES * DOTS_PER_INCH)


@pytest.fixture(scope="module")
def run(emodb_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows one speaker."""
    folder = tmp_path_factory.mktemp("model")
    files = sorted(path.name for path in emodb_folder.glob(f"{SPEAKER}*"))
    splits = ["development" if file in UNSEEN or index % 8 == 3 else "train" for index, file in enumerate(files)]
    table = pd.DataFrame({"file": files, "split": splits, "emotion": [EMOTIONS[file[5]] for file in files]})
    table.to_csv(folder / "table.csv", index=False)
    (folder / "config.toml").write_text(
        f"[EMO-DB]\nFORMAT = 'csv'\nPATH_TO_LABEL = '{folder}/table.csv'\nPATH_TO_AUDIO = '{emodb_folder}'\n"
    )
    (folder / "experiments.toml").write_text(EXPERIMENT)
    files_of = ["--config", str(folder / "config.toml"), "--experiments", str(folder / "experiments.toml")]
    assert program.main([*files_of, "--output", str(folder / "runs"), "--device", "cpu"]) == 0
    return folder / "runs" / "Page" / "seed-42"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(window: Browser, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedPage]:
    """A page that SIGTERM ends at the end of these tests."""
    with served(run, tmp_path_factory.mktemp("page")) as shown:
        yield shown
        window.driver.get("about:blank")
        assert shown.end(signal.SIGTERM) == 0, shown.console.read_text()


@pytest.fixture
def browser(window: Browser, page: ServedPage) -> Browser:
    """A window in which the page has just been opened."""
    window.asked_for()
    window.driver.get(page.address)
    window.wait_for(FILE)
    return window


def upload(browser: Browser, path: Path) -> None:
    browser.wait_for(FILE).send_keys(str(path))


def test_an_emodb_recording_gets_its_label(browser: Browser, run: Path, emodb_folder: Path) -> None:
    model = SERModel.from_pretrained(run)
    for name in UNSEEN:
        upload(browser, emodb_folder / name)
        shown = browser.wait_for(ANSWER).text
        (expected,) = predict(model, [emodb_folder / name]).to_dict("records")
        assert shown == expected["prediction"] == EMOTIONS[name[5]]
        answer = browser.wait_for("#answer").text
        assert name in answer
        bars = re.findall(r"^(\w+)\n(\d+\.\d) %$", answer, re.MULTILINE)
        assert [label for label, _ in bars] == list(model.description.classes)
        assert [float(share) for _, share in bars] == pytest.approx(
            [100 * expected[f"prob_{label}"] for label in model.description.classes], abs=0.051
        )
        browser.wait_for("button[aria-label=Clear]").click()
        browser.wait(lambda: not browser.all(ANSWER), "the answer was not cleared")


def test_the_header_says_what_the_model_is(browser: Browser) -> None:
    header = browser.wait_for("#header").text
    assert "Page, seed 42, trained on EMO-DB (acted speech, German)" in header
    assert "RANDOM weights: the upstream wavlm-tiny-random was not pre-trained" in header
    assert "do not judge people by it" in header


def test_a_long_recording_has_a_course_and_a_short_one_a_sentence(browser: Browser, emodb_folder: Path) -> None:
    upload(browser, emodb_folder / UNSEEN[1])
    picture = browser.wait_for("#course img")
    browser.wait(lambda: picture.get_property("naturalWidth") == COURSE_PIXELS, "the picture is not shown")
    browser.wait_for("button[aria-label=Clear]").click()
    browser.wait(lambda: not browser.all("#course img"), "the course was not cleared")
    upload(browser, emodb_folder / UNSEEN[0])
    sentence = "It takes more than 3 s; this recording lasts 1.7 s."
    browser.wait(lambda: browser.wait_for("#course").text.endswith(sentence), "it is not said")


def test_a_phone_shows_all_of_a_course(browser: Browser, emodb_folder: Path) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        upload(browser, emodb_folder / UNSEEN[1])
        browser.wait_for("#course img")
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") == size["width"]
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """Forty minutes of it."""
    return np.random.default_rng(0).normal(0, 0.1, 40 * 60 * 16_000)


@pytest.fixture(scope="module")
def long(noise: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording whose course takes a while."""
    path = tmp_path_factory.mktemp("long") / "long.flac"
    soundfile.write(path, noise, 16_000)
    return path


def wait_for_course(browser: Browser) -> None:
    browser.wait(lambda: "of 2400 s" in browser.wait_for("#course").text, "the course is not computed")


def test_what_is_asked_while_something_is_cleared_is_answered(browser: Browser, emodb_folder: Path, long: Path) -> None:
    for _ in range(3):
        upload(browser, long)
        wait_for_course(browser)
        browser.wait_for("button[aria-label=Clear]").click()
        upload(browser, emodb_folder / UNSEEN[0])
        browser.wait(lambda: UNSEEN[0] in browser.wait_for("#answer").text, "what came second was lost")
        assert "It takes more than 3 s" in browser.wait_for("#course").text
        browser.wait_for("button[aria-label=Clear]").click()
        browser.wait(lambda: not browser.all(ANSWER), "the answer was not cleared")


def test_a_course_is_cancelled_and_asked_for_again(browser: Browser, long: Path) -> None:
    upload(browser, long)
    for _ in range(3):
        wait_for_course(browser)
        browser.wait_for("#cancel").click()
        browser.wait(lambda: "It was cancelled." in browser.wait_for("#course").text, "it cannot be cancelled")
        browser.wait_for("#run").click()
    wait_for_course(browser)
    browser.wait_for("button[aria-label=Clear]").click()
    browser.wait(lambda: "Record or choose speech" in browser.wait_for("#answer").text, "it was not cleared")


def test_who_comes_second_is_told_to_wait(
    browser: Browser, page: ServedPage, long: Path, noise: np.ndarray, tmp_path: Path
) -> None:
    upload(browser, long)
    browser.wait_for("#course [role=progressbar]")
    browser.driver.switch_to.new_window("tab")
    try:
        browser.driver.get(page.address)
        soundfile.write(tmp_path / "short.wav", noise[:16_000], 16_000)
        upload(browser, tmp_path / "short.wav")
        browser.wait(lambda: "Waiting; another recording" in browser.wait_for("#course").text, "nothing is said")
        assert not browser.all(ANSWER)
        browser.wait_for("#cancel").click()
        browser.wait(lambda: "It was cancelled." in browser.wait_for("#course").text, "it cannot be cancelled")
    finally:
        browser.driver.close()
        browser.driver.switch_to.window(browser.driver.window_handles[0])


def test_nothing_leaves_the_machine(browser: Browser, page: ServedPage, emodb_folder: Path) -> None:
    upload(browser, emodb_folder / UNSEEN[0])
    browser.wait_for(ANSWER)
    browser.wait_for(".ser-course")
    foreign = {url for url in browser.asked_for() if not url.startswith((page.address, "data:", "blob:"))}
    assert foreign == set()
    assert not page.network.exists(), page.network.read_text()


def test_a_recording_that_says_nothing_is_a_sentence(browser: Browser, emodb_folder: Path, tmp_path: Path) -> None:
    content = (emodb_folder / UNSEEN[0]).read_bytes()
    (tmp_path / "damaged.flac").write_bytes(content[1000:])
    (tmp_path / "cut off.flac").write_bytes(content[: len(content) // 2])
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "moment.wav", np.ones(100), 16_000)
    soundfile.write(tmp_path / "61 minutes.wav", np.zeros(61 * 60 * 2000), 2000, subtype="PCM_U8")
    sentences = {
        "damaged.flac": "cannot be decoded: Format not recognised; choose another one, or convert it to WAV",
        "cut off.flac": "cannot be decoded: .*; choose another one, or convert it to WAV",
        "silent.wav": "is silent: nothing in it is louder than -60 dB; look at the microphone",
        "moment.wav": r"lasts 0.00625 s, less than 0.025 s; choose a longer one",
        "61 minutes.wav": "lasts 61 minutes, and this page takes 60; .*",
    }
    for name, sentence in sentences.items():
        upload(browser, tmp_path / name)
        assert re.fullmatch(f"{re.escape(name)} {sentence}", browser.wait_for(PROBLEM).text)
        assert browser.wait_for("#course").text == ""
        browser.wait_for("button[aria-label=Clear]").click()
        browser.wait(lambda: not browser.all(PROBLEM), "the sentence was not cleared")
    browser.wait_for("#run").click()
    assert browser.wait_for(PROBLEM).text == "Record or choose a recording first."


def test_a_file_that_is_too_large_is_a_sentence(browser: Browser, page: ServedPage, tmp_path: Path) -> None:
    size = (128 << 20) + 1
    with (tmp_path / "large.wav").open("wb") as file:
        file.truncate(size)
    upload(browser, tmp_path / "large.wav")
    browser.wait(lambda: "large.wav" in browser.text, "nothing is said")
    assert 'exceed the maximum allowed size of 128.0 Mb: "large.wav"' in browser.wait_for(TOAST).text
    with (tmp_path / "large.wav").open("rb") as file:
        answer = httpx.post(f"{page.address}/gradio_api/upload", files={"files": file}, trust_env=False)
    assert answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE


def test_what_the_microphone_records_is_heard(browser: Browser) -> None:
    browser.wait_for("#recording button[aria-label='Record audio']").click()
    browser.wait_for("#recording button.record-button").click()
    timer = browser.wait_for("#recording .timestamps, #recording time")
    browser.wait(lambda: "0:02" in browser.wait_for("#recording").text, f"nothing is recorded: {timer.text}")
    browser.wait_for("#recording button.stop-button").click()
    browser.wait_for(ANSWER)
    assert browser.wait_for("#answer .ser-name").text == "audio.wav"


def test_a_recording_is_deleted_when_the_page_is_closed(browser: Browser, page: ServedPage, emodb_folder: Path) -> None:
    upload(browser, emodb_folder / UNSEEN[1])
    browser.wait_for("#course img")
    assert [path.name for path in page.recordings] == [UNSEEN[1]]
    browser.driver.get("about:blank")
    browser.wait(lambda: not page.recordings, "it is still there")


@pytest.mark.parametrize(
    ("asked", "headers"),
    [
        ("/gradio_api/file=/etc/passwd", {}),
        (f"/gradio_api/file={ROOT}/README.md", {}),
        ("/gradio_api/file=README.md", {}),
        ("/gradio_api/file/etc/passwd", {}),
        ("/gradio_api/file=TEMPORARY/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", {}),
        ("/gradio_api/file=http://127.0.0.1:1/", {}),
        ("/", {"Host": "rebound.example"}),
        ("/", {"Origin": "http://elsewhere.example"}),
        ("/config", {"Origin": "http://localhost:1"}),
    ],
)
def test_nothing_is_served_but_the_page_to_itself(page: ServedPage, asked: str, headers: dict[str, str]) -> None:
    path = asked.replace("TEMPORARY", str(page.temporary))
    answer = httpx.get(httpx.URL(page.address).copy_with(raw_path=path.encode()), headers=headers, trust_env=False)
    assert (answer.status_code, len(answer.text.splitlines())) == (httpx.codes.FORBIDDEN, 1)


def test_the_end_deletes_what_was_sent(window: Browser, run: Path, emodb_folder: Path, tmp_path: Path) -> None:
    with served(run, tmp_path) as page:
        window.driver.get(page.address)
        upload(window, emodb_folder / UNSEEN[1])
        window.wait_for(ANSWER)
        assert page.recordings
        assert page.end(signal.SIGINT) == 0
    window.driver.get("about:blank")
    assert not page.recordings
    assert not list(page.temporary.glob("200ai-page-*"))
    assert not (page.temporary / "gradio").exists(), "where gradio keeps files that nobody told it where to keep"
    assert page.console.read_text().splitlines() == [
        f"{page.address} serves the page to this machine only; Ctrl-C stops it",
        "stopped; recordings that were sent to the page are deleted",
    ]
