"""Label names: a bare word finds its organ, and what a map leaves open is never called absent."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from grids import ANISOTROPIC, hu
from synthoma import files
from synthoma.cases import Case, Label
from synthoma.datasets.labels import PresentLabels, structure_names, unknown_values, used_values, with_tumors
from synthoma.errors import LayoutError
from synthoma.volume import Volume


@pytest.mark.parametrize(
    ("labels", "dataset", "expected"),
    [
        (["liver", "cancer"], "Task03_Liver", ["liver", "liver_lesion"]),
        (["pancreas", "cancer"], "Task07_Pancreas", ["pancreas", "pancreas_lesion"]),
        (["Vessel", "Tumour"], "Task08_HepaticVessel", ["hepatic_vessel", "liver_lesion"]),
        (["colon cancer primaries"], "Task10_Colon", ["colon_lesion"]),
        (["cancer"], "Task06_Lung", ["lung_lesion"]),
        (["spleen"], "Task09_Spleen", ["spleen"]),
        (["kidney", "tumor", "cyst"], "Dataset220", ["kidney", "kidney_lesion", "kidney_cyst"]),
        (["kidney_left", "kidney_right", "Tumor"], "mine", ["kidney_left", "kidney_right", "kidney_lesion"]),
        (["liver", "pancreas", "tumor"], "Dataset001_Liver", ["liver", "pancreas", "tumor"]),
        (["tumor"], "Dataset002_Nothing", ["tumor"]),
        (["Pancreatic Lesion"], "x", ["pancreas_lesion"]),
        (["Liver tumors", "hepatic cysts"], "x", ["liver_lesion", "liver_cyst"]),
        (["LiverTumor"], "x", ["liver_lesion"]),
        (["tumor_of_kidney", "Kidneys"], "x", ["kidney_lesion", "kidney"]),
        (["colorectal carcinoma"], "x", ["colon_lesion"]),
        (["oesophagus", "Oesophageal tumour"], "x", ["esophagus", "esophagus_lesion"]),
        (["whole kidney", "masses", "tumor"], "x", ["kidney", "masses", "kidney_lesion"]),
        (["liver", "metastases", "ignore"], "x", ["liver", "liver_lesion", "ignore"]),
    ],
)
def test_a_label_is_named_by_its_organ(labels: list[str], dataset: str, expected: list[str]) -> None:
    assert list(structure_names(labels, dataset).values()) == expected


def test_two_labels_of_one_meaning_are_refused() -> None:
    with pytest.raises(LayoutError, match="'liver_tumor' is liver_lesion again"):
        structure_names(["liver", "cancer", "liver_tumor"], "x")


def test_an_organ_holds_its_tumors_and_cysts() -> None:
    values = {"kidney": (1,), "kidney_lesion": (2,), "kidney_cyst": (3,), "spleen": (4,)}
    assert with_tumors(values) == {**values, "kidney": (1, 2, 3)}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_used_values_are_those_in_the_map(dtype: type) -> None:
    labels = np.zeros((3, 4, 5), dtype)
    assert used_values(labels) == []
    labels[1, 2, 3], labels[0, 0, 0] = np.iinfo(dtype).max, 1
    assert used_values(labels) == [1, np.iinfo(dtype).max]


def test_used_values_are_found_however_they_lie() -> None:
    rng = np.random.default_rng(0)
    for shape in ((0,), (1,), (2, 1, 3), (7, 5, 6)):
        for order in ("C", "F"):
            labels = np.array(rng.integers(0, 4, shape), np.uint8, order=order)  # type: ignore[call-overload]
            for view in (labels, labels[::-1], labels[::2]):
                assert used_values(view) == sorted(set(view.ravel().tolist()) - {0})


def test_a_class_without_voxels_counts_as_not_annotated(tmp_path: Path) -> None:
    labels = np.zeros(ANISOTROPIC.shape, np.uint8)
    labels[0], labels[1] = 1, 2
    files.write_volume(Volume(labels, ANISOTROPIC), tmp_path / "map.nii.gz")
    classes = {"liver": (1,), "liver_lesion": (2,), "colon": (3,), "colon_lesion": (4,)}
    masks = PresentLabels(tmp_path / "map.nii.gz", classes, certain=frozenset({"colon"}))
    assert "_sources" not in vars(masks)
    assert dict(pickle.loads(pickle.dumps(masks))) == {
        "liver": Label(masks.path, (1, 2)),
        "liver_lesion": Label(masks.path, (2,)),
        "colon": Label(masks.path, (3, 4)),
    }


def test_values_that_no_structure_has_are_told(tmp_path: Path) -> None:
    labels = np.zeros(ANISOTROPIC.shape, np.uint16)
    labels[0], labels[1], labels[2] = 1, 7, 300
    path = tmp_path / "map.nii.gz"
    files.write_volume(Volume(labels, ANISOTROPIC), path)
    case = Case("x", hu(ANISOTROPIC), {"liver": Label(path, (1, 2)), "liver_lesion": Label(path, (2,))})
    assert unknown_values(case) == {path: [7, 300]}
