"""Structures in one `.seg.nrrd`: their names, layers that overlap, and their place in the scan's grid."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from grids import ANISOTROPIC, hu
from synthoma import files
from synthoma.cases import Case
from synthoma.errors import FileError, GeometryError
from synthoma.volume import Box, Geometry, Volume

pytest.importorskip("SimpleITK")

PART = Box((2, 1, 1), (7, 6, 4))  # what the viewer keeps of the grid


def write(path: Path, layers: np.ndarray, geometry: Geometry, words: dict[str, str]) -> Path:
    """layers: (L, I, J, K), or (I, J, K) for a file without layers."""
    lps = np.diag([-1, -1, 1]) @ geometry.affine[:3]
    axes = " ".join("({})".format(",".join(map(str, lps[:, axis]))) for axis in range(3))
    head = ["NRRD0004", "type: uint8", f"dimension: {layers.ndim}", "space: left-posterior-superior"]
    head += [f"sizes: {' '.join(map(str, layers.shape))}", f"kinds: {'list ' * (layers.ndim == 4)}domain domain domain"]
    head += [f"space directions: {'none ' * (layers.ndim == 4)}{axes}", "encoding: raw", "endian: little"]
    head += ["space origin: ({})".format(",".join(map(str, lps[:, 3])))]
    head += [f"{key}:={value}" for key, value in words.items()]
    path.write_bytes("\n".join([*head, "", ""]).encode() + layers.astype(np.uint8).tobytes(order="F"))
    return path


def named(*segments: tuple[str, str, str]) -> dict[str, str]:
    keys = ("Name", "Layer", "LabelValue")
    words = {f"Segment{n}_{key}": one for n, told in enumerate(segments) for key, one in zip(keys, told, strict=True)}
    return {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
        **words,
    }


@pytest.fixture
def masks() -> dict[str, np.ndarray]:
    """On the part: liver and spleen beside each other, a lesion over the liver."""
    liver, spleen, lesion = (np.zeros(PART.shape, bool) for _ in range(3))
    liver[:3], spleen[4:], lesion[1:2, 1:3] = True, True, True
    return {"liver": liver, "spleen": spleen, "Läsion 1": lesion}


def placed(part: np.ndarray) -> np.ndarray:
    whole = np.zeros(ANISOTROPIC.shape, bool)
    whole[PART.slices] = part
    return whole


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SLA"])
def test_segments_in_layers_are_named_and_placed_in_the_scan(tmp_path: Path, masks, axes: str) -> None:
    grid = ANISOTROPIC.crop(PART)
    layers = [masks["liver"] + 2 * masks["spleen"], 5 * masks["Läsion 1"]]
    turned = [Volume(layer.astype(np.uint8), grid).reorient(axes) for layer in layers]
    path = write(
        tmp_path / "a.seg.nrrd",
        np.stack([layer.data for layer in turned]),
        turned[0].geometry,
        named(("liver", "0", "1"), ("spleen", "0", "2"), ("Läsion 1", "1", "5")),
    )
    segments = files.list_segments(path)
    assert [segment.name for segment in segments] == list(masks)
    files.write_volume(hu(ANISOTROPIC), tmp_path / "ct.nii.gz")
    case = Case("c", tmp_path / "ct.nii.gz", {segment.name: segment for segment in segments})
    box = Box((1, 1, 1), (8, 5, 5))
    for name, mask in case.each_mask():
        assert np.array_equal(mask.data, placed(masks[name])), name
        assert np.array_equal(case.read_mask(name, box).data, placed(masks[name])[box.slices]), name
    (liver, *_) = pickle.loads(pickle.dumps(segments))
    assert liver().data.sum() == masks["liver"].sum()
    with pytest.raises(FileError, match=r"2 numbers a voxel.*files\.list_segments names them"):
        files.read_labels(path)


def test_a_file_without_layers_is_a_label_map_too(tmp_path: Path, masks) -> None:
    labels = masks["liver"] + 2 * masks["spleen"]
    words = named(("liver", "0", "1"), ("spleen", "0", "2"))
    path = write(tmp_path / "a.seg.nrrd", labels, ANISOTROPIC.crop(PART), words)
    assert np.array_equal(files.read_labels(path).data, labels)
    assert [(one.name, one.layer, one.value) for one in files.list_segments(path)] == [
        ("liver", 0, 1),
        ("spleen", 0, 2),
    ]


def test_files_of_older_versions_have_a_layer_for_each_segment(tmp_path: Path, masks) -> None:
    words = {f"Segment{n}_{key}": name for n, name in enumerate(masks) for key in ("ID", "Name")}
    path = write(tmp_path / "a.seg.nrrd", np.stack(list(masks.values())), ANISOTROPIC.crop(PART), words)
    for segment in files.list_segments(path):
        assert np.array_equal(segment().data, masks[segment.name])


def test_a_mask_of_its_own_is_called_as_its_file_and_may_cover_a_part_of_the_scan(tmp_path: Path, masks) -> None:
    files.write_volume(hu(ANISOTROPIC), tmp_path / "ct.nrrd")
    files.write_volume(Volume(masks["liver"], ANISOTROPIC.crop(PART)), tmp_path / "liver.seg.nrrd")
    assert files.list_segments(tmp_path / "liver.seg.nrrd") == []
    assert files.suffix_of("liver.seg.nrrd") == ".seg.nrrd"
    found = Case("c", tmp_path / "ct.nrrd", {"liver": tmp_path / "liver.seg.nrrd"}).read_mask("liver")
    assert np.array_equal(found.data, placed(masks["liver"]))


@pytest.mark.parametrize(
    ("segments", "told"),
    [
        ([("liver", "2", "1")], "the segment 'liver' is nowhere; found layer 2, value 1, expected a layer below 2"),
        ([("liver", "x", "1")], "nowhere; found layer x"),
        ([("liver", "0", "1"), ("liver", "1", "1")], "holds two segments called 'liver'"),
    ],
)
def test_segments_that_cannot_be_are_told(tmp_path: Path, masks, segments, told: str) -> None:
    layers = np.stack([masks["liver"], masks["spleen"]])
    path = write(tmp_path / "a.seg.nrrd", layers, ANISOTROPIC.crop(PART), named(*segments))
    with pytest.raises(FileError, match=told):
        files.list_segments(path)


def test_a_segmentation_of_another_scan_is_refused(tmp_path: Path, masks) -> None:
    affine = ANISOTROPIC.affine.copy()
    affine[:3, 3] += 0.31
    files.write_volume(hu(ANISOTROPIC), tmp_path / "ct.nii")
    path = write(tmp_path / "a.seg.nrrd", masks["liver"], Geometry((5, 5, 3), affine), named(("liver", "0", "1")))
    (segment,) = files.list_segments(path)
    with pytest.raises(GeometryError, match="c: the liver mask's grid differs"):
        Case("c", tmp_path / "ct.nii", {"liver": segment}).read_mask("liver")


def test_a_name_in_old_letters_is_read(tmp_path: Path, masks) -> None:
    path = write(tmp_path / "a.seg.nrrd", masks["liver"], ANISOTROPIC, named(("leber mit niere", "0", "1")))
    path.write_bytes(path.read_bytes().replace(b"leber", b"l\xe4ber"))
    assert [segment.name for segment in files.list_segments(path)] == ["l\u00e4ber mit niere"]


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    grid = Geometry.of((64, 64, 60), (0.8, 0.8, 2.5), "LPS")
    ct = hu(grid)
    for name in ("scan.nii.gz", "scan.nii", "ct.nrrd"):
        files.write_volume(ct, name)
    files.write_volume(Volume(ct.data > 0, grid).reorient("RAS"), "liver.nii.gz")
    write(
        tmp_path / "case.seg.nrrd",
        ct.data[:9, :9, :9] > 0,
        Geometry((9, 9, 9), grid.affine),
        named(("liver", "0", "1")),
    )
    names: dict[str, object] = {}
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "files.md", "exec"), names)
    assert np.array_equal(np.asarray(names["liver"]), ct.data > 0)
    assert files.read_image("out.nrrd").geometry.axes == "RAS"
