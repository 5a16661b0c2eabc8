"""NIfTI: types, byte orders, headers that lie, damaged streams, and reads that touch only what they need."""

from __future__ import annotations

import gzip
import resource
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pytest

from grids import ANISOTROPIC, hu, oblique
from synthoma import files
from synthoma.errors import FileError, GeometryError, SynthomaError
from synthoma.formats import nifti
from synthoma.volume import Box, Geometry, Volume

SHAPE = (9, 7, 5)


def save(path: Path, data: np.ndarray, **fields: object) -> Path:
    """A file as nibabel writes it, with header fields set afterwards, byte for byte."""
    kind = nibabel.Nifti2Image if fields.pop("version", 1) == 2 else nibabel.Nifti1Image
    image = kind(data, oblique(1).affine, dtype=data.dtype)
    nibabel.save(image, path)
    return edit(path, **fields) if fields else path


def edit(path: Path, **fields: object) -> Path:
    raw = path.read_bytes()
    packed = raw[:2] == b"\x1f\x8b"
    raw = gzip.decompress(raw) if packed else raw
    kind = nibabel.Nifti1Header if raw[:4] == (348).to_bytes(4, "little") else nibabel.Nifti2Header
    size = len(kind().binaryblock)
    header = kind(raw[:size], check=False)
    for name, value in fields.items():
        header[name] = value
    raw = header.binaryblock + raw[size:]
    path.write_bytes(gzip.compress(raw, 1) if packed else raw)
    return path


