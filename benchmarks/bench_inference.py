"""Segmenting a whole scan: memory above it beside the estimate, and CPU time beside MONAI's sliding windows."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from clock import seconds
from synthoma.learning.gridding import training_grid
from synthoma.learning.models import Model, ModelSpec, load_model
from synthoma.learning.networks import NetworkRecipe, build_network
from synthoma.segmentation.infer import SegmentRecipe, each_structure, estimate_memory, predict
from synthoma.segmentation.structures import Tumors
from synthoma.segmentation.windows import Windows, blend
from synthoma.volume import Box, Geometry, Volume

SHAPE, SPACING_MM = (512, 512, 400), (0.7, 0.7, 1.0)
PATCH = (96, 96, 96)
COMPARED = (144, 144, 144)  # voxels that are compared with MONAI: 8 windows
LIMIT_GB = 2.5


class Small(torch.nn.Module):
    """The small net at its full cost, answering by HU what it is asked, so that masks look like organs and tumors.

    most: windows after which the net itself is left out, for measurements of memory.
    """

    def __init__(self, spec: ModelSpec, most: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.most, self.windows = build_network(spec.network, len(spec.classes)), most, 0
        self.register_buffer("from_hu", torch.tensor([50.0, 150.0]).view(1, 2, 1, 1, 1))
        self.low, self.high = spec.window_hu

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        answer = ((image - (self.from_hu - self.low) / (self.high - self.low)) * 60).contiguous()
        self.windows += len(image)
        return answer if self.most and self.windows > self.most else answer.add_(self.net(image), alpha=0)


def small_model(spacing_mm: float, most: int | None = None) -> Model:
    spec = ModelSpec(
        network=NetworkRecipe(name="unet"), classes=("liver", "liver_lesion"), spacing_mm=(spacing_mm,) * 3,
        window_hu=(-200.0, 300.0), patch=PATCH,
    )  # fmt: skip
    return Model(Small(spec, most).eval(), spec)


def scan() -> Volume:
    """A body in air with a liver-sized ball and twenty tumors in it, with noise, as large as a thin-slice CT."""
    rng = np.random.default_rng(0)
    i, j, k = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    hu = np.full(SHAPE, -1000, np.int16, order="F")
    hu[np.broadcast_to(((i - 256) / 235) ** 2 + ((j - 256) / 180) ** 2 < 1, SHAPE)] = 20
    hu[(i - 180) ** 2 + (j - 240) ** 2 + ((k - 220) / 0.7) ** 2 < 110**2] = 100
    for center in rng.uniform((110, 180, 180), (250, 300, 260), (20, 3)):
        box = tuple(slice(int(c) - 12, int(c) + 12) for c in center)
        part = hu[box]
        part[sum((np.indices(part.shape)[axis] - 12) ** 2 for axis in range(3)) < 100] = 200
    for plane in hu.T:
        plane += rng.integers(-20, 20, plane.shape, np.int16)
    return Volume(hu, Geometry.of(SHAPE, SPACING_MM, "LPS"))


class PeakMemory:
    """The most memory of the process while the block lasts, above what it had before, in GB."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        self.before, self.most, self.done = resident(), 0, threading.Event()
        self.watch = threading.Thread(target=self._look, daemon=True)
        self.watch.start()
        return self

    def _look(self) -> None:
        while not self.done.wait(0.005):
            self.most = max(self.most, resident())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.done.set()
        self.watch.join()
        self.above_gb = (max(self.most, resident()) - self.before) / 1e9


