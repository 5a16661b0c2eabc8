"""Patches finished on a device look like those that the CPU finishes, but for how OpenCV rounds its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from learning.small_cases import GRIDS, Balls, cached, patient
from synthoma.anatomy import IGNORE
from synthoma.learning import augmentation, finishing
from synthoma.learning.augmentation import Augmentation, AugmentationRecipe
from synthoma.learning.loader import loader
from synthoma.learning.patches import Patches, PatchRecipe
from synthoma.volume import Volume

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_CUDA)]
SHAPE, SPACING = (24, 20, 16), (1.5, 1.5, 2.0)
HU_OF_WINDOW = 425.0
CLASSES = ("liver", "liver_lesion", "pancreas")
ALWAYS = AugmentationRecipe(
    **{name: 1.0 for name in AugmentationRecipe.model_fields if name.endswith("probability")}  # type: ignore[arg-type]
)


@dataclass(frozen=True)
class OnDevice(Balls):
    """`Balls`, put in by the CPU when a part is cut."""

    on_device = True

    def cut(self, entry: Any, box: Any, drawn: Any) -> Any:
        return self.render(entry, box, drawn)

    def render_batch(self, parts: Any, device: torch.device) -> Any:
        return [tuple(torch.from_numpy(np.array(data)).to(device) for data in part) for part in parts]


def smooth(shape: tuple[int, ...]) -> Any:
    noise = np.random.default_rng(3).standard_normal(shape)
    return np.rint(ndimage.gaussian_filter(noise, 2.0) * 800 + 40).astype(np.int16)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotated_scaled_and_flipped_voxels_lie_where_the_cpu_puts_them(axis: int, device: str) -> None:
    for scale, flips in ((1.25, (False, True, False)), (0.8, (True, False, True)), (1.0, (False, False, False))):
        drawn = Augmentation(flips=flips, axis=axis, rotation_deg=17.0, scale=scale)
        box = augmentation.source_box(drawn, augmentation.Box((0, 0, 0), SHAPE), SPACING)
        hu = smooth(box.shape)
        labels = (hu > 60).astype(np.uint8) * 5
        right = augmentation.resample(hu, labels, drawn, SHAPE, SPACING)
        tensors = (torch.from_numpy(part).to(device) for part in (hu, labels))
        found = [part.cpu().numpy() for part in finishing.resample(*tensors, drawn, SHAPE, SPACING)]
        assert (found[0].shape, found[1].dtype) == (SHAPE, np.uint8)
        assert np.abs(found[0] - right[0]).max() < 5  # HU that differ by some hundred across the patch
        assert np.abs(found[0] - right[0]).mean() < 0.5
        assert (found[1] == right[1]).mean() > 0.98


@pytest.mark.parametrize("device", DEVICES)
def test_without_rotation_every_voxel_is_the_same(device: str) -> None:
    hu = smooth(SHAPE)
    labels = (hu > 60).astype(np.uint8)
    for flips in ((False, False, False), (True, False, True)):
        drawn = Augmentation(flips=flips)
        right = augmentation.resample(hu, labels, drawn, SHAPE, SPACING)
        tensors = (torch.from_numpy(part).to(device) for part in (hu, labels))
        found = finishing.resample(*tensors, drawn, SHAPE, SPACING)
        assert all(np.array_equal(one.cpu().numpy(), other) for one, other in zip(found, right, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_each_change_of_the_image_is_that_of_the_cpu(device: str) -> None:
    hu, window = smooth(SHAPE), (-175.0, 250.0)
    changes: list[dict[str, Any]] = [
        {}, {"slice_mm": 5.0}, {"blur_mm": 1.2}, {"slice_mm": 4.5, "blur_mm": 0.7}, {"slice_mm": 1.0},
        {"noise_hu": 20.0, "noise_seed": 7, "contrast": 1.2}, {"shift_hu": 15.0, "contrast": 0.8}, {"gamma": 1.4},
    ]  # fmt: skip
    plain = augmentation.to_image(hu, Augmentation(), window, SPACING)
    for change in changes:
        drawn = Augmentation(**change)
        right = augmentation.to_image(hu, drawn, window, SPACING)
        found = finishing.to_image(torch.from_numpy(hu).float().to(device), drawn, window, SPACING).cpu().numpy()
        assert found.dtype == np.float32
        assert np.abs(found - right).max() * HU_OF_WINDOW < 0.02, change
        assert (np.abs(right - plain).max() * HU_OF_WINDOW > 1) == bool(change and change != {"slice_mm": 1.0}), change


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_holds_what_the_cpu_would_have_put_into_it(device: str, tmp_path: Path) -> None:
    cases = [patient("sound", tumors=None, healthy=True), patient("tilted", GRIDS["oblique"], [((0, 0, 0), 9)])]
    block = np.zeros(cases[0].read_geometry().shape, bool)
    block[:, 20:26] = True
    unknown = Volume(np.asfortranarray(block), cases[0].read_geometry())
    cases[0] = replace(cases[0], masks={**cases[0].masks, IGNORE: unknown})
    entries = cached(tmp_path, *cases, augment=Balls())
    recipe = PatchRecipe(size=SHAPE, spacing_mm=2.0, per_epoch=12, augmentation=ALWAYS, hosts="all")
    right = Patches(entries, recipe, CLASSES, Balls(), seed=1)
    there = torch.device(device)
    found = Patches(entries, recipe, CLASSES, OnDevice(), seed=1)
    assert (right.finished_on_device, found.finished_on_device) == (False, True)
    synthetic = ignored = 0
    for one, other in zip(loader(right, 0), loader(found, 0, device=there), strict=True):
        assert {name: type(value) for name, value in one.items()} == {name: type(v) for name, v in other.items()}
        for name in ("case", "box", "index", "epoch", "step"):
            assert one[name] == other[name]
        for name in ("annotated", "synthetic"):
            assert torch.equal(one[name], other[name])
        assert {other[name].device.type for name in ("image", "target")} == {device}
        assert other["image"].dtype == torch.float32
        assert (other["image"].shape, other["target"].dtype) == (one["image"].shape, torch.uint8)
        assert (one["image"] - other["image"].cpu()).abs().mean() * HU_OF_WINDOW < 2
        assert (one["target"] == other["target"].cpu()).float().mean() > 0.99
        synthetic += int(one["synthetic"].sum())
        if one["ignored"] is not None:
            ignored += 1
            assert (one["ignored"] == other["ignored"].cpu()).float().mean() > 0.98
    assert 0 < synthetic < 12
    assert ignored


def test_workers_only_read_and_change_nothing(tmp_path: Path) -> None:
    entries = cached(tmp_path, patient("sound", tumors=None, healthy=True), augment=Balls())
    recipe = PatchRecipe(size=SHAPE, spacing_mm=2.0, per_epoch=4, augmentation=ALWAYS)
    source = Patches(entries, recipe, CLASSES, OnDevice(), seed=1)
    for one, other in zip(loader(source, 0), loader(source, 0, workers=1), strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["target"], other["target"])