@contextmanager
def peak_below(limit_bytes: float) -> Iterator[None]:
    """A block whose allocations stay below a limit."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit_bytes


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "low", "high", "expected"),
    [
        (np.int16, -1024, 3000, np.int16),
        (np.int8, -100, 100, np.int16),
        (np.uint8, 0, 255, np.int16),
        (np.uint16, 0, 4095, np.int16),
        (np.uint16, 0, 60000, np.float32),
        (np.int32, -1024, 3000, np.int16),
        (np.int32, -1024, 40000, np.float32),
        (np.uint32, 0, 4000, np.int16),
        (np.int64, -1024, 3000, np.int16),
        (np.float32, -1024, 3000, np.float32),
        (np.float64, -1024, 3000, np.float32),
    ],
)
def test_hu_are_int16_where_they_fit_and_float32_elsewhere(
    tmp_path: Path, suffix: str, version: int, dtype: type, low: int, high: int, expected: type
) -> None:
    data = np.random.default_rng(0).uniform(low, high, SHAPE).astype(dtype)
    data.flat[:2] = low, high
    found = files.read_image(save(tmp_path / f"ct{suffix}", data, version=version))
    assert found.data.dtype == expected
    assert np.allclose(found.data, data, rtol=1e-6)
    assert found.geometry.matches(Geometry(SHAPE, oblique(1).affine), 1e-3)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept", "expected"),
    [
        (np.uint16, 1, -1024, np.int16),
        (np.int16, 2, -1024, np.int16),
        (np.int16, 1, 32700, np.float32),
        (np.int16, 0.5, 0, np.float32),
        (np.int16, 1, 0.25, np.float32),
        (np.float32, 2, -1024, np.float32),
        (np.uint8, 0, 7, np.int16),  # a slope of 0 means none
        (np.int16, np.nan, np.nan, np.int16),
    ],
)
def test_slope_and_intercept_are_applied_as_nibabel_does(
    tmp_path: Path, dtype: type, slope: float, intercept: float, expected: type
) -> None:
    data = np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)
    path = save(tmp_path / "ct.nii", data, scl_slope=slope, scl_inter=intercept)
    found = files.read_image(path)
    assert found.data.dtype == expected
    assert np.allclose(found.data, np.asarray(nibabel.load(path).dataobj))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_big_endian_files_are_read(tmp_path: Path, suffix: str) -> None:
    data = hu(ANISOTROPIC).data
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nibabel.save(nibabel.Nifti1Image(data, oblique(1).affine, header), tmp_path / f"ct{suffix}")
    assert nibabel.load(tmp_path / f"ct{suffix}").header.endianness == ">"
    assert np.array_equal(files.read_image(tmp_path / f"ct{suffix}").data, data)


def test_the_contents_decide_whether_a_file_is_packed_not_its_name(tmp_path: Path) -> None:
    ct = hu(ANISOTROPIC)
    files.write_volume(ct, tmp_path / "a.nii")
    files.write_volume(ct, tmp_path / "b.nii.gz")
    (tmp_path / "a.nii").rename(tmp_path / "c.nii.gz")
    (tmp_path / "b.nii.gz").rename(tmp_path / "d.nii")
    for name in ("c.nii.gz", "d.nii"):
        assert np.array_equal(files.read_image(tmp_path / name).data, ct.data)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_header_with_extensions_moves_the_voxels(tmp_path: Path, suffix: str) -> None:
    data = hu(ANISOTROPIC).data
    image = nibabel.Nifti1Image(data, oblique(1).affine)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"from a viewer" * 50))
    nibabel.save(image, tmp_path / f"ct{suffix}")
    assert np.array_equal(files.read_image(tmp_path / f"ct{suffix}").data, data)


def test_a_name_in_capitals_is_packed_too(tmp_path: Path) -> None:
    files.write_volume(hu(ANISOTROPIC), tmp_path / "CT.NII.GZ")
    assert (tmp_path / "CT.NII.GZ").read_bytes()[:2] == b"\x1f\x8b"


def test_what_we_write_nibabel_reads_with_both_affines_set(tmp_path: Path) -> None:
    for grid in (ANISOTROPIC, oblique(3)):
        ct = hu(grid)
        files.write_volume(ct, tmp_path / "ct.nii.gz")
        image = nibabel.load(tmp_path / "ct.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj), ct.data)
        for affine, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
            assert code == 1
            assert Geometry(SHAPE, affine).matches(grid, 1e-3)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert files.affine_doubts(tmp_path / "ct.nii.gz") == []


def test_the_gzip_frame_holds_no_time_and_no_name(tmp_path: Path) -> None:
    files.write_volume(hu(ANISOTROPIC), tmp_path / "ct.nii.gz")
    assert (tmp_path / "ct.nii.gz").read_bytes()[:8] == b"\x1f\x8b\x08" + bytes(5)


def test_a_fourth_axis_of_one_is_no_fourth_axis(tmp_path: Path) -> None:
    data = hu(ANISOTROPIC).data
    assert np.array_equal(files.read_image(save(tmp_path / "ct.nii", data[..., None])).data, data)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((9, 7, 5, 3), r"several volumes; found 3 \(shape \(9, 7, 5, 3\)\), expected one; write the one"),
        ((9, 7), r"holds no volume; found shape \(9, 7\)"),
    ],
)
def test_files_of_more_or_less_than_one_volume_are_refused(tmp_path: Path, shape: tuple, told: str) -> None:
    with pytest.raises(FileError, match=told):
        files.read_image(save(tmp_path / "ct.nii", np.zeros(shape, np.int16)))


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_colors_and_complex_numbers_are_refused(tmp_path: Path, dtype: np.dtype) -> None:
    with pytest.raises(FileError, match="colors or complex"):
        files.read_image(save(tmp_path / "ct.nii", np.zeros(SHAPE, dtype)))


def test_a_pair_of_files_is_refused_with_the_way_out(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(hu(ANISOTROPIC).data, np.eye(4)), tmp_path / "ct.img")
    (tmp_path / "ct.hdr").rename(tmp_path / "ct.nii")
    (tmp_path / "ct.nii").write_bytes((tmp_path / "ct.nii").read_bytes() + bytes(100))
    with pytest.raises(FileError, match=r"half of a .hdr/.img pair; convert"):
        files.read_image(tmp_path / "ct.nii")


@pytest.mark.parametrize(
    "fields",
    [
        {"srow_x": [np.nan, 0, 0, 0]},
        {"srow_x": [0, 0, 0, 0]},
        {"srow_x": [np.inf, 0, 0, 0]},
        {"srow_x": [1e30, 0, 0, 0], "srow_y": [0, 1e30, 0, 0]},
        {"srow_x": [1e-20, 0, 0, 0], "srow_y": [0, 1e-20, 0, 0], "srow_z": [0, 0, 1e20, 0]},
        {"sform_code": 0, "qform_code": 1, "quatern_b": 9.0},
        {"sform_code": 0, "pixdim": [1, np.nan, 1, 1, 1, 1, 1, 1]},
    ],
)
def test_an_impossible_affine_names_the_file(tmp_path: Path, fields: dict) -> None:
    path = save(tmp_path / "ct.nii", hu(ANISOTROPIC).data, **fields)
    for read in (files.read_image, files.read_geometry):
        with pytest.raises(GeometryError, match=r"ct.nii"):
            read(path)


def test_affines_that_disagree_are_reported_with_their_distance(tmp_path: Path) -> None:
    files.write_volume(hu(oblique(1)), tmp_path / "ct.nii.gz")
    moved = edit(tmp_path / "ct.nii.gz", qoffset_x=1000.0)
    apart = abs(1000 - oblique(1).affine[0, 3])
    assert nifti.affine_conflict_mm(nifti.read_header(moved)) == pytest.approx(apart, abs=0.1)
    assert files.affine_doubts(moved) == [f"sform and qform are {apart:.1f} mm apart; the sform is used"]
    assert files.read_geometry(moved).matches(oblique(1), 1e-3)
    unusable = edit(tmp_path / "ct.nii.gz", quatern_b=9.0)
    assert files.affine_doubts(unusable) == ["the qform cannot be one; the sform is used"]


@pytest.mark.parametrize("sform_code", [0, 1])
def test_a_handedness_of_zero_is_read_as_one_without_a_doubt(tmp_path: Path, sform_code: int) -> None:
    grid = Geometry.of((9, 7, 5), (0.7, 0.9, 3.0), "LPS")
    files.write_volume(hu(grid), tmp_path / "ct.nii")
    path = edit(tmp_path / "ct.nii", pixdim=[0, 0.7, 0.9, 3.0, 1, 1, 1, 1], sform_code=sform_code)
    assert files.read_geometry(path).matches(grid, 1e-3)
    assert files.affine_doubts(path) == []


def test_a_header_without_any_affine_is_a_guess_and_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.nii", hu(ANISOTROPIC).data, sform_code=0, qform_code=0)
    assert "a guess" in files.affine_doubts(path)[0]
    assert np.allclose(files.read_geometry(path).affine, nibabel.load(path).affine)


def test_units_other_than_mm_are_doubted(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.nii", hu(ANISOTROPIC).data, xyzt_units=1)
    assert files.affine_doubts(path) == ["the header gives meters; read as mm"]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("axis", [20, 2000, 30000])
def test_a_header_that_promises_too_much_costs_no_memory(tmp_path: Path, suffix: str, version: int, axis: int) -> None:
    path = save(tmp_path / f"ct{suffix}", hu(ANISOTROPIC).data, version=version)
    edit(path, dim=[3, axis, axis, axis, 1, 1, 1, 1])
    files.read_geometry(path)
    with (
        peak_below(20e6),
        pytest.raises(FileError, match=r"cut short, or its header lies; found .* bytes, expected \d+ for"),
    ):
        files.read_image(path)


def test_a_long_stream_that_ends_early_is_counted_before_anything_is_allocated(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (300, 300, 40)).astype(np.int16)
    files.write_volume(Volume(noise, Geometry.of(noise.shape)), tmp_path / "ct.nii.gz")
    path = edit(tmp_path / "ct.nii.gz", dim=[3, 300, 300, 500, 1, 1, 1, 1])
    with peak_below(20e6), pytest.raises(FileError, match="found 7200352 bytes, expected 90000352"):
        files.read_image(path)


def test_a_stream_in_several_gzip_frames_is_read(tmp_path: Path) -> None:
    ct = Volume(np.zeros((300, 300, 400), np.int16), Geometry.of((300, 300, 400)))
    files.write_volume(ct, tmp_path / "ct.nii")
    raw = (tmp_path / "ct.nii").read_bytes()
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(raw[: 10**7], 1) + gzip.compress(raw[10**7 :], 1))
    assert np.array_equal(files.read_image(tmp_path / "ct.nii.gz").data, ct.data)


def test_every_truncation_of_a_packed_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii.gz"
    files.write_volume(hu(ANISOTROPIC), path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"ct.nii.gz"):
            files.read_image(path)


def test_a_flipped_bit_in_the_stream_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii.gz"
    files.write_volume(hu(ANISOTROPIC), path)
    whole = bytearray(path.read_bytes())
    for place in range(len(whole) // 2, len(whole), 5):
        path.write_bytes(bytes(whole[:place]) + bytes([whole[place] ^ 16]) + bytes(whole[place + 1 :]))
        with pytest.raises(FileError, match=r"ct.nii.gz"):
            files.read_image(path)


def test_a_crop_of_a_packed_file_does_not_need_what_comes_after(tmp_path: Path) -> None:
    shape = (200, 200, 60)
    data = np.random.default_rng(0).integers(-100, 100, shape).astype(np.int16)
    path = tmp_path / "ct.nii.gz"
    files.write_volume(Volume(data, Geometry.of(shape)), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    box = Box((10, 20, 5), (40, 60, 12))
    with pytest.raises(FileError, match=r"damaged|cut short"):
        files.read_image(path)
    assert np.array_equal(files.read_image(path, box).data, data[box.slices])


def test_a_crop_of_forty_gigabytes_touches_only_its_pages(tmp_path: Path) -> None:
    shape = (4096, 4096, 1200)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header.set_sform(np.diag([0.1, 0.1, 0.1, 1]), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path = tmp_path / "huge.nii"
    with path.open("wb") as file:
        file.write(header.binaryblock + bytes(4))
        file.truncate(352 + 2 * shape[0] * shape[1] * shape[2])
        file.seek(352 + 2 * (3000 + shape[0] * (2000 + shape[1] * 1000)))
        file.write(np.int16(777).tobytes())
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = files.read_image(path, Box((2996, 1996, 996), (3004, 2004, 1004)))
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert found.data[4, 4, 4] == 777
    assert np.count_nonzero(found.data) == 1
    # 64 rows in 64 pages; the rest is the interpreter's
    assert after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt < 1500


def test_memory_stays_flat_while_writing(tmp_path: Path) -> None:
    ct = Volume(np.zeros((400, 400, 200), np.int16), Geometry.of((400, 400, 200)))
    files.write_volume(ct, tmp_path / "warm.nii.gz")
    with peak_below(ct.data.nbytes / 1.5):
        files.write_volume(ct, tmp_path / "ct.nii.gz")
    assert zlib.crc32(gzip.decompress((tmp_path / "ct.nii.gz").read_bytes())[352:]) == zlib.crc32(ct.data)


def test_axes_too_long_for_the_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SynthomaError, match="NIfTI cannot hold"):
        files.write_volume(Volume(np.zeros((40000, 1, 1), np.int16), Geometry.of((40000, 1, 1))), tmp_path / "a.nii")
