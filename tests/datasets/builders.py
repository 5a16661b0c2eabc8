"""A small patient, and functions that lay patients down in each public folder convention."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from grids import hu
from synthoma import files
from synthoma.cases import Case
from synthoma.formats.dicom_write import write_series
from synthoma.volume import Geometry, Volume

SHAPE = (16, 14, 10)


def patient(geometry: Geometry, name: str = "p1", seed: int = 0) -> Case:
    """Noise for a scan; liver with two tumors and a vessel, kidneys with a tumor at the left one's edge and a cyst.

    The organs hold their tumors and cysts. The colon's tumor mask is empty: looked for, not there.
    """
    boxes = {
        "liver": [((1, 1, 1), (8, 9, 8))],
        "liver_lesion": [((2, 2, 2), (4, 4, 4)), ((5, 5, 5), (6, 7, 6))],
        "hepatic_vessel": [((1, 5, 1), (8, 6, 8))],
        "kidney_left": [((10, 1, 1), (13, 6, 5))],
        "kidney_right": [((10, 8, 1), (14, 13, 6))],
        "kidney_lesion": [((10, 1, 3), (12, 3, 5))],
        "kidney_cyst": [((12, 10, 2), (13, 11, 4))],
        "spleen": [((9, 0, 7), (15, 5, 9))],
        "colon": [((1, 10, 1), (8, 13, 9))],
        "colon_lesion": [],
    }
    masks = {}
    for structure, blocks in boxes.items():
        data = np.zeros(geometry.shape, bool, order="F")
        for lower, upper in blocks:
            data[tuple(slice(low, high) for low, high in zip(lower, upper, strict=True))] = True
        masks[structure] = Volume(data, geometry)
    masks["kidney"] = Volume(masks["kidney_left"].data | masks["kidney_right"].data, geometry)
    return Case(name, hu(geometry, seed), masks)


def exclusive(case: Case, values: dict[str, int]) -> Volume:
    """A label map; structures named later lie over earlier ones."""
    labels = np.zeros(case.read_geometry().shape, np.uint8, order="F")
    for structure, value in values.items():
        labels[case.masks[structure].data] = value
    return Volume(labels, case.read_geometry())


def write_json(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def msd(root: Path, cases: Sequence[Case]) -> list[str]:
    for case in cases:
        files.write_volume(case.image, root / "imagesTr" / f"{case.id}.nii.gz")
        files.write_volume(exclusive(case, {"liver": 1, "liver_lesion": 2}), root / "labelsTr" / f"{case.id}.nii.gz")
    files.write_volume(cases[0].image, root / "imagesTs" / "untouched.nii.gz")
    pairs = [{"image": f"./imagesTr/{c.id}.nii.gz", "label": f"./labelsTr/{c.id}.nii.gz"} for c in cases]
    about = {"name": "Liver", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "cancer"}}
    counts = {"numTraining": len(cases), "training": pairs, "test": ["./imagesTs/untouched.nii.gz"]}
    write_json(root / "dataset.json", {**about, **counts})
    return ["liver", "liver_lesion"]


def nnunet(root: Path, cases: Sequence[Case]) -> list[str]:
    values = {"kidney": 1, "kidney_lesion": 2, "kidney_cyst": 3}
    for case in cases:
        files.write_volume(case.image, root / "imagesTr" / f"{case.id}_0000.nii.gz")
        files.write_volume(exclusive(case, values), root / "labelsTr" / f"{case.id}.nii.gz")
    about = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "numTraining": len(cases)}
    write_json(
        root / "dataset.json", {**about, "labels": {"background": 0, "kidney": [1, 2, 3], "tumor": 2, "cyst": 3}}
    )
    return list(values)


def abdomenatlas(root: Path, cases: Sequence[Case]) -> list[str]:
    spelled = {"liver": "liver", "liver_lesion": "liver_tumor", "spleen": "Spleen", "colon_lesion": "colon_lesion"}
    for case in cases:
        files.write_volume(case.image, root / case.id / "ct.nii.gz")
        for structure, name in spelled.items():
            files.write_volume(case.masks[structure], root / case.id / "segmentations" / f"{name}.nii.gz")
    return list(spelled)


def two_trees(root: Path, cases: Sequence[Case], scans: str, labels: str) -> list[str]:
    structures = abdomenatlas(root / labels, cases)
    for case in cases:
        (root / scans / case.id).mkdir(parents=True)
        (root / labels / case.id / "ct.nii.gz").rename(root / scans / case.id / "ct.nii.gz")
    return structures


def abdomenatlas2(root: Path, cases: Sequence[Case]) -> list[str]:
    return two_trees(root, cases, "ct", "label")


def pants(root: Path, cases: Sequence[Case]) -> list[str]:
    structures = two_trees(root, cases, "ImageTr", "LabelTr")
    (root / "metadata.xlsx").write_bytes(b"not looked into")
    return structures


def kits(root: Path, cases: Sequence[Case]) -> list[str]:
    values = {"kidney": 1, "kidney_lesion": 2, "kidney_cyst": 3}
    for case in cases:
        files.write_volume(case.image, root / case.id / "imaging.nii.gz")
        files.write_volume(exclusive(case, values), root / case.id / "segmentation.nii.gz")
    return list(values)


def lits(root: Path, cases: Sequence[Case]) -> list[str]:
    for case in cases:
        number = case.id.removeprefix("volume-")
        files.write_volume(case.image, root / f"volume-{number}.nii")
        files.write_volume(exclusive(case, {"liver": 1, "liver_lesion": 2}), root / f"segmentation-{number}.nii")
    return ["liver", "liver_lesion"]


def ircadb(root: Path, cases: Sequence[Case]) -> list[str]:
    for case in cases:
        write_series(case.image, root / case.id / "PATIENT_DICOM" / "PATIENT_DICOM", case.id)
        second = case.masks["liver_lesion"].data.copy()
        second[:5] = False
        first = case.masks["liver_lesion"].data & ~second
        drawn = {"livertumor1": first, "livertumor2": second}
        drawn |= {"liver": case.masks["liver"].data, "leftkidney": case.masks["kidney_left"].data}
        for name, mask in drawn.items():
            white = Volume((mask * 255).astype(np.int16), case.read_geometry())
            write_series(white, root / case.id / "MASKS_DICOM" / name, case.id)
    return ["liver", "liver_lesion", "kidney_left"]


def chaos(root: Path, cases: Sequence[Case]) -> list[str]:
    """Files named in another order than the slices lie."""
    for case in cases:
        folder = root / case.id / "DICOM_anon"
        write_series(case.image, folder, case.id)
        (root / case.id / "Ground").mkdir()
        order = np.random.default_rng(1).permutation(case.read_geometry().shape[2])
        for k, number in enumerate(order):
            (folder / f"{k:05d}.dcm").rename(folder / f"i{number},0000b.dcm")
            drawing = (case.masks["liver"].data[:, :, k].T * 255).astype(np.uint8)
            cv2.imwrite(str(root / case.id / "Ground" / f"liver_GT_{number + 3}.png"), drawing)
    return ["liver"]


def dicom(root: Path, cases: Sequence[Case]) -> list[str]:
    for case in cases:
        write_series(case.image, root / case.id, case.id)
    return []


def images(root: Path, cases: Sequence[Case]) -> list[str]:
    for case in cases:
        files.write_volume(case.image, root / f"{case.id}.nii.gz")
    return []


# layout -> what lays cases down in it and tells which structures it has, and two ids that it allows
BUILDERS = {
    "msd": (msd, ("liver_0", "liver_10")),
    "nnunet": (nnunet, ("kits_0001", "kits_0002")),
    "abdomenatlas": (abdomenatlas, ("BDMAP_00000001", "s0002")),
    "abdomenatlas2": (abdomenatlas2, ("BDMAP_00000001", "BDMAP_00000002")),
    "pants": (pants, ("PanTS_00000001", "PanTS_00000002")),
    "kits": (kits, ("case_00000", "case_00001")),
    "lits": (lits, ("volume-0", "volume-11")),
    "ircadb": (ircadb, ("3Dircadb1.1", "3Dircadb1.2")),
    "chaos": (chaos, ("1", "21")),
    "dicom": (dicom, ("one", "two")),
    "images": (images, ("a", "b")),
}
