"""Every suffix written and read back, and what a user is told about files that cannot be read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from grids import ANISOTROPIC, centers_mm, geometries, hu, oblique, value_at
from synthoma import files
from synthoma.errors import FileError, GeometryError, SynthomaError
from synthoma.volume import Box, Geometry, Volume

WRITTEN = (".nii", ".nii.gz", ".nrrd", ".mha")


@pytest.mark.parametrize("suffix", WRITTEN)
@given(geometry=geometries())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_voxels_keep_their_place_and_value_on_disk(tmp_path: Path, suffix: str, geometry: Geometry) -> None:
    ct = hu(geometry)
    files.write_volume(ct, tmp_path / f"ct{suffix}")
    found = files.read_image(tmp_path / f"ct{suffix}")
    assert found.data.dtype == np.int16
    assert np.array_equal(value_at(found, centers_mm(geometry)), ct.data)
    assert files.read_geometry(tmp_path / f"ct{suffix}").matches(found.geometry, 1e-6)


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8, np.uint16, bool])
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_come_back_exactly_in_every_type(tmp_path: Path, suffix: str, dtype: type, order: str) -> None:
    values = np.random.default_rng(0).normal(0, 300, (9, 7, 5))
    values = values > 0 if dtype is bool else np.abs(values) if dtype in (np.uint8, np.uint16) else values
    volume = Volume(np.asarray(values.astype(dtype), order=order), oblique(1))
    files.write_volume(volume, tmp_path / f"a{suffix}")
    read = files.read_image if volume.is_image else files.read_labels
    found = read(tmp_path / f"a{suffix}")
    assert found.data.dtype == (np.uint8 if dtype is bool else dtype)
    assert np.array_equal(found.data, volume.data)
    assert found.data.flags.f_contiguous


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("axes", ["RAS", "SPL", "AIR"])
def test_a_box_read_alone_is_the_box_of_the_whole(tmp_path: Path, suffix: str, axes: str) -> None:
    ct = hu(oblique(4)).reorient(axes)
    files.write_volume(ct, tmp_path / f"ct{suffix}")
    shape = np.asarray(ct.data.shape)
    for lower, upper in (([1, 2, 1], shape - 1), ([0, 0, 0], [2, 2, 2]), ([2, 1, 2], [3, 2, 3])):
        box = Box(tuple(map(int, lower)), tuple(map(int, upper)))
        found = files.read_image(tmp_path / f"ct{suffix}", box)
        assert np.array_equal(found.data, ct.crop(box).data)
        assert found.geometry.matches(ct.crop(box).geometry, 1e-3)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_box_outside_the_file_is_refused(tmp_path: Path, suffix: str) -> None:
    files.write_volume(hu(ANISOTROPIC), tmp_path / f"ct{suffix}")
    with pytest.raises(GeometryError, match="the box leaves"):
        files.read_image(tmp_path / f"ct{suffix}", Box((0, 0, 0), (9, 7, 6)))


@pytest.mark.parametrize("suffix", WRITTEN)
def test_the_same_volume_gives_the_same_bytes_whatever_its_memory_order(tmp_path: Path, suffix: str) -> None:
    ct = hu(oblique(2))
    files.write_volume(ct, tmp_path / f"one{suffix}")
    files.write_volume(Volume(np.ascontiguousarray(ct.data), ct.geometry), tmp_path / f"two{suffix}")
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("value", [-1, 70000])
def test_values_that_are_no_labels_are_named(tmp_path: Path, suffix: str, value: int) -> None:
    data = np.zeros((9, 7, 5), np.float32)
    data[3, 3, 3] = value
    files.write_volume(Volume(data, ANISOTROPIC), tmp_path / f"l{suffix}")
    with pytest.raises(FileError, match=f"found the value {value}, expected whole numbers from 0 to 65535"):
        files.read_labels(tmp_path / f"l{suffix}")


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_labels_between_whole_numbers_are_refused(tmp_path: Path, value: float) -> None:
    files.write_volume(Volume(np.full((9, 7, 5), value, np.float32), ANISOTROPIC), tmp_path / "l.nii.gz")
    with pytest.raises(FileError, match=f"the value {value:g}"):
        files.read_labels(tmp_path / "l.nii.gz")


def test_labels_stored_as_whole_floats_or_signed_become_the_smallest_type(tmp_path: Path) -> None:
    for highest, expected in ((255, np.uint8), (256, np.uint16), (65535, np.uint16)):
        for dtype in (np.float32, np.int16):
            if highest > 32767 and dtype == np.int16:
                continue
            data = np.zeros((9, 7, 5), dtype)
            data[8, 6, 4] = highest
            files.write_volume(Volume(data, ANISOTROPIC), tmp_path / "l.nii.gz")
            found = files.read_labels(tmp_path / "l.nii.gz")
            assert found.data.dtype == expected
            assert np.array_equal(found.data, data)


def test_nan_is_kept_in_float_images(tmp_path: Path) -> None:
    data = np.zeros((9, 7, 5), np.float32)
    data[1, 2, 3] = np.nan
    files.write_volume(Volume(data, ANISOTROPIC), tmp_path / "ct.nii.gz")
    assert np.array_equal(files.read_image(tmp_path / "ct.nii.gz").data, data, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("absent.nii.gz", "no file"),
        ("report.pdf", r"found the suffix .pdf, expected .nii.gz, .nii, .seg.nrrd, .nrrd, .mha, .mhd or a folder"),
        ("scan.hdr", "convert the pair"),
        ("empty.nii.gz", "is empty; found 0 bytes"),
        ("empty.nrrd", "is empty; found 0 bytes"),
        ("folder", "no DICOM file in"),
        ("text.nii", "too short"),
        ("text.nii.gz", "too short"),
        ("long.nii", "is not NIfTI"),
        ("text.nrrd", "cannot be read"),
        ("text.mha", "cannot be read"),
        ("report.pdf/inside.nii", "cannot read"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_reason(tmp_path: Path, name: str, told: str) -> None:
    for pdf in ("report.pdf", "scan.hdr", "text.nii", "text.nii.gz", "text.nrrd", "text.mha"):
        (tmp_path / pdf).write_text("not an image")
    (tmp_path / "long.nii").write_text("not an image" * 1000)
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "empty.nrrd").touch()
    (tmp_path / "folder").mkdir()
    for read in (files.read_image, files.read_labels, files.read_geometry):
        with pytest.raises(FileError, match=told) as caught:
            read(tmp_path / name)
        assert name in str(caught.value)


def test_a_file_without_permission_is_a_sentence(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    files.write_volume(hu(ANISOTROPIC), tmp_path / "ct.nii.gz")
    (tmp_path / "ct.nii.gz").chmod(0)
    with pytest.raises(FileError, match="no permission"):
        files.read_image(tmp_path / "ct.nii.gz")


@pytest.mark.parametrize("name", ["ct.mhd", "ct.png", "ct"])
def test_suffixes_we_cannot_write_leave_nothing_behind(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match=name):
        files.write_volume(hu(ANISOTROPIC), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ct{suffix}"
    files.write_volume(hu(ANISOTROPIC), path)
    before = path.read_bytes()
    script = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
import numpy as np
from synthoma import errors, files, volume
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
data = np.random.default_rng(0).integers(0, 9999, (60, 60, 60)).astype(np.int16)
try:
    files.write_volume(volume.Volume(data, volume.Geometry.of((60, 60, 60))), {str(path)!r})
except errors.FileError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "cannot write" in done.stdout, done.stderr
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_hidden_files_and_strangers_are_no_image_files() -> None:
    assert files.is_image_file("liver_0.nii.gz")
    assert files.is_image_file("CT.NRRD")
    assert not files.is_image_file("._liver_0.nii.gz")
    assert not files.is_image_file("dataset.json")
    assert files.suffix_of("a/b.nii.gz") == ".nii.gz"
    assert files.suffix_of("a/b.gz") == ""


def test_importing_files_imports_no_reader() -> None:
    script = "import sys, synthoma.files; print([m for m in ('nibabel', 'SimpleITK', 'pydicom') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {script}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_all_real_scans_and_masks_are_read_as_nibabel_reads_them(real_data: Path) -> None:
    import nibabel

    paths = sorted(real_data.glob("*/ct.nii.gz")) + sorted(real_data.glob("*/segmentations/*.nii.gz"))
    assert paths
    for path in paths:
        found = files.read_image(path) if path.name == "ct.nii.gz" else files.read_labels(path)
        image = nibabel.load(path)
        assert np.array_equal(found.data, np.asarray(image.dataobj))
        assert np.allclose(found.geometry.affine, image.affine)
        assert files.affine_doubts(path) == []


def test_a_real_dicom_series_is_its_nifti_voxel_for_voxel(real_data: Path) -> None:
    from_dicom = files.read_image(real_data / "dicom_totalseg_thin").reorient("RAS")
    from_nifti = files.read_image(real_data / "totalseg_thin" / "ct.nii.gz")
    assert from_dicom.data.dtype == np.int16
    assert np.array_equal(from_dicom.data, from_nifti.data)
    assert from_dicom.geometry.matches(from_nifti.geometry, 1e-3)


def test_a_real_chaos_folder_lies_inside_the_scan_it_was_cut_from(real_data: Path) -> None:
    part = files.read_image(real_data / "chaos_layout" / "3")
    whole = files.read_image(real_data / "chaos" / "ct.nii.gz")
    assert np.array_equal(value_at(whole, centers_mm(part.geometry)), part.data)


def test_a_folder_of_two_real_series_lists_both(real_data: Path) -> None:
    with pytest.raises(SynthomaError, match=r"several series; found .*20 slices.*16 slices.*name one"):
        files.read_image(real_data)


def test_fractions_read_as_0_to_1_in_steps_of_a_255th(tmp_path: Path) -> None:
    levels = Volume(np.arange(256, dtype=np.uint8).reshape(8, 8, 4), Geometry.of((8, 8, 4), 1.0))
    files.write_fractions(levels, tmp_path / "chance.nii.gz")
    found = files.read_image(tmp_path / "chance.nii.gz")
    assert found.data.dtype == np.float32
    np.testing.assert_allclose(found.data, levels.data / np.float32(255), rtol=1e-6)
    assert found.data.max() <= 1
    assert ((found.data >= 0.5) == (levels.data >= 128)).all()
    with pytest.raises(ValueError, match="uint8"):
        files.write_fractions(Volume(np.zeros((8, 8, 4), np.float32), levels.geometry), tmp_path / "chance.nii.gz")


A_LITTLE_LESS = float(np.nextafter(np.float32(1 / 255), np.float32(0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32])
@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz"])
def test_masks_of_any_type_and_scale_are_labels_if_they_are_whole(tmp_path: Path, dtype: type, name: str) -> None:
    import nibabel

    labels = np.random.default_rng(0).integers(0, 4, (9, 7, 5))
    for slope, intercept in ((1, 0), (255, 0), (1 / 255, 0), (A_LITTLE_LESS, 0), (0.5, 1.5)):
        stored = (labels - intercept) / slope if slope > 1 else np.rint((labels - intercept) / slope)
        if (np.rint(stored) != stored).any() and np.issubdtype(dtype, np.integer):
            continue
        image = nibabel.Nifti1Image(stored.astype(dtype), np.diag([1, 2, 3, 1]))
        image.header.set_slope_inter(slope, intercept)
        nibabel.save(image, tmp_path / name)
        found = files.read_labels(tmp_path / name)
        assert found.data.dtype == np.uint8
        assert np.array_equal(found.data, labels), (slope, intercept)


@pytest.mark.parametrize("value", [0.4, 0.001, -1.0, 70000.0, np.nan, np.inf])
def test_fractions_are_no_labels(tmp_path: Path, value: float) -> None:
    files.write_volume(Volume(np.full((9, 7, 5), value, np.float32), ANISOTROPIC), tmp_path / "m.nii")
    with pytest.raises(FileError, match=f"m.nii is not a label map; found the value {value:g}"):
        files.read_labels(tmp_path / "m.nii")


def test_each_kind_of_nothing_has_its_own_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.nii").touch()
    (tmp_path / "text.nrrd").write_text("hello")
    (tmp_path / "link.nii").symlink_to(tmp_path / "gone.nii")
    os.mkfifo(tmp_path / "pipe.nii")
    told = {
        "gone.nii": "no file",
        "link.nii": "no file",
        "empty.nii": "is empty; found 0 bytes",
        "empty.nii/a.nii": "Not a directory",
        "pipe.nii": "is no file; found a pipe or a device",
        "x\0y.nii": "is no path; found .*embedded null",
        "text.nrrd": "cannot be read; found neither NRRD nor MetaImage",
        "": "no DICOM file in .*; found 2 other files",
    }
    for name, expected in told.items():
        for read in (files.read_image, files.read_labels, files.read_geometry):
            with pytest.raises(FileError, match=expected) as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)


def test_a_file_without_permission_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_volume(hu(ANISOTROPIC), tmp_path / "ct.nii")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the user of a test may be allowed everything
    with pytest.raises(FileError, match=r"cannot read .*ct.nii; found no permission"):
        files.read_image(tmp_path / "ct.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_with_names_that_are_no_unicode_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9" + suffix.encode())
    files.write_volume(hu(ANISOTROPIC), path)
    assert np.array_equal(files.read_image(path).data, hu(ANISOTROPIC).data)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_names_that_itk_cannot_take_are_refused_in_a_sentence(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9" + suffix.encode())
    files.write_volume(hu(ANISOTROPIC), tmp_path / f"ct{suffix}")
    (tmp_path / f"ct{suffix}").rename(path)
    told = re.escape(f"caf\\xe9{suffix} is not UTF-8; rename it")
    with pytest.raises(FileError, match=told):
        files.read_image(path)
    with pytest.raises(FileError, match=told):
        files.write_volume(hu(ANISOTROPIC), path)
