"""What the review server delivers: cases on screen, answers acknowledged, its memory, and answers through kills.

A target is a figure that the page of the app promises: next case under 0.5 s, an answer under 50 ms, 1 GB with four
readers, 10,000 answers through 20 kills. All scans are in silico (noise of a CT's size).
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from synthoma import files
from synthoma.review.outcome import opened
from synthoma.volume import Geometry, Volume

READERS = 4


class Server:
    """`synthoma review` as a process that can be killed and started again on its port."""

    def __init__(self, *words: object) -> None:
        self.words = [sys.executable, "-m", "synthoma", "review", *map(str, words), "--no-browser"]
        self.start()
        port = re.findall(r":(\d+)/", self.links[0])[0]
        self.words += ["--port", port]

    def start(self) -> None:
        """Starts it and waits for its links."""
        self.process = subprocess.Popen(
            self.words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        said, self.links = "", []
        for line in self.process.stdout:
            said += line
            self.links += re.findall(r"https?://\S+/enter\S+", line)
            if "Ctrl-C" in line:
                return
        raise RuntimeError(said)

    def kill(self) -> None:
        """Ends it without a warning."""
        self.process.kill()
        self.process.wait()

    @property
    def peak_mb(self) -> float:
        """The most memory it has held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


def write_arms(root: Path) -> tuple[Path, Path]:
    """Two data sets of four small livers with a lesion each."""
    rng = np.random.default_rng(0)
    geometry = Geometry.of((32, 32, 16), (1.5, 1.5, 3.0), "LPS")
    for arm in ("real", "made"):
        for n in range(4):
            scan = rng.normal(100, 8, geometry.shape).astype(np.int16)
            lesion = np.zeros(geometry.shape, np.uint8)
            lesion[12:18, 12:18, 6:9] = 1
            scan[lesion > 0] -= 40
            folder = root / arm / f"{arm}_{n}"
            files.write_volume(Volume(scan, geometry), folder / "ct.nii.gz")
            files.write_volume(Volume(lesion, geometry), folder / "segmentations" / "liver_lesion.nii.gz")
    return root / "real", root / "made"


class Storm:
    """Scripted readers who answer while the server is killed again and again."""

    def __init__(self, root: Path, answers: int, kills: int, readers: int = READERS) -> None:
        self.study, self.answers, self.kills, self.readers = root / "study", answers, kills, readers
        real, made = write_arms(root)
        settings = [word for change in ("items=8", "repeats=0", "field_mm=[40, 40, 30]") for word in ("--set", change)]
        self.server = Server("turing", real, made, "--out", self.study, "--readers", readers, *settings)
        self.acknowledged: list[str] = []
        self.milliseconds: list[float] = []
        self.faults: list[str] = []

    def run(self) -> None:
        """Answers until all are acknowledged; the kills are spread over them."""
        threads = [threading.Thread(target=self._read, args=(n,)) for n in range(self.readers)]
        for thread in threads:
            thread.start()
        for kill in range(self.kills):
            while len(self.acknowledged) < self.answers * (kill + 0.5) / self.kills and not self.faults:
                time.sleep(0.005)
            self.server.kill()
            self.server.start()
        for thread in threads:
            thread.join()
        self.peak_mb = self.server.peak_mb
        self.server.kill()

    def _read(self, number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=self.server.links[number].partition("/enter")[0]) as client:
            client.get(self.server.links[number])
            codes = [task["code"] for task in client.get("/api/work").json()["tasks"]]
            after: Counter[str] = Counter()
            for n in range(self.answers // self.readers):
                code, key = chance.choice(codes), f"reader {number} answer {n}"
                body = {"key": key, "after": after[code], "content": {"rating": chance.randint(1, 6)}, "final": True}
                if not self._send(client, code, body):
                    return
                after[code] += 1

    def _send(self, client: httpx.Client, code: str, body: dict[str, Any]) -> bool:
        """Sends an answer until it is acknowledged, as the page does."""
        headers = {"origin": str(client.base_url).rstrip("/")}
        while True:
            began = time.perf_counter()
            try:
                answer = client.post(f"/api/task/{code}/answer", json=body, headers=headers)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code != 200 or answer.json()["number"] != body["after"] + 1:
                self.faults.append(answer.text)
                return False
            self.milliseconds.append(1000 * (time.perf_counter() - began))
            self.acknowledged.append(body["key"])
            return True

    def lost_and_double(self) -> tuple[int, int]:
        """Acknowledged answers that the study does not hold, and answers that it holds twice or out of order."""
        with opened(self.study) as (_, store):
            kept = [answer for task in store.tasks() for answer in store.answers(task.id)]
            numbers = Counter((answer.task, answer.number) for answer in kept)
            per_task = Counter(answer.task for answer in kept)
        double = sum(count - 1 for count in numbers.values())
        gaps = sum(max(n for task, n in numbers if task == one) != count for one, count in per_task.items())
        return len(self.acknowledged) - len(kept), double + gaps


def scans_on_loopback(root: Path) -> None:
    """Seconds for the voxels of large scans, and the server's memory with four readers at once."""
    rng = np.random.default_rng(0)
    for slices, suffix in ((200, ".nii.gz"), (400, ".nii.gz"), (400, ".nii")):
        data = root / f"data_{slices}{suffix.replace('.', '_')}"
        geometry = Geometry.of((512, 512, slices), (0.8, 0.8, 1.0), "RAS")
        block = rng.normal(40, 20, (512, 512, 8)).astype(np.int16)
        files.write_volume(Volume(np.tile(block, (1, 1, slices // 8)), geometry), data / f"one{suffix}")
        words = ("--set", 'structures=["liver_lesion"]', "--set", 'readers=["a", "a", "a", "a"]')
        stages = '[{name="read", role="a", readings=4}]'
        server = Server("annotate", data, "--out", root / f"study_{data.name}", *words, "--set", f"stages={stages}")
        seconds: list[float] = []

        def fetch(link: str, seconds: list[float] = seconds) -> None:
            with httpx.Client(base_url=link.partition("/enter")[0], timeout=300) as client:
                client.get(link)
                code = client.get("/api/work").json()["tasks"][0]["code"]
                began = time.perf_counter()
                client.get(f"/api/task/{code}")
                client.get(f"/api/task/{code}/scan/0")
                seconds.append(time.perf_counter() - began)

        fetch(server.links[0])
        alone = seconds[0]
        threads = [threading.Thread(target=fetch, args=(link,)) for link in server.links[1:]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(
            f"512x512x{slices}{suffix}: {alone:.2f} s alone, {max(seconds):.2f} s beside two others,"
            f" server's memory at most {server.peak_mb:.0f} MB"
        )
        server.kill()


def main() -> None:
    """Prints every figure."""
    with tempfile.TemporaryDirectory() as folder:
        scans_on_loopback(Path(folder))
        storm = Storm(Path(folder) / "storm", 10_000, 20)
        storm.run()
        lost, double = storm.lost_and_double()
        middle, high = np.quantile(storm.milliseconds, [0.5, 0.95])
        print(
            f"{len(storm.acknowledged)} answers of {READERS} readers through {storm.kills} kills: {lost} lost, {double}"
            f" double; acknowledged in {middle:.1f} ms (median), {high:.1f} ms (95 %); {storm.peak_mb:.0f} MB"
        )
        print("\n".join(storm.faults))