def resident() -> int:
    """Bytes of the process in main memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def whole_scan(ct: Volume, spacing_mm: float, most: int | None = None) -> None:
    known, recipe = small_model(spacing_mm, most), SegmentRecipe()
    estimate = estimate_memory(known.spec, ct.geometry, recipe, "cpu")
    start = time.process_time()
    with PeakMemory() as peak:
        prediction = predict(known, ct, recipe, "cpu")
        looked = time.process_time() - start
        lesions = 0
        for _, structure in each_structure(prediction, ct.geometry, recipe):
            lesions += len(structure.lesions) if isinstance(structure, Tumors) else 0
            del structure
    total = time.process_time() - start
    verdict = "within" if peak.above_gb < LIMIT_GB else "ABOVE"
    everywhere = len(Windows(prediction.grid.shape, PATCH, recipe.overlap))
    kind = "small net" if most is None else f"small net in {most} of them, then by HU"
    print(
        f"{spacing_mm:g} mm: {prediction.windows} of {everywhere} windows ({kind}) {looked:.0f} s CPU,"
        f" {lesions} lesions and two classes on the scan's grid {total - looked:.1f} s;"
        f" peak above the scan {peak.above_gb:.2f} GB, {verdict} {LIMIT_GB} GB;"
        f" estimated {estimate.above_scan / 1e9:.2f} GB"
    )


def beside_monai() -> None:
    from monai.inferers import SlidingWindowInferer

    known = small_model(1.0)
    hu = np.random.default_rng(0).integers(-190, 290, COMPARED).astype(np.int16)
    ct = Volume(hu, Geometry.of(COMPARED, 1.0))
    low, high = known.spec.window_hu
    theirs = SlidingWindowInferer(PATCH, sw_batch_size=2, overlap=0.5, mode="gaussian")

    def ours() -> None:
        predict(known, ct, SegmentRecipe(), "cpu")

    def monai() -> None:
        with torch.inference_mode():
            image = torch.from_numpy(hu).float().sub_(low).div_(high - low).clamp_(0, 1)[None, None]
            chance = theirs(image, lambda windows: known.net(windows).sigmoid_())
            (chance[0] * 255).round_().to(torch.uint8).numpy()

    show(f"{len(Windows(COMPARED, PATCH, 0.5))} windows of 96^3, small net", ours, monai, 4)

    # without a network what is done around it shows
    windows = Windows((240, 240, 240), PATCH, 0.5)
    said, image = torch.rand(2, *PATCH), torch.zeros(1, 1, 240, 240, 240)

    def blending() -> None:
        for _ in blend(windows, lambda corners: [said] * len(corners)):
            pass

    show(f"{len(windows)} windows, no network", blending, lambda: theirs(image, lambda _: said[None].clone()), 3)


def near_organs() -> None:
    """512x512x200 with windows and net of the model in the box: what of it is near the organ, and all of it."""
    from monai.inferers import SlidingWindowInferer

    spec = load_model("liver-small").spec
    known, whole = Model(Small(spec).eval(), spec), scan()
    grid = whole.geometry.crop(Box((0, 0, 120), (512, 512, 320)))
    ct = Volume(whole.data[:, :, 120:320], grid)
    low, high = spec.window_hu
    theirs = SlidingWindowInferer(spec.patch, sw_batch_size=4, overlap=0.5, mode="gaussian")

    def monai() -> None:
        hu = ct.reorient("RAS").to(training_grid(grid, spec.spacing_mm)).data
        with torch.inference_mode():
            image = torch.from_numpy(hu.copy()).float().sub_(low).div_(high - low).clamp_(0, 1)[None, None]
            theirs(image, lambda windows: known.net(windows).sigmoid_())

    other = seconds(monai, 1)
    everywhere = len(Windows(training_grid(grid, spec.spacing_mm).shape, spec.patch, 0.5))
    print(f"512x512x200: MONAI's SlidingWindowInferer, {everywhere} windows, four at once, {other:.1f} s CPU")
    for near_mm in (None, 10.0):
        start = time.process_time()
        found = predict(known, ct, SegmentRecipe(near_mm=near_mm), "cpu")
        mine = time.process_time() - start
        print(f"near_mm {near_mm}: {found.windows} windows, {mine:.1f} s CPU, ratio {mine / other:.2f}")


def show(what: str, ours: Callable[[], None], monai: Callable[[], object], repeats: int) -> None:
    """Taken in turns, so that both meet the same neighbors on the machine."""
    pairs = [(seconds(ours, 1), seconds(monai, 1)) for _ in range(repeats)]
    mine, other = (min(side) for side in zip(*pairs, strict=True))
    print(f"{what}: {mine:.2f} s CPU, MONAI's SlidingWindowInferer {other:.2f} s, ratio {mine / other:.2f}")


def main() -> None:
    torch.set_num_threads(1)
    near_organs()
    beside_monai()
    ct = scan()
    whole_scan(ct, 1.0, most=8)
    whole_scan(ct, 1.5)


if __name__ == "__main__":
    main()
