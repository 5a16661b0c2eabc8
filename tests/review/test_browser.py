"""Readers at the pages, in headless Chromium: everything by keys and mouse, as they would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from review.review_studies import SHAPE, balls, write_data
from synthoma import files
from synthoma.reading import open_dataset
from synthoma.review.annotation import AnnotationKind
from synthoma.review.outcome import kind_of, opened
from synthoma.volume import Volume

FLAGS = (
    "--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--window-size=1366,768",
)  # fmt: skip
PATIENCE_S = 60.0
TWO_STAGES = (
    'stages=[{name="screen", role="senior", tools="screen"}, {name="refine", role="junior"}]',
    'readers=["senior", "junior"]',
)


class Server:
    """`synthoma review` as a process, with the links it tells."""

    def __init__(self, *words: object) -> None:
        self.words = [sys.executable, "-m", "synthoma", "review", *map(str, words), "--no-browser"]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.links: list[str] = []
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            self.links += re.findall(r"https?://\S+/enter\S+", line)
            if "Ctrl-C" in line:
                return
        raise AssertionError(self.said)

    def stop(self, kill: bool = False) -> int:
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        return self.process.wait(30)


class Page:
    """A browser's tab."""

    def __init__(self, folder: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service

        options = Options()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={folder}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))

    def open(self, link: str) -> None:
        self.driver.get(link)
        self.wait("document.body.dataset.shown")

    def ask(self, script: str) -> Any:
        return self.driver.execute_script(f"return {script}")

    def wait(self, script: str) -> Any:
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            found = self.ask(script)
            if found:
                return found
            time.sleep(0.02)
        logs = "\n".join(entry["message"] for entry in self.driver.get_log("browser"))
        raise AssertionError(f"never true: {script}\n{logs}\n{self.text('message')}")

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.driver.execute_script(
                "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))", key
            )
        self.wait("document.getElementById('saved').dataset.waiting !== '1' && !review.session.queue.jobs.length")

    def text(self, name: str) -> str:
        return str(self.ask(f"document.getElementById('{name}').textContent"))

    def drag(self, plane: str, *points: tuple[float, float], button: int = 0) -> None:
        """The mouse from point to point, as shares of a plane's size from its middle."""
        self.driver.execute_script(
            """
            const canvas = document.querySelector(`#viewer canvas[data-plane=${arguments[0]}]`);
            const box = canvas.getBoundingClientRect();
            const send = (type, point) => canvas.dispatchEvent(new PointerEvent(type, {
              bubbles: true, pointerId: 1, button: arguments[2], buttons: 1,
              clientX: box.left + box.width * (0.5 + point[0]), clientY: box.top + box.height * (0.5 + point[1]) }));
            send('pointerdown', arguments[1][0]);
            for (const point of arguments[1]) send('pointermove', point);
            send('pointerup', arguments[1].at(-1));
            """,
            plane, [list(point) for point in points], button,
        )  # fmt: skip
        self.keys()

    def next_case(self) -> None:
        """Enter, until another case is shown."""
        code = self.ask("document.body.dataset.shown")
        self.keys("Enter")
        self.wait(f"document.body.dataset.shown !== '{code}'")

    def faults(self) -> list[str]:
        """What the browser complained about, other than answers that the server refused with a sentence."""
        return [
            entry["message"] for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE" and "net::ERR_CONNECTION" not in entry["message"]
        ]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        stop = pytest.fail if os.environ.get("SYNTHOMA_NEEDS_BROWSER") else pytest.skip  # CI must not skip
        stop("no chromium with its driver (apt-get install chromium chromium-driver)")
    shown = Page(tmp_path_factory.mktemp("profile"))
    yield shown
    shown.driver.quit()


def study(folder: Path) -> tuple[Any, Any]:
    """The kind and store of an annotation study, read beside the server."""
    with opened(folder) as (record, store):
        kind = kind_of(record, store, folder)
        assert isinstance(kind, AnnotationKind)
        return kind, [kind.accepted_mask(item).data for item in store.items()]


