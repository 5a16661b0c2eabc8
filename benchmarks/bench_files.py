"""Image files and resampling at the size of an abdominal CT, in CPU seconds, beside what people use now."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from clock import seconds
from synthoma import files
from synthoma.volume import Geometry, Volume

SHAPE, SPACING_MM = (512, 512, 200), (0.8, 0.8, 2.0)
ROW = "{:<48}{:>9}{:>9}{:>8}"


def main() -> None:
    """Prints figure, ours, theirs and the ratio."""
    print(ROW.format(f"{'x'.join(map(str, SHAPE))}, CPU seconds", "ours", "theirs", "ratio"))
    ct, labels = case()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = files_seconds(ct, labels, Path(folder))
    print_row("read and write CT and labels, .nii.gz (nibabel)", ours, theirs)
    fine = ct.geometry.resampled(1.0)
    ours = seconds(lambda: ct.to(fine))
    print_row("resample CT to 1 mm (SimpleITK)", ours, sitk_seconds(ct, fine, linear=True))
    if importlib.util.find_spec("monai"):
        print_row("resample CT to 1 mm (MONAI)", ours, monai_seconds(ct))
    ours = seconds(lambda: labels.to(fine))
    print_row("resample labels to 1 mm (SimpleITK)", ours, sitk_seconds(labels, fine, linear=False))


def case() -> tuple[Volume, Volume]:
    """A body with scanner noise in air, and a label map of five balls, as read from a NIfTI file."""
    rng = np.random.default_rng(0)
    geometry = Geometry.of(SHAPE, SPACING_MM, "LPS")
    i, j, k = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    body = ((i - 256) / 210) ** 2 + ((j - 256) / 150) ** 2 < 1
    hu = np.where(np.broadcast_to(body, SHAPE), 50, -1000) + rng.normal(0, 15, SHAPE)
    labels = np.zeros(SHAPE, np.uint8, order="F")
    for label in range(1, 6):
        ball = (i - 100 - 50 * label) ** 2 + (j - 256) ** 2 + (2.5 * (k - 30 * label)) ** 2 < 60**2
        labels[ball] = label
    return Volume(np.asfortranarray(hu, np.int16), geometry), Volume(labels, geometry)


def files_seconds(ct: Volume, labels: Volume, folder: Path) -> tuple[float, float]:
    """Our and nibabel's time for writing and reading both; nibabel as people use it."""
    import nibabel

    def ours() -> None:
        files.write_volume(ct, folder / "ct.nii.gz")
        files.write_volume(labels, folder / "labels.nii.gz")
        files.read_image(folder / "ct.nii.gz")
        files.read_labels(folder / "labels.nii.gz")

    def theirs() -> None:
        for volume, name in ((ct, "ct.nii.gz"), (labels, "labels.nii.gz")):
            nibabel.save(nibabel.Nifti1Image(volume.data, volume.geometry.affine), folder / name)
            np.asarray(nibabel.load(folder / name).dataobj)

    return seconds(ours), seconds(theirs, repeats=1)


def sitk_seconds(volume: Volume, target: Geometry, linear: bool) -> float:
    """SimpleITK's resampling, the image already in its hands."""
    import SimpleITK

    image = as_sitk(SimpleITK, volume)
    kind = SimpleITK.sitkLinear if linear else SimpleITK.sitkNearestNeighbor
    reference = SimpleITK.Image(list(target.shape), SimpleITK.sitkUInt8)
    place(reference, target)
    outside = -1024 if linear else 0
    return seconds(lambda: SimpleITK.Resample(image, reference, SimpleITK.Transform(), kind, outside), repeats=2)


def as_sitk(sitk: Any, volume: Volume) -> Any:
    image = sitk.GetImageFromArray(volume.data.T)
    place(image, volume.geometry)
    return image


def place(image: Any, geometry: Geometry) -> None:
    affine = np.diag([-1, -1, 1, 1]) @ geometry.affine
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / geometry.spacing_mm).ravel().tolist())


def monai_seconds(ct: Volume) -> float:
    """MONAI's Spacing on a channel-first tensor, on one thread like ours."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    torch.set_num_threads(1)
    tensor = MetaTensor(torch.from_numpy(ct.data.astype(np.float32)[None]), affine=ct.geometry.affine)
    return seconds(lambda: Spacing((1.0, 1.0, 1.0), mode="bilinear")(tensor), repeats=1)


def print_row(figure: str, ours: float, theirs: float) -> None:
    print(ROW.format(figure, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}"))


if __name__ == "__main__":
    main()