def test_a_reader_screens_refines_and_finishes_a_study(page: Page, tmp_path: Path) -> None:
    data, proposals = write_data(tmp_path)
    server = Server("annotate", data, "--proposals", proposals, "--out", tmp_path / "study")
    try:
        page.open(server.links[0])
        assert page.text("count") == "0 of 2 done"
        assert page.ask("document.querySelectorAll('#candidates li').length") == 2
        assert page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(13, 15, 18)"  # a dark room

        first = page.ask("review.viewer.at[2]")
        page.keys("ArrowUp", "ArrowUp")
        assert page.ask("review.viewer.at[2]") == first + 2
        page.keys("2")
        assert (page.ask("review.viewer.width"), page.ask("review.viewer.level")) == (150, 90)
        page.drag("axial", (0, 0), (0.1, 0.1), button=2)
        assert page.ask("review.viewer.width") > 150
        assert page.ask("review.viewer.level") < 90
        page.keys("Enter")
        assert "2 candidates are still open" in page.text("message")

        page.keys("a", "r")
        assert page.ask("review.content.candidates.map(c => c.status)") == ["accepted", "rejected"]
        page.keys("u")
        assert page.ask("review.content.candidates.map(c => c.status)") == ["accepted", "open"]
        page.driver.refresh()  # in the middle: all is there
        page.wait("window.review && review.content")
        assert page.ask("review.content.candidates.map(c => c.status)") == ["accepted", "open"]

        # the second lesion is the one chosen; it grows under the brush, and is as it was after undo
        assert page.ask("review.selected") == 2
        size = "review.viewer.labels.reduce((n, label) => n + (label === 2), 0)"
        before = page.ask(size)
        page.keys("b")
        page.drag("axial", (0, 0), (0.12, 0.1))
        assert page.ask(size) > before
        page.keys("u")
        assert page.ask(size) == before
        assert page.ask("review.content.candidates[1].status") == "open"
        page.keys("Escape", "r")
        mask_file = tmp_path / "lesions.nii.gz"  # from a 3-D tool: the first lesion alone, and a new one
        labels = np.array(balls((8, 8, 5)).data)
        labels[balls((16, 20, 9)).data > 0] = 7
        files.write_volume(Volume(labels, open_dataset(data)["ann_smith"].read_geometry()), mask_file)
        page.driver.find_element("id", "file").send_keys(str(mask_file))
        page.wait("document.getElementById('message').textContent === '2 lesions were read from the file.'")
        page.keys()
        assert page.ask("review.content.candidates.map(c => c.label)") == [1, 2, 7]
        page.keys("u")
        page.next_case()

        # nothing of the case before is left on the canvases
        pictures = "review.viewer.planes.map(view => view.canvas.toDataURL())"
        page.wait("!review.viewer.waiting")
        shown = page.ask(pictures)
        page.driver.execute_script("review.viewer.planes.forEach(view => review.viewer.paint(view))")
        assert page.ask(pictures) == shown

        # a case without a candidate: two slices drawn, the one between them filled
        assert page.text("count") == "1 of 2 done"
        page.keys("m")
        page.drag("axial", (0, 0), (0.02, 0))
        page.keys("ArrowUp", "ArrowUp")
        page.drag("axial", (0, 0), (0.02, 0))
        page.keys("f")
        page.wait("!review.session.queue.jobs.length && review.session.task.state.number >= 4")
        drawn = page.ask("[...review.viewer.labels.keys()].filter(at => review.viewer.labels[at])")
        page.keys("Enter")
        page.wait("document.getElementById('count').textContent === '2 of 2 done'")
        assert "All is done" in page.text("message")
        assert page.faults() == []
    finally:
        assert server.stop() == 0
    kind, masks = study(tmp_path / "study")
    both = balls((8, 8, 5), (22, 18, 7)).data > 0
    assert masks[0].sum() * 2 == both.sum()
    assert (masks[0] <= both).all()
    screen = kind.dataset["bob_jones"].read_geometry().reoriented("LPS")
    expected = np.zeros(SHAPE, np.uint8).ravel()
    expected[drawn] = 1  # first axis fastest, as the browser counts
    shown = expected.reshape(screen.shape, order="F")
    np.testing.assert_array_equal(
        Volume(masks[1], kind.dataset["bob_jones"].read_geometry()).reorient("LPS").data, shown
    )
    assert len(np.flatnonzero(shown.any(axis=(0, 1)))) == 3


def test_two_readers_in_two_stages_and_a_server_killed_between(page: Page, tmp_path: Path) -> None:
    data, proposals = write_data(tmp_path)
    settings = [word for change in TWO_STAGES for word in ("--set", change)]
    server = Server("annotate", data, "--proposals", proposals, "--out", tmp_path / "study", "--port", 0, *settings)
    page.open(server.links[0])
    page.keys("b")
    assert "accepted or rejected only" in page.text("message")
    page.keys("a", "a")
    server.stop(kill=True)
    port = re.findall(r":(\d+)/", server.links[0])[0]
    server.words += ["--port", port]
    # what is answered while the server is away is kept and sent when it is back
    page.driver.execute_script(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}))"
    )  # fmt: skip
    page.wait("document.getElementById('message').textContent.startsWith('The server does not answer')")
    server.start()
    try:
        page.wait("document.getElementById('count').textContent === '1 of 2 done'")
        page.open(server.links[1])
        assert page.text("reader") == "reader 2, junior"
        assert page.ask("review.content.candidates.map(c => c.status)") == ["accepted", "accepted"]
        page.keys("Enter")
        page.wait("document.getElementById('count').textContent === '1 of 1 done'")
        page.driver.get(server.links[1])
        assert "has been used" in page.ask("document.body.textContent")
        assert all("403" in fault for fault in page.faults())
    finally:
        server.stop()
    _, masks = study(tmp_path / "study")
    np.testing.assert_array_equal(masks[0], balls((8, 8, 5), (22, 18, 7)).data > 0)


def test_a_case_that_is_gone_is_a_sentence_and_keys_touch_no_other_case(page: Page, tmp_path: Path) -> None:
    data, proposals = write_data(tmp_path)
    server = Server("annotate", data, "--proposals", proposals, "--out", tmp_path / "study")
    try:
        shutil.rmtree(data / "bob_jones")
        page.open(server.links[0])
        page.keys("a", "a")
        page.driver.execute_script(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}))"
        )  # fmt: skip
        page.wait("document.body.dataset.failed")
        assert "can no longer be read" in page.text("message")
        page.keys("r", "m", "k", "Enter")  # of the case before, nothing may change
        page.keys("PageUp")
        page.wait("review.session.task && review.content")
        assert page.ask("review.content.candidates.map(c => c.status)") == ["accepted", "accepted"]
        assert page.ask("review.session.work.tasks.map(task => task.done)") == [True, False]
        assert all("410" in fault for fault in page.faults())
    finally:
        server.stop()


def test_the_3d_view_opens_and_says_so_without_webgl(page: Page, tmp_path: Path) -> None:
    data, proposals = write_data(tmp_path)
    server = Server("annotate", data, "--proposals", proposals, "--out", tmp_path / "study")
    try:
        page.open(server.links[0])
        page.keys("v")
        page.wait("document.getElementById('solid').dataset.shown === 'yes'")
        assert page.faults() == []
        page.driver.execute_script(
            "document.getElementById('solid').close();"
            "const get = HTMLCanvasElement.prototype.getContext;"
            "HTMLCanvasElement.prototype.getContext = function (kind, ...more) {"
            "  return kind === 'webgl2' ? null : get.call(this, kind, ...more); };"
        )
        page.keys("v")
        assert "no WebGL 2" in page.ask("document.querySelector('#solid p').textContent")
    finally:
        server.stop()


@pytest.mark.parametrize("design", ["rating", "pairs"])
def test_a_blinded_study_is_answered(page: Page, tmp_path: Path, design: str) -> None:
    from review.test_turing import write_arm

    real, made = write_arm(tmp_path / "real", False, False, 0), write_arm(tmp_path / "made", True, False, 5)
    changes = [f"design={design}", "items=8", "repeats=2", "field_mm=[40, 40, 30]", "most_contrast_hu=60"]
    settings = [word for change in (*changes, "most_size_ratio=3") for word in ("--set", change)]
    server = Server("turing", real, made, "--out", tmp_path / "study", "--readers", 2, *settings)
    try:
        assert "power with" in server.said
        assert len(server.links) == 2
        page.open(server.links[1])
        total = 6 if design == "pairs" else 10
        page.keys("Enter")
        assert page.text("message").startswith("Say which" if design == "pairs" else "Give a rating")
        for n in range(total):
            page.keys(str(1 + n % 2))
            page.driver.execute_script("document.querySelector('#signs input[value=border]').click()")
            if n < total - 1:
                page.next_case()
        page.keys("Enter")
        page.wait(f"document.getElementById('count').textContent === '{total} of {total} done'")
        shown = page.ask("document.documentElement.outerHTML").lower()
        assert not re.search(r"patient_|\.bin|/made", shown)
        assert page.faults() == []
    finally:
        assert server.stop() == 0
    with opened(tmp_path / "study") as (_, store):
        done = [answer for answer in store.last_answers().values() if answer.final]
        assert len(done) == total
        assert all(answer.content["signs"] == ["border"] for answer in done)


def test_a_synthesis_is_looked_through(page: Page, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from synthoma.cli.main import app
    from synthoma.synthesis.store.manifest import read_manifest

    def run(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    run("cohort", "one", "--out", tmp_path / "patient", "--set", "spacing_mm=5")
    run("synthesize", "six_organs", "--data", tmp_path / "patient", "--out", tmp_path / "made", "--seed", 4)
    server = Server("browse", tmp_path / "made", "--out", tmp_path / "study")
    try:
        page.open(server.links[0])
        total = len(page.ask("review.session.work.tasks"))
        differ = "review.session.task.scans[0].some((value, at) => value !== review.session.task.scans[1][at])"
        assert page.ask(differ)
        page.keys(" ")
        assert page.ask("document.getElementById('switch').getAttribute('aria-pressed')") == "true"
        for n in range(total):
            page.keys("d" if n == 0 else "a")
            if n < total - 1:
                page.wait(f"document.getElementById('count').textContent === '{n + 1} of {total} done'")
                page.wait("document.body.dataset.shown === review.session.work.tasks[review.session.number].code")
        page.wait(f"document.getElementById('count').textContent === '{total} of {total} done'")
        assert page.faults() == []
    finally:
        server.stop()
    assert f"{total - 1} tumors stay, 1 are dropped" in run(
        "review", "export", tmp_path / "study", "--out", tmp_path / "kept"
    )
    assert len(list(read_manifest(tmp_path / "kept").tumors())) == total - 1
    run("replay", tmp_path / "kept" / "manifest.parquet", "--data", tmp_path / "patient", "--out", tmp_path / "again")
    assert len(open_dataset(tmp_path / "again")) == 1
